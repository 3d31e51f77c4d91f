"""The usual way of a command to the store and of its reply back.

A `Command` is the reply that its caller waits for, and all that is known of it on its way: so one
object is made for it, and none for the lines in which it waits. A `Wire` is a connection's usual
work: commands of one turn leave in one write, and the integers that a script answers are read
where they lie. What is rare (errors, other replies, deadlines that pass, the end) is the business
of the class derived from it, see store/connection.py.

Moments are those of `meters.now_ns`.
"""

from __future__ import annotations

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport INT64_MAX

from authz_ext.meters cimport monotonic_ns
from authz_ext.packing cimport are_integers, integers_at
from authz_ext.prompt cimport PENDING

cdef enum:
    NS_PER_MS = 1_000_000
    # `$8`, `$136` and their line ends.
    DIGITS_MAX = 3
    LINE_END_BYTES = 2

#: No deadline is to be looked at.
NEVER_NS = INT64_MAX


@cython.final
cdef class Command(Reply):
    """A command on its way, and what it will be answered."""


cdef Py_ssize_t bulk_length(const char* text, Py_ssize_t size, Py_ssize_t* digits) noexcept:
    """Return how long the string is that begins here, or -1 unless it is whole integers, whole.

    `digits` is how many its length has.
    """
    cdef Py_ssize_t length = 0
    cdef Py_ssize_t place = 1
    if text[0] != c'$' or size < 2 or text[1] == c'0':
        return -1
    while place < size and c'0' <= text[place] <= c'9' and place <= DIGITS_MAX:
        length = 10 * length + text[place] - c'0'
        place += 1
    digits[0] = place - 1
    if not are_integers(length) or size - place < length + 2 * LINE_END_BYTES:
        return -1
    if text[place] != c'\r' or text[place + 1] != c'\n':
        return -1
    place += LINE_END_BYTES + length
    if text[place] != c'\r' or text[place + 1] != c'\n':
        return -1
    return length


@cython.final
cdef class Line:
    """Commands in the order in which they came."""

    cdef void put(self, Command command) noexcept:
        if self._last is None:
            self._first = command
        else:
            self._last._next = command
        self._last = command
        self.count += 1

    cdef Command take(self):
        """Take the first one out; there must be one."""
        cdef Command command = self._first
        self._first = command._next
        command._next = None
        if self._first is None:
            self._last = None
        self.count -= 1
        return command

    def open(self):
        """Return the commands that somebody still waits for."""
        cdef list commands = []
        cdef Command command = self._first
        while command is not None:
            if command._state == PENDING:
                commands.append(command)
            command = command._next
        return commands

    def clear(self):
        """Let go of all commands."""
        while self.count:
            self.take()


cdef class Wire:
    """The usual work of a connection; see the module."""

    def __cinit__(self):
        self._queued = Line()
        self._in_flight = Line()
        self._is_between_replies = True
        self._sweep_at_ns = NEVER_NS

    def __init__(
        self, loop not None, Histogram replies not None, *, Py_ssize_t queued_max,
        Py_ssize_t in_flight_max
    ):
        self._loop = loop
        self._replies = replies
        self._queued_max = queued_max
        self._in_flight_max = in_flight_max

    # What callers call.

    def submit(self, bytes packed not None, long long deadline_ns, script=None):
        """Queue a packed command, which may call a script, and return its reply, to be awaited.

        Raises NotExecuted when nothing can be sent any more or the queue is full.
        """
        cdef Command command = Command.__new__(Command)
        command._loop = self._loop
        command.script = script
        command.packed = packed
        command.deadline_ns = deadline_ns
        command._answers_integers = script is not None and script.legs is not None
        return self.enqueue(command)

    def call(
        self, PreparedCall prepared not None, str call_id not None, list arguments not None,
        long long deadline_ms
    ):
        """Queue a prepared call of a script, to be answered within that time; as `submit`."""
        cdef Command command = Command.__new__(Command)
        command._loop = self._loop
        command.script = prepared.script
        command.packed = prepared.command(call_id, arguments)
        command.deadline_ns = monotonic_ns() + deadline_ms * NS_PER_MS
        command._answers_integers = prepared.answers_integers
        return self.enqueue(command)

    def repeat(self, Command command not None):
        """Queue a call of a script again that has not been given its reply yet; as `submit`."""
        self.enqueue(command)

    cdef Command enqueue(self, Command command):
        if self.refusal is not None or self._queued.count >= self._queued_max:
            self.refuse()
        self._queued.put(command)
        self.flush_soon()
        if command.deadline_ns < self._sweep_at_ns:
            self.sweep_no_later_than(command.deadline_ns)
        return command

    cdef int flush_soon(self) except -1:
        if not self._flush_scheduled:
            self._flush_scheduled = True
            self._loop.call_soon(self.flush)
        return 0

    # What the event loop calls.

    def flush(self):
        """Send what is queued, as far as there is room for it, in one write."""
        cdef Line queued = self._queued
        cdef Line in_flight = self._in_flight
        cdef Command command
        cdef list parts = []
        cdef list late = None
        cdef long long now_ns
        self._flush_scheduled = False
        if self._paused or self._transport is None or self._transport.is_closing():
            return
        now_ns = monotonic_ns()
        while queued.count and in_flight.count < self._in_flight_max:
            command = queued.take()
            if command._state != PENDING:
                continue  # its caller went away
            if command.deadline_ns <= now_ns:
                late = late or []
                late.append(command)
                continue
            parts.append(command.packed)
            if command.script is None:
                command.packed = None
            command._sent_ns = now_ns
            in_flight.put(command)
        if parts:
            self._transport.write(b"".join(parts))
        if late is not None:
            self.fail_late(late)

    def data_received(self, bytes data not None):
        """Hand each complete reply to the command it belongs to."""
        cdef Py_ssize_t at = 0
        self._received_ns = monotonic_ns()
        if self._is_between_replies:
            at = self.read_integers(data)
        if at < PyBytes_GET_SIZE(data):
            self.read_any(data, at)
        if self._queued.count:
            self.flush_soon()
        if self.refusal is not None:
            self.close_if_finished()

    cdef Py_ssize_t read_integers(self, bytes data) except -1:
        """Read the replies that are integers of scripts; return where the first other one begins.

        Whoever waits for one goes on now, before the next one is looked at.
        """
        cdef const char* begin = PyBytes_AS_STRING(data)
        cdef Py_ssize_t size = PyBytes_GET_SIZE(data)
        cdef Py_ssize_t at = 0
        cdef Py_ssize_t digits, length
        cdef const char* integers
        cdef Command command
        try:
            while at < size and self._in_flight.count:
                if not self._in_flight._first._answers_integers:
                    break
                length = bulk_length(begin + at, size - at, &digits)
                if length < 0:
                    break
                integers = begin + at + 1 + digits + LINE_END_BYTES
                at = integers + length + LINE_END_BYTES - begin
                command = self.next_answered()
                if command._state == PENDING:
                    self._has_answered = True
                    command.set_result(integers_at(integers, length))
        except BaseException:
            # Who went on ends the program, it seems. Should it go on, nothing is lost.
            self.keep(data, at)
            raise
        return at

    cpdef Command next_answered(self):
        """Take the command to which the next reply belongs, its time being counted, or None."""
        cdef Command command
        if not self._in_flight.count:
            return None
        command = self._in_flight.take()
        self._replies.count(self._received_ns - command._sent_ns)
        return command
