"""One event-socket connection of a simulated switch, of either direction, on the switch's side."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, cast
from urllib.parse import quote

import msgspec

from freeswitch.templates import Headers

if TYPE_CHECKING:
    from freeswitch.switch_simulator import SwitchSimulator

PLAIN = "text/event-plain"
JSON = "text/event-json"
_GOODBYE = b"Disconnected, goodbye.\nSee you at ClueCon! http://www.cluecon.com/\n"
#: The switch gives a listener up that does not read; its own bound is 100,000 events.
_UNREAD_BYTES_MAX = 256 << 20


class Command(NamedTuple):
    """A command as the switch reads it: its first line, its headers, its body."""

    line: str
    headers: dict[str, str]
    body: str

    @property
    def verb(self) -> str:
        """The first word."""
        return self.line.partition(" ")[0]

    @property
    def rest(self) -> str:
        """What follows the first word."""
        return self.line.partition(" ")[2]

    @property
    def data(self) -> bytes:
        """The bytes that were sent."""
        headers = "".join(f"{name}: {value}\n" for name, value in self.headers.items())
        return f"{self.line}\n{headers}\n{self.body}".encode()


class CommandReader:
    """Cuts commands from a client's bytes; empty lines between them are nudges and mean nothing."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self.nudges = 0

    def feed(self, data: bytes) -> list[Command]:
        """Take the next bytes and return the commands that they complete."""
        self._buffer += data
        commands = []
        while True:
            while self._buffer.startswith(b"\n"):
                del self._buffer[:1]
                self.nudges += 1
            end = self._buffer.find(b"\n\n")
            if end < 0:
                return commands
            line, *rest = self._buffer[:end].decode().split("\n")
            headers = dict(header.split(": ", 1) for header in rest)
            after = end + 2 + int(headers.get("Content-Length", 0))
            if len(self._buffer) < after:
                return commands
            commands.append(Command(line, headers, self._buffer[end + 2 : after].decode()))
            del self._buffer[:after]


class SocketSession(asyncio.Protocol):
    """A connection; `switch` runs what it is told and tells it of events."""

    def __init__(self, switch: SwitchSimulator) -> None:
        self.switch = switch
        self.events: set[str] = set()
        self.event_type = PLAIN
        self.is_welcome = False
        self._reader = CommandReader()
        self._unread = b""
        self._transport: asyncio.Transport | None = None
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        #: Every command that came, for tests to look at.
        self.commands: list[Command] = []

    @property
    def nudges(self) -> int:
        """How many empty lines came."""
        return self._reader.nudges

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet, or send away: called by the event loop."""
        self._transport = cast("asyncio.Transport", transport)
        if self.switch.is_refusing:
            self.write_frame("text/rude-rejection", b"Access Denied, go away.\n")
            self.close()
            return
        self.switch.sessions.add(self)
        self.write(b"Content-Type: auth/request\n\n")

    def data_received(self, data: bytes) -> None:
        """Run what came: called by the event loop."""
        self._unread += data
        if not self.switch.is_silent:
            self.listen()

    def listen(self) -> None:
        """Run what came while the switch was silent."""
        data, self._unread = self._unread, b""
        for command in self._reader.feed(data):
            self.commands.append(command)
            self.run(command)

    def connection_lost(self, error: Exception | None) -> None:
        """Forget the connection: called by the event loop."""
        self.switch.sessions.discard(self)
        self._transport = None
        if not self.gone.done():
            self.gone.set_result(None)

    # What the switch says.

    def write(self, data: bytes) -> None:
        """Send bytes, unless the connection is gone or nobody reads it."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if transport.get_write_buffer_size() > _UNREAD_BYTES_MAX:
            transport.abort()
            return
        transport.write(data)

    def write_frame(self, kind: str, body: bytes) -> None:
        """Send a frame with a body."""
        self.write(f"Content-Type: {kind}\nContent-Length: {len(body)}\n\n".encode() + body)

    def reply(self, text: str, **headers: str) -> None:
        """Answer a command."""
        lines = [f"{name.replace('_', '-')}: {value}\n" for name, value in headers.items()]
        self.write(f"Content-Type: command/reply\nReply-Text: {text}\n{''.join(lines)}\n".encode())

    def send_event(self, headers: Headers, body: str = "") -> None:
        """Send an event in the format that was asked for."""
        data = json_of(headers, body) if self.event_type == JSON else plain_of(headers, body)
        # Before the type, unlike in every other frame.
        head = f"Content-Length: {len(data)}\nContent-Type: {self.event_type}\n\n"
        self.write(head.encode() + data)

    def wants(self, name: str) -> bool:
        """Whether the client asked for an event."""
        return name in self.events or "ALL" in self.events

    def say_goodbye(self) -> None:
        """Send the notice and close."""
        self.write_frame("text/disconnect-notice", _GOODBYE)
        self.close()

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Lose the connection, as when the process dies."""
        if self._transport is not None:
            self._transport.abort()

    # What the client says.

    def run(self, command: Command) -> None:
        """Run a command of an inbound connection."""
        if command.verb == "auth":
            self._authenticate(command.rest)
        elif not self.is_welcome:
            self.reply("-ERR command not found")
        else:
            self.run_welcome(command)

    def run_welcome(self, command: Command) -> None:
        """Run a command of a client that is logged in."""
        runners: dict[str, Callable[[Command], None]] = {
            "api": self._api,
            "bgapi": self._background_api,
            "event": self._subscribe,
            "nixevent": self._unsubscribe,
            "noevents": self._forget_events,
            "sendmsg": self._send_message,
            "exit": self._exit,
            "linger": lambda _: self.reply("-ERR not controlling a session"),
        }
        run = runners.get(command.verb)
        if run is None:
            self.reply("-ERR command not found")
        else:
            run(command)

    def _authenticate(self, password: str) -> None:
        if password == self.switch.password:
            self.is_welcome = True
            self.reply("+OK accepted")
        else:
            self.reply("-ERR invalid")
            self.say_goodbye()

    def _api(self, command: Command) -> None:
        self.write_frame("api/response", self.switch.api.run(command.rest).encode())

    def _background_api(self, command: Command) -> None:
        job_uuid = command.headers.get("Job-UUID") or self.switch.new_uuid()
        self.reply(f"+OK Job-UUID: {job_uuid}", Job_UUID=job_uuid)
        self.switch.run_job(job_uuid, command.rest)

    def _subscribe(self, command: Command) -> None:
        kind, *words = command.rest.split()
        names = set()
        while words and (word := words.pop(0)) != "CUSTOM":
            names.add(word)
        if not (names & EVENT_NAMES or words or command.rest.endswith("CUSTOM")):
            self.reply("-ERR no keywords supplied")
            return
        self.events |= names
        self.event_type = JSON if kind == "json" else PLAIN
        self.reply(f"+OK event listener enabled {kind}")

    def _unsubscribe(self, command: Command) -> None:
        self.events -= set(command.rest.split())
        self.reply("+OK events nixed")

    def _forget_events(self, command: Command) -> None:
        self.events.clear()
        self.reply("+OK no longer listening for events")

    def _send_message(self, command: Command) -> None:
        leg = self.switch.legs.get(command.rest)
        if leg is None or not leg.is_up:
            self.reply(f"-ERR invalid session id [{command.rest}]")
            return
        self.reply("+OK")
        self.switch.take_message(leg, command)

    def _exit(self, command: Command) -> None:
        self.reply("+OK bye")
        self.say_goodbye()


#: Events that this switch knows; `ALL` stands for all of them.
EVENT_NAMES = {
    "ALL", "CUSTOM", "HEARTBEAT", "SESSION_HEARTBEAT", "BACKGROUND_JOB", "SHUTDOWN", "STARTUP",
    "CHANNEL_CREATE", "CHANNEL_PARK", "CHANNEL_UNPARK", "CHANNEL_ANSWER", "CHANNEL_BRIDGE",
    "CHANNEL_UNBRIDGE", "CHANNEL_HANGUP", "CHANNEL_HANGUP_COMPLETE", "CHANNEL_PROGRESS",
    "CHANNEL_PROGRESS_MEDIA", "CHANNEL_ORIGINATE", "CHANNEL_OUTGOING", "CHANNEL_DESTROY",
    "CHANNEL_EXECUTE", "CHANNEL_EXECUTE_COMPLETE", "CHANNEL_UUID", "CHANNEL_STATE", "CALL_UPDATE",
    "ADD_SCHEDULE", "DEL_SCHEDULE", "EXE_SCHEDULE", "RE_SCHEDULE", "MODULE_UNLOAD",
}  # fmt: skip


def json_of(headers: Headers, body: str = "") -> bytes:
    """Return an event in JSON as the switch writes it: a hang-up's cause twice."""
    if body:
        headers = {**headers, "Content-Length": str(len(body.encode())), "_body": body}
    data = msgspec.json.encode(headers)
    if headers["Event-Name"] == "CHANNEL_HANGUP_COMPLETE":
        cause = b'"Hangup-Cause":' + json.dumps(headers["Hangup-Cause"]).encode() + b","
        data = data.replace(b'"Channel-State":', cause + b'"Channel-State":', 1)
    return data


def plain_of(headers: Headers, body: str = "") -> bytes:
    """Return an event as encoded lines: a `%` that begins an escape already is left as it is."""
    lines = []
    for name, value in headers.items():
        text = value if isinstance(value, str) else "ARRAY::" + "|:".join(value)
        lines.append(f"{name}: {encoded(text)}\n")
    if body:
        lines.append(f"Content-Length: {len(body.encode())}\n")
    return "".join([*lines, "\n", body]).encode()


def encoded(text: str) -> str:
    """Return a value as the plain format has it; what looks like an escape stays, and is lost."""
    return _LOOSE_PERCENT.sub("%25", quote(text, safe="/,'()!*~._-=%"))


_LOOSE_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
