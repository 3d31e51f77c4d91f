"""Requests as switches nearly always send them."""


cdef class PlainRequest:
    cdef readonly bytes url
    cdef readonly dict headers
    cdef readonly bytes body
    #: Where the next request begins in what was read.
    cdef readonly Py_ssize_t end


cdef class PlainReader:
    cdef Py_ssize_t _url_bytes_max
    cdef Py_ssize_t _header_bytes_max
    cdef Py_ssize_t _headers_max
    cdef Py_ssize_t _body_bytes_max

    cdef const char* read_headers(
        self, dict headers, const char* text, const char* end, Py_ssize_t url_size,
        Py_ssize_t* body_size,
    ) except? NULL
    cdef bint take(
        self, dict headers, const char* name, Py_ssize_t size, const char* value,
        Py_ssize_t value_size, Py_ssize_t* body_size,
    ) except -1
