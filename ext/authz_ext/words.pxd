"""Texts of which every character is of a kind."""


cdef class Word:
    #: By character: whether it may be the first, and whether it may be a further one.
    cdef unsigned char _kinds[128]
    cdef Py_ssize_t _size_min
    cdef Py_ssize_t _size_max

    cdef bint is_one(self, text) noexcept
