"""Bounds of an amount as text."""

from libc.stdint cimport int64_t

cdef enum:
    MICROS_PER_UNIT = 1_000_000
    DECIMALS = 6
    # A sign, 13 digits, a point and six decimals: the longest that 64 bits hold.
    TEXT_LENGTH_MAX = 21

cdef str amount_text(int64_t micros)
