"""Requests, answers, and how an answer becomes bytes."""


cdef class Request:
    cdef readonly dict parameters
    cdef readonly bytes query
    cdef readonly bytes content_type
    cdef public bytes body


cdef class Response:
    cdef readonly int status
    cdef readonly bytes body
    cdef readonly bytes content_type
    cdef readonly bytes headers


cdef class JsonAnswers:
    cdef object _encode
    cdef dict _statuses

    cdef Response answer_to(self, result)


cdef class Heads:
    #: By status and content type: all that comes before the length.
    cdef dict _starts
    cdef bytes _date_line

    cdef bytes start_of(self, Response response)
    cdef bytes rendered(self, Response response, bytes connection, bint head_only)
