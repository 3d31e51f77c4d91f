"""What places calls."""

from libc.stdint cimport int64_t, uint32_t

from loadtest.agenda cimport Agenda
from loadtest.alarm cimport Alarm
from loadtest.drafts cimport Drafts
from loadtest.line cimport Call, Line, Sent
from loadtest.recorder cimport Recorder


cdef class Caller:
    cdef Drafts _drafts
    cdef Recorder _recorder
    cdef Agenda _agenda
    cdef Alarm _alarm
    cdef object _target
    cdef list _lines
    cdef int _epoll
    cdef dict _watched
    cdef double _ns_per_call_second
    cdef bint _is_closed_loop

    # Moments at which calls arrive; so many have.
    cdef const int64_t[::1] _arrivals
    cdef Py_ssize_t _arrived
    cdef int64_t _end_ns
    cdef int64_t _deadline_ns
    #: When a lost connection is made again; the end of all time if all are there.
    cdef int64_t _again_ns
    cdef bint _has_ended

    cdef uint32_t _placed
    cdef Py_ssize_t _calls
    #: Calls are kept in blocks; those that have ended are used anew.
    cdef Call** _blocks
    cdef Py_ssize_t _blocks_count
    cdef Call* _free
    #: Lines that have something to send.
    cdef int* _unflushed
    cdef int _unflushed_count

    cdef int tell_epoll(self, int how, int descriptor, unsigned int events, int name) except -1
    cdef int ask_due(self, int64_t now_ns) except -1
    cdef int64_t next_ns(self) noexcept
    cdef bint is_over(self, int64_t now_ns) noexcept
    cdef Call* new_call(self) except NULL
    cdef more_calls(self)
    cdef int place_call(self, int64_t due_ns, int64_t now_ns) except -1
    cdef int ask(self, int operation, Call* call, int64_t due_ns, int64_t now_ns) except -1
    cdef int hear(self, Line line, unsigned int events) except -1
    cdef int read_answers(self, Line line, int64_t now_ns) except -1
    cdef connect_again(self, int64_t now_ns)
    cdef int lose(self, Line line) except -1
    cdef int on_answer(
        self, Sent* sent, int status, const char* body, Py_ssize_t size, int64_t now_ns
    ) except -1
    cdef int on_denied(self, Sent* sent, int outcome, int64_t now_ns) except -1
    cdef int on_settled(
        self, Sent* sent, int status, const char* body, Py_ssize_t size, int64_t now_ns
    ) except -1
    cdef int plan_next_step(
        self, Call* call, int64_t seconds, int64_t extend_at, int64_t now_ns
    ) except -1
    cdef int end_call(self, Call* call, int64_t now_ns, bint has_failed) except -1
    cdef int note(self, Sent* sent, int outcome, int64_t now_ns) except -1
