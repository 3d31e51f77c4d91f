"""What the scripts are told of a call, put together from what is the same for many calls.

A chain's limits, its day, its hour and the settings change seldom; of a call there are then some
numbers to be put into a record that is otherwise ready, its texts, and its costs.
"""

from __future__ import annotations

from hashlib import blake2b

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int64_t
from libc.string cimport memcpy

from authz_ext.bigendian cimport put_integer
from authz_ext.codes cimport CLASS_UNKNOWN, CLASSES
from authz_ext.plans cimport Plan
from authz_ext.texts cimport put_text, text_size

cdef enum:
    NO_ATTEMPT = -1
    INTEGER_BYTES_MAX = 8
    HOUR_SECONDS = 3_600


cdef inline bint fits(int64_t value, int width, bint is_signed) noexcept:
    cdef int64_t bound
    if width == INTEGER_BYTES_MAX:
        return is_signed or value >= 0
    bound = <int64_t>1 << (8 * width)
    return -bound // 2 <= value < bound // 2 if is_signed else 0 <= value < bound


@cython.final
cdef class Template:
    """A packed record in which some integers are still to be filled in.

    `places` are (offset, width in bytes, whether it has a sign), in the order of the values.
    """

    def __cinit__(self, bytes packed not None, places):
        cdef Py_ssize_t offset
        cdef int width
        cdef bint is_signed
        self._packed = packed
        if len(places) > PLACES_MAX:
            raise ValueError(f"a template has at most {<int>PLACES_MAX} places, not {len(places)}")
        for offset, width, is_signed in places:
            if not 1 <= width <= INTEGER_BYTES_MAX or not 0 <= offset <= len(packed) - width:
                raise ValueError(f"no place of {width} bytes at {offset} of {len(packed)}")
            self._offsets[self._count] = offset
            self._widths[self._count] = width
            self._are_signed[self._count] = is_signed
            self._count += 1

    def fill(self, *values):
        """Return the record with these integers, one a place; ValueError if they are too few."""
        cdef int64_t integers[PLACES_MAX]
        cdef int place
        if len(values) != self._count:
            raise ValueError(f"{self._count} places, {len(values)} values")
        for place in range(self._count):
            integers[place] = values[place]
        return self.filled(integers, self._count)

    cdef bytes filled(self, const int64_t* values, int count):
        cdef bytes record
        cdef char* start
        cdef int place
        if count != self._count:
            raise ValueError(f"{self._count} places, {count} values")
        record = PyBytes_FromStringAndSize(PyBytes_AS_STRING(self._packed), len(self._packed))
        start = PyBytes_AS_STRING(record)
        for place in range(count):
            if not fits(values[place], self._widths[place], self._are_signed[place]):
                raise OverflowError(
                    f"{values[place]} does not fit into {self._widths[place]} bytes"
                )
            put_integer(start + self._offsets[place], values[place], self._widths[place])
        return record


@cython.final
cdef class Briefing:
    """All that the scripts are told alike of every call of a chain within an hour."""

    def __cinit__(
        self, *, int64_t valid_from, int64_t valid_until, int64_t hour,
        int64_t closed_hours, tuple tombstones not None, tuple filters not None, bytes member_prefix not None, accounts,
        limits_of not None, Template reserve not None, Template settle not None,
    ):
        self.valid_from = valid_from
        self.valid_until = valid_until
        self.hour = hour
        self.closed_hours = closed_hours
        self.holds_from = max(valid_from, hour * HOUR_SECONDS)
        self.holds_until = min(valid_until, (hour + 1) * HOUR_SECONDS)
        self.tombstones = tombstones
        self.filters = filters
        self._member_prefix = member_prefix
        self._packed_accounts = b"".join([pack_text(account) for account in accounts])
        self._limits_of = limits_of
        self._limits = [None] * CLASSES
        self._reserve = reserve
        self._settle = settle

    def holds(self, int64_t at):
        """Return whether it is right at that store second."""
        return self.holds_from <= at < self.holds_until

    cdef bytes member(self, str call_id):
        return self._member_prefix + call_id.encode()

    cdef bytes strings(self, str reference, str number, str description):
        """Return the texts of a ledger entry; see `records.ledger_strings`."""
        cdef Py_ssize_t size = PyBytes_GET_SIZE(self._packed_accounts)
        cdef bytes packed
        cdef char* target
        packed = PyBytes_FromStringAndSize(
            NULL, size + 3 + text_size(reference) + text_size(number) + text_size(description)
        )
        target = PyBytes_AS_STRING(packed)
        memcpy(target, PyBytes_AS_STRING(self._packed_accounts), size)
        put_text(put_text(put_text(target + size, reference), number), description)
        return packed

    cdef list with_limits(self, list arguments, int call_class):
        if not 0 <= call_class < CLASSES:
            raise ValueError(f"there is no class {call_class} of calls")
        limits = self._limits[call_class]
        if limits is None:
            limits = self._limits[call_class] = self._limits_of(call_class)
        for packed in <tuple?>limits:
            arguments.append(packed)
        return arguments

    def authorize(
        self, Template numbers not None, int64_t attempt, bint dry_run, bint second_try, int steps,
        bint memory_full, int call_class, str call_id not None, str number not None,
        str dialled not None, str direction not None, str switch not None,
        bytes rates not None, bytes legs not None,
    ):
        """Return the arguments of an authorize.

        The places of `numbers` are attempt, dry_run, second_try, steps, memory_full.
        """
        cdef bytes member = self.member(call_id)
        cdef int64_t *integers = [attempt, dry_run, second_try, steps, memory_full]
        return self.with_limits([
            numbers.filled(integers, 5),
            digest_of_call(member),
            member,
            digest_of_request(dialled, direction, switch),
            pack_tail(number, dialled, switch, rates),
            legs,
        ], call_class)

    def reserve(
        self, Plan plan not None, int64_t used_seconds, int64_t answered_at, bint is_final,
        int denial, bytes packed_steps not None, int steps, bint second_try,
    ):
        """Return the arguments of a reserve of the call, which has used so many seconds."""
        cdef int64_t *integers = [
            plan.attempt, second_try, steps, is_final, denial, used_seconds,
        ]
        return self.with_limits([
            self._reserve.filled(integers, 6),
            plan.pack_costs(used_seconds, answered_at),
            self.member(plan.call_id),
            packed_steps,
            self.strings(plan.call_id, plan.number, ""),
        ], plan.call_class)

    def settle(
        self, Plan plan, str call_id not None, int64_t seconds, int64_t started_at,
        bytes costs not None, str cause not None,
    ):
        """Return the arguments of a settle; without a plan, of a call known to the store only.

        `costs` are of every leg, packed; `cause` is as it stands in the ledger.
        """
        cdef bytes member = self.member(call_id)
        cdef int64_t *integers = [NO_ATTEMPT, seconds, started_at, 0, 0]
        # Only thresholds count when a call is booked, and they are the same for every class.
        cdef int call_class = CLASS_UNKNOWN
        cdef str number = ""
        if plan is not None:
            call_class = plan.call_class
            number = plan.number
            integers[0] = plan.attempt
            integers[3] = call_class
            integers[4] = plan.direction
        return self.with_limits([
            self._settle.filled(integers, 5) + costs,
            digest_of_call(member),
            member,
            self.strings(call_id, number, cause),
        ], call_class)


def digest_of_call(bytes member not None):
    """Return the 16 bytes under which the tombstone of the call of this name is kept."""
    return blake2b(member, digest_size=16).digest()


def digest_of_request(str dialled not None, str direction not None, str switch not None):
    """Return the 8 bytes that tell a repeated authorize from another one with the same id."""
    return blake2b(f"{dialled}\0{direction}\0{switch}".encode(), digest_size=8).digest()


def pack_tail(str number not None, str dialled not None, str switch not None, bytes rates not None):
    """Return the tail of a call's record: its words, then the rates it is pinned to, packed.

    What was dialled is left empty where it is the number.
    """
    cdef Py_ssize_t rates_size = PyBytes_GET_SIZE(rates)
    cdef bytes packed
    cdef char* target
    if dialled == number:
        dialled = ""
    packed = PyBytes_FromStringAndSize(
        NULL, 3 + text_size(number) + text_size(dialled) + text_size(switch) + rates_size
    )
    target = put_text(PyBytes_AS_STRING(packed), number)
    target = put_text(put_text(target, dialled), switch)
    memcpy(target, PyBytes_AS_STRING(rates), rates_size)
    return packed


cdef bytes pack_text(str text):
    cdef bytes packed = PyBytes_FromStringAndSize(NULL, 1 + text_size(text))
    put_text(PyBytes_AS_STRING(packed), text)
    return packed
