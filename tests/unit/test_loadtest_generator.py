"""The generator against a server that stalls, refuses, hangs up: nothing of it may stay hidden."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from processes import is_alive

from loadtest.alarm import Alarm
from loadtest.errors import LoadTestError
from loadtest.fleet import Fleet
from loadtest.generator import Generator
from loadtest.plan import (
    AUTHORIZE,
    FRAME,
    OPERATIONS,
    CallKind,
    Go,
    Orders,
    Samples,
    Target,
    encode_frame,
)
from loadtest.recorder import Recorder
from loadtest.schedule import NANOS_PER_SECOND, Stretch

EVERY_LOOP = True
LIMIT_SECONDS = 20

GRANT = b'{"allowed":true,"reason":"ok","seconds":60,"extend_at":45}'
LAST_GRANT = b'{"allowed":true,"reason":"ok","seconds":105,"extend_at":90,"final":true}'
DENIAL = b'{"allowed":false,"reason":"insufficient_credit"}'
SETTLED = b'{"settled":true}'
KIND = CallKind(
    accounts=("load-a",), to=("+14155550100",), weight=1, talk_seconds=(30,), unanswered=0,
    direction="outbound", ask_seconds=None, emergency=False,
)  # fmt: skip

#: From the path and body of a request to its answer; None hangs up.
Answer = Callable[[str, bytes], tuple[int, bytes] | None]
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Switchboard:
    """A server that answers as a test wants, on one port."""

    def __init__(self) -> None:
        self.answer: Answer = grant_everything
        self.requests: list[tuple[str, bytes]] = []
        self.target = Target()
        #: From the first request on nothing is answered for so long.
        self.stall_seconds = 0.0
        self._stalls_until: float | None = None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                path, body = await one_request(reader)
                self.requests.append((path, body))
                await self.stall()
                answer = self.answer(path, body)
                if answer is None:
                    return
                writer.write(as_answer(*answer))
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()

    async def stall(self) -> None:
        now = asyncio.get_running_loop().time()
        if self._stalls_until is None:
            self._stalls_until = now + self.stall_seconds
        await asyncio.sleep(self._stalls_until - now)


class RawServer:
    """A server of bytes: what a test says of each connection is all that it does."""

    def __init__(self, serve: Serve) -> None:
        self._serve = serve
        self.connections = 0
        self.target = Target()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await self._serve(reader, writer)
        writer.close()


@contextlib.asynccontextmanager
async def listening(serve: Serve, path: Path | None = None) -> AsyncIterator[RawServer]:
    """Listen on a port, or at a path; `target` tells where."""
    raw = RawServer(serve)
    if path is None:
        server = await asyncio.start_server(raw, "127.0.0.1", 0)
        raw.target = Target(port=server.sockets[0].getsockname()[1])
    else:
        server = await asyncio.start_unix_server(raw, path)
        raw.target = Target(unix_path=str(path))
    yield raw
    server.close()
    await server.wait_closed()


async def one_request(reader: asyncio.StreamReader) -> tuple[str, bytes]:
    """Return the path and the body of the next request."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.partition(b"Content-Length: ")[2].partition(b"\r\n")[0])
    return head.split()[1].decode(), await reader.readexactly(length)


def as_answer(status: int, body: bytes) -> bytes:
    return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)


def grant_everything(path: str, body: bytes) -> tuple[int, bytes]:
    return (200, SETTLED if path == "/v1/settle" else GRANT)


@pytest.fixture
async def board() -> AsyncIterator[Switchboard]:
    one = Switchboard()
    server = await asyncio.start_server(one.serve, "127.0.0.1", 0)
    one.target = Target(port=server.sockets[0].getsockname()[1])
    yield one
    server.close()
    await server.wait_closed()


def orders_of(server: Switchboard | RawServer, kind: CallKind = KIND, **changes: Any) -> Orders:
    """Return by default 20 calls within 0.2 s, 1,000 times as fast."""
    words: dict[str, Any] = {
        "connections": 2,
        "calls": (kind,),
        "speed": 1000.0,
        "seed": "1",
        "call_id_start": "t-",
        "stretches": (Stretch(0.2, 100),),
        "arrivals": "even",
        "drain_seconds": 5.0,
        **changes,
    }
    return Orders(target=server.target, **words)


async def generate(
    board: Switchboard | RawServer, kind: CallKind = KIND, **changes: Any
) -> Samples:
    """Run a generator to its end."""
    orders = orders_of(board, kind, **changes)
    # The generator waits in a loop of its own; the server is in this thread's.
    return await asyncio.to_thread(run_to_the_end, orders)


def run_to_the_end(orders: Orders, begun_ago_ns: int = 0) -> Samples:
    recorder = Recorder()
    generator = Generator(orders, recorder)
    caller = generator.caller
    caller.open()
    begun_ns = time.monotonic_ns() - begun_ago_ns
    generator.begin(begun_ns)
    caller.run(begun_ns + LIMIT_SECONDS * NANOS_PER_SECOND)
    assert caller.has_ended
    caller.close()
    return recorder.take(caller.in_flight, caller.calls, "ended")


def outcomes(samples: Samples) -> Counter[tuple[str, str]]:
    """Return how many requests there were by (operation, outcome)."""
    numbers = memoryview(samples.outcomes).cast("H")
    return Counter(
        (OPERATIONS[operation], samples.outcome_names[number])
        for operation, number in zip(samples.operations, numbers, strict=True)
    )


async def test_calls_are_placed_and_settled(board: Switchboard) -> None:
    samples = await generate(board)

    assert outcomes(samples) == {("authorize", "ok"): 20, ("settle", "ok"): 20}
    assert (samples.in_flight, samples.calls) == (0, 0)
    ids = {body for path, body in board.requests if path == "/v1/authorize"}
    assert len(ids) == 20
    assert all(b'"seconds":     30}' in body for path, body in board.requests if "settle" in path)


async def test_long_calls_are_extended_and_cut_where_the_grant_ends(board: Switchboard) -> None:
    def answer(path: str, body: bytes) -> tuple[int, bytes]:
        if path == "/v1/reserve":
            return 200, LAST_GRANT
        return grant_everything(path, body)

    board.answer = answer
    kind = CallKind(**{**as_words(KIND), "talk_seconds": (200,)})

    samples = await generate(board, kind)

    assert outcomes(samples) == {
        ("authorize", "ok"): 20, ("reserve", "ok"): 40, ("settle", "ok"): 20,
    }  # fmt: skip
    used = Counter(body[-8:-1].strip() for path, body in board.requests if "reserve" in path)
    assert used == {b"45": 20, b"90": 20}
    assert {body[-8:-1].strip() for path, body in board.requests if "settle" in path} == {b"105"}


async def test_a_denied_call_ends(board: Switchboard) -> None:
    board.answer = lambda _path, _body: (200, DENIAL)

    assert outcomes(await generate(board)) == {("authorize", "insufficient_credit"): 20}


async def test_a_call_without_more_time_hangs_up(board: Switchboard) -> None:
    def answer(path: str, body: bytes) -> tuple[int, bytes]:
        return (200, DENIAL) if path == "/v1/reserve" else grant_everything(path, body)

    board.answer = answer
    kind = CallKind(**{**as_words(KIND), "talk_seconds": (200,)})

    samples = await generate(board, kind)

    assert outcomes(samples)["reserve", "insufficient_credit"] == 20
    assert outcomes(samples)["settle", "ok"] == 20
    assert {body[-8:-1].strip() for path, body in board.requests if "settle" in path} == {b"45"}


async def test_a_stall_counts_for_every_call_that_was_due_in_it(board: Switchboard) -> None:
    board.stall_seconds = 0.5

    samples = await generate(board)

    # Calls were due all through the first 0.2 s, and none was answered before 0.5 s.
    dues = memoryview(samples.dues).cast("Q").tolist()
    latencies = memoryview(samples.latencies).cast("Q").tolist()
    answered = [due + latency for due, latency in zip(dues, latencies, strict=True)]
    stall_ns = NANOS_PER_SECOND // 2
    assert outcomes(samples)["authorize", "ok"] == 20
    # The loop's clock counts in milliseconds.
    assert min(answered) >= min(dues) + stall_ns - NANOS_PER_SECOND // 500
    assert max(latencies) >= stall_ns - NANOS_PER_SECOND // 500


async def test_what_is_never_answered_is_told(board: Switchboard) -> None:
    board.stall_seconds = 5

    samples = await generate(board, drain_seconds=0.2)

    assert outcomes(samples) == {("authorize", "error: unanswered"): 20}


async def test_a_busy_server_gets_the_settle_again(board: Switchboard) -> None:
    refused: set[bytes] = set()

    def answer(path: str, body: bytes) -> tuple[int, bytes]:
        if path == "/v1/settle" and body not in refused:
            refused.add(body)
            return 503, b'{"reason":"overloaded"}'
        return grant_everything(path, body)

    board.answer = answer

    samples = await generate(board, stretches=(Stretch(0.1, 50),))

    assert outcomes(samples) == {
        ("authorize", "ok"): 5, ("settle", "error: 503 overloaded"): 5, ("settle", "ok"): 5,
    }  # fmt: skip


async def test_failures_have_names(board: Switchboard) -> None:
    answers = iter([(400, b'{"reason":"invalid_input"}'), (500, b"oops"), (200, b"oops"), None])
    board.answer = lambda _path, _body: next(answers)

    samples = await generate(board, connections=1, stretches=(Stretch(0.04, 100),))

    assert outcomes(samples) == {
        ("authorize", "error: 400 invalid_input"): 1,
        ("authorize", "error: 500 unreadable answer"): 1,
        ("authorize", "error: 200 unreadable answer"): 1,
        ("authorize", "error: connection lost"): 1,
    }


async def test_a_lost_connection_is_made_again(board: Switchboard) -> None:
    hang_ups = iter([None, None])
    board.answer = lambda path, body: next(hang_ups, grant_everything(path, body))

    samples = await generate(board, stretches=(Stretch(1, 20),))

    assert outcomes(samples)["authorize", "error: connection lost"] >= 2
    assert outcomes(samples)["authorize", "ok"] >= 10
    assert outcomes(samples)["settle", "ok"] == outcomes(samples)["authorize", "ok"]


async def test_a_closed_loop_keeps_so_many_calls_going(board: Switchboard) -> None:
    samples = await generate(board, stretches=(), calls_in_flight=3, closed_seconds=0.3)

    counts = outcomes(samples)
    assert counts["authorize", "ok"] == counts["settle", "ok"] > 3
    assert samples.calls == 0


async def test_unusual_spellings_are_understood(board: Switchboard) -> None:
    def answer(path: str, body: bytes) -> tuple[int, bytes]:
        if path == "/v1/reserve":
            return 200, b'{ "reason": "call\\u005fended", "allowed": false }\n'
        return 200, b'{"seconds": 60, "extend_at": 45, "allowed": true, "reason": "\xc3\xbc"}'

    board.answer = answer
    kind = CallKind(**{**as_words(KIND), "talk_seconds": (50,)})

    samples = await generate(board, kind)

    assert outcomes(samples) == {
        ("authorize", "ok"): 20, ("reserve", "call_ended"): 20, ("settle", "ok"): 20,
    }  # fmt: skip


async def test_no_request_leaves_before_it_is_due_or_is_answered_before_it_left(
    board: Switchboard,
) -> None:
    samples = await generate(board, arrivals="poisson", stretches=(Stretch(0.5, 200),))

    lags = memoryview(samples.lags).cast("Q").tolist()
    latencies = memoryview(samples.latencies).cast("Q").tolist()
    assert len(lags) > 100
    # They are unsigned: one below 0 would be of centuries.
    assert all(
        lag < latency < NANOS_PER_SECOND * 20 for lag, latency in zip(lags, latencies, strict=True)
    )


async def test_lateness_is_that_of_the_generator_and_latency_contains_it(
    board: Switchboard,
) -> None:
    # As if the process had been held up for half a second.
    samples = await asyncio.to_thread(run_to_the_end, orders_of(board), NANOS_PER_SECOND // 2)

    lags = memoryview(samples.lags).cast("Q").tolist()
    latencies = memoryview(samples.latencies).cast("Q").tolist()
    assert outcomes(samples)["authorize", "ok"] == 20
    # All arrivals were due within the first 0.2 s of it.
    late = [lag for lag, one in zip(lags, samples.operations, strict=True) if one == AUTHORIZE]
    assert min(late) >= NANOS_PER_SECOND * 3 // 10
    assert all(latency > lag for lag, latency in zip(lags, latencies, strict=True))


@pytest.mark.parametrize("size", [1, 2, 7, 64])
async def test_answers_in_pieces_are_put_together(size: int) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            path, body = await one_request(reader)
            answer = as_answer(*grant_everything(path, body))
            for begin in range(0, len(answer), size):
                writer.write(answer[begin : begin + size])
                await asyncio.sleep(0)

    async with listening(serve) as server:
        samples = await generate(server)

    assert outcomes(samples) == {("authorize", "ok"): 20, ("settle", "ok"): 20}
    assert server.connections == 2


async def test_many_answers_in_one_piece_are_told_apart() -> None:
    pieces: list[int] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        waiting: list[bytes] = []

        def answer_all() -> None:
            pieces.append(len(waiting))
            writer.write(b"".join(waiting))
            waiting.clear()

        while True:
            answer = as_answer(*grant_everything(*await one_request(reader)))
            if not waiting:
                asyncio.get_running_loop().call_later(0.1, answer_all)
            waiting.append(answer)

    async with listening(serve) as server:
        samples = await generate(server, connections=1)

    assert outcomes(samples) == {("authorize", "ok"): 20, ("settle", "ok"): 20}
    assert max(pieces) > 1


@pytest.mark.parametrize(
    "broken",
    [
        as_answer(200, GRANT)[:-1],
        as_answer(200, GRANT)[:20],
        b"",
        b"not HTTP\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
    ],
)
async def test_a_connection_that_breaks_in_an_answer_loses_it_and_no_other(broken: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        is_first = server.connections == 1
        for number in range(1_000):
            path, body = await one_request(reader)
            if is_first and number == 3:
                writer.write(broken)
                return
            writer.write(as_answer(*grant_everything(path, body)))

    async with listening(serve) as server:
        samples = await generate(server, connections=1, stretches=(Stretch(0.5, 40),))

    counts = outcomes(samples)
    assert server.connections == 2
    lost = (
        counts["authorize", "error: connection lost"] + counts["settle", "error: connection lost"]
    )
    assert 1 <= lost < 20
    # A call whose authorize was answered is settled, if need be again.
    assert counts["settle", "ok"] == counts["authorize", "ok"]
    assert counts["authorize", "ok"] + counts["authorize", "error: connection lost"] == 20


async def test_what_nobody_asked_for_is_no_answer() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(as_answer(408, b"{}"))
        while True:
            writer.write(as_answer(*grant_everything(*await one_request(reader))))

    async with listening(serve) as server:
        # The first arrival is due a while after the connections are there.
        samples = await generate(server, stretches=(Stretch(0.1, 0), Stretch(0.2, 100)))

    assert outcomes(samples) == {("authorize", "ok"): 20, ("settle", "ok"): 20}


async def test_a_server_that_does_not_read_delays_and_loses_nothing() -> None:
    begun = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not begun.is_set():
            begun.set()
            # Far more is asked meanwhile than sockets have room for.
            await asyncio.sleep(0.5)
        while True:
            writer.write(as_answer(*grant_everything(*await one_request(reader))))

    accounts = tuple("a" * 4_000 + str(number) for number in range(2))
    kind = CallKind(**{**as_words(KIND), "accounts": accounts})
    async with listening(serve) as server:
        samples = await generate(
            server, kind, connections=1, stretches=(Stretch(0.2, 10_000),), drain_seconds=15.0
        )

    assert outcomes(samples) == {("authorize", "ok"): 2_000, ("settle", "ok"): 2_000}
    assert (samples.in_flight, samples.calls) == (0, 0)


async def test_a_unix_socket_is_as_good(tmp_path: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(as_answer(*grant_everything(*await one_request(reader))))

    async with listening(serve, tmp_path / "hook.sock") as server:
        samples = await generate(server)

    assert outcomes(samples) == {("authorize", "ok"): 20, ("settle", "ok"): 20}


async def test_a_server_that_is_away_for_a_while_is_found_again(tmp_path: Path) -> None:
    path = tmp_path / "hook.sock"
    asked = asyncio.Event()

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await one_request(reader)
        asked.set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(as_answer(*grant_everything(*await one_request(reader))))

    async with listening(hang_up, path) as server:
        stretches = (Stretch(1.5, 40),)
        running = asyncio.create_task(generate(server, connections=1, stretches=stretches))
        async with asyncio.timeout(LIMIT_SECONDS):
            await asked.wait()
    path.unlink(missing_ok=True)
    await asyncio.sleep(0.3)
    async with listening(serve, path):
        samples = await running

    counts = outcomes(samples)
    assert counts["authorize", "error: connection lost"] >= 1
    assert counts["authorize", "ok"] >= 1
    assert counts["settle", "ok"] == counts["authorize", "ok"]


def fleet_of_two(target: Target) -> Fleet:
    orders = [
        Orders(
            target=target, connections=1, calls=(KIND,), speed=1000.0, seed=str(number),
            call_id_start=f"f{number}-", stretches=(Stretch(0.5, 40),),
        )
        for number in range(2)
    ]  # fmt: skip
    return Fleet(orders)


async def test_a_fleet_gathers_what_its_generators_measure(board: Switchboard) -> None:
    fleet = fleet_of_two(board.target)

    collected = await fleet.run()

    assert len(collected.dues) == len(collected.latencies) == len(collected.lags) > 40
    assert collected.outcome_names == ["ok"]
    ids = [body for path, body in board.requests if path == "/v1/authorize"]
    assert len(set(ids)) == len(ids)
    assert min(collected.dues) >= collected.start_ns
    assert fleet.cpu_ns > 0


async def test_a_fleet_that_loses_a_generator_says_so(board: Switchboard) -> None:
    fleet = fleet_of_two(board.target)

    with pytest.raises(LoadTestError, match="ended unasked"):
        await fleet.run(lambda _start_ns: os.kill(fleet.pids[0], signal.SIGKILL))

    assert not any(map(is_alive, fleet.pids))


async def test_a_fleet_without_a_target_says_so(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(LoadTestError, match="ended unasked"):
        await fleet_of_two(Target(unix_path="/nonexistent/hook.sock")).run()

    assert "No such file" in capfd.readouterr().err


async def test_a_run_stops_where_it_is_told_and_goes_on_from_there(board: Switchboard) -> None:
    recorder = Recorder()
    generator = Generator(orders_of(board, stretches=(Stretch(1, 100),)), recorder)
    caller = generator.caller
    caller.open()
    begun_ns = time.monotonic_ns()
    generator.begin(begun_ns)

    await asyncio.to_thread(caller.run, begun_ns + NANOS_PER_SECOND // 10)

    assert not caller.has_ended
    first = recorder.take(caller.in_flight, caller.calls, "running")
    await asyncio.to_thread(caller.run, begun_ns + LIMIT_SECONDS * NANOS_PER_SECOND)
    assert caller.has_ended
    caller.close()
    rest = recorder.take(caller.in_flight, caller.calls, "ended")
    both = outcomes(first) + outcomes(rest)
    assert both == {("authorize", "ok"): 100, ("settle", "ok"): 100}


class Child:
    """A generator process, spoken to as the fleet does."""

    def __init__(self, orders: Orders) -> None:
        self.process = subprocess.Popen(
            (sys.executable, "-m", "loadtest.generator"),
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.write(orders)
        assert self.read().state == "connected"
        self.write(Go(time.monotonic_ns()))

    def write(self, message: Orders | Go) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(encode_frame(message))
        self.process.stdin.flush()

    def read(self) -> Samples:
        assert self.process.stdout is not None
        (size,) = FRAME.unpack(self.process.stdout.read(FRAME.size))
        return msgspec.msgpack.decode(self.process.stdout.read(size), type=Samples)

    def end(self) -> int:
        """Hear no more and say no more; return its exit status."""
        self.process.communicate(timeout=LIMIT_SECONDS)
        return self.process.returncode


async def test_a_parent_that_does_not_listen_holds_nothing_up(board: Switchboard) -> None:
    # Three thousand requests are more samples than a pipe has room for.
    orders = orders_of(board, stretches=(Stretch(1.5, 1_000),), drain_seconds=15.0)
    child = await asyncio.to_thread(Child, orders)

    async with asyncio.timeout(LIMIT_SECONDS):
        while len(board.requests) < 3_000:  # noqa: ASYNC110 - another process makes them
            await asyncio.sleep(0.05)

    samples = await asyncio.to_thread(read_to_the_end, child)
    assert sum(len(one.operations) for one in samples) == 3_000
    assert sum((outcomes(one) for one in samples), Counter())["settle", "ok"] == 1_500
    assert await asyncio.to_thread(child.end) == 0


def read_to_the_end(child: Child) -> list[Samples]:
    samples = [child.read()]
    while samples[-1].state != "ended":
        samples.append(child.read())
    return samples


@pytest.mark.parametrize("pipe", ["stdin", "stdout"])
async def test_a_generator_ends_with_its_parent(board: Switchboard, pipe: str) -> None:
    child = await asyncio.to_thread(Child, orders_of(board, stretches=(Stretch(300, 10),)))

    getattr(child.process, pipe).close()

    assert await asyncio.to_thread(child.process.wait, LIMIT_SECONDS) == 0
    for other in (child.process.stdin, child.process.stdout):
        assert other is not None
        other.close()


def rings(alarm: Alarm, seconds: float) -> bool:
    """Wait for an alarm, but no longer than that; say whether it rings."""
    return bool(select.select([alarm], [], [], seconds)[0])


def test_the_alarm_rings_until_it_is_set_again_and_not_before_its_time() -> None:
    alarm = Alarm()
    due_ns = time.monotonic_ns() + NANOS_PER_SECOND // 20
    alarm.set(due_ns + 60 * NANOS_PER_SECOND)
    alarm.set(due_ns)

    assert rings(alarm, LIMIT_SECONDS)
    assert time.monotonic_ns() >= due_ns
    assert rings(alarm, 0)
    alarm.set(due_ns + 60 * NANOS_PER_SECOND)
    assert not rings(alarm, 0)
    alarm.set(1)
    assert rings(alarm, LIMIT_SECONDS)


def as_words(kind: CallKind) -> dict[str, Any]:
    return {name: getattr(kind, name) for name in kind.__struct_fields__}
