"""Tiers, windows, and the checks that both they and packed rates pass. Part of rating.pyx."""

# What a Rate is until it is initialised: free, and never a null pointer.
cdef tier_t FREE_TIER = tier_t(0, 0, 60, 60, 0)
cdef window_t FREE_WINDOW = window_t(&FREE_TIER, 1, 0, 0, 0, 0, 0)
# Above every charge that the bounds of rating.pyx allow.
cdef int128 BUDGET_NONE = (<int128>1) << 126


cdef int64_t integer(object value, str name) except? -1:
    """Return a Python integer as a C one; TypeError or ValueError naming it."""
    if not isinstance(value, int):
        raise TypeError(f"{name} must be an integer, not {type(value).__name__}")
    if not -AMOUNT_LIMIT <= value <= AMOUNT_LIMIT:
        raise ValueError(f"{name} is out of bounds: {value}")
    return value


cdef int check(int64_t value, str name, int64_t low, int64_t high) except -1:
    """Raise ValueError naming a value outside its bounds."""
    if not low <= value <= high:
        raise ValueError(f"{name} must be within {low}..{high}, not {value}")
    return 0


cdef int check_tier(const tier_t* tier) except -1:
    """Raise ValueError for a tier outside its bounds."""
    check(tier.from_second, "from_second", 0, SECONDS_LIMIT)
    check(tier.price_nanos, "price_nanos", 0, PRICE_NANOS_LIMIT)
    check(tier.per_seconds, "per_seconds", 1, PER_SECONDS_LIMIT)
    check(tier.increment_seconds, "increment_seconds", 1, INCREMENT_SECONDS_LIMIT)
    return 0


cdef int check_order(int64_t from_second, int64_t from_second_before) except -1:
    """Raise ValueError unless a tier follows the one before it (-1: it is the first)."""
    if from_second_before < 0 and from_second != 0:
        raise ValueError("tiers: the first must start at second 0")
    if from_second <= from_second_before:
        raise ValueError("tiers: from_second must rise from one to the next")
    return 0


cdef int check_window(const window_t* window) except -1:
    """Raise ValueError for a window outside its bounds, its tiers apart."""
    check(window.days, "days", 1, 127)
    check(window.start_minute, "start_minute", 0, DAY_MINUTES - 1)
    check(window.end_minute, "end_minute", 1, DAY_MINUTES)
    if window.start_minute == window.end_minute:
        raise ValueError("end_minute must differ from start_minute")
    check(window.connect_fee, "connect_fee", 0, FEE_LIMIT)
    check(window.free_seconds, "free_seconds", 0, SECONDS_LIMIT)
    check(window.tier_count, "tiers: their number", 1, TIERS_LIMIT)
    return 0


cdef bint is_open(const window_t* window, int weekday, int64_t second) noexcept:
    """Say whether the window covers that second of that day (0 is Monday).

    A window past midnight belongs to the day on which it starts.
    """
    cdef int64_t start = window.start_minute * 60
    cdef int64_t end = window.end_minute * 60
    cdef bint today = (window.days >> weekday) & 1
    cdef bint yesterday = (window.days >> ((weekday + 6) % 7)) & 1
    if start < end:
        return today and start <= second < end
    return (today and second >= start) or (yesterday and second < end)


cdef int64_t gcd(int64_t one, int64_t other) noexcept:
    """Return the greatest common divisor of two positive integers."""
    while other:
        one, other = other, one % other
    return one


cdef bint charge_until(walk_t* walk, const window_t* window, int64_t stop,
                       int128 budget) noexcept:
    """Charge the increments that start before `stop`, a whole tier at a time.

    False when one of them would exceed the budget: the walk then ends before it.
    """
    cdef const tier_t* tier = window.tiers
    cdef const tier_t* last = tier + (window.tier_count - 1)
    cdef int64_t end, count
    cdef int128 charge
    while walk.second < stop:
        while tier < last and tier[1].from_second <= walk.second:
            tier += 1
        end = stop
        if tier < last and tier[1].from_second < end:
            end = tier[1].from_second
        count = (end - walk.second + tier.increment_seconds - 1) // tier.increment_seconds
        charge = tier.increment_charge * count
        walk.increment_seconds = tier.increment_seconds
        if charge > budget - walk.charge:
            count = <int64_t>((budget - walk.charge) // tier.increment_charge)
            walk.charge += tier.increment_charge * count
            walk.second += tier.increment_seconds * count
            return False
        walk.charge += charge
        walk.second += tier.increment_seconds * count
    return True


@cython.final
@cython.no_gc
cdef class Tier:
    """From `from_second` of a call on, each increment costs its part of the price.

    `price_nanos` (1e-9 currency units) is the price of `per_seconds`; `increment_seconds` is
    what is charged at a time. Raises ValueError naming what is out of bounds.
    """

    def __cinit__(self, from_second, price_nanos, per_seconds, increment_seconds):
        cdef tier_t terms = tier_t(
            integer(from_second, "from_second"),
            integer(price_nanos, "price_nanos"),
            integer(per_seconds, "per_seconds"),
            integer(increment_seconds, "increment_seconds"),
            0,
        )
        check_tier(&terms)
        self.from_second = terms.from_second
        self.price_nanos = terms.price_nanos
        self.per_seconds = terms.per_seconds
        self.increment_seconds = terms.increment_seconds

    cdef tuple _fields(self):
        return (self.from_second, self.price_nanos, self.per_seconds, self.increment_seconds)

    def __eq__(self, other):
        return isinstance(other, Tier) and self._fields() == (<Tier>other)._fields()

    def __hash__(self):
        return hash(self._fields())

    def __repr__(self):
        return "Tier({}, {}, {}, {})".format(*self._fields())

    def __reduce__(self):
        return (Tier, self._fields())


@cython.final
cdef class Window:
    """The terms of calls at certain times of the week, by the wall clock of the rate's zone.

    `days` has one bit a weekday, bit 0 for Monday. The window is open from `start_minute` of
    such a day up to, not including, `end_minute`: on the next day when that is not later.
    Midnight at its end is 1440 (or 0). Raises ValueError naming what is out of bounds.
    """

    def __cinit__(self, days, start_minute, end_minute, tiers, connect_fee=0, free_seconds=0):
        cdef window_t terms
        cdef int64_t before = -1
        self.tiers = tuple(tiers)
        for tier in self.tiers:
            if not isinstance(tier, Tier):
                raise TypeError(f"tiers: expected Tier, got {type(tier).__name__}")
            check_order((<Tier>tier).from_second, before)
            before = (<Tier>tier).from_second
        terms.tier_count = <int>len(self.tiers)
        self.days = terms.days = integer(days, "days")
        self.start_minute = terms.start_minute = integer(start_minute, "start_minute")
        self.end_minute = terms.end_minute = integer(end_minute, "end_minute") or DAY_MINUTES
        self.connect_fee = terms.connect_fee = integer(connect_fee, "connect_fee")
        self.free_seconds = terms.free_seconds = integer(free_seconds, "free_seconds")
        check_window(&terms)

    cdef tuple _fields(self):
        return (self.days, self.start_minute, self.end_minute, self.tiers, self.connect_fee,
                self.free_seconds)

    def __eq__(self, other):
        return isinstance(other, Window) and self._fields() == (<Window>other)._fields()

    def __hash__(self):
        return hash(self._fields())

    def __repr__(self):
        return "Window({}, {}, {}, {!r}, {}, {})".format(*self._fields())

    def __reduce__(self):
        return (Window, self._fields())
