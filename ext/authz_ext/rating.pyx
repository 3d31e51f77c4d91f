# cython: cdivision=True
"""Exact prices of calls: what some seconds cost, and how many seconds an amount buys.

A charge is summed as an integer count of nanos over the rate's common denominator (the least
common multiple of its `per_seconds`), in 128 bits, and rounded once, at the end. The bounds
below keep every intermediate exact. The dearest sum of increments is

    PRICE_NANOS_MAX * (SECONDS_MAX + INCREMENT_SECONDS_MAX) * DENOMINATOR_MAX
        = 1e15 * 2_764_800 * 1e15 < 2.8e36,

the connect fee adds 1e30 to it, the greatest amount asked about (AMOUNT_LIMIT) is 4.7e36 in the
same units, and rounding doubles either: less than 1e37, while 128 bits hold 1.7e38. In micros
the dearest call is 2.8e18, less than 2**62, so that a cost always fits 64 bits. It may exceed
the bound of an amount of money; whoever books or holds it checks that.

A discount comes after all that: it is a part of the rounded cost, cut to the rate's decimals, so
that a call with one costs what the same call costs without, less a whole number of quanta.
"""

from __future__ import annotations

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from libc.stdint cimport INT64_MAX, int64_t, uint32_t, uint64_t
from libc.string cimport memcpy

from authz_ext.zones cimport Zone

from authz_ext.zones import zone as find_zone

cdef int64_t SECONDS_LIMIT = 2_678_400
cdef int64_t PRICE_NANOS_LIMIT = 1_000_000 * 1_000_000_000
cdef int64_t FEE_LIMIT = 1_000_000 * 1_000_000
cdef int64_t MAX_COST_LIMIT = 2_000_000_000 * 1_000_000
cdef int64_t DAY_SECONDS = 86_400
cdef int64_t INCREMENT_SECONDS_LIMIT = 86_400
cdef int64_t PER_SECONDS_LIMIT = 86_400
cdef int64_t DENOMINATOR_LIMIT = 1_000_000_000_000_000
cdef int64_t AMOUNT_LIMIT = <int64_t>1 << 62
cdef int64_t NANOS_PER_MICRO = 1_000
cdef int64_t DISCOUNT_LIMIT = 10_000
cdef int64_t ALL_DAYS = 127
cdef int DAY_MINUTES = 1_440
cdef enum:
    TIERS_LIMIT = 16
    WINDOWS_LIMIT = 16

# The same bounds for those who build rates.
SECONDS_MAX = SECONDS_LIMIT
PRICE_NANOS_MAX = PRICE_NANOS_LIMIT
CONNECT_FEE_MAX = FEE_LIMIT
INCREMENT_SECONDS_MAX = INCREMENT_SECONDS_LIMIT
PER_SECONDS_MAX = PER_SECONDS_LIMIT
TIERS_MAX = TIERS_LIMIT
WINDOWS_MAX = WINDOWS_LIMIT
DISCOUNT_BASIS_POINTS_MAX = DISCOUNT_LIMIT

cdef enum rounding_t:
    ROUND_UP = 0
    ROUND_HALF_UP = 1
    ROUND_DOWN = 2

cdef tuple ROUNDING_MODES = ("up", "half_up", "down")

include "rating_terms.pxi"
include "rating_codec.pxi"


@cython.final
@cython.no_gc  # it refers to a Zone only, and no Zone refers to a Rate
@cython.freelist(256)
cdef class Rate:
    """What calls to one destination cost. Immutable, hashable, equal by value."""

    def __cinit__(self, *_arguments, **_keywords):
        self._block = NULL
        self._windows = &FREE_WINDOW
        self._window_count = self._tier_count = 1
        self._rounding = ROUND_HALF_UP
        self._decimals = 6
        self._quantum_micros = 1
        self._denominator = 60
        self._max_cost = -1
        self._first_cost = -1

    def __init__(self, *, tiers, connect_fee=0, free_seconds=0, str rounding_mode="half_up",
                 rounding_decimals=6, max_cost=None, str max_cost_action="free", windows=(),
                 str timezone="UTC", discount_basis_points=0):
        if self._block != NULL:
            raise TypeError("a Rate is immutable")
        if rounding_mode not in ROUNDING_MODES:
            raise ValueError(f"rounding_mode must be up, half_up or down, not {rounding_mode!r}")
        if max_cost_action not in ("free", "end"):
            raise ValueError(f"max_cost_action must be free or end, not {max_cost_action!r}")
        self._rounding = ROUNDING_MODES.index(rounding_mode)
        cdef int64_t decimals = integer(rounding_decimals, "rounding_decimals")
        check(decimals, "rounding_decimals", 0, 6)
        self._decimals = <int>decimals
        if max_cost is not None:
            self._max_cost = integer(max_cost, "max_cost")
            check(self._max_cost, "max_cost", 0, MAX_COST_LIMIT)
            self._max_cost_ends = max_cost_action == "end"
        self._discount_basis_points = integer(discount_basis_points, "discount_basis_points")
        check(self._discount_basis_points, "discount_basis_points", 0, DISCOUNT_LIMIT)
        terms = [Window(ALL_DAYS, 0, DAY_MINUTES, tiers, connect_fee, free_seconds), *windows]
        check(len(terms) - 1, "windows: their number", 0, WINDOWS_LIMIT)
        for window in terms:
            if not isinstance(window, Window):
                raise TypeError(f"windows: expected Window, got {type(window).__name__}")
        zone = find_zone(timezone)
        if len(terms) > 1:
            self._zone = zone
        self._allocate(<int>len(terms), <int>sum([len(window.tiers) for window in terms]))
        for index, window in enumerate(terms):
            self._fill_window(index, window)
        self._compile()

    def __dealloc__(self):
        PyMem_Free(self._block)

    # -- building ---------------------------------------------------------------------------

    cdef int _allocate(self, int window_count, int tier_count) except -1:
        """Make room for the windows, and behind them for all their tiers."""
        # Tiers come first: their 128-bit member wants the alignment of the block itself.
        self._block = PyMem_Calloc(
            1, tier_count * sizeof(tier_t) + window_count * sizeof(window_t)
        )
        if self._block == NULL:
            raise MemoryError
        self._windows = <window_t*>(<char*>self._block + tier_count * sizeof(tier_t))
        self._windows[0].tiers = <tier_t*>self._block
        self._window_count = window_count
        self._tier_count = tier_count
        return 0

    cdef int _fill_window(self, int index, object source) except -1:
        """Copy a Window; its tiers go behind those of the window before it."""
        cdef Window given = source
        cdef window_t* window = &self._windows[index]
        cdef const window_t* before
        cdef Tier tier
        cdef int position
        window.tier_count = len(given.tiers)
        if index > 0:
            before = &self._windows[index - 1]
            window.tiers = before.tiers + before.tier_count
        window.days = given.days
        window.start_minute = given.start_minute
        window.end_minute = given.end_minute
        window.connect_fee = given.connect_fee
        window.free_seconds = given.free_seconds
        for position in range(window.tier_count):
            tier = given.tiers[position]
            window.tiers[position] = tier_t(
                tier.from_second, tier.price_nanos, tier.per_seconds, tier.increment_seconds, 0
            )
        return 0

    cdef int _compile(self) except -1:
        """Derive the common denominator and what one increment of each tier costs."""
        cdef tier_t* tier = self._windows[0].tiers
        cdef int64_t denominator = 1, factor
        cdef int position
        for position in range(self._tier_count):
            factor = tier.per_seconds // gcd(denominator, tier.per_seconds)
            if factor > DENOMINATOR_LIMIT // denominator:
                raise ValueError("tiers: the per_seconds have too large a common multiple")
            denominator *= factor
            tier += 1
        self._denominator = denominator
        tier = self._windows[0].tiers
        for position in range(self._tier_count):
            tier.increment_charge = <int128>tier.price_nanos * tier.increment_seconds
            tier.increment_charge *= denominator // tier.per_seconds
            tier += 1
        self._quantum_micros = 1
        for position in range(6 - self._decimals):
            self._quantum_micros *= 10
        return 0

    # -- windows ----------------------------------------------------------------------------

    cdef int _open_at(self, int64_t moment, int64_t* until) except -1:
        """Return the index of the window open at `moment`; it stays so at least to `until`."""
        cdef int64_t zone_until, local, second, start, end
        cdef int64_t boundary = DAY_SECONDS
        cdef int index, weekday, found = 0
        cdef const window_t* window
        if self._window_count == 1:
            until[0] = INT64_MAX
            return 0
        # A week ahead keeps it positive; 1970 began on a Thursday, day 3 counted from Monday.
        local = self._zone.local_at(moment, &zone_until) + 7 * DAY_SECONDS
        weekday = <int>((local // DAY_SECONDS + 3) % 7)
        second = local % DAY_SECONDS
        for index in range(1, self._window_count):
            window = &self._windows[index]
            if found == 0 and is_open(window, weekday, second):
                found = index
            start = window.start_minute * 60
            end = window.end_minute * 60
            if second < start < boundary:
                boundary = start
            if second < end < boundary:
                boundary = end
        until[0] = min(moment + boundary - second, zone_until)
        return found

    cdef uint32_t _open_between(self, int64_t start, int64_t seconds) except? 0:
        """Return the windows open within `seconds` from `start` on, one bit each."""
        cdef uint32_t mask = 0
        cdef int64_t moment = start, until
        if self._window_count == 1:
            return 1
        while moment - start <= seconds:
            mask |= <uint32_t>1 << self._open_at(moment, &until)
            moment = until
        return mask

    # -- pricing ----------------------------------------------------------------------------

    cdef int _walk(self, walk_t* walk, const window_t* window, int64_t seconds,
                   int64_t answered_at, int128 budget, bint follow_clock) except -1:
        """Charge every increment that starts before `seconds`, or as many as the budget pays.

        The walk starts with the connect fee of `window`, which also prices the whole call
        unless the clock is followed.
        """
        cdef int64_t until, stop = seconds
        walk.second = 0
        walk.increment_seconds = window.tiers.increment_seconds
        walk.charge = <int128>window.connect_fee * NANOS_PER_MICRO * self._denominator
        if walk.charge > budget:
            return 0
        while walk.second < seconds:
            if follow_clock:
                window = &self._windows[self._open_at(answered_at + walk.second, &until)]
                stop = min(seconds, until - answered_at)
            if not charge_until(walk, window, stop, budget):
                return 0
        return 0

    cdef int64_t _rounded(self, int128 charge) noexcept:
        """Return micros: the one place where a charge is rounded."""
        cdef int128 divisor = <int128>self._denominator * NANOS_PER_MICRO * self._quantum_micros
        if self._rounding == ROUND_UP:
            charge += divisor - 1
        elif self._rounding == ROUND_HALF_UP:
            charge = 2 * charge + divisor
            divisor *= 2
        return <int64_t>(charge // divisor) * self._quantum_micros

    cdef int64_t _paid(self, int64_t micros) noexcept:
        """Return what is left of a rounded cost: the discount is cut to the rate's decimals."""
        cdef int128 discount = <int128>micros * self._discount_basis_points // DISCOUNT_LIMIT
        return micros - <int64_t>(discount // self._quantum_micros) * self._quantum_micros

    cdef int128 _charge_max(self, int64_t amount) noexcept:
        """Return the greatest charge of which at most `amount` micros are to be paid."""
        cdef int128 divisor = <int128>self._denominator * NANOS_PER_MICRO * self._quantum_micros
        cdef int128 quanta = amount // self._quantum_micros
        if self._discount_basis_points == DISCOUNT_LIMIT:
            return BUDGET_NONE
        if self._discount_basis_points:
            # Of q quanta, q * (1 - discount) rounded up are paid. No charge is above the bound.
            quanta = quanta * DISCOUNT_LIMIT // (DISCOUNT_LIMIT - self._discount_basis_points)
            quanta = min(quanta, <int128>(AMOUNT_LIMIT // self._quantum_micros))
        if self._rounding == ROUND_UP:
            return quanta * divisor
        if self._rounding == ROUND_DOWN:
            return (quanta + 1) * divisor - 1
        return ((2 * quanta + 1) * divisor - 1) // 2

    cdef int64_t _price(self, int64_t seconds, int64_t answered_at, int index,
                        bint follow_clock) except -1:
        """Return the micros of a call answered in window `index`."""
        cdef walk_t walk
        cdef int64_t micros
        if seconds <= self._windows[index].free_seconds:
            return 0
        self._walk(&walk, &self._windows[index], seconds, answered_at, BUDGET_NONE, follow_clock)
        micros = self._rounded(walk.charge)
        if self._discount_basis_points:
            micros = self._paid(micros)
        if 0 <= self._max_cost < micros and not self._max_cost_ends:
            return self._max_cost
        return micros

    cdef int64_t _afford(self, int64_t amount, int64_t answered_at, int64_t limit, int index,
                         bint follow_clock) except -1:
        """Return the most seconds up to `limit` that cost at most `amount`."""
        cdef walk_t walk
        cdef int64_t free_seconds = self._windows[index].free_seconds
        if amount < 0:
            return 0
        if limit <= free_seconds:
            return limit
        if 0 <= self._max_cost <= amount and not self._max_cost_ends:
            return limit
        self._walk(&walk, &self._windows[index], limit, answered_at,
                   self._charge_max(min(amount, AMOUNT_LIMIT)), follow_clock)
        return max(free_seconds, min(walk.second, limit))

    cdef int64_t cost_of(self, int64_t seconds, int64_t answered_at) except -1:
        """As `cost`, for other extensions."""
        cdef int64_t until
        check(seconds, "seconds", 0, SECONDS_LIMIT)
        return self._price(seconds, answered_at, self._open_at(answered_at, &until),
                           self._window_count > 1)

    cdef int64_t seconds_of(self, int64_t amount, int64_t answered_at, int64_t limit) except -1:
        """As `seconds_for`, for other extensions."""
        cdef int64_t until
        check(limit, "limit", 0, SECONDS_LIMIT)
        return self._afford(amount, answered_at, limit, self._open_at(answered_at, &until),
                            self._window_count > 1)

    cdef int64_t first_cost(self, int64_t answered_at) except -1:
        """Return the micros of `first_priced`."""
        cdef int64_t micros = self._first_cost
        if micros < 0:
            micros = self.first_priced(answered_at)[1]
            if self._window_count == 1:
                self._first_cost = micros
        return micros

    cdef bint costs_nothing(self) noexcept:
        """As `is_free`, for other extensions."""
        cdef const tier_t* tier = self._windows[0].tiers
        cdef int index
        if self._discount_basis_points == DISCOUNT_LIMIT:
            return True
        for index in range(self._window_count):
            if self._windows[index].connect_fee:
                return False
        for index in range(self._tier_count):
            if tier[index].price_nanos:
                return False
        return True

    cdef bint ends_at_max_cost(self) noexcept:
        """Whether a call ends where it has cost as much as one may."""
        return self._max_cost >= 0 and self._max_cost_ends

    def cost(self, int64_t seconds, int64_t answered_at=0):
        """Return the micros that a call of `seconds` costs when answered at that Unix second."""
        return self.cost_of(seconds, answered_at)

    def seconds_for(self, int64_t amount, int64_t answered_at=0, int64_t limit=SECONDS_LIMIT):
        """Return the most seconds up to `limit` that cost at most `amount` micros.

        It is the end of an increment, or of the free seconds, or `limit`.
        """
        return self.seconds_of(amount, answered_at, limit)

    def hold(self, int64_t seconds, int64_t now, int64_t ring_seconds):
        """Return the micros to hold for `seconds` of a call that may ring `ring_seconds` yet.

        The dearest of the windows open from now until then, each as if it lasted.
        """
        cdef int64_t dearest = 0
        cdef int index
        check(seconds, "seconds", 0, SECONDS_LIMIT)
        check(ring_seconds, "ring_seconds", 0, SECONDS_LIMIT)
        cdef uint32_t mask = self._open_between(now, ring_seconds)
        for index in range(self._window_count):
            if mask >> index & 1:
                dearest = max(dearest, self._price(seconds, now, index, False))
        return dearest

    def hold_seconds_for(self, int64_t amount, int64_t now, int64_t ring_seconds,
                         int64_t limit=SECONDS_LIMIT):
        """Return the most seconds up to `limit` whose `hold` is at most `amount` micros."""
        cdef int64_t fewest = limit
        cdef int index
        check(limit, "limit", 0, SECONDS_LIMIT)
        check(ring_seconds, "ring_seconds", 0, SECONDS_LIMIT)
        cdef uint32_t mask = self._open_between(now, ring_seconds)
        for index in range(self._window_count):
            if mask >> index & 1:
                fewest = min(fewest, self._afford(amount, now, limit, index, False))
        return fewest

    def first_priced(self, int64_t answered_at=0):
        """Return (seconds, micros) of the shortest call of whole increments that costs anything.

        (0, 0) when not even the longest call does.
        """
        cdef int64_t free = self.seconds_of(0, answered_at, SECONDS_LIMIT)
        if free >= SECONDS_LIMIT:
            return (0, 0)
        cdef walk_t walk = self._walk_over(free, answered_at)
        cdef int64_t seconds = min(walk.second, SECONDS_LIMIT)
        return (seconds, self.cost_of(seconds, answered_at))

    def seconds_until_max_cost(self, int64_t answered_at=0):
        """Return the most seconds that cost at most `max_cost`, when that ends the call.

        None when there is no such limit.
        """
        if not self.ends_at_max_cost():
            return None
        return self.seconds_of(self._max_cost, answered_at, SECONDS_LIMIT)

    def increment_at(self, int64_t second, int64_t answered_at=0):
        """Return the seconds of the increment that starts at, or contains, `second`."""
        check(second, "second", 0, SECONDS_LIMIT)
        return self._walk_over(second, answered_at).increment_seconds

    cdef walk_t _walk_over(self, int64_t second, int64_t answered_at) except *:
        """Walk to the end of the increment that starts at, or contains, `second`."""
        cdef walk_t walk
        cdef int64_t until
        cdef int index = self._open_at(answered_at, &until)
        self._walk(&walk, &self._windows[index], second + 1, answered_at, BUDGET_NONE,
                   self._window_count > 1)
        return walk

    # -- what it says of itself -------------------------------------------------------------

    @property
    def is_free(self):
        """Whether every price and every connect fee, of every window, is 0, or discounted to it."""
        return self.costs_nothing()

    @property
    def dearest_per_minute_nanos(self):
        """The dearest price of a minute in any tier of any window, rounded up, without discount."""
        cdef const tier_t* tier = self._windows[0].tiers
        cdef int64_t dearest = 0
        cdef int position
        for position in range(self._tier_count):
            dearest = max(
                dearest, (tier.price_nanos * 60 + tier.per_seconds - 1) // tier.per_seconds
            )
            tier += 1
        return dearest

    def per_minute_text(self, int64_t at=0):
        """Return the per-minute price in force at `at` as a decimal: "0.01".

        It is that of the first tier that costs anything, half up at 9 decimals, without the
        discount; "0" if none.
        """
        if self._price_text is not None:
            return self._price_text
        cdef int64_t until, nanos = 0
        cdef const window_t* window = &self._windows[self._open_at(at, &until)]
        cdef const tier_t* tier
        cdef int position
        cdef str text
        for position in range(window.tier_count):
            tier = &window.tiers[position]
            if tier.price_nanos:
                nanos = (tier.price_nanos * 120 + tier.per_seconds) // (2 * tier.per_seconds)
                break
        if nanos % 1_000_000_000 == 0:
            text = str(nanos // 1_000_000_000)
        else:
            text = f"{nanos // 1_000_000_000}.{nanos % 1_000_000_000:09d}".rstrip("0")
        if self._window_count == 1:
            self._price_text = text
        return text

    @property
    def discount_basis_points(self):
        """Which part of every cost is not paid, in 1/10000."""
        return self._discount_basis_points

    def discounted(self, discount_basis_points):
        """Return the same rate with this discount, 0 to 10000, instead of its own."""
        cdef int64_t basis_points = integer(discount_basis_points, "discount_basis_points")
        check(basis_points, "discount_basis_points", 0, DISCOUNT_LIMIT)
        if basis_points == self._discount_basis_points:
            return self
        cdef Rate rate = Rate.unpack(packed(self))
        rate._discount_basis_points = basis_points
        return rate

    @property
    def tiers(self):
        """The tiers outside every window."""
        return self._tiers_of(0)

    @property
    def connect_fee(self):
        """The connect fee in micros outside every window."""
        return self._windows[0].connect_fee

    @property
    def free_seconds(self):
        """The longest call that costs nothing, in seconds, outside every window."""
        return self._windows[0].free_seconds

    @property
    def rounding_mode(self):
        """How a cost is rounded: up, half_up or down."""
        return ROUNDING_MODES[self._rounding]

    @property
    def rounding_decimals(self):
        """To how many decimals of the currency unit a cost is rounded."""
        return self._decimals

    @property
    def max_cost(self):
        """The greatest cost of a call in micros, or None."""
        return None if self._max_cost < 0 else self._max_cost

    @property
    def max_cost_action(self):
        """What happens at the greatest cost: the call goes on `free`, or must `end`."""
        return "end" if self._max_cost_ends else "free"

    @property
    def timezone(self):
        """The zone whose wall clock opens the windows; "UTC" where there are none."""
        return "UTC" if self._zone is None else self._zone.name

    @property
    def windows(self):
        """The windows, in order: where two are open, the earlier one counts."""
        return tuple([
            Window(
                self._windows[index].days,
                self._windows[index].start_minute,
                self._windows[index].end_minute,
                self._tiers_of(index),
                self._windows[index].connect_fee,
                self._windows[index].free_seconds,
            )
            for index in range(1, self._window_count)
        ])

    cdef tuple _tiers_of(self, int index):
        """Return the tiers of one window as objects."""
        cdef const window_t* window = &self._windows[index]
        cdef int position
        return tuple([
            Tier(
                window.tiers[position].from_second,
                window.tiers[position].price_nanos,
                window.tiers[position].per_seconds,
                window.tiers[position].increment_seconds,
            )
            for position in range(window.tier_count)
        ])

    def __eq__(self, other):
        return isinstance(other, Rate) and self.pack() == other.pack()

    def __hash__(self):
        return hash(self.pack())

    def __repr__(self):
        return (
            f"Rate(tiers={self.tiers!r}, connect_fee={self.connect_fee}, "
            f"free_seconds={self.free_seconds}, rounding_mode={self.rounding_mode!r}, "
            f"rounding_decimals={self.rounding_decimals}, max_cost={self.max_cost}, "
            f"max_cost_action={self.max_cost_action!r}, windows={self.windows!r}, "
            f"timezone={self.timezone!r}, discount_basis_points={self.discount_basis_points})"
        )

    def __reduce__(self):
        return (Rate.unpack, (self.pack(),))

    # -- the packed form --------------------------------------------------------------------

    def pack(self):
        """Return the rate as bytes: the same for equal rates, at most 32 for a plain one.

        A discount takes two more.
        """
        return packed(self)

    @staticmethod
    def unpack(bytes data not None):
        """Return the rate that `pack` made these bytes of; ValueError for any others."""
        cdef Rate rate = Rate.__new__(Rate)
        cdef reader_t reader = reader_t(
            <const unsigned char*>PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), 0
        )
        fill_from(rate, &reader)
        return rate
