"""Answers of the hook API."""

from libc.stdint cimport int64_t

ctypedef struct Answer:
    int status
    #: Within the reader: true until it reads on.
    const char* body
    Py_ssize_t body_bytes

ctypedef struct Decision:
    bint allowed
    #: What is decided, in UTF-8, within the body.
    const char* reason
    Py_ssize_t reason_bytes
    #: -1: nothing limits the call.
    int64_t seconds
    int64_t extend_at


cdef class AnswerReader:
    cdef char* _data
    cdef Py_ssize_t _room
    #: What is read and not cut yet lies between these two.
    cdef Py_ssize_t _begin
    cdef Py_ssize_t _end
    #: Of the answer that these bytes begin; 0 before its head has arrived.
    cdef Py_ssize_t _head_bytes
    cdef Py_ssize_t _body_bytes

    cdef char* space(self, Py_ssize_t* size) except NULL
    cdef void took(self, Py_ssize_t size) noexcept
    cdef int next(self, Answer* answer) except -1
    cdef int find_head(self, const char* text, Py_ssize_t size) except -1
    cdef void clear(self) noexcept


cdef bint scan_decision(const char* body, Py_ssize_t size, Decision* decision) noexcept
