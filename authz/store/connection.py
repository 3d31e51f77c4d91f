"""One pipelined connection to the store: commands out in batches, replies in by order.

All commands of a loop turn leave in one write: that, and reading what scripts usually answer, is
the work of the `Wire` (ext/authz_ext/wire.pyx); what is rare is done here. A command whose deadline
passes in the queue is never sent (`NotExecuted`); one that was sent and is not answered in time, or
whose connection is lost, has an unknown outcome (`OutcomeUnknown`), and its reply, should it still
come, is dropped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, Never, cast

import hiredis

from authz import meters
from authz.errors import InvariantError, NotExecuted, OutcomeUnknown, StoreError
from authz.store.health import StoreHealth
from authz.store.replies import read_answer, reply_error
from authz_ext.wire import NEVER_NS, Command, Wire

#: Commands sent and not yet answered; the rest waits in the queue.
IN_FLIGHT_MAX: Final = 1_024
#: Commands that wait to be sent; more are refused at once.
QUEUED_MAX: Final = 8_192
#: Deadlines are looked at not more often than this, so that a hung store costs no CPU.
_SWEEP_NS_MIN: Final = 5_000_000
#: A loop's timers fire up to a tick of its clock early.
_TICK_NS: Final = 1_000_000

_INCOMPLETE: Final = object()
_TOO_LATE: Final = "the deadline passed before the command was sent"

_REPLIES: Final = meters.histogram("authz_store_reply_seconds")
_ERRORS: Final = meters.counters("authz_store_errors_total")
_NOT_SENT: Final = _ERRORS["not_sent"]
_UNKNOWN: Final = _ERRORS["unknown"]

#: Turns a command into the bytes to send; hiredis declares its argument as a tuple of one.
pack_command: Final = cast("Callable[[tuple[bytes | str | int, ...]], bytes]", hiredis.pack_command)


class Connection(Wire, asyncio.Protocol):
    """A protocol for `loop.create_connection`; see the module. Not safe across threads.

    `lost` is done once the connection is gone. Deadlines are moments of `meters.now_ns`.
    `on_forgotten` is given a script call whose script the server does not know, once.
    """

    __slots__ = (
        "_health",
        "_loop",
        "_reader",
        "_sweep_timer",
        "lost",
        "on_forgotten",
        "on_readonly",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, health: StoreHealth) -> None:
        super().__init__(loop, _REPLIES, queued_max=QUEUED_MAX, in_flight_max=IN_FLIGHT_MAX)
        self._loop = loop
        self._health = health
        self._reader = hiredis.Reader(replyError=reply_error, notEnoughData=_INCOMPLETE)
        self._sweep_timer: asyncio.TimerHandle | None = None
        self.lost: asyncio.Future[None] = loop.create_future()
        self.on_forgotten: Callable[[Command], None] | None = None
        #: Done when the server said that it takes no writes: a failover made it a replica.
        self.on_readonly: asyncio.Future[None] = loop.create_future()

    @property
    def in_flight(self) -> int:
        """How many commands are sent and not answered, those past their deadline included."""
        return self._in_flight.count

    @property
    def queued(self) -> int:
        """How many commands wait to be sent."""
        return self._queued.count

    def refuse(self) -> Never:
        """Raise the error of a command that cannot be queued."""
        if self.refusal is not None:
            raise NotExecuted(self.refusal)
        _NOT_SENT.add()
        raise NotExecuted(f"{QUEUED_MAX} commands already wait to be sent")

    def finish(self, reason: str) -> None:
        """Take no further command; close once those already taken are answered."""
        if self.refusal is None:
            self.refusal = reason
        self.close_if_finished()

    def abort(self, reason: str) -> None:
        """Close at once; what is in flight gets an unknown outcome."""
        if self.refusal is None:
            self.refusal = reason
        if self._transport is not None:
            self._transport.abort()

    def drop_queued(self, reason: str) -> None:
        """Refuse every command that is not sent yet."""
        dropped = self._queued.open()
        self._queued.clear()
        _fail_not_sent(dropped, reason)

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start: called by the event loop."""
        # uvloop's transports are no subclasses of asyncio's, so nothing can be checked here.
        self._transport = cast("asyncio.Transport", transport)

    def eof_received(self) -> None:
        """Let the transport close itself: called by the event loop."""

    def connection_lost(self, error: Exception | None) -> None:
        """Give every open command its outcome: called by the event loop."""
        if self.refusal is None:
            self.refusal = "the connection to the store is lost"
        if self._sweep_timer is not None:
            self._sweep_timer.cancel()
            self._sweep_timer = None
        self._transport = None
        if not self.lost.done():
            self.lost.set_result(None)
        unknown = self._in_flight.open()
        self._in_flight.clear()
        self.drop_queued(self.refusal)
        _fail_unknown(unknown, self.refusal)

    def pause_writing(self) -> None:
        """Keep commands in the queue, where they still can be withdrawn: called by the loop."""
        self._paused = True

    def resume_writing(self) -> None:
        """Send what waited: called by the event loop."""
        self._paused = False
        self.flush()

    # What the wire leaves to it.

    def read_any(self, data: bytes, start: int) -> None:
        """Hand each complete reply, of whatever kind, to the command it belongs to."""
        reader = self._reader
        try:
            self.keep(data, start)
            while (value := reader.gets()) is not _INCOMPLETE:
                self._is_between_replies = not reader.has_data()
                command = self.next_answered()
                if command is None:
                    self._abort_unasked(value)
                    break
                if command.done():
                    continue  # its deadline passed, or its caller went away
                self._has_answered = True
                # Whoever waits for it goes on now, before the next one is looked at.
                if isinstance(value, StoreError):
                    self._set_error(command, value)
                elif command.script is None or command.script.legs is None:
                    command.set_result(value)
                else:
                    _set_answer(command, value)
        except hiredis.HiredisError as error:
            self.abort(f"the store does not speak its protocol: {error}")

    def keep(self, data: bytes, start: int) -> None:
        """Keep bytes to be read together with the next ones."""
        self._reader.feed(data, start, len(data) - start)
        self._is_between_replies = False

    def _abort_unasked(self, value: Any) -> None:
        # A server that is full says so unasked before it hangs up.
        said = f": {value}" if isinstance(value, StoreError) else ""
        self.abort(f"the store sent a reply that nothing asked for{said}")

    def _set_error(self, command: Command, error: StoreError) -> None:
        if not isinstance(error, NotExecuted):
            _ERRORS["error"].add()
        elif error.code == "NOSCRIPT":
            # A forgotten script is sent again; nobody notices.
            is_call = command.script is not None
            if is_call and not command.is_repeated and self.on_forgotten is not None:
                command.is_repeated = True
                self.on_forgotten(command)
                return
        else:
            _ERRORS["refused"].add()
            if error.code == "READONLY" and not self.on_readonly.done():
                self.on_readonly.set_result(None)
        command.set_exception(error)

    def fail_late(self, commands: list[Command]) -> None:
        """Fail commands whose deadline has passed before they were sent."""
        _fail_not_sent(commands, _TOO_LATE)

    def sweep_no_later_than(self, deadline_ns: int) -> None:
        """See to it that deadlines are looked at then."""
        if self._sweep_timer is not None:
            self._sweep_timer.cancel()
        now_ns = meters.now_ns()
        self._sweep_at_ns = max(deadline_ns, now_ns + _SWEEP_NS_MIN)
        wait_ns = self._sweep_at_ns - now_ns + _TICK_NS
        self._sweep_timer = self._loop.call_later(wait_ns / 1_000_000_000, self._sweep)

    def _sweep(self) -> None:
        """Fail what is past its deadline; one timer serves all commands of the connection."""
        now_ns = meters.now_ns() + _TICK_NS
        self._sweep_at_ns = NEVER_NS
        self._sweep_timer = None
        sent, unsent = self._in_flight.open(), self._queued.open()
        missed = [command for command in sent if command.deadline_ns <= now_ns]
        late = [command for command in unsent if command.deadline_ns <= now_ns]
        deadlines_ns = [command.deadline_ns for command in (*sent, *unsent)]
        earliest_ns = min((due for due in deadlines_ns if due > now_ns), default=NEVER_NS)
        if earliest_ns < NEVER_NS:
            self.sweep_no_later_than(earliest_ns)
        if missed:
            self._tell_missed(len(missed))
        _fail_unknown(missed, "the store did not answer within the deadline")
        self.fail_late(late)

    def _tell_missed(self, count: int) -> None:
        # Answers count for nothing but for ending a row of misses: so they are told only now.
        if self._has_answered:
            self._has_answered = False
            self._health.answered()
        self._health.missed(count)

    def close_if_finished(self) -> None:
        """Close when nothing is queued or in flight."""
        if self._transport is not None and not self._in_flight.count and not self._queued.count:
            self._transport.close()


# Whoever waits for a reply goes on when it is there, and may send the next command: so these are
# called when the connection's own state is settled.


def _set_answer(command: Command, value: Any) -> None:
    """Give a script with a shortcut its answer."""
    try:
        answer = read_answer(value)
    except InvariantError as error:
        command.set_exception(error)
    else:
        command.set_result(answer)


def _fail_not_sent(commands: list[Command], reason: str) -> None:
    for command in commands:
        if not command.done():
            _NOT_SENT.add()
            command.set_exception(NotExecuted(reason))


def _fail_unknown(commands: list[Command], reason: str) -> None:
    for command in commands:
        if not command.done():
            _UNKNOWN.add()
            command.set_exception(OutcomeUnknown(reason))
