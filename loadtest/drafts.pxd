"""Requests of calls."""

from libc.stdint cimport uint32_t

cdef enum:
    #: As `loadtest.plan` numbers them.
    AUTHORIZE = 0
    RESERVE = 1
    SETTLE = 2
    EMERGENCY = 3
    OPERATIONS_COUNT = 4

ctypedef struct Draft:
    #: Requests by operation, up to the call id.
    const char* starts[OPERATIONS_COUNT]
    Py_ssize_t start_bytes[OPERATIONS_COUNT]
    int talk_seconds
    bint extends
    bint emergency


cdef class Drafts:
    cdef list _templates
    cdef bytes _id_start
    cdef Draft* _drafts
    cdef Py_ssize_t _count
    #: No request is longer.
    cdef Py_ssize_t request_bytes_max

    cdef int fill(self, Draft* draft, template) except -1
    cdef Draft* draft(self, uint32_t number) noexcept
    cdef Py_ssize_t write(
        self, char* text, Draft* draft, int operation, uint32_t number, int seconds
    ) noexcept
