"""One pipelined connection to the store: commands out in batches, replies in by order.

All commands of a loop turn leave in one write. A command whose deadline passes in the queue is
never sent (`NotExecuted`); one that was sent and is not answered in time, or whose connection is
lost, has an unknown outcome (`OutcomeUnknown`), and its reply, should it still come, is dropped.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, cast

import hiredis

from authz import meters
from authz.errors import InvariantError, NotExecuted, OutcomeUnknown, StoreError
from authz.store.health import StoreHealth
from authz.store.replies import read_answer, reply_error
from authz_ext.prompt import Reply

if TYPE_CHECKING:
    from authz.store.scripts import Script

#: Commands sent and not yet answered; the rest waits in the queue.
IN_FLIGHT_MAX: Final = 1_024
#: Commands that wait to be sent; more are refused at once.
QUEUED_MAX: Final = 8_192
#: Deadlines are looked at not more often than this, so that a hung store costs no CPU.
_SWEEP_SECONDS_MIN: Final = 0.005

_INCOMPLETE: Final = object()
_TOO_LATE: Final = "the deadline passed before the command was sent"

_REPLIES: Final = meters.histogram("authz_store_reply_seconds")
_ERRORS: Final = meters.counters("authz_store_errors_total")
_NOT_SENT: Final = _ERRORS["not_sent"]
_UNKNOWN: Final = _ERRORS["unknown"]

#: Turns a command into the bytes to send; hiredis declares its argument as a tuple of one.
pack_command: Final = cast("Callable[[tuple[bytes | str | int, ...]], bytes]", hiredis.pack_command)


class ScriptCall:
    """A call of a script as it was sent, with its deadline; `is_repeated` once it is sent again."""

    __slots__ = ("deadline", "is_repeated", "packed", "script")

    def __init__(self, script: Script, packed: bytes, deadline: float) -> None:
        self.script = script
        self.packed = packed
        self.deadline = deadline
        self.is_repeated = False


class Connection(asyncio.Protocol):
    """A protocol for `loop.create_connection`; see the module. Not safe across threads.

    `lost` is done once the connection is gone. Deadlines are in the loop's time, in seconds.
    `on_forgotten` is given the reply of a script call whose script the server does not know, once.
    """

    __slots__ = (
        "_flush_scheduled",
        "_health",
        "_in_flight",
        "_loop",
        "_paused",
        "_queued",
        "_reader",
        "_sweep_at",
        "_sweep_timer",
        "_transport",
        "lost",
        "on_forgotten",
        "on_readonly",
        "refusal",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, health: StoreHealth) -> None:
        self._loop = loop
        self._health = health
        self._reader = hiredis.Reader(replyError=reply_error, notEnoughData=_INCOMPLETE)
        self._queued: deque[tuple[bytes, Reply[Any], float]] = deque()
        #: Each with its deadline and with the moment at which it was sent (`meters.now_ns`).
        self._in_flight: deque[tuple[Reply[Any], float, int]] = deque()
        self._transport: asyncio.Transport | None = None
        #: Why no further command is taken; None while they are.
        self.refusal: str | None = None
        self._flush_scheduled = False
        self._paused = False
        self._sweep_at = math.inf
        self._sweep_timer: asyncio.TimerHandle | None = None
        self.lost: asyncio.Future[None] = loop.create_future()
        self.on_forgotten: Callable[[Reply[Any]], None] | None = None
        #: Done when the server said that it takes no writes: a failover made it a replica.
        self.on_readonly: asyncio.Future[None] = loop.create_future()

    @property
    def in_flight(self) -> int:
        """How many commands are sent and not answered, those past their deadline included."""
        return len(self._in_flight)

    @property
    def queued(self) -> int:
        """How many commands wait to be sent."""
        return len(self._queued)

    def submit(self, packed: bytes, deadline: float) -> Reply[Any]:
        """Queue a packed command and return its reply, to be awaited.

        Raises NotExecuted when nothing can be sent any more or the queue is full.
        """
        reply: Reply[Any] = Reply(self._loop)
        self._queue(packed, reply, deadline)
        return reply

    def submit_call(self, call: ScriptCall) -> Reply[Any]:
        """Queue a call of a script; as `submit`."""
        reply: Reply[Any] = Reply(self._loop, call)
        self._queue(call.packed, reply, call.deadline)
        return reply

    def repeat_call(self, reply: Reply[Any]) -> None:
        """Queue a call of a script again whose reply has not been given yet; as `submit`."""
        call: ScriptCall = reply.question
        self._queue(call.packed, reply, call.deadline)

    def _queue(self, packed: bytes, reply: Reply[Any], deadline: float) -> None:
        if self.refusal is not None:
            raise NotExecuted(self.refusal)
        queued = self._queued
        if len(queued) >= QUEUED_MAX:
            _NOT_SENT.add()
            raise NotExecuted(f"{QUEUED_MAX} commands already wait to be sent")
        queued.append((packed, reply, deadline))
        if not self._flush_scheduled:
            self._flush_scheduled = True
            self._loop.call_soon(self._flush)
        if deadline < self._sweep_at:
            self._sweep_no_later_than(deadline)

    def finish(self, reason: str) -> None:
        """Take no further command; close once those already taken are answered."""
        if self.refusal is None:
            self.refusal = reason
        self._close_if_finished()

    def abort(self, reason: str) -> None:
        """Close at once; what is in flight gets an unknown outcome."""
        if self.refusal is None:
            self.refusal = reason
        if self._transport is not None:
            self._transport.abort()

    def drop_queued(self, reason: str) -> None:
        """Refuse every command that is not sent yet."""
        dropped = [reply for _, reply, _ in self._queued if not reply.done()]
        self._queued.clear()
        _fail_not_sent(dropped, reason)

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start: called by the event loop."""
        # uvloop's transports are no subclasses of asyncio's, so nothing can be checked here.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Hand each complete reply to the command it belongs to: called by the event loop."""
        reader = self._reader
        in_flight = self._in_flight
        pop = in_flight.popleft
        answered = False
        now_ns = meters.now_ns()
        try:
            reader.feed(data)
            while (value := reader.gets()) is not _INCOMPLETE:
                if not in_flight:
                    self._abort_unasked(value)
                    break
                reply, _, sent_ns = pop()
                _REPLIES.observe(now_ns - sent_ns)
                if reply.done():
                    continue  # its deadline passed, or its caller went away
                if not answered:
                    answered = True
                    self._health.answered()
                # Whoever waits for it goes on now, before the next one is looked at.
                if isinstance(value, StoreError):
                    self._set_error(reply, value)
                elif reply.question is None or reply.question.script.legs is None:
                    reply.set_result(value)
                else:
                    _set_answer(reply, value)
        except hiredis.HiredisError as error:
            self.abort(f"the store does not speak its protocol: {error}")
        if self._queued and not self._flush_scheduled:
            self._flush_scheduled = True
            self._loop.call_soon(self._flush)
        if self.refusal is not None:
            self._close_if_finished()

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
        unknown = [reply for reply, _, _ in self._in_flight if not reply.done()]
        self._in_flight.clear()
        self.drop_queued(self.refusal)
        _fail_unknown(unknown, self.refusal)

    def pause_writing(self) -> None:
        """Keep commands in the queue, where they still can be withdrawn: called by the loop."""
        self._paused = True

    def resume_writing(self) -> None:
        """Send what waited: called by the event loop."""
        self._paused = False
        self._flush()

    def _abort_unasked(self, value: Any) -> None:
        # A server that is full says so unasked before it hangs up.
        said = f": {value}" if isinstance(value, StoreError) else ""
        self.abort(f"the store sent a reply that nothing asked for{said}")

    def _set_error(self, reply: Reply[Any], error: StoreError) -> None:
        if not isinstance(error, NotExecuted):
            _ERRORS["error"].add()
        elif error.code == "NOSCRIPT":
            # A forgotten script is sent again; nobody notices.
            call: ScriptCall | None = reply.question
            if call is not None and not call.is_repeated and self.on_forgotten is not None:
                call.is_repeated = True
                self.on_forgotten(reply)
                return
        else:
            _ERRORS["refused"].add()
            if error.code == "READONLY" and not self.on_readonly.done():
                self.on_readonly.set_result(None)
        reply.set_exception(error)

    def _flush(self) -> None:
        self._flush_scheduled = False
        transport = self._transport
        if self._paused or transport is None or transport.is_closing():
            return
        queued = self._queued
        in_flight = self._in_flight
        room = IN_FLIGHT_MAX - len(in_flight)
        now, now_ns = self._loop.time(), meters.now_ns()
        parts: list[bytes] = []
        late: list[Reply[Any]] = []
        while queued and room > 0:
            packed, reply, deadline = queued.popleft()
            if reply.done():
                continue  # its caller went away
            if deadline <= now:
                late.append(reply)
                continue
            parts.append(packed)
            in_flight.append((reply, deadline, now_ns))
            room -= 1
        if parts:
            transport.write(b"".join(parts))
        _fail_not_sent(late, _TOO_LATE)

    def _sweep_no_later_than(self, deadline: float) -> None:
        if self._sweep_timer is not None:
            self._sweep_timer.cancel()
        self._sweep_at = max(deadline, self._loop.time() + _SWEEP_SECONDS_MIN)
        self._sweep_timer = self._loop.call_at(self._sweep_at, self._sweep)

    def _sweep(self) -> None:
        """Fail what is past its deadline; one timer serves all commands of the connection."""
        # A loop's timers may fire up to a tick of its clock early.
        now = self._loop.time() + 0.001
        self._sweep_at = math.inf
        self._sweep_timer = None
        sent = [(reply, due) for reply, due, _ in self._in_flight if not reply.done()]
        unsent = [(reply, due) for _, reply, due in self._queued if not reply.done()]
        missed = [reply for reply, due in sent if due <= now]
        late = [reply for reply, due in unsent if due <= now]
        earliest = min((due for _, due in (*sent, *unsent) if due > now), default=math.inf)
        if earliest < math.inf:
            self._sweep_no_later_than(earliest)
        if missed:
            self._health.missed(len(missed))
        _fail_unknown(missed, "the store did not answer within the deadline")
        _fail_not_sent(late, _TOO_LATE)

    def _close_if_finished(self) -> None:
        if self._transport is not None and not self._in_flight and not self._queued:
            self._transport.close()


# Whoever waits for a reply goes on when it is there, and may send the next command: so these are
# called when the connection's own state is settled.


def _set_answer(reply: Reply[Any], value: Any) -> None:
    """Give a reply the integers of a script with a shortcut."""
    try:
        answer = read_answer(value)
    except InvariantError as error:
        reply.set_exception(error)
    else:
        reply.set_result(answer)


def _fail_not_sent(replies: list[Reply[Any]], reason: str) -> None:
    for reply in replies:
        if not reply.done():
            _NOT_SENT.add()
            reply.set_exception(NotExecuted(reason))


def _fail_unknown(replies: list[Reply[Any]], reason: str) -> None:
    for reply in replies:
        if not reply.done():
            _UNKNOWN.add()
            reply.set_exception(OutcomeUnknown(reason))
