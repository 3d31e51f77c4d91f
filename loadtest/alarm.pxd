"""A timer of the kernel."""

from libc.stdint cimport int64_t


cdef class Alarm:
    cdef int _descriptor
    #: What it is set to; 0: nothing.
    cdef int64_t _due_ns

    cpdef int set(self, int64_t due_ns) except -1
