"""Reads requests as switches nearly always send them, many times faster than by callbacks.

A *plain* request is a POST of HTTP/1.1 that has arrived whole, with a body whose length is said,
and with nothing in its head that changes how it is framed or answered. Of everything else, wrong
or merely unusual, nothing is decided here: it is left to the general parser, byte for byte.
"""

from __future__ import annotations

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.string cimport memcmp

cdef enum:
    # Kinds of a byte.
    IN_NAME = 1
    IN_TARGET = 2
    IN_VALUE = 4
    # More digits of a length are for the general parser.
    LENGTH_DIGITS_MAX = 7
    # What is counted for a request line and for a header line besides their words.
    REQUEST_LINE_OVERHEAD = 16
    HEADER_LINE_OVERHEAD = 4
    # A longer name is none of those that matter here.
    NAME_BYTES_MAX = 17

cdef unsigned char KINDS[256]

cdef void fill_kinds() noexcept:
    cdef int byte
    for byte in range(256):
        KINDS[byte] = 0
        if c'0' <= byte <= c'9' or c'a' <= byte <= c'z' or c'A' <= byte <= c'Z':
            KINDS[byte] = IN_NAME | IN_TARGET
        if 0x20 <= byte <= 0x7E or byte == c'\t':
            KINDS[byte] |= IN_VALUE
    for byte in b"-_":
        KINDS[byte] |= IN_NAME
    for byte in b"/-._~%?&=+:@,":
        KINDS[byte] |= IN_TARGET

fill_kinds()

cdef const char* START = b"POST /"
cdef const char* VERSION = b" HTTP/1.1\r\n"

cdef bytes AUTHORIZATION = b"authorization"
cdef bytes CONTENT_LENGTH = b"content-length"
cdef bytes CONTENT_TYPE = b"content-type"
cdef bytes HOST = b"host"
#: Values of these decide something; each may be there once.
cdef tuple KEPT = (CONTENT_LENGTH, CONTENT_TYPE, HOST, AUTHORIZATION)
#: And these make a request another than a plain one.
cdef tuple SPECIAL = (
    b"connection", b"content-encoding", b"expect", b"proxy-connection", b"transfer-encoding",
    b"upgrade",
)


cdef inline bint is_named(const char* name, Py_ssize_t size, bytes known):
    return size == PyBytes_GET_SIZE(known) and memcmp(name, PyBytes_AS_STRING(known), size) == 0


cdef class PlainRequest:
    """One whole request. `headers` are those that decide something, by lower-case name."""


cdef class PlainReader:
    """Reads plain requests within the limits of a listener; larger ones are not plain."""

    def __cinit__(self, *, Py_ssize_t url_bytes_max, Py_ssize_t header_bytes_max,
                  Py_ssize_t headers_max, Py_ssize_t body_bytes_max):
        self._url_bytes_max = url_bytes_max
        self._header_bytes_max = header_bytes_max
        self._headers_max = headers_max
        self._body_bytes_max = body_bytes_max

    def read(self, bytes data not None, Py_ssize_t start):
        """Return the plain request that begins at `start`, or None if none does."""
        cdef const char* begin = PyBytes_AS_STRING(data)
        cdef const char* end = begin + PyBytes_GET_SIZE(data)
        cdef const char* text
        cdef const char* target
        cdef Py_ssize_t url_size
        cdef Py_ssize_t body_size = -1
        cdef PlainRequest request
        if not 0 <= start < PyBytes_GET_SIZE(data):
            return None
        text = begin + start
        if end - text < 6 or memcmp(text, START, 6) != 0:
            return None
        target = text + 5
        text = target
        while text < end and KINDS[<unsigned char>text[0]] & IN_TARGET:
            text += 1
        url_size = text - target
        if url_size > self._url_bytes_max:
            return None
        if end - text < 11 or memcmp(text, VERSION, 11) != 0:
            return None
        request = PlainRequest.__new__(PlainRequest)
        request.headers = {}
        text = self.read_headers(request.headers, text + 11, end, url_size, &body_size)
        if text == NULL or not 0 <= body_size <= self._body_bytes_max or end - text < body_size:
            return None
        request.url = PyBytes_FromStringAndSize(target, url_size)
        request.body = PyBytes_FromStringAndSize(text, body_size)
        request.end = text - begin + body_size
        return request

    cdef const char* read_headers(
        self, dict headers, const char* text, const char* end, Py_ssize_t url_size,
        Py_ssize_t* body_size,
    ) except? NULL:
        """Return where the body begins, or NULL if the head is not that of a plain request."""
        cdef Py_ssize_t count = 0
        cdef Py_ssize_t head_size = REQUEST_LINE_OVERHEAD + url_size
        cdef Py_ssize_t size
        cdef const char* line
        cdef const char* value
        cdef const char* value_end
        while True:
            if end - text < 2:
                return NULL
            if text[0] == c'\r' and text[1] == c'\n':
                break
            line = text
            while text < end and KINDS[<unsigned char>text[0]] & IN_NAME:
                text += 1
            size = text - line
            if size == 0 or text == end or text[0] != c':':
                return NULL
            text += 1
            while text < end and text[0] == c' ':
                text += 1
            value = text
            while text < end and KINDS[<unsigned char>text[0]] & IN_VALUE:
                text += 1
            value_end = text
            if end - text < 2 or text[0] != c'\r' or text[1] != c'\n':
                return NULL
            text += 2
            count += 1
            head_size += text - line + HEADER_LINE_OVERHEAD
            if count > self._headers_max or head_size > self._header_bytes_max:
                return NULL
            if size <= NAME_BYTES_MAX and not self.take(
                headers, line, size, value, value_end - value, body_size
            ):
                return NULL
        return text + 2 if HOST in headers else NULL

    cdef bint take(
        self, dict headers, const char* name, Py_ssize_t size, const char* value,
        Py_ssize_t value_size, Py_ssize_t* body_size,
    ) except -1:
        """Keep a header that decides something; return False if the request is not plain."""
        cdef char lower[NAME_BYTES_MAX]
        cdef Py_ssize_t place
        for place in range(size):
            # Of the bytes of a name this changes the letters alone, and "_", which matters not.
            lower[place] = name[place] | 0x20
        for known in KEPT:
            if is_named(lower, size, <bytes>known):
                if known in headers:
                    return False
                headers[known] = PyBytes_FromStringAndSize(value, value_size).strip()
                if known is CONTENT_LENGTH:
                    body_size[0] = length_of(value, value_size)
                    return body_size[0] >= 0
                return True
        if is_named(lower, size, b"connection"):
            return PyBytes_FromStringAndSize(value, value_size).lower() == b"keep-alive"
        for known in SPECIAL:
            if is_named(lower, size, <bytes>known):
                return False
        return True


cdef Py_ssize_t length_of(const char* digits, Py_ssize_t size) noexcept:
    """Return the number that these digits are, or -1 if they are anything else."""
    cdef Py_ssize_t number = 0
    cdef Py_ssize_t place
    if not 1 <= size <= LENGTH_DIGITS_MAX:
        return -1
    for place in range(size):
        if not c'0' <= digits[place] <= c'9':
            return -1
        number = 10 * number + digits[place] - c'0'
    return number
