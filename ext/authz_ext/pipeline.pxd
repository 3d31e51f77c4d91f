"""Requests of one connection, and what all connections of a process share."""

from authz_ext.messages cimport Heads, Request, Response
from authz_ext.meters cimport Counter
from authz_ext.prompt cimport Errand
from authz_ext.routes cimport AnswerCounts, Route


cdef class Traffic:
    cdef readonly Heads heads
    #: Requests in the engine.
    cdef readonly Py_ssize_t in_flight
    #: No further request is wanted on any connection.
    cdef public bint draining
    cdef Py_ssize_t _in_flight_max
    cdef Py_ssize_t _pipelined_max
    cdef object _explain
    cdef AnswerCounts _unmatched
    cdef Counter _overloaded
    cdef Counter _dropped
    cdef object _loop
    #: Pipelines with answers that leave at the end of this turn of the loop.
    cdef list _ready

    cdef leave(self)
    cdef send_soon(self, Pipeline pipeline)


cdef class Exchange(Errand):
    cdef public Route route
    cdef public Request request
    cdef public Response response
    cdef public bint is_last
    cdef bint _head_only
    cdef bint _is_http_1_0
    cdef Pipeline _pipeline
    #: When the request was complete.
    cdef long long _began_ns
    cdef object _payload
    cdef object _key
    #: The next request of the same call on this connection.
    cdef Exchange _successor


cdef class Pipeline:
    cdef Traffic _traffic
    cdef object _connection
    #: In order of arrival; the unstarted ones are its last, those among them included that had
    #: their answers when they came.
    cdef object _unanswered
    cdef object _unstarted
    cdef dict _last_of_call
    #: Answers that wait to be taken in while another one is.
    cdef object _finished
    cdef bint _is_finishing
    cdef bint _is_ready
    cdef bint _is_held
    cdef bint _is_closed
    #: The connection wants to hear of every answer that is sent, not only while draining.
    cdef public bint reports_progress

    cdef take(self, Exchange exchange)
    cdef start(self, Exchange exchange)
    cdef Response launch(self, Exchange exchange)
    cdef Response refusal_of(self, Exchange exchange)
    cdef explained(self, Exchange exchange, error)
    cdef take_end(self, Exchange exchange, result, error)
    cdef finish(self, Exchange exchange, Response response)
    cdef Exchange complete(self, Exchange exchange)
    cdef AnswerCounts counts_of(self, Exchange exchange)
    cdef schedule_flush(self)
    cdef flush(self)
    cdef start_waiting(self)
