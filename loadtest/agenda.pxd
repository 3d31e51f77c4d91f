"""What is due when."""

from libc.stdint cimport int64_t, uint64_t, uintptr_t

ctypedef struct Plan:
    int64_t due_ns
    #: Of plans for the same moment the first made comes first.
    uint64_t number
    #: What the plan is about, for whoever made it.
    uintptr_t subject
    int operation


cdef class Agenda:
    cdef Plan* _plans
    cdef Py_ssize_t count
    cdef Py_ssize_t _room
    cdef uint64_t _made

    cdef int add(self, int64_t due_ns, int operation, uintptr_t subject) except -1
    cdef grow(self)
    cdef int64_t due_ns(self) noexcept
    cdef Plan take(self) noexcept
