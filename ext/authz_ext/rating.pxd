"""Layout of a rate, for extensions that price without Python calls.

All money inside is exact: a charge is an integer count of nanos (1e-9 currency units) divided
by the rate's common denominator, held in 128 bits.
"""

from libc.stdint cimport int64_t, uint32_t

from authz_ext.zones cimport Zone


cdef extern from *:
    # Cython has no 128-bit integer; it only needs to know that this one is signed and widest.
    ctypedef long long int128 "__int128"


cdef struct tier_t:
    int64_t from_second
    int64_t price_nanos
    int64_t per_seconds
    int64_t increment_seconds
    # What one increment costs, in nanos times the rate's denominator.
    int128 increment_charge


cdef struct window_t:
    tier_t* tiers
    int tier_count
    int64_t days
    int64_t start_minute
    int64_t end_minute
    int64_t connect_fee
    int64_t free_seconds


# How far a call has been charged: the start of the next increment, and the sum so far.
cdef struct walk_t:
    int64_t second
    int64_t increment_seconds
    int128 charge


# Where the reading of a packed rate has got to.
cdef struct reader_t:
    const unsigned char* data
    Py_ssize_t length
    Py_ssize_t position


cdef class Tier:
    cdef readonly int64_t from_second
    cdef readonly int64_t price_nanos
    cdef readonly int64_t per_seconds
    cdef readonly int64_t increment_seconds

    cdef tuple _fields(self)


cdef class Window:
    cdef readonly int64_t days
    cdef readonly int64_t start_minute
    cdef readonly int64_t end_minute
    cdef readonly tuple tiers
    cdef readonly int64_t connect_fee
    cdef readonly int64_t free_seconds

    cdef tuple _fields(self)


cdef class Rate:
    # Windows, then all their tiers, in one block; window 0 is the rest of the time.
    cdef void* _block
    cdef window_t* _windows
    cdef int _window_count
    cdef int _tier_count
    cdef int _rounding
    cdef int _decimals
    cdef bint _max_cost_ends
    # -1 for none.
    cdef int64_t _max_cost
    cdef int64_t _denominator
    cdef int64_t _quantum_micros
    cdef int64_t _discount_basis_points
    cdef Zone _zone
    # The price of a minute as text, once asked for; None with windows, where it changes.
    cdef str _price_text
    # `first_cost`, once asked for; -1 before, and always with windows.
    cdef int64_t _first_cost

    cdef int _allocate(self, int window_count, int tier_count) except -1
    cdef int _fill_window(self, int index, object window) except -1
    cdef int _compile(self) except -1
    cdef tuple _tiers_of(self, int index)
    cdef walk_t _walk_over(self, int64_t second, int64_t answered_at) except *
    cdef int _open_at(self, int64_t moment, int64_t* until) except -1
    cdef uint32_t _open_between(self, int64_t start, int64_t seconds) except? 0
    cdef int _walk(self, walk_t* walk, const window_t* window, int64_t seconds,
                   int64_t answered_at, int128 budget, bint follow_clock) except -1
    cdef int64_t _rounded(self, int128 charge) noexcept
    cdef int64_t _paid(self, int64_t micros) noexcept
    cdef int128 _charge_max(self, int64_t amount) noexcept
    cdef int64_t _price(self, int64_t seconds, int64_t answered_at, int index,
                        bint follow_clock) except -1
    cdef int64_t _afford(self, int64_t amount, int64_t answered_at, int64_t limit, int index,
                         bint follow_clock) except -1

    cdef int64_t cost_of(self, int64_t seconds, int64_t answered_at) except -1
    cdef int64_t seconds_of(self, int64_t amount, int64_t answered_at, int64_t limit) except -1
    cdef int64_t first_cost(self, int64_t answered_at) except -1
    cdef bint costs_nothing(self) noexcept
    cdef bint ends_at_max_cost(self) noexcept
