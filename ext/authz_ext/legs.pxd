"""Layout of what makes the legs of answers."""

from libc.stdint cimport int64_t


cdef class LegWriter:
    cdef object _grant_leg
    cdef object _settled_leg
    #: The label of each billing, by its number.
    cdef tuple _labels
    cdef object _discount_text

    cdef object label(self, int64_t billing)
