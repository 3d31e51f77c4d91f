"""A connection of a generator."""

from libc.stdint cimport int64_t, uint32_t

from loadtest.answers cimport AnswerReader
from loadtest.drafts cimport Draft

ctypedef struct Call:
    #: Of a call that has ended: the next that may be used anew.
    Call* next_free
    Draft* draft
    int64_t begun_ns
    uint32_t number
    int line
    int talk_seconds
    int used_seconds
    int attempts

ctypedef struct Sent:
    #: A request under way.
    Call* call
    int64_t due_ns
    int64_t sent_ns
    int operation

cdef enum LineState:
    CLOSED = 0
    CONNECTING = 1
    OPEN = 2


cdef class Line:
    cdef object _address
    cdef int _family
    cdef object _socket
    cdef int _descriptor
    cdef int _epoll
    cdef int _number
    cdef AnswerReader reader
    cdef LineState state
    #: When to connect again; 0: that is not due.
    cdef int64_t again_ns

    # Bytes to send, and how many of them have been.
    cdef char* _outgoing
    cdef Py_ssize_t _outgoing_bytes
    cdef Py_ssize_t _outgoing_room
    cdef Py_ssize_t _gone_bytes
    cdef bint _waits_to_write

    # Requests that wait for answers: a ring, of which the last few have not been sent.
    cdef Sent* _sent
    cdef size_t _first
    cdef size_t in_flight
    cdef size_t _ring_room
    cdef size_t unsent

    cdef open(self, target)
    cdef prepare(self)
    cdef char* space(self, Py_ssize_t size) except NULL
    cdef int ask(self, Call* call, int operation, int64_t due_ns, Py_ssize_t size) except -1
    cdef grow_ring(self)
    cdef int flush(self) except -1
    cdef int send_rest(self) except -1
    cdef int watch(self, unsigned int events, int how) except -1
    cdef Py_ssize_t receive(self) except -2
    cdef Sent take(self) noexcept
    cdef lose(self)
    cdef connect_again(self)
    cdef bint is_connected(self)
