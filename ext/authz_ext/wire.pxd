"""Commands to the store, the lines in which they wait, and the connection that they leave by."""

from authz_ext.meters cimport Histogram
from authz_ext.packing cimport PreparedCall
from authz_ext.prompt cimport Reply


cdef class Command(Reply):
    #: The script that it calls, or None.
    cdef readonly object script
    #: Its bytes until it is sent; those of a script call may have to be sent again.
    cdef readonly bytes packed
    cdef readonly long long deadline_ns
    #: Whether it is a script call that was sent again.
    cdef public bint is_repeated
    cdef bint _answers_integers
    cdef long long _sent_ns
    cdef Command _next


cdef class Line:
    cdef Command _first
    cdef Command _last
    cdef readonly Py_ssize_t count

    cdef void put(self, Command command) noexcept
    cdef Command take(self)


cdef class Wire:
    cdef object _loop
    cdef Histogram _replies
    cdef Py_ssize_t _queued_max
    cdef Py_ssize_t _in_flight_max
    cdef readonly Line _queued
    cdef readonly Line _in_flight
    cdef public object _transport
    cdef public bint _paused
    cdef bint _flush_scheduled
    #: The moment at which the bytes came that are read now, or were read last.
    cdef long long _received_ns
    #: Whether all bytes that came are read, up to the end of a reply.
    cdef public bint _is_between_replies
    #: Whether a command was answered in time since this was last set to False.
    cdef public bint _has_answered
    #: When deadlines are looked at next.
    cdef public long long _sweep_at_ns
    cdef public object refusal

    cdef Command enqueue(self, Command command)
    cdef int flush_soon(self) except -1
    cdef Py_ssize_t read_integers(self, bytes data) except -1
    cpdef Command next_answered(self)
