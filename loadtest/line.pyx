"""One kept-alive, pipelined connection of a generator, made again when it is lost.

It never waits: what the kernel does not take at once is sent when epoll says that it will.
"""

from __future__ import annotations

import errno
import socket

from cpython.exc cimport PyErr_SetFromErrno
from libc.errno cimport EAGAIN, EINTR
from libc.errno cimport errno as error_number
from libc.stdint cimport int64_t
from libc.stdlib cimport free, malloc, realloc

from loadtest.answers cimport AnswerReader
from loadtest.clock cimport monotonic_ns
from loadtest.epoll cimport (
    EPOLL_CTL_ADD,
    EPOLL_CTL_MOD,
    EPOLLIN,
    EPOLLOUT,
    epoll_ctl,
    epoll_event,
)

cdef extern from "<sys/socket.h>" nogil:
    int MSG_NOSIGNAL
    ssize_t recv(int descriptor, void* into, size_t size, int flags)
    ssize_t send(int descriptor, const void* data, size_t size, int flags)

cdef enum:
    RING_ROOM_FIRST = 64
    OUTGOING_ROOM_FIRST = 65_536
    #: What `receive` says.
    NOTHING = -1
    LOST = 0

#: Nobody who listens needs longer to take a connection.
cdef int CONNECT_SECONDS_MAX = 30


cdef class Line:
    """Requests leave together at `flush`; their answers come in the same order."""

    def __cinit__(self, int epoll, int number):
        self._epoll = epoll
        self._number = number
        self._descriptor = -1
        self.reader = AnswerReader()
        self._outgoing = <char*>malloc(OUTGOING_ROOM_FIRST)
        self._sent = <Sent*>malloc(RING_ROOM_FIRST * sizeof(Sent))
        if self._outgoing == NULL or self._sent == NULL:
            raise MemoryError
        self._outgoing_room = OUTGOING_ROOM_FIRST
        self._ring_room = RING_ROOM_FIRST

    def __dealloc__(self):
        free(self._outgoing)
        free(self._sent)

    cdef open(self, target):
        """Connect, and wait for that; OSError if nobody listens."""
        if target.unix_path is not None:
            self._socket = socket.socket(socket.AF_UNIX)
            self._address = target.unix_path
            self._socket.connect(self._address)
        else:
            self._socket = socket.create_connection(
                (target.host, target.port), CONNECT_SECONDS_MAX
            )
            self._address = self._socket.getpeername()
        self._family = self._socket.family
        self.prepare()
        self.state = OPEN
        self.watch(EPOLLIN, EPOLL_CTL_ADD)

    cdef prepare(self):
        """Let nothing about the socket wait."""
        self._socket.setblocking(False)
        if self._family != socket.AF_UNIX:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._descriptor = self._socket.fileno()

    cdef connect_again(self):
        """Begin to; `is_connected` tells the rest once epoll says something. OSError if not."""
        self.again_ns = 0
        self._socket = socket.socket(self._family)
        self.prepare()
        error = self._socket.connect_ex(self._address)
        if error not in (0, errno.EINPROGRESS):
            raise OSError(error, "no connection")
        self.state = CONNECTING
        self.watch(EPOLLOUT, EPOLL_CTL_ADD)

    cdef bint is_connected(self):
        """Say how connecting has ended; False: there is no connection."""
        if self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0:
            return False
        self.state = OPEN
        self.watch(EPOLLIN, EPOLL_CTL_MOD)
        return True

    cdef lose(self):
        """Forget the connection, but not whose requests have no answer."""
        if self._socket is not None:
            # Its descriptor leaves epoll with it.
            self._socket.close()
        self._socket = None
        self._descriptor = -1
        self.state = CLOSED
        self.reader.clear()
        self._outgoing_bytes = self._gone_bytes = 0
        self._waits_to_write = False
        self.unsent = 0

    cdef int watch(self, unsigned int events, int how) except -1:
        cdef epoll_event event
        event.events = events
        event.data.u32 = self._number
        if epoll_ctl(self._epoll, how, self._descriptor, &event) < 0:
            PyErr_SetFromErrno(OSError)
        return 0

    cdef char* space(self, Py_ssize_t size) except NULL:
        """Return where a request of at most that size may be written."""
        cdef Py_ssize_t room = self._outgoing_room
        cdef char* moved
        while room - self._outgoing_bytes < size:
            room *= 2
        if room != self._outgoing_room:
            moved = <char*>realloc(self._outgoing, room)
            if moved == NULL:
                raise MemoryError
            self._outgoing = moved
            self._outgoing_room = room
        return self._outgoing + self._outgoing_bytes

    cdef int ask(self, Call* call, int operation, int64_t due_ns, Py_ssize_t size) except -1:
        """Send a request, of which so much is at `space`, at the next `flush`."""
        cdef Sent* sent
        if self.in_flight == self._ring_room:
            self.grow_ring()
        sent = &self._sent[(self._first + self.in_flight) & (self._ring_room - 1)]
        sent.call = call
        sent.operation = operation
        sent.due_ns = sent.sent_ns = due_ns
        self.in_flight += 1
        self.unsent += 1
        self._outgoing_bytes += size
        return 0

    cdef grow_ring(self):
        cdef Sent* moved = <Sent*>malloc(2 * self._ring_room * sizeof(Sent))
        cdef size_t place
        if moved == NULL:
            raise MemoryError
        for place in range(self.in_flight):
            moved[place] = self._sent[(self._first + place) & (self._ring_room - 1)]
        free(self._sent)
        self._sent = moved
        self._first = 0
        self._ring_room *= 2

    cdef int flush(self) except -1:
        """Send what was asked since the last time, in one write."""
        cdef int64_t now_ns = monotonic_ns()
        cdef size_t place
        for place in range(self.in_flight - self.unsent, self.in_flight):
            self._sent[(self._first + place) & (self._ring_room - 1)].sent_ns = now_ns
        self.unsent = 0
        return 0 if self._waits_to_write else self.send_rest()

    cdef int send_rest(self) except -1:
        """Send what the kernel takes; the rest when it takes more."""
        cdef ssize_t sent = send(
            self._descriptor, self._outgoing + self._gone_bytes,
            self._outgoing_bytes - self._gone_bytes, MSG_NOSIGNAL,
        )
        if sent < 0 and error_number not in (EAGAIN, EINTR):
            # The connection is lost. Answers that came before that are read first.
            sent = self._outgoing_bytes - self._gone_bytes
        self._gone_bytes += max(sent, 0)
        if self._gone_bytes == self._outgoing_bytes:
            self._outgoing_bytes = self._gone_bytes = 0
        if self._waits_to_write != (self._outgoing_bytes > 0):
            self._waits_to_write = not self._waits_to_write
            self.watch(EPOLLIN | EPOLLOUT if self._waits_to_write else EPOLLIN, EPOLL_CTL_MOD)
        return 0

    cdef Py_ssize_t receive(self) except -2:
        """Read what there is; return its size, NOTHING, or LOST when the connection has ended."""
        cdef Py_ssize_t size
        cdef char* into = self.reader.space(&size)
        cdef ssize_t got = recv(self._descriptor, into, size, 0)
        if got > 0:
            self.reader.took(got)
            return got
        return NOTHING if got < 0 and error_number in (EAGAIN, EINTR) else LOST

    cdef Sent take(self) noexcept:
        """Take the request that waits longest; there must be one."""
        cdef Sent* sent = &self._sent[self._first]
        self._first = (self._first + 1) & (self._ring_room - 1)
        self.in_flight -= 1
        return sent[0]
