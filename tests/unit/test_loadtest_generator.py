"""The generator against a server that stalls, refuses, hangs up: nothing of it may stay hidden."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from processes import is_alive

from loadtest.alarm import Alarm
from loadtest.errors import LoadTestError
from loadtest.fleet import Fleet
from loadtest.generator import Generator
from loadtest.plan import OPERATIONS, CallKind, Orders, Samples, Target
from loadtest.recorder import Recorder
from loadtest.schedule import NANOS_PER_SECOND, Stretch

EVERY_LOOP = True

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
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.partition(b"Content-Length: ")[2].partition(b"\r\n")[0])
                body = await reader.readexactly(length)
                path = head.split()[1].decode()
                self.requests.append((path, body))
                await self.stall()
                answer = self.answer(path, body)
                if answer is None:
                    return
                status, text = answer
                writer.write(
                    b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%b" % (status, len(text), text)
                )
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()

    async def stall(self) -> None:
        now = asyncio.get_running_loop().time()
        if self._stalls_until is None:
            self._stalls_until = now + self.stall_seconds
        await asyncio.sleep(self._stalls_until - now)


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


async def generate(board: Switchboard, kind: CallKind = KIND, **changes: Any) -> Samples:
    """Run a generator to its end; by default 20 calls within 0.2 s, 1,000 times as fast."""
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
    orders = Orders(target=board.target, **words)
    recorder = Recorder()
    generator = Generator(orders, recorder)
    await asyncio.gather(*(connection.open() for connection in generator.connections))
    generator.begin(time.monotonic_ns())
    async with asyncio.timeout(90):
        await generator.ended.wait()
    generator.close()
    return recorder.take(generator.in_flight, generator.calls, "ended")


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


async def test_the_alarm_rings_once_and_not_before_its_time() -> None:
    rung: list[int] = []
    alarm = Alarm(lambda: rung.append(time.monotonic_ns()))
    due_ns = time.monotonic_ns() + NANOS_PER_SECOND // 20
    alarm.set(due_ns + NANOS_PER_SECOND)
    alarm.set(due_ns)

    await asyncio.sleep(0.2)

    assert len(rung) == 1
    assert rung[0] >= due_ns
    alarm.set(1)
    await asyncio.sleep(0.05)
    assert len(rung) == 2
    alarm.close()


def as_words(kind: CallKind) -> dict[str, Any]:
    return {name: getattr(kind, name) for name in kind.__struct_fields__}
