"""Endpoints as connections serve them."""

from authz_ext.messages cimport JsonAnswers, Response
from authz_ext.meters cimport Counter, Histogram


cdef class AnswerCounts:
    cdef Histogram _seconds
    cdef Counter _successes
    cdef Counter _refusals
    cdef Counter _failures

    cpdef void count(self, int status, long long began_ns) noexcept


cdef class Route:
    cdef readonly str name
    cdef object _decode
    cdef object _order_key
    cdef object _answer
    cdef JsonAnswers _results
    cdef object _when_overloaded
    cdef Py_ssize_t _overload_factor
    cdef bint _must_complete
    cdef AnswerCounts _counts

    cdef Response response_to(self, result)
