"""Requests of calls: their templates with a call id, and the seconds, written into them."""

from __future__ import annotations

from loadtest import templates
from loadtest.errors import LoadTestError

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint32_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

cdef bytes AUTHORIZE_END = templates.AUTHORIZE_END
cdef bytes USED = templates.USED
cdef bytes SECONDS = templates.SECONDS
cdef int COUNTER_DIGITS = templates.COUNTER_DIGITS
cdef int SECONDS_DIGITS = templates.SECONDS_DIGITS
#: What a request has after its call id at most.
cdef Py_ssize_t END_BYTES_MAX = len(USED) + SECONDS_DIGITS + 1


cdef class Drafts:
    """Templates by the number of the call, which they serve in turns."""

    def __cinit__(self, list pool not None, bytes id_start not None):
        if not pool:
            raise LoadTestError("there is no call to place")
        self._templates = pool
        self._id_start = id_start
        self._drafts = <Draft*>calloc(len(pool), sizeof(Draft))
        if self._drafts == NULL:
            raise MemoryError
        for template in pool:
            self.fill(&self._drafts[self._count], template)
            self._count += 1
        self.request_bytes_max += len(id_start) + COUNTER_DIGITS + END_BYTES_MAX

    def __dealloc__(self):
        free(self._drafts)

    cdef int fill(self, Draft* draft, template) except -1:
        starts = (
            template.authorize_start, template.reserve_start, template.settle_start,
            template.authorize_start,
        )
        cdef int operation = 0
        for start in starts:
            # The list of templates keeps these bytes alive.
            draft.starts[operation] = PyBytes_AS_STRING(start)
            draft.start_bytes[operation] = PyBytes_GET_SIZE(start)
            self.request_bytes_max = max(self.request_bytes_max, PyBytes_GET_SIZE(start))
            operation += 1
        if not 0 <= template.talk_seconds <= templates.SECONDS_MAX:
            raise LoadTestError(f"no call talks for {template.talk_seconds} s")
        draft.talk_seconds = template.talk_seconds
        draft.extends = template.extends
        draft.emergency = template.emergency
        return 0

    cdef Draft* draft(self, uint32_t number) noexcept:
        """Return what the call of that number is like; the first call is 1."""
        return &self._drafts[(number - 1) % <uint32_t>self._count]

    cdef Py_ssize_t write(
        self, char* text, Draft* draft, int operation, uint32_t number, int seconds
    ) noexcept:
        """Write a call's request to `text`; return its size."""
        cdef char* begin = text
        text = append(text, draft.starts[operation], draft.start_bytes[operation])
        text = append_bytes(text, self._id_start)
        text = append_hexadecimal(text, number)
        if operation == RESERVE:
            text = append_seconds(append_bytes(text, USED), seconds)
        elif operation == SETTLE:
            text = append_seconds(append_bytes(text, SECONDS), seconds)
        else:
            text = append_bytes(text, AUTHORIZE_END)
        return text - begin

    def request(self, int operation, uint32_t number, int seconds):
        """Return the request of that operation for the call of that number."""
        cdef bytes text
        if not 0 <= operation < OPERATIONS_COUNT or not 0 <= seconds <= templates.SECONDS_MAX:
            raise ValueError("no request is like that")
        text = PyBytes_FromStringAndSize(NULL, self.request_bytes_max)
        cdef Py_ssize_t size = self.write(
            PyBytes_AS_STRING(text), self.draft(number), operation, number, seconds
        )
        return text[:size]


cdef inline char* append(char* text, const char* part, Py_ssize_t size) noexcept:
    memcpy(text, part, size)
    return text + size


cdef inline char* append_bytes(char* text, bytes part) noexcept:
    return append(text, PyBytes_AS_STRING(part), PyBytes_GET_SIZE(part))


cdef char* append_hexadecimal(char* text, uint32_t number) noexcept:
    cdef char* end = text + COUNTER_DIGITS
    cdef char* place = end
    while place > text:
        place -= 1
        place[0] = b"0123456789abcdef"[number & 15]
        number >>= 4
    return end


cdef char* append_seconds(char* text, unsigned int seconds) noexcept:
    """Write the seconds to the right of their column, and the end of the body."""
    cdef char* end = text + SECONDS_DIGITS
    cdef char* place = end
    memset(text, c' ', SECONDS_DIGITS)
    while True:
        place -= 1
        place[0] = c'0' + seconds % 10
        seconds //= 10
        if seconds == 0:
            break
    end[0] = c'}'
    return end + 1
