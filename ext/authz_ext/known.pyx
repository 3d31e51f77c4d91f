"""Heads of requests that have been admitted before.

A switch sends one head again and again: only the body differs, and its length. What admitting a
plain request came to depends on the bytes of its head alone, among callers to whom the same rule
applies; so for the same bytes it need not be found out again.

A head is looked up by a keyed hash of all its bytes, never compared with others: how long that
takes does not tell how nearly right a token in it was.
"""

from __future__ import annotations

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE

from authz_ext.messages cimport Request
from authz_ext.routes cimport Route

cdef extern from "string.h":
    void* memmem(const void* text, size_t size, const void* part, size_t part_size) noexcept

cdef enum:
    # Longer heads are those of browsers.
    HEAD_BYTES_MAX = 1024

cdef const char* HEAD_END = b"\r\n\r\n"


cdef class KnownHead:
    """What admitting a request with this head came to."""

    cdef Request request_in(self, bytes data, Py_ssize_t start):
        """Return the request that begins at `start`."""
        cdef Request request = Request.__new__(Request)
        request.parameters = self._parameters
        request.query = self._query
        request.content_type = self._content_type
        request.body = PyBytes_FromStringAndSize(
            PyBytes_AS_STRING(data) + start + self.size, self.body_size
        )
        return request


cdef class KnownHeads:
    """The heads of plain requests that were admitted by one rule of access."""

    def __cinit__(self, Py_ssize_t heads_max):
        self._heads_max = heads_max
        self._heads = {}

    def remember(self, bytes head not None, Route route not None, Request request not None):
        """Take in what a request has been admitted as; it has its body."""
        cdef KnownHead known
        if PyBytes_GET_SIZE(head) > HEAD_BYTES_MAX or self._heads_max == 0:
            return
        if len(self._heads) >= self._heads_max:
            # Whoever varies its heads without end would fill it for good; those that come again
            # are soon known again.
            self._heads.clear()
        known = KnownHead.__new__(KnownHead)
        known.route = route
        known._parameters = request.parameters
        known._query = request.query
        known._content_type = request.content_type
        known.size = PyBytes_GET_SIZE(head)
        known.body_size = PyBytes_GET_SIZE(request.body)
        self._heads[head] = known

    def __len__(self):
        return len(self._heads)

    cdef KnownHead find(self, bytes data, Py_ssize_t start):
        """Return the known head of the whole request that begins at `start`, else None."""
        cdef KnownHead known
        cdef Py_ssize_t size = PyBytes_GET_SIZE(data) - start
        cdef const char* text = PyBytes_AS_STRING(data) + start
        cdef const char* end
        if start < 0 or size <= 0:
            return None
        end = <const char*>memmem(text, min(size, HEAD_BYTES_MAX), HEAD_END, 4)
        if end == NULL:
            return None
        known = <KnownHead>self._heads.get(PyBytes_FromStringAndSize(text, end + 4 - text))
        if known is None or known.size + known.body_size > size:
            return None
        return known
