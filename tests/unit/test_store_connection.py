"""The store's connection, fed by hand: order, pieces, and whoever goes on in the middle of it."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from typing import Any

import pytest
from helpers import make_script

from authz import meters
from authz.errors import InvariantError, NotExecuted, OutcomeUnknown
from authz.store.connection import IN_FLIGHT_MAX, QUEUED_MAX, Connection, pack_command
from authz.store.health import MISSES_MAX, StoreHealth
from authz.store.scripts import Script
from authz_ext.packing import PreparedCall
from authz_ext.prompt import send_off
from authz_ext.wire import Command

#: Both event loops: conftest.py.
EVERY_LOOP = True
LONG_NS = 60 * 10**9
LONG_MS = 60_000

#: A script that answers integers, as one with a shortcut does.
INTEGERS = Script("integers", 2, "return 1", "0" * 40, legs=1)
PLAIN = make_script("plain", "return 1")
PREPARED = PreparedCall(INTEGERS, b"call:", (b"other",))


def integers(*numbers: int) -> bytes:
    packed = struct.pack(f">{len(numbers)}q", *numbers)
    return b"$%d\r\n%s\r\n" % (len(packed), packed)


class FakeTransport:
    """Takes down what is written."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.closing = False

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def is_closing(self) -> bool:
        return self.closing

    def abort(self) -> None:
        self.closing = True

    def close(self) -> None:
        self.closing = True


class Wired:
    """A connection with its transport."""

    def __init__(self) -> None:
        self.down = 0
        self.health = StoreHealth(self._went_down)
        self.connection = Connection(asyncio.get_running_loop(), self.health)
        self.transport = FakeTransport()
        self.connection.connection_made(self.transport)  # type: ignore[arg-type]

    def _went_down(self) -> None:
        self.down += 1

    def call(self, call_id: str = "c1", deadline_ms: int = LONG_MS) -> Command:
        return self.connection.call(PREPARED, call_id, [b"x"], deadline_ms)

    def ask(self, *words: str, script: Script | None = None, wait_ns: int = LONG_NS) -> Command:
        return self.connection.submit(pack_command(words), meters.now_ns() + wait_ns, script)


@pytest.fixture
async def wired() -> Wired:
    return Wired()


def outcome(command: Command) -> Any:
    assert command.done()
    error = command.exception()
    return command.result() if error is None else type(error)


def errand(awaited: Command, then: Callable[[Any], None]) -> None:
    """Have `then` called with the answer in the turn that brings it."""

    async def wait() -> None:
        then(await awaited)

    send_off(wait(), lambda _subject, _value, _error: None, None)


async def test_commands_of_a_turn_leave_in_one_write_and_in_order(wired: Wired) -> None:
    wired.ask("GET", "a")
    wired.call("c1")
    wired.ask("EVALSHA", script=PLAIN)
    assert wired.transport.written == []
    assert (wired.connection.queued, wired.connection.in_flight) == (3, 0)
    await asyncio.sleep(0)
    parts = (
        pack_command(("GET", "a")),
        pack_command(("EVALSHA", INTEGERS.sha1, 2, b"call:c1", b"other", b"x")),
        pack_command(("EVALSHA",)),
    )
    assert wired.transport.written == [b"".join(parts)]
    assert (wired.connection.queued, wired.connection.in_flight) == (0, 3)


@pytest.mark.parametrize("size", range(1, 70))
async def test_replies_in_pieces_of_any_size(wired: Wired, size: int) -> None:
    commands = [wired.call(), wired.ask("GET"), wired.call(), wired.call(), wired.call()]
    commands += [wired.call(), wired.call()]
    await asyncio.sleep(0)
    stream = integers(1, -2) + b"*2\r\n:1\r\n$1\r\na\r\n" + integers(2**62, -(2**62), 0)
    stream += b"-OOM full\r\n" + b"*1\r\n:7\r\n" + integers(*range(17)) + integers(0)
    for start in range(0, len(stream), size):
        wired.connection.data_received(stream[start : start + size])
    assert [outcome(command) for command in commands] == [
        [1, -2], [1, b"a"], [2**62, -(2**62), 0], NotExecuted, [7], list(range(17)), [0],
    ]  # fmt: skip


@pytest.mark.parametrize("size", [1, 7, 9, 144, 256, 1600])
async def test_an_answer_that_is_no_integers_is_a_defect_of_its_own_call_only(
    wired: Wired, size: int
) -> None:
    first, second, third = wired.call(), wired.call(), wired.call()
    await asyncio.sleep(0)
    wired.connection.data_received(
        integers(1) + b"$%d\r\n%s\r\n" % (size, b"\x01" * size) + integers(3)
    )
    assert [outcome(one) for one in (first, second, third)] == [[1], InvariantError, [3]]


@pytest.mark.parametrize("reply", [b"$8\r\n12345678\r\n", b"$0\r\n\r\n", b"$-1\r\n"])
async def test_strings_of_other_commands_stay_strings(wired: Wired, reply: bytes) -> None:
    plain, script, call = wired.ask("GET"), wired.ask("EVALSHA", script=PLAIN), wired.call()
    await asyncio.sleep(0)
    wired.connection.data_received(reply * 2 + integers(5))
    value = {b"$8": b"12345678", b"$0": b"", b"$-": None}[reply[:2]]
    assert [outcome(one) for one in (plain, script, call)] == [value, value, [5]]


@pytest.mark.parametrize("extra", [integers(1), b"+OK\r\n", b"-ERR max number of clients\r\n"])
async def test_a_reply_that_nobody_asked_for_ends_the_connection(
    wired: Wired, extra: bytes
) -> None:
    command = wired.call()
    await asyncio.sleep(0)
    wired.connection.data_received(integers(1) + extra)
    assert outcome(command) == [1]
    assert wired.transport.closing
    assert "nothing asked for" in str(wired.connection.refusal)
    with pytest.raises(NotExecuted, match="nothing asked for"):
        wired.call()


async def test_a_list_begun_unasked_is_not_cut_by_what_looks_like_integers(wired: Wired) -> None:
    # All bytes are read, and still the list is not at its end.
    wired.connection.data_received(b"*2\r\n:1\r\n")
    command = wired.call()
    await asyncio.sleep(0)
    wired.connection.data_received(integers(5))
    assert outcome(command) == [1, struct.pack(">q", 5)]


async def test_a_list_cut_within_is_not_taken_for_what_its_rest_looks_like(wired: Wired) -> None:
    plain, call, last = wired.ask("GET"), wired.call(), wired.call()
    await asyncio.sleep(0)
    wired.connection.data_received(b"+OK\r\n*2\r\n")
    wired.connection.data_received(integers(1) + integers(2) + integers(3))
    packed = [struct.pack(">q", number) for number in (1, 2)]
    assert [outcome(one) for one in (plain, call, last)] == [b"OK", packed, [3]]


async def test_callers_that_went_away_in_queue_and_in_flight(wired: Wired) -> None:
    sent = [wired.call(f"c{number}") for number in range(4)]
    await asyncio.sleep(0)
    sent[1].cancel()
    unsent = [wired.call(f"d{number}") for number in range(3)]
    unsent[0].cancel()
    unsent[2].cancel()
    wired.connection.data_received(b"".join(integers(number) for number in range(4)))
    await asyncio.sleep(0)
    assert [one.cancelled() or one.result() for one in sent] == [[0], True, [2], [3]]
    assert wired.transport.written[1].count(b"EVALSHA") == 1
    assert b"call:d1" in wired.transport.written[1]
    wired.connection.data_received(integers(9))
    assert outcome(unsent[1]) == [9]


async def test_loss_in_the_middle_of_a_batch(wired: Wired) -> None:
    commands = [wired.call() for _ in range(3)]
    await asyncio.sleep(0)
    commands.append(wired.call())
    wired.connection.data_received(integers(1) + integers(2)[:9])
    wired.connection.connection_lost(None)
    assert [outcome(one) for one in commands] == [[1], OutcomeUnknown, OutcomeUnknown, NotExecuted]
    assert (wired.connection.queued, wired.connection.in_flight) == (0, 0)
    assert wired.connection.lost.done()


async def test_who_goes_on_may_send_the_next_command_before_the_next_reply_is_read(
    wired: Wired,
) -> None:
    first, second = wired.call("c1"), wired.call("c2")
    await asyncio.sleep(0)
    seen: list[Any] = []

    def go_on(answer: list[int]) -> None:
        seen.append((answer, second.done()))
        errand(wired.call("c3"), seen.append)

    errand(first, go_on)
    wired.connection.data_received(integers(1) + integers(2))
    assert seen == [([1], False)]
    assert outcome(second) == [2]
    assert len(wired.transport.written) == 1
    await asyncio.sleep(0)
    assert b"call:c3" in wired.transport.written[1]
    wired.connection.data_received(integers(3))
    assert seen[1] == [3]


@pytest.mark.parametrize("middle", [integers(2), b"*1\r\n:2\r\n"])
async def test_who_ends_the_program_loses_no_reply_of_others(wired: Wired, middle: bytes) -> None:
    commands = [wired.call() for _ in range(4)]
    await asyncio.sleep(0)

    async def interrupted() -> None:
        await commands[0]
        raise KeyboardInterrupt

    send_off(interrupted(), lambda _subject, _value, _error: None, None)
    with pytest.raises(KeyboardInterrupt):
        wired.connection.data_received(integers(1) + middle + integers(3))
    assert not commands[1].done()
    wired.connection.data_received(integers(4))
    assert [outcome(one) for one in commands[1:]] == [[2], [3], [4]]


async def test_a_forgotten_script_in_the_middle_of_a_batch_is_handed_over_once(
    wired: Wired,
) -> None:
    forgotten: list[Command] = []
    wired.connection.on_forgotten = forgotten.append
    commands = [wired.call(f"c{number}") for number in range(3)]
    plain = wired.ask("EVALSHA")
    await asyncio.sleep(0)
    noscript = b"-NOSCRIPT No matching script\r\n"
    wired.connection.data_received(integers(1) + noscript + integers(3) + noscript)
    assert [outcome(commands[0]), outcome(commands[2]), outcome(plain)] == [[1], [3], NotExecuted]
    assert forgotten == [commands[1]]
    assert not commands[1].done()
    wired.connection.repeat(forgotten[0])
    await asyncio.sleep(0)
    assert wired.transport.written[1] == commands[1].packed
    wired.connection.data_received(noscript)
    assert outcome(commands[1]) is NotExecuted
    assert len(forgotten) == 1


async def test_bounds_of_flight_and_queue(wired: Wired) -> None:
    commands = [wired.call() for _ in range(QUEUED_MAX)]
    for refused in (wired.call, lambda: wired.ask("PING")):
        with pytest.raises(NotExecuted, match="wait to be sent"):
            refused()
    await asyncio.sleep(0)
    assert wired.connection.in_flight == IN_FLIGHT_MAX
    assert wired.connection.queued == QUEUED_MAX - IN_FLIGHT_MAX
    # What is answered makes room, and that is filled in the next turn, without a new command.
    wired.connection.data_received(integers(1) * 3)
    assert wired.connection.in_flight == IN_FLIGHT_MAX - 3
    await asyncio.sleep(0)
    assert wired.connection.in_flight == IN_FLIGHT_MAX
    assert wired.transport.written[1].count(b"EVALSHA") == 3
    assert [outcome(one) for one in commands[:3]] == [[1]] * 3
    assert not commands[3].done()


async def test_paused_writing_keeps_commands_where_they_can_be_withdrawn(wired: Wired) -> None:
    wired.connection.pause_writing()
    kept, dropped = wired.call("c1"), wired.call("c2", deadline_ms=0)
    await asyncio.sleep(0)
    assert wired.transport.written == []
    wired.connection.resume_writing()
    assert len(wired.transport.written) == 1
    assert outcome(dropped) is NotExecuted
    assert b"c2" not in wired.transport.written[0]
    assert not kept.done()


async def test_what_was_sent_without_a_script_keeps_no_bytes(wired: Wired) -> None:
    plain, call = wired.ask("SET", "a", "x" * 1000), wired.call()
    await asyncio.sleep(0)
    assert plain.packed is None
    assert call.packed is not None


async def test_answers_end_a_row_of_misses(wired: Wired) -> None:
    for _ in range(2):
        missed = [wired.call(deadline_ms=20) for _ in range(MISSES_MAX - 1)]
        in_time = wired.call()
        await asyncio.sleep(0)
        with pytest.raises(OutcomeUnknown):
            await missed[-1]
        wired.connection.data_received(integers(0) * MISSES_MAX)
        assert outcome(in_time) == [0]
    assert wired.health.up
    missed = [wired.call(deadline_ms=20) for _ in range(MISSES_MAX)]
    await asyncio.sleep(0)
    with pytest.raises(OutcomeUnknown):
        await missed[-1]
    assert not wired.health.up
    assert wired.down == 1


async def test_finish_closes_once_the_last_reply_is_read(wired: Wired) -> None:
    commands = [wired.call(), wired.call()]
    await asyncio.sleep(0)
    wired.connection.finish("enough")
    wired.connection.data_received(integers(1))
    assert not wired.transport.closing
    wired.connection.data_received(integers(2))
    assert wired.transport.closing
    assert [outcome(one) for one in commands] == [[1], [2]]
