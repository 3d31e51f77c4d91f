"""The event socket's wire at its worst: cut, split, slow, silent, flooded, lying."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from freeswitch import transcripts
from freeswitch.replay import Say, steps_of
from freeswitch.switch_simulator import SwitchSimulator
from helpers import until

from authz.errors import AuthzError
from authz.hooks.freeswitch import connection as connection_module
from authz.hooks.freeswitch.command_queue import IN_FLIGHT_MAX, QUEUED_MAX
from authz.hooks.freeswitch.connection import EventSocketConnection
from authz.hooks.freeswitch.errors import (
    CommandFailed,
    OutcomeUnknown,
    SwitchError,
    SwitchRefused,
    SwitchUnreachable,
)
from authz.hooks.freeswitch.events import Event
from authz.hooks.freeswitch.link import LinkOptions, LinkState, SwitchLink

EVERY_LOOP = True

_GREETING = b"Content-Type: auth/request\n\n"
_ACCEPTED = b"Content-Type: command/reply\nReply-Text: +OK accepted\n\n"
_ANSWER = b"Content-Type: api/response\nContent-Length: 5\n\nhello"

Speech = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def _speaker(speech: Speech) -> AsyncIterator[int]:
    """Serve a speech on each connection, and yield the port."""
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                await speech(reader, writer)
        finally:
            writer.transport.abort()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()
    for task in tuple(tasks):
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _connect(port: int, **more: Any) -> EventSocketConnection:
    return await EventSocketConnection.connect("127.0.0.1", port, "ClueCon", **more)


async def test_a_connection_cut_after_every_byte_of_a_login() -> None:
    left = list(range(len(_GREETING + _ACCEPTED + _ANSWER)))
    outcomes: list[str] = []

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        rest = left.pop(0)
        for part in (_GREETING, _ACCEPTED, _ANSWER):
            writer.write(part[:rest])
            rest -= min(rest, len(part))
            await writer.drain()
            if not rest:
                return
            await reader.readuntil(b"\n\n")

    async with _speaker(speak) as port:
        while left:
            try:
                connection = await _connect(port)
                await connection.api("eval x")
            except (SwitchUnreachable, OutcomeUnknown, SwitchError) as error:
                outcomes.append(type(error).__name__)
            else:
                raise AssertionError("an answer that was cut")
    assert outcomes[: len(_GREETING + _ACCEPTED)].count("SwitchUnreachable") >= len(_GREETING)
    assert set(outcomes) <= {"SwitchUnreachable", "OutcomeUnknown", "CommandNotSent"}


@pytest.mark.parametrize("says", [b"", _GREETING])
async def test_a_peer_that_falls_silent_is_not_waited_for(says: bytes) -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(says)
        await reader.read()

    async with _speaker(speak) as port:
        with pytest.raises(SwitchUnreachable, match=r"no login within 0\.05 s"):
            await _connect(port, timeout_seconds=0.05)


@pytest.mark.parametrize(
    ("says", "error"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n\n\n", SwitchUnreachable),
        (b"SSH-2.0-OpenSSH_9.2p1\r\n" * 10 + b"\n\n", SwitchUnreachable),
        (b"Content-Type: auth/request\nContent-Length: 99999999999\n\n", SwitchUnreachable),
        (b"Content-Type: auth/request\nContent-Length: -1\n\n", SwitchUnreachable),
        (b"Content-Type: nobody/knows\n\n", SwitchUnreachable),
        (b"Content-Type: command/reply\nReply-Text: +OK accepted\n\n", SwitchUnreachable),
        (b"X: " + b"y" * (2 << 20), SwitchUnreachable),
        (b"Content-Type: text/rude-rejection\nContent-Length: 4\n\nAway", SwitchRefused),
        (
            _GREETING + b"Content-Type: command/reply\nReply-Text: -ERR invalid\n\n",
            SwitchUnreachable,
        ),
    ],
)
async def test_a_peer_that_is_no_switch(says: bytes, error: type[SwitchError]) -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(says)
        await reader.read()

    async with _speaker(speak) as port:
        with pytest.raises(error):
            await _connect(port)


async def test_answers_that_nobody_asked_for_end_the_connection() -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(_GREETING)
        await reader.readuntil(b"\n\n")
        writer.write(_ACCEPTED)
        await reader.readuntil(b"\n\n")
        writer.write(_ANSWER + _ANSWER)
        await reader.read()

    async with _speaker(speak) as port:
        connection = await _connect(port)
        assert await connection.api("eval x") == "hello"
        assert "an answer to nothing" in await connection.lost


async def test_garbage_never_does_more_than_end_a_connection(rng: random.Random) -> None:
    good = transcripts.load("01d").said("esl", by_switch=True)[len(_GREETING + _ACCEPTED) :]
    reasons = set()
    for _ in range(60):
        data = bytearray(good)
        for _ in range(rng.randrange(1, 20)):
            data[rng.randrange(len(data))] = rng.randrange(256)

        async def speak(
            reader: asyncio.StreamReader, writer: asyncio.StreamWriter, data: bytes = bytes(data)
        ) -> None:
            writer.write(_GREETING)
            await reader.readuntil(b"\n\n")
            writer.write(_ACCEPTED + data)
            await writer.drain()
            writer.close()

        events: list[Event] = []
        async with _speaker(speak) as port:
            with contextlib.suppress(AuthzError):
                connection = await _connect(port, on_event=events.append)
                reasons.add((await connection.lost)[:30])
    assert reasons


async def test_slow_and_split_frames_are_the_same_events(rng: random.Random) -> None:
    transcript = transcripts.load("01d")
    said = b"".join(step.data for step in steps_of(transcript, "esl") if isinstance(step, Say))
    events_said = said.count(b"Content-Type: text/event")
    replies = said.count(b"Content-Type: command/reply") + said.count(b"Content-Type: api/response")

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(len(b"x\n\n") * replies)
        position = 0
        while position < len(said):
            length = rng.choice((1, 1, 2, 7, 100, 3_000))
            writer.write(said[position : position + length])
            position += length
            await writer.drain()
            await asyncio.sleep(0)
        await reader.read()

    events: list[Event] = []
    async with _speaker(speak) as port:
        connection = EventSocketConnection(on_event=events.append)
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: connection, "127.0.0.1", port)
        asked = [asyncio.ensure_future(connection.request(b"x\n\n")) for _ in range(replies)]
        await until(lambda: len(events) == events_said)
        await asyncio.gather(*asked)
        connection.abort("done")


async def test_a_flood_is_held_at_the_switch_and_not_in_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bound = 1 << 20
    monkeypatch.setattr(connection_module, "HELD_BYTES_MAX", bound)
    switch = await SwitchSimulator.start()
    taken: list[str] = []
    connection = await _connect(switch.port, on_event=lambda one: taken.append(one.unique_id))
    await connection.subscribe("CHANNEL_PARK", "CHANNEL_HANGUP_COMPLETE")
    connection.hold_events()
    legs = [switch.call() for _ in range(2_000)]  # some ten megabytes
    # Answers are awaited, so events are read; from the bound on not even those.
    with pytest.raises(OutcomeUnknown):
        await connection.api("eval x", 0.3)
    assert connection.is_paused
    assert connection._held_bytes < 2 * bound
    assert taken == []
    connection.release_events()
    await until(lambda: len(taken) == len(legs))
    assert taken == [leg.uuid for leg in legs]
    assert await connection.api("eval y") == "y"
    assert connection._held_bytes == 0
    connection.close()
    await switch.close()


async def test_too_many_commands_wait_their_turn_and_more_are_refused() -> None:
    switch = await SwitchSimulator.start()
    connection = await _connect(switch.port)
    switch.is_silent = True
    asked = [
        asyncio.ensure_future(connection.api(f"eval {number}", timeout_seconds=90))
        for number in range(QUEUED_MAX + 1_000)
    ]
    await until(lambda: connection.in_flight == IN_FLIGHT_MAX)
    assert connection.queued <= QUEUED_MAX
    switch.wake()
    answers = await asyncio.gather(*asked, return_exceptions=True)
    refused = [one for one in answers if isinstance(one, SwitchError)]
    assert {type(one).__name__ for one in refused} == {"CommandNotSent"}
    assert all(
        answer == str(number) for number, answer in enumerate(answers) if isinstance(answer, str)
    )
    assert len(refused) == 1_000
    assert len(switch.api.log) == QUEUED_MAX
    connection.close()
    await switch.close()


class _Storm:
    """Counts what a link tells, and hangs on to nothing."""

    def __init__(self) -> None:
        self.ups = 0
        self.downs = 0

    async def on_up(self, connection: EventSocketConnection, core_uuid: str) -> None:
        """Count, and ask something."""
        self.ups += 1
        with contextlib.suppress(SwitchError):
            await connection.api("show channels as json")

    def on_event(self, event: Event) -> None:
        """Take no notice."""

    def on_down(self, reason: str) -> None:
        """Count."""
        self.downs += 1


async def test_a_storm_of_losses_leaves_one_connection_and_no_task(rng: random.Random) -> None:
    switch = await SwitchSimulator.start()
    handler = _Storm()
    options = LinkOptions(
        name="fs",
        host="127.0.0.1",
        port=switch.port,
        events=("CHANNEL_PARK",),
        retry_seconds_min=0.001,
        retry_seconds_max=0.004,
    )
    before = len(asyncio.all_tasks())
    link = SwitchLink(options, handler)
    task = asyncio.create_task(link.run())
    for _ in range(150):
        await asyncio.sleep(rng.choice((0, 0, 0.001, 0.003)))
        kind = rng.randrange(4)
        if kind == 0:
            switch.is_refusing = not switch.is_refusing
        elif kind == 1:
            await switch.crash()
            await switch.restart()
        else:
            switch.drop_connections()
        assert len(switch.sessions) <= 1
    switch.is_refusing = False
    await until(lambda: link.state is LinkState.UP)
    assert handler.ups - handler.downs <= 1
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert handler.ups == handler.downs
    assert len(asyncio.all_tasks()) == before
    await switch.close()


async def test_a_switch_that_repeats_a_poisoned_event_is_not_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    poison = b'{"Event-Name":"CHANNEL_PARK",'
    event = b'{"Event-Name":"HEARTBEAT"}'

    def framed(body: bytes) -> bytes:
        return b"Content-Length: %d\nContent-Type: text/event-json\n\n" % len(body) + body

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(_GREETING)
        await reader.readuntil(b"\n\n")
        writer.write(_ACCEPTED + framed(poison) * 3 + framed(event))
        await reader.read()

    events: list[Event] = []
    async with _speaker(speak) as port:
        connection = await _connect(port, on_event=events.append)
        await until(lambda: bool(events))
        assert connection.traffic.bad_events == 3
        assert connection.is_open
        connection.close()


async def test_what_came_before_the_end_is_delivered_although_held(
    rng: random.Random,
) -> None:
    switch = await SwitchSimulator.start()
    events: list[Event] = []
    connection = await _connect(switch.port, on_event=events.append)
    await connection.subscribe("CHANNEL_HANGUP_COMPLETE")
    connection.hold_events()
    asking = asyncio.ensure_future(connection.api("eval x"))
    leg = switch.call()
    switch.hang_up(leg, "NORMAL_CLEARING")
    assert await asking == "x"
    assert events == []
    connection.abort("enough")
    await connection.lost
    assert [event.unique_id for event in events] == [leg.uuid]
    await switch.close()


async def test_a_refused_command_carries_the_answer_and_no_secret() -> None:
    switch = await SwitchSimulator.start(password="hunter22")
    connection = await EventSocketConnection.connect("127.0.0.1", switch.port, "hunter22")
    with pytest.raises(CommandFailed) as failure:
        await connection.api("nosuchcmd " + "x" * 500)
    assert len(str(failure.value)) < 300
    with pytest.raises(SwitchRefused) as refusal:
        await EventSocketConnection.connect("127.0.0.1", switch.port, "hunter23")
    assert "hunter" not in str(refusal.value)
    connection.close()
    await switch.close()
