"""What passes between connections and endpoints: requests, answers, and the bytes of an answer."""

from __future__ import annotations

import time
from email.utils import formatdate
from http import HTTPStatus

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.string cimport memcpy

cdef enum:
    LENGTH_DIGITS_MAX = 20

cdef bytes JSON = b"application/json"
cdef bytes NOTHING = b""
cdef bytes LINE_END = b"\r\n"


cdef class Request:
    """One complete request as its endpoint sees it; routed, authenticated, not yet decoded."""

    def __init__(self, dict parameters not None, bytes query not None, bytes content_type not None):
        self.parameters = parameters
        self.query = query
        self.content_type = content_type
        self.body = NOTHING


cdef class Response:
    """One answer. `headers` are complete lines, each ending in CRLF."""

    def __init__(self, int status, bytes body not None, bytes content_type not None=JSON,
                 bytes headers not None=NOTHING):
        self.status = status
        self.body = body
        self.content_type = content_type
        self.headers = headers


cdef class JsonAnswers:
    """Makes answers of results: their JSON, and 200 unless the result's type has another status."""

    def __init__(self, encode not None, dict statuses not None):
        self._encode = encode
        self._statuses = statuses

    cdef Response answer_to(self, result):
        cdef Response response = Response.__new__(Response)
        status = self._statuses.get(type(result))
        response.status = 200 if status is None else status
        response.body = self._encode(result)
        response.content_type = JSON
        response.headers = NOTHING
        return response


cdef inline char* put(char* place, bytes text) noexcept:
    """Copy a text; return where it ends."""
    memcpy(place, PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))
    return place + PyBytes_GET_SIZE(text)


cdef class Heads:
    """Renders answers from prepared beginnings; the `Date` line is made once a second."""

    def __init__(self):
        self._starts = {}
        self.refresh_date()

    def refresh_date(self):
        """Take the present wall clock into the `Date` line."""
        self._date_line = b"\r\nDate: %b\r\n" % formatdate(time.time(), usegmt=True).encode()

    def render(self, Response response not None, bytes connection not None, bint head_only):
        """Return the bytes of an answer; `connection` is a whole Connection line or empty."""
        return self.rendered(response, connection, head_only)

    cdef bytes rendered(self, Response response, bytes connection, bint head_only):
        cdef bytes start = self.start_of(response)
        cdef bytes body = NOTHING if head_only else response.body
        cdef char digits[LENGTH_DIGITS_MAX]
        cdef int first = LENGTH_DIGITS_MAX
        cdef Py_ssize_t length = PyBytes_GET_SIZE(response.body)
        cdef bytes whole
        cdef char* place
        while first == LENGTH_DIGITS_MAX or length:
            first -= 1
            digits[first] = c'0' + length % 10
            length //= 10
        whole = PyBytes_FromStringAndSize(NULL, (
            PyBytes_GET_SIZE(start) + LENGTH_DIGITS_MAX - first
            + PyBytes_GET_SIZE(self._date_line) + PyBytes_GET_SIZE(connection)
            + PyBytes_GET_SIZE(response.headers) + PyBytes_GET_SIZE(LINE_END)
            + PyBytes_GET_SIZE(body)
        ))
        place = put(PyBytes_AS_STRING(whole), start)
        memcpy(place, digits + first, LENGTH_DIGITS_MAX - first)
        place = put(place + LENGTH_DIGITS_MAX - first, self._date_line)
        place = put(put(put(place, connection), response.headers), LINE_END)
        put(place, body)
        return whole

    cdef bytes start_of(self, Response response):
        cdef dict by_type = <dict>self._starts.get(response.status)
        if by_type is None:
            by_type = self._starts[response.status] = {}
        start = by_type.get(response.content_type)
        if start is None:
            start = by_type[response.content_type] = (
                b"HTTP/1.1 %d %b\r\nContent-Type: %b\r\nContent-Length: "
                % (
                    response.status,
                    HTTPStatus(response.status).phrase.encode(),
                    response.content_type,
                )
            )
        return <bytes>start
