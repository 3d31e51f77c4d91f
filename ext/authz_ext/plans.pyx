"""What a process remembers of a call: the rates it is pinned to, and how its legs pay.

Every reserve and settle asks it for the cost of the call so far on each leg, packed as the scripts
read it.
"""

from __future__ import annotations

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport int64_t

from authz_ext.bigendian cimport put_integer
from authz_ext.codes cimport (
    BILLING_BURST,
    BILLING_PER_MINUTE,
    BILLING_TRUNK,
    CLASS_EMERGENCY,
    DIRECTION_OUTBOUND,
)
from authz_ext.rating cimport Rate
from authz_ext.tables cimport Latest

cdef enum:
    SECONDS_BYTES = 4
    AMOUNT_BYTES = 8
    #: As many as `limiting_legs` has bits.
    LEGS_MAX = 32


cpdef str call_key(str account, str call_id):
    """Return what names a call in this process's memory: account ids hold no colon.

    A text, not a pair: the cyclic garbage collector would walk over one pair a call.
    """
    return f"{account}:{call_id}"


@cython.final
@cython.no_gc  # it refers to texts, numbers and rates, and none of them to a plan
@cython.freelist(64)
cdef class Plan:
    """One call as this process knows it; `attempt` proves it current to the scripts."""

    def __init__(
        self, str account not None, str call_id not None, int64_t attempt, call_class not None,
        direction not None, str number not None, str dialled not None, str switch not None,
        tuple rates not None, tuple billings not None, int64_t authorized_at, bint in_store=True,
        str rate_number=None,
    ):
        self.key = call_key(account, call_id)
        self.account = account
        self.call_id = call_id
        self.attempt = attempt
        self.call_class = call_class
        self.direction = direction
        self.number = number
        self.dialled = dialled
        self.switch = switch
        self.rates = rates
        self.billings = billings
        self.authorized_at = authorized_at
        self.in_store = in_store
        self.rate_number = rate_number
        self.is_emergency = (
            <int>call_class == CLASS_EMERGENCY and <int>direction == DIRECTION_OUTBOUND
        )
        # A call that runs outside the store has rates, if at all, but is billed when it is settled.
        if billings and len(rates) != len(billings):
            raise ValueError(f"{len(rates)} rates, but {len(billings)} legs that pay")
        if len(billings) > LEGS_MAX:
            raise ValueError(f"{len(billings)} legs, more than {LEGS_MAX}")
        self.find_limits()

    cdef int find_limits(self) except -1:
        cdef Py_ssize_t leg
        cdef Rate rate
        for leg in range(len(self.billings)):
            if self.rates[leg] is None or <int>self.billings[leg] != BILLING_PER_MINUTE:
                continue
            rate = <Rate?>self.rates[leg]
            if not rate.costs_nothing():
                self.limiting_legs |= 1 << leg
                self.is_ended_by_rate = self.is_ended_by_rate or rate.ends_at_max_cost()
        return 0

    @property
    def is_limited(self):
        """Whether credit can cut any leg short."""
        return self.limiting_legs != 0

    @property
    def limiting_rates(self):
        """(leg, rate) of the legs that credit can cut short."""
        cdef Py_ssize_t leg
        return tuple([
            (leg, self.rates[leg])
            for leg in range(len(self.billings)) if self.limiting_legs >> leg & 1
        ])

    cdef int64_t cost_of_leg(self, Py_ssize_t leg, int64_t seconds, int64_t answered_at) except -1:
        """Return the micros that time has cost one leg; those on a trunk pay by the channel."""
        cdef int billing = self.billings[leg]
        if self.rates[leg] is None or billing == BILLING_TRUNK or billing == BILLING_BURST:
            return 0
        return (<Rate?>self.rates[leg]).cost_of(seconds, answered_at)

    def costs(self, int64_t seconds, int64_t answered_at):
        """Return what `seconds` of talk cost every leg, in micros."""
        cdef Py_ssize_t leg
        return tuple([
            self.cost_of_leg(leg, seconds, answered_at) for leg in range(len(self.billings))
        ])

    def pack_costs(self, int64_t seconds, int64_t answered_at):
        """Return the same as the scripts read it: 8 bytes a leg."""
        cdef Py_ssize_t leg
        cdef Py_ssize_t legs = len(self.billings)
        cdef bytes packed = PyBytes_FromStringAndSize(NULL, AMOUNT_BYTES * legs)
        cdef char* target = PyBytes_AS_STRING(packed)
        for leg in range(legs):
            target = put_integer(target, self.cost_of_leg(leg, seconds, answered_at), AMOUNT_BYTES)
        return packed

    def pack_step(self, int64_t seconds, int64_t answered_at):
        """Return one step as the scripts read it: its seconds, and what each leg must hold.

        That is never less than one priced increment of a leg that credit can cut short, and
        nothing of any other.
        """
        cdef Py_ssize_t leg
        cdef Py_ssize_t legs = len(self.billings)
        cdef int64_t held
        cdef Rate rate
        cdef bytes packed = PyBytes_FromStringAndSize(NULL, SECONDS_BYTES + AMOUNT_BYTES * legs)
        cdef char* start = PyBytes_AS_STRING(packed)
        cdef char* target = put_integer(start, seconds, SECONDS_BYTES)
        for leg in range(legs):
            held = 0
            if self.limiting_legs >> leg & 1:
                rate = <Rate>self.rates[leg]
                held = max(rate.cost_of(seconds, answered_at), rate.first_cost(answered_at))
            target = put_integer(target, held, AMOUNT_BYTES)
        return packed


cdef class CallMemory:
    """Plans of a process's latest calls; a forgotten one is read from the store."""

    def __cinit__(self, Py_ssize_t calls_max):
        self._plans = Latest(calls_max)

    def get(self, str account not None, str call_id not None):
        """Return the plan of a call, if remembered."""
        return self._plans.find(call_key(account, call_id))

    def put(self, Plan plan not None):
        """Remember a plan, forgetting the oldest beyond the bound."""
        self._plans.remember(plan.key, plan)

    def forget(self, str account not None, str call_id not None):
        """Drop a plan: the call has ended, or its record has changed."""
        return self._plans.take(call_key(account, call_id))
