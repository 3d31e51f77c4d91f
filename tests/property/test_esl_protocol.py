"""The event socket under any order of happenings: answers to their commands, events in order.

A connection talks to a switch that is a few lines of model. Commands, events, answers, pieces of
any size, callers that give up, a handler that holds events back, an end at any moment: whatever
hypothesis makes of them, every answer belongs to its command, no event is lost, doubled or out of
order, and whoever still waits at the end is told what is known.
"""

from __future__ import annotations

import asyncio
from collections import deque

from hypothesis import given, settings
from hypothesis import strategies as st

from authz.hooks.freeswitch.command_queue import IN_FLIGHT_MAX
from authz.hooks.freeswitch.connection import EventSocketConnection
from authz.hooks.freeswitch.errors import CommandNotSent, OutcomeUnknown
from authz.hooks.freeswitch.events import Event
from authz.hooks.freeswitch.frames import FrameReader


class Wire(asyncio.Transport):
    """A transport whose other side is a model of the switch."""

    def __init__(self) -> None:
        super().__init__()
        self.unanswered: deque[str] = deque()
        self.sent: list[str] = []
        self.to_client = b""
        self.read_bytes = 0
        #: Where in the stream each event ends.
        self.event_ends: list[int] = []
        self.is_paused = False
        self.is_gone = False
        self._unread = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Take commands."""
        self._unread += bytes(data)
        *lines, self._unread = self._unread.split(b"\n\n")
        for line in lines:
            text = line.decode().removeprefix("api ")
            self.unanswered.append(text)
            self.sent.append(text)

    def answer(self) -> None:
        """Answer the oldest command by repeating it."""
        if self.unanswered:
            body = self.unanswered.popleft().encode()
            self.to_client += b"Content-Type: api/response\nContent-Length: %d\n\n" % len(body)
            self.to_client += body

    def tell(self, number: int) -> None:
        """Send an event."""
        body = b'{"Event-Name":"HEARTBEAT","Event-Sequence":"%d"}' % number
        self.to_client += b"Content-Length: %d\nContent-Type: text/event-json\n\n" % len(body)
        self.to_client += body
        self.event_ends.append(self.read_bytes + len(self.to_client))

    def read(self, size: int) -> bytes:
        """Return the next bytes for the client."""
        piece, self.to_client = self.to_client[:size], self.to_client[size:]
        self.read_bytes += len(piece)
        return piece

    def is_closing(self) -> bool:
        """Whether the end has come."""
        return self.is_gone

    def pause_reading(self) -> None:
        """Keep what comes."""
        self.is_paused = True

    def resume_reading(self) -> None:
        """Give it again."""
        self.is_paused = False

    def abort(self) -> None:
        """Note the end."""
        self.is_gone = True

    def get_extra_info(self, name: str, default: object = None) -> object:
        """Know nothing."""
        return default


#: A number is how many bytes the client reads, and happens with a turn of the loop.
_STEPS = st.lists(
    st.one_of(
        st.sampled_from(["ask", "answer", "tell", "hold", "release", "give up"]),
        st.integers(min_value=1, max_value=400),
    ),
    max_size=100,
)


async def _run(steps: list[str | int]) -> None:
    told: list[int] = []
    wire = Wire()
    connection = EventSocketConnection(on_event=lambda event: told.append(_number(event)))
    connection.connection_made(wire)
    asked: dict[str, asyncio.Task[str]] = {}
    given_up: set[str] = set()
    withdrawn: set[str] = set()

    async def turn() -> None:
        for _ in range(4):
            await asyncio.sleep(0)

    for step in steps:
        if step == "ask":
            line = f"question {len(asked)}"
            asked[line] = asyncio.ensure_future(connection.api(line, 1e9))
            await asyncio.sleep(0)  # it is queued, and not sent
        elif step == "answer":
            wire.answer()
        elif step == "tell":
            wire.tell(len(wire.event_ends))
        elif step == "hold":
            connection.hold_events()
        elif step == "release":
            connection.release_events()
        elif step == "give up" and asked:
            line = list(asked)[-1]
            asked[line].cancel()
            given_up.add(line)
            if line not in wire.sent:
                withdrawn.add(line)
        elif isinstance(step, int):
            await turn()
            if not wire.is_paused:
                connection.data_received(wire.read(step))
        assert told == list(range(len(told)))
        assert connection.in_flight <= IN_FLIGHT_MAX
    await turn()
    delivered = sum(end <= wire.read_bytes for end in wire.event_ends)
    connection.connection_lost(None)
    outcomes = dict(
        zip(asked, await asyncio.gather(*asked.values(), return_exceptions=True), strict=True)
    )
    # All that came is told, also what was held back; nothing else is.
    assert told == list(range(delivered))
    for line, outcome in outcomes.items():
        if isinstance(outcome, str):
            assert outcome == line
        elif isinstance(outcome, CommandNotSent):
            assert line not in wire.sent
        elif isinstance(outcome, OutcomeUnknown):
            assert line in wire.sent
        else:
            assert isinstance(outcome, asyncio.CancelledError)
            assert line in given_up
    assert not withdrawn & set(wire.sent)
    assert wire.sent == [line for line in asked if line in set(wire.sent)]


def _number(event: Event) -> int:
    number = event.integer("Event-Sequence")
    assert number is not None
    return number


@settings(max_examples=300)
@given(_STEPS)
def test_answers_belong_to_commands_and_events_stay_in_order(steps: list[str | int]) -> None:
    asyncio.run(_run(steps))


_FRAMES = st.lists(
    st.tuples(
        st.dictionaries(
            st.from_regex(r"[A-Z][A-Za-z-]{0,8}", fullmatch=True).filter(
                lambda name: name != "Content-Length"
            ),
            st.text(st.characters(blacklist_characters="\n", codec="utf-8"), max_size=20),
            min_size=1,
            max_size=4,
        ),
        st.binary(max_size=60),
    ),
    max_size=8,
)


@given(_FRAMES, st.lists(st.integers(min_value=1, max_value=40), min_size=1, max_size=30))
def test_frames_survive_any_split(
    frames: list[tuple[dict[str, str], bytes]], sizes: list[int]
) -> None:
    data = b"".join(
        "".join(f"{name}: {value}\n" for name, value in headers.items()).encode()
        + b"Content-Length: %d\n\n" % len(body)
        + body
        for headers, body in frames
    )
    reader = FrameReader()
    read = []
    position = turn = 0
    while position < len(data):
        size = sizes[turn % len(sizes)]
        read += reader.feed(data[position : position + size])
        position += size
        turn += 1
    assert reader.failure is None
    assert reader.buffered_bytes == 0
    assert [frame.body for frame in read] == [body for _, body in frames]
    for frame, (headers, body) in zip(read, frames, strict=True):
        assert frame.headers == {**headers, "Content-Length": str(len(body))}


@given(st.binary(max_size=400), st.integers(min_value=1, max_value=50))
def test_no_bytes_are_an_exception(data: bytes, size: int) -> None:
    reader = FrameReader(header_bytes_max=200, body_bytes_max=1_000)
    for start in range(0, len(data), size):
        reader.feed(data[start : start + size])
        assert reader.buffered_bytes <= 1_200 + size
