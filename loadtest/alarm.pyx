"""A timer of the kernel that wakes an epoll within microseconds of the due time.

The timers of event loops, and of epoll itself, count in whole milliseconds: a generator that slept
on them would be late by more than most answers take, or would have to spin.
"""

from __future__ import annotations

from cpython.exc cimport PyErr_SetFromErrno
from libc.stdint cimport int64_t
from posix.time cimport CLOCK_MONOTONIC, itimerspec
from posix.unistd cimport close

cdef extern from "<sys/timerfd.h>" nogil:
    int TFD_CLOEXEC
    int TFD_NONBLOCK
    int TFD_TIMER_ABSTIME
    int timerfd_create(int clock, int flags)
    int timerfd_settime(int descriptor, int flags, const itimerspec* new, itimerspec* old)

cdef enum:
    NANOS_PER_SECOND = 1_000_000_000


cdef class Alarm:
    """Its descriptor is readable from the moment it is set to until it is set again."""

    def __cinit__(self):
        self._descriptor = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC)
        if self._descriptor < 0:
            PyErr_SetFromErrno(OSError)

    def __dealloc__(self):
        if self._descriptor >= 0:
            close(self._descriptor)

    def fileno(self):
        """Return the descriptor, for epoll."""
        return self._descriptor

    cpdef int set(self, int64_t due_ns) except -1:
        """Wake at this moment, or at once if it has passed, instead of what was set before."""
        cdef itimerspec moment
        if due_ns == self._due_ns:
            return 0
        # The kernel takes 0 for "never", so the past is the first nanosecond of its clock.
        self._due_ns = due_ns = max(due_ns, 1)
        moment.it_interval.tv_sec = moment.it_interval.tv_nsec = 0
        moment.it_value.tv_sec = due_ns // NANOS_PER_SECOND
        moment.it_value.tv_nsec = due_ns % NANOS_PER_SECOND
        # This also takes back what has rung: nobody needs to read it.
        if timerfd_settime(self._descriptor, TFD_TIMER_ABSTIME, &moment, NULL) < 0:
            PyErr_SetFromErrno(OSError)
        return 0
