"""Heads of requests that have been admitted before."""

from authz_ext.messages cimport Request
from authz_ext.routes cimport Route


cdef class KnownHead:
    cdef readonly Route route
    cdef dict _parameters
    cdef bytes _query
    cdef bytes _content_type
    #: Bytes of the head, and of the body that it announces.
    cdef Py_ssize_t size
    cdef Py_ssize_t body_size

    cdef Request request_in(self, bytes data, Py_ssize_t start)


cdef class KnownHeads:
    cdef Py_ssize_t _heads_max
    cdef dict _heads

    cdef KnownHead find(self, bytes data, Py_ssize_t start)
