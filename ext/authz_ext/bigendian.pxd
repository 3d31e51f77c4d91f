"""Integers as the store's records have them: big-endian, two's complement."""

from libc.stdint cimport int64_t, uint64_t


cdef inline char* put_integer(char* target, int64_t value, int width) noexcept:
    """Write the low `width` bytes of a value; return where the next byte goes."""
    cdef uint64_t rest = <uint64_t>value
    cdef int place
    for place in range(width - 1, -1, -1):
        target[place] = <char>(rest & 0xFF)
        rest >>= 8
    return target + width
