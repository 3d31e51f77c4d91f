"""One connection to FreeSWITCH's event socket: commands out, answers back by order, events up.

Answers carry no name, so that they belong to commands by order alone: a command whose deadline
passes keeps its place, and its answer, should it still come, is dropped. All commands of a turn of
the loop leave in one write. Everything that can pile up is bounded: commands in flight, commands
that wait, and events that nobody takes, for which the connection stops reading.
"""

from __future__ import annotations

import asyncio
import math
import uuid
from collections import deque
from collections.abc import Callable
from typing import Final, cast

from authz import log
from authz.errors import ProtocolError
from authz.hooks.freeswitch import commands, frames
from authz.hooks.freeswitch.command_queue import CommandQueue, fail_future
from authz.hooks.freeswitch.errors import (
    CommandFailed,
    CommandNotSent,
    OutcomeUnknown,
    SwitchRefused,
    SwitchUnreachable,
)
from authz.hooks.freeswitch.events import Event, event_of_frame
from authz.hooks.freeswitch.frames import Frame, FrameReader

#: Background jobs whose end is awaited.
JOBS_MAX: Final = 1_024
#: Events held back; from there on nothing is read, not even answers.
HELD_BYTES_MAX: Final = 32 << 20
COMMAND_TIMEOUT_SECONDS: Final = 5.0

#: How long a switch that said goodbye has to close the connection itself.
_GOODBYE_SECONDS: Final = 1.0
_EVENT_TYPES: Final = frozenset({frames.EVENT_JSON, frames.EVENT_PLAIN})
_ANSWER_TYPES: Final = frozenset({frames.COMMAND_REPLY, frames.API_RESPONSE})
_FAILURES: Final = ("-ERR", "-USAGE")
_SHOWN_CHARACTERS: Final = 60

OnEvent = Callable[[Event], None]


class Traffic:
    """What went over a connection, for whoever publishes metrics; may outlive it."""

    __slots__ = ("bad_events", "commands", "events", "received_bytes", "timeouts")

    def __init__(self) -> None:
        self.received_bytes = 0
        self.events = 0
        self.bad_events = 0
        self.commands = 0
        self.timeouts = 0


class EventSocketConnection(asyncio.Protocol):
    """A connection in either direction; see `connect` for the inbound kind.

    `on_event` is called for every event, in order, and must not block. Not safe across threads.
    """

    def __init__(
        self,
        *,
        on_event: OnEvent | None = None,
        traffic: Traffic | None = None,
        command_timeout_seconds: float = COMMAND_TIMEOUT_SECONDS,
        nudge_seconds: float = 0,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self.on_event = on_event
        self.traffic = traffic or Traffic()
        self._lost: asyncio.Future[str] = self._loop.create_future()
        #: When the last byte came, in the loop's time.
        self.heard_at = self._loop.time()
        self._timeout_seconds = command_timeout_seconds
        self._nudge_seconds = nudge_seconds
        self._nudge_timer: asyncio.TimerHandle | None = None
        self._sent_at = self.heard_at
        self._reader = FrameReader()
        self._transport: asyncio.Transport | None = None
        self._greeting: asyncio.Future[Frame] = self._loop.create_future()
        self._refusal: str | None = None
        self._commands = CommandQueue(self._loop)
        self._flush_scheduled = False
        self._writing_paused = False
        self._jobs: dict[str, asyncio.Future[Event]] = {}
        self._holding = False
        self._held: deque[Frame] = deque()
        self._held_bytes = 0
        self._reading_paused = False

    @classmethod
    async def connect(
        cls,
        host: str,
        port: int,
        password: str,
        *,
        timeout_seconds: float = COMMAND_TIMEOUT_SECONDS,
        on_event: OnEvent | None = None,
        traffic: Traffic | None = None,
        command_timeout_seconds: float = COMMAND_TIMEOUT_SECONDS,
        nudge_seconds: float = 0,
    ) -> EventSocketConnection:
        """Connect to a switch and log in, all within `timeout_seconds`.

        `nudge_seconds` (0: never) wakes an idle switch's listener that often, which otherwise
        looks for events every 20 ms. Raises SwitchRefused for a wrong password or an address
        that is not allowed, SwitchUnreachable for everything else.
        """
        login = commands.auth(password)
        made: list[EventSocketConnection] = []

        def make() -> EventSocketConnection:
            made.append(
                cls(
                    on_event=on_event,
                    traffic=traffic,
                    command_timeout_seconds=command_timeout_seconds,
                    nudge_seconds=nudge_seconds,
                )
            )
            return made[-1]

        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(timeout_seconds):
                _, connection = await loop.create_connection(make, host, port)
                await connection._log_in(login)
        except BaseException as error:
            for connection in made:
                connection.abort("the login failed")
            if isinstance(error, TimeoutError):
                reason = f"no login within {timeout_seconds:g} s"
                raise SwitchUnreachable(f"{host}:{port}: {reason}") from None
            # A UnicodeError is a host that no name can be.
            if isinstance(error, OSError | UnicodeError | OutcomeUnknown | CommandNotSent):
                raise SwitchUnreachable(f"{host}:{port}: {_words(error)}") from error
            raise
        return connection

    # What a caller may ask.

    @property
    def in_flight(self) -> int:
        """How many commands are sent and not answered, those given up included."""
        return self._commands.in_flight

    @property
    def queued(self) -> int:
        """How many commands wait to be sent."""
        return self._commands.queued

    @property
    def lost(self) -> asyncio.Future[str]:
        """Done, with the reason, once the connection is gone; each who asks may cancel theirs."""
        return asyncio.shield(self._lost)

    @property
    def is_open(self) -> bool:
        """Whether commands are taken."""
        return self._refusal is None

    @property
    def is_paused(self) -> bool:
        """Whether nothing is read because events are held back."""
        return self._reading_paused

    @property
    def peer(self) -> str:
        """The other side's address; empty once the connection is gone."""
        name = self._transport.get_extra_info("peername") if self._transport else None
        return str(name[0]) if name else ""

    async def request(self, data: bytes, timeout_seconds: float | None = None) -> Frame:
        """Send a command's bytes and return the frame that answers it, be it a refusal or not.

        Without `timeout_seconds` the connection's own holds; `math.inf` is none. Raises
        CommandNotSent if it certainly had no effect, OutcomeUnknown if it may have had one.
        """
        if self._refusal is not None:
            raise CommandNotSent(self._refusal)
        command = self._commands.add(data)
        self._flush_soon()
        try:
            async with self._deadline(timeout_seconds):
                return await command.answer
        except TimeoutError:
            self.traffic.timeouts += 1
            if command.is_sent:
                raise OutcomeUnknown("the switch did not answer within the deadline") from None
            raise CommandNotSent("the deadline passed before the command was sent") from None

    async def command(self, data: bytes, timeout_seconds: float | None = None) -> str:
        """Send a command and return its reply text. Raises CommandFailed if it is a refusal."""
        reply = (await self.request(data, timeout_seconds)).reply_text
        return _checked(_first_line(data), reply)

    async def api(self, line: str, timeout_seconds: float | None = None) -> str:
        """Run an api command (see `commands`) and return its answer without the last line end.

        Raises CommandFailed where that begins with -ERR or -USAGE. The switch runs nothing else
        of this connection meanwhile: what may take long goes by `background_api`.
        """
        frame = await self.request(commands.api(line), timeout_seconds)
        # An outbound socket without full control knows no api, and says so as to any command.
        is_answer = frame.content_type == frames.API_RESPONSE
        return _checked(line, frame.text.removesuffix("\n") if is_answer else frame.reply_text)

    async def background_api(self, line: str, timeout_seconds: float | None = None) -> str:
        """Run an api command in a thread of the switch, and return its answer as `api` does.

        The connection must have asked for BACKGROUND_JOB; events of others' jobs go to `on_event`.
        """
        if len(self._jobs) >= JOBS_MAX:
            raise CommandNotSent(f"{JOBS_MAX} background jobs are already awaited")
        job_uuid = str(uuid.uuid4())
        job = self._jobs[job_uuid] = self._loop.create_future()
        try:
            async with self._deadline(timeout_seconds):
                await self.command(commands.background_api(line, job_uuid), math.inf)
                event = await job
        except TimeoutError:
            self.traffic.timeouts += 1
            raise OutcomeUnknown("the background job did not end within the deadline") from None
        finally:
            del self._jobs[job_uuid]
            job.cancel()
        return _checked(line, event.body.removesuffix("\n"))

    async def execute(
        self,
        application: str,
        argument: str = "",
        *,
        uuid: str = "",
        event_lock: bool = False,
        timeout_seconds: float | None = None,
    ) -> str:
        """Run a dialplan application on a leg; see `commands.execute` for what +OK is worth.

        On a synchronous outbound socket the answer comes only when the application has ended.
        """
        data = commands.execute(application, argument, uuid=uuid, event_lock=event_lock)
        return await self.command(data, timeout_seconds)

    async def hang_up(self, cause: str, *, uuid: str = "") -> str:
        """Hang up a leg by a message, which waits behind a locked application."""
        return await self.command(commands.hang_up(cause, uuid=uuid))

    async def subscribe(self, *names: str, subclasses: tuple[str, ...] = ()) -> None:
        """Ask for events, in JSON."""
        await self.command(commands.subscribe(names, subclasses))

    def hold_events(self) -> None:
        """Keep further events back, in order, until `release_events`.

        Nothing is read meanwhile, unless answers are awaited; then events pile up to a bound, at
        which reading stops too and answers miss their deadlines.
        """
        self._holding = True
        self._pace_reading()

    def release_events(self) -> None:
        """Hand over what was held back, and go on."""
        self._holding = False
        while self._held and not self._holding:
            frame = self._held.popleft()
            self._held_bytes -= len(frame.body)
            self._deliver(frame)
        self._pace_reading()

    def close(self, reason: str = "closed by us") -> None:
        """Take no further command and close after those already sent to the transport."""
        self._refuse(reason)
        if self._transport is not None:
            self._transport.close()

    def abort(self, reason: str) -> None:
        """Close at once; what is in flight has an unknown outcome."""
        self._refuse(reason)
        if self._transport is not None:
            self._transport.abort()

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start: called by the event loop."""
        # uvloop's transports are no subclasses of asyncio's, so nothing can be checked here.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Hand each complete frame to where it belongs: called by the event loop."""
        self.heard_at = self._loop.time()
        self.traffic.received_bytes += len(data)
        try:
            for frame in self._reader.feed(data):
                self._take(frame)
            if self._reader.failure is not None:
                raise self._reader.failure
        except ProtocolError as error:
            self.abort(f"the switch does not speak its protocol: {error}")
            return
        if self._commands.queued:
            self._flush_soon()
        if self._holding:
            self._pace_reading()

    def eof_received(self) -> None:
        """Let the transport close itself: called by the event loop."""

    def connection_lost(self, error: Exception | None) -> None:
        """Give every open command its outcome: called by the event loop."""
        self._refuse(f"the connection is lost: {_words(error)}" if error else "the switch hung up")
        self._transport = None
        if self._nudge_timer is not None:
            self._nudge_timer.cancel()
        reason = self._refusal or ""
        self._commands.fail(reason)
        for job in self._jobs.values():
            fail_future(job, OutcomeUnknown(reason))
        fail_future(self._greeting, SwitchUnreachable(reason))
        # What came before the end still counts: a hang-up among it is a call to settle.
        self._holding = False
        while self._held:
            self._deliver(self._held.popleft())
        if not self._lost.done():
            self._lost.set_result(reason)

    def pause_writing(self) -> None:
        """Keep commands in the queue, where they can still be withdrawn: called by the loop."""
        self._writing_paused = True

    def resume_writing(self) -> None:
        """Send what waited: called by the event loop."""
        self._writing_paused = False
        self._flush()

    # Inside.

    def _deadline(self, timeout_seconds: float | None) -> asyncio.Timeout:
        seconds = self._timeout_seconds if timeout_seconds is None else timeout_seconds
        return asyncio.timeout(None if math.isinf(seconds) else seconds)

    async def _log_in(self, login: bytes) -> None:
        greeting = await self._greeting
        if greeting.content_type == frames.RUDE_REJECTION:
            raise SwitchRefused(greeting.text.strip() or "the switch's access list refuses us")
        reply = (await self.request(login, math.inf)).reply_text
        if not reply.startswith("+OK"):
            raise SwitchRefused(f"the switch does not take the password: {reply}")
        if self._nudge_seconds > 0:
            self._nudge_timer = self._loop.call_later(self._nudge_seconds, self._nudge)

    def _take(self, frame: Frame) -> None:
        kind = frame.content_type
        if kind in _EVENT_TYPES:
            if self._holding and not self._is_awaited_job(frame):
                self._held.append(frame)
                self._held_bytes += len(frame.body)
            else:
                self._deliver(frame)
        elif kind in _ANSWER_TYPES:
            self._commands.take_answer(frame)
        elif kind in (frames.AUTH_REQUEST, frames.RUDE_REJECTION):
            if not self._greeting.done():
                self._greeting.set_result(frame)
        elif kind == frames.DISCONNECT_NOTICE:
            # With linger the events of the hang-up are still to come.
            if frame.headers.get("Content-Disposition") != "linger":
                self._refuse("the switch said goodbye")
                self._loop.call_later(_GOODBYE_SECONDS, self.abort, "the switch said goodbye")
        elif kind != frames.LOG_DATA:
            raise ProtocolError(f"a frame of the type {kind[:_SHOWN_CHARACTERS]!r}")

    def _is_awaited_job(self, frame: Frame) -> bool:
        return bool(self._jobs) and b"BACKGROUND_JOB" in frame.body[:64]

    def _deliver(self, frame: Frame) -> None:
        self.traffic.events += 1
        try:
            event = event_of_frame(frame)
        except ProtocolError as error:
            # Its end is known, so that the other calls' events need not suffer.
            self.traffic.bad_events += 1
            log.event("switch_event_unreadable", level="error", peer=self.peer, error=error)
            return
        if event.name == "BACKGROUND_JOB":
            job = self._jobs.get(event.get("Job-UUID"))
            if job is not None:
                if not job.done():
                    job.set_result(event)
                return
        if self.on_event is None:
            return
        try:
            self.on_event(event)
        except Exception as error:
            log.event("switch_event_failed", level="error", name_of_event=event.name, error=error)

    def _flush_soon(self) -> None:
        if not self._flush_scheduled:
            self._flush_scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_scheduled = False
        transport = self._transport
        if self._writing_paused or transport is None or transport.is_closing():
            return
        parts = self._commands.take_sendable()
        if parts:
            self.traffic.commands += len(parts)
            self._sent_at = self._loop.time()
            transport.write(b"".join(parts))
            if self._holding:
                self._pace_reading()

    def _pace_reading(self) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        awaits_answers = bool(self.in_flight or self.queued or self._jobs)
        pause = self._holding and (not awaits_answers or self._held_bytes >= HELD_BYTES_MAX)
        if pause and not self._reading_paused:
            transport.pause_reading()
        elif self._reading_paused and not pause:
            transport.resume_reading()
        self._reading_paused = pause

    def _nudge(self) -> None:
        now = self._loop.time()
        is_idle = now - self._sent_at >= self._nudge_seconds and not self.in_flight
        transport = self._transport
        if is_idle and transport is not None and not self._writing_paused:
            transport.write(commands.NUDGE)
        self._nudge_timer = self._loop.call_at(now + self._nudge_seconds, self._nudge)

    def _refuse(self, reason: str) -> None:
        if self._refusal is None:
            self._refusal = reason


def _checked(command: str, reply: str) -> str:
    if reply.startswith(_FAILURES):
        raise CommandFailed(command[:_SHOWN_CHARACTERS], reply)
    return reply


def _first_line(data: bytes) -> str:
    return data.partition(b"\n")[0].decode("utf-8", "replace")


def _words(error: BaseException) -> str:
    return str(error) or type(error).__name__
