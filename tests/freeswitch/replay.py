"""Replays what a real FreeSWITCH said, to a client that must say what was said to it.

Strict in order, blind to time. A recorded command is a gate: what the switch said after it is not
said before the client has said as much. A `Script` decides what that means:

- `exactly`: each command must equal the recorded one, byte for byte;
- `freely`: the client may leave out what a rule calls optional (its answer is left out too), may
  word what a rule calls alike in its own way, and may ask for more, which `answer` answers.

Either way the log of what did not fit is `failures`, and what the client said beyond the recording
is `extra`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from freeswitch.socket_session import Command, CommandReader
from freeswitch.transcripts import Transcript

_LENGTH = b"Content-Length: "
_SAME_HEADERS = ("call-command", "execute-app-name")
_ANSWER_TYPES = (b"command/reply", b"api/response")


@dataclass
class Script:
    """What a client is free to do. Commands are (recorded, said by the client)."""

    is_alike: Callable[[Command, Command], bool]
    is_optional: Callable[[Command], bool]
    #: Answers a command that was not recorded, or returns None where none is allowed.
    answer: Callable[[Command], bytes | None]


def exactly() -> Script:
    """Allow nothing but what was recorded."""
    return Script(lambda recorded, said: recorded == said, lambda _: False, lambda _: None)


def freely(
    *, gates: tuple[str, ...], answer: Callable[[Command], bytes | None] | None = None
) -> Script:
    """Hold the client only to recorded commands that begin with one of `gates`.

    `api uuid_transfer` for one. A command fits its gate when it begins with the same of them,
    concerns the same uuid, and runs the same application.
    """

    def gate_of(command: Command) -> str:
        return next((gate for gate in gates if command.line.startswith(gate)), "")

    def is_alike(recorded: Command, said: Command) -> bool:
        gate = gate_of(recorded)
        uuids = [word for word in recorded.line.split() if _looks_like_uuid(word)]
        return (
            said.line.startswith(gate)
            and all(uuid in said.line for uuid in uuids)
            and all(said.headers.get(name) == recorded.headers.get(name) for name in _SAME_HEADERS)
        )

    return Script(is_alike, lambda recorded: not gate_of(recorded), answer or usual_answer)


def usual_answer(command: Command) -> bytes:
    """Answer as the switch does when a command is fine and has nothing to tell."""
    if command.verb == "api":
        body = _USUAL.get(command.rest.partition(" ")[0], b"+OK\n")
        return b"Content-Type: api/response\nContent-Length: %d\n\n" % len(body) + body
    if command.verb == "event":
        return b"Content-Type: command/reply\nReply-Text: +OK event listener enabled json\n\n"
    return b"Content-Type: command/reply\nReply-Text: +OK\n\n"


_USUAL = {
    "global_getvar": b"6f17262d-7ae0-4762-adba-9ca338ae7170",
    "show": b'{"row_count": 0}\n',
    "uuid_exists": b"true",
    "uuid_getvar": b"_undef_",
    "strepoch": b"1795350563",
    "uuid_dump": b"-ERR No such channel!\n",
    "sched_api": b"+OK Added: 7\n",
    "sched_del": b"+OK Deleted: 1\n",
    "sched_broadcast": b"+OK Message scheduled\n",
    "uuid_broadcast": b"+OK Message sent\n",
}


@dataclass
class Say:
    """The switch says a frame; `is_answer` to the recorded command of the same number."""

    data: bytes
    is_answer: bool
    number: int


@dataclass
class Hear:
    """The client says a command, the one of this number."""

    command: Command
    number: int


def steps_of(transcript: Transcript, channel: str) -> list[Say | Hear]:
    """Return what happens on a channel, frame by frame; answers belong to commands by order."""
    steps: list[Say | Hear] = []
    unsaid = b""
    commands = CommandReader()
    heard = answered = 0
    for chunk in transcript.chunks:
        if chunk.channel != channel:
            continue
        if not chunk.from_switch:
            for command in commands.feed(chunk.data):
                steps.append(Hear(command, heard))
                heard += 1
            continue
        unsaid += chunk.data
        while frame := _first_frame(unsaid):
            unsaid = unsaid[len(frame) :]
            is_answer = any(kind in frame.partition(b"\n\n")[0] for kind in _ANSWER_TYPES)
            steps.append(Say(frame, is_answer, answered if is_answer else -1))
            answered += is_answer
    if unsaid:
        raise ValueError(f"{transcript.name}: {channel} ends within a frame")
    return steps


class Replay(asyncio.Protocol):
    """The switch's side of one channel of a transcript, on a real connection.

    `finished` is done when the last recorded step is, or when the connection is lost.
    """

    def __init__(self, transcript: Transcript, channel: str, script: Script) -> None:
        self._script = script
        self._steps = deque(steps_of(transcript, channel))
        self._closes = transcript.was_closed_by_switch(channel)
        self._reader = CommandReader()
        self._unread: deque[Command] = deque()
        self._left_out: set[int] = set()
        self._owed = 0
        self._late_answers: list[bytes] = []
        self._transport: asyncio.Transport | None = None
        self.finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.failures: list[str] = []
        self.extra: list[Command] = []
        self.matched: list[Command] = []
        #: What the switch said so far.
        self.told: list[Say] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin: called by the event loop."""
        self._transport = cast("asyncio.Transport", transport)
        self._go_on()

    def data_received(self, data: bytes) -> None:
        """Listen to the client: called by the event loop."""
        self._unread.extend(self._reader.feed(data))
        self._go_on()

    def connection_lost(self, error: Exception | None) -> None:
        """Note what was left: called by the event loop."""
        self._transport = None
        while self._steps and isinstance(self._steps[0], Hear):
            # A client may close without a word instead of saying exit.
            step = self._steps[0]
            is_free = step.command.line == "exit" or self._script.is_optional(step.command)
            if not is_free:
                break
            self._left_out.add(step.number)
            self._steps.popleft()
            while self._steps and isinstance(self._steps[0], Say):
                self._steps.popleft()
        if self._steps:
            self.failures.append(f"the client left {len(self._steps)} steps before the end")
        self._finish()

    def _go_on(self) -> None:
        """Take steps until one needs a command that has not come."""
        while self._steps:
            step = self._steps[0]
            if isinstance(step, Say):
                self._steps.popleft()
                self._say(step)
            elif self._script.is_optional(step.command):
                self._left_out.add(step.number)
                self._steps.popleft()
            elif not self._hear(step):
                return
        while self._unread:
            self._answer_extra(self._unread.popleft())
        if self._closes and self._transport is not None:
            self._transport.close()
        self._finish()

    def _say(self, step: Say) -> None:
        if step.is_answer and step.number in self._left_out:
            return
        self.told.append(step)
        self._write(step.data)
        if step.is_answer:
            self._owed -= 1
            if self._owed == 0:
                self._write(b"".join(self._late_answers))
                self._late_answers.clear()

    def _hear(self, step: Hear) -> bool:
        """Take commands until one fits; say whether it came."""
        while self._unread:
            said = self._unread.popleft()
            if self._script.is_alike(step.command, said):
                self.matched.append(said)
                self._owed += 1
                self._steps.popleft()
                return True
            if not self._answer_extra(said):
                self.failures.append(f"said {said!r} instead of {step.command!r}")
                self._steps.clear()
                self._finish()
                return False
        return False

    def _answer_extra(self, said: Command) -> bool:
        self.extra.append(said)
        answer = self._script.answer(said)
        if answer is None:
            return False
        if self._owed:
            # Answers go by order: what is owed for a recorded command comes first.
            self._late_answers.append(answer)
        else:
            self._write(answer)
        return True

    def _write(self, data: bytes) -> None:
        if data and self._transport is not None:
            self._transport.write(data)

    def _finish(self) -> None:
        if not self.finished.done():
            self.finished.set_result(None)


class ReplayServer:
    """Listens as the switch does, and replays a transcript's channels, one for each connection."""

    def __init__(self, transcript: Transcript, script: Script, channels: list[str]) -> None:
        self._transcript = transcript
        self._script = script
        self._channels = deque(channels)
        self._server: asyncio.Server | None = None
        self.port = 0
        #: The connections so far.
        self.replays: list[Replay] = []

    async def __aenter__(self) -> ReplayServer:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()

    @property
    def failures(self) -> list[str]:
        """What did not fit, on any connection, and channels that nobody connected to."""
        unused = [f"nobody connected to {channel}" for channel in self._channels]
        return [one for replay in self.replays for one in replay.failures] + unused

    def _accept(self) -> asyncio.Protocol:
        if not self._channels:
            return _Refused()
        replay = Replay(self._transcript, self._channels.popleft(), self._script)
        self.replays.append(replay)
        return replay


class _Refused(asyncio.Protocol):
    """Closes a connection that the transcript does not have."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Close: called by the event loop."""
        cast("asyncio.Transport", transport).close()


async def replay_to(
    transcript: Transcript, script: Script, host: str, port: int, channel: str = "osock"
) -> Replay:
    """Connect to an outbound-socket server as the switch did, and replay its side to the end."""
    loop = asyncio.get_running_loop()
    _, replay = await loop.create_connection(
        lambda: Replay(transcript, channel, script), host, port
    )
    await replay.finished
    return replay


def _first_frame(data: bytes) -> bytes:
    """Return the first complete frame, read in another way than the client does."""
    head, separator, rest = data.partition(b"\n\n")
    if not separator:
        return b""
    length = 0
    for line in head.split(b"\n"):
        if line.startswith(_LENGTH):
            length = int(line[len(_LENGTH) :])
    return head + separator + rest[:length] if len(rest) >= length else b""


def _looks_like_uuid(word: str) -> bool:
    return len(word) == 36 and word.count("-") == 4
