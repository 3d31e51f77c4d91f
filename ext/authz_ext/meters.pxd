"""Layout of the meters: slots of 8 bytes, private at first, shared with other processes later."""

cdef extern from *:
    """
    #include <time.h>

    static inline long long monotonic_ns(void) {
        struct timespec moment;
        clock_gettime(CLOCK_MONOTONIC, &moment);
        return (long long)moment.tv_sec * 1000000000LL + moment.tv_nsec;
    }
    """
    long long monotonic_ns() noexcept

cdef enum:
    BOUNDS_MAX = 32


cdef class Board:
    cdef long long* slots
    cdef readonly Py_ssize_t size
    cdef Py_buffer _shared
    cdef bint _is_shared

    cdef void let_go(self) noexcept


cdef class Counter:
    cdef Board _board
    cdef Py_ssize_t _slot

    cdef void count_one(self) noexcept


cdef class Gauge:
    cdef Board _board
    cdef Py_ssize_t _slot


cdef class Histogram:
    cdef Board _board
    cdef Py_ssize_t _slot
    cdef int _bounds_count
    cdef long long _bounds[BOUNDS_MAX]

    cdef void count(self, long long value) noexcept
