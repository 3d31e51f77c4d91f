"""Several generator processes as one: started together, heard together, ended together."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from array import array
from asyncio.subprocess import PIPE, Process
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from loadtest.errors import LoadTestError
from loadtest.plan import ERROR_PREFIX, FRAME, OK, Go, Orders, Samples, Target, encode_frame
from loadtest.schedule import NANOS_PER_SECOND

_ROOT: Final = Path(__file__).parent.parent
#: Between the order to begin and the beginning: longer than it takes to arrive.
_LEAD_NS: Final = NANOS_PER_SECOND // 5
_CONNECT_SECONDS_MAX: Final = 60
_END_SECONDS_MAX: Final = 30


class Collected:
    """Everything that the generators measured: one item a request in each array."""

    def __init__(self) -> None:
        self.operations = array("B")
        #: Indexes into `outcome_names`.
        self.outcomes = array("H")
        self.dues = array("Q")
        self.latencies = array("Q")
        self.lags = array("Q")
        self.outcome_names: list[str] = [OK]
        self.start_ns = 0

    def add(self, samples: Samples) -> range:
        """Append what one generator says; return where it lies."""
        begin = len(self.dues)
        self.operations.frombytes(samples.operations)
        self.dues.frombytes(samples.dues)
        self.latencies.frombytes(samples.latencies)
        self.lags.frombytes(samples.lags)
        outcomes = array("H")
        outcomes.frombytes(samples.outcomes)
        numbers = [self._number(name) for name in samples.outcome_names]
        self.outcomes.extend(numbers[outcome] for outcome in outcomes)
        return range(begin, len(self.dues))

    def _number(self, name: str) -> int:
        if name not in self.outcome_names:
            self.outcome_names.append(name)
        return self.outcome_names.index(name)


class Tick(msgspec.Struct, frozen=True):
    """How the last second went, for the live line. Latencies in ms."""

    elapsed_seconds: float
    answered: int
    denied: int
    failed: int
    p50_ms: float
    p99_ms: float
    in_flight: int
    calls: int


OnTick = Callable[[Tick], None]


class Fleet:
    """One run of several generators, each with its share of the orders."""

    def __init__(self, orders: Sequence[Orders], on_tick: OnTick | None = None) -> None:
        self._orders = orders
        self._on_tick = on_tick
        self._generators: list[Process] = []
        self._first: dict[int, Samples] = {}
        self._latest: dict[int, Samples] = {}
        self.collected = Collected()

    @property
    def pids(self) -> list[int]:
        """The process ids of the generators."""
        return [process.pid for process in self._generators]

    @property
    def cpu_ns(self) -> int:
        """User and system time of all generators since they were ready to begin."""
        return sum(one.cpu_ns - self._first[pid].cpu_ns for pid, one in self._latest.items())

    async def run(self, on_begin: Callable[[int], None] | None = None) -> Collected:
        """Run all to their end and return what they measured.

        `on_begin` is told the moment (`time.monotonic_ns`) when the schedule begins. Raises
        LoadTestError when a generator fails, with what it wrote.
        """
        try:
            self._generators = [await spawn("loadtest.generator") for _ in self._orders]
            for process, orders in zip(self._generators, self._orders, strict=True):
                _write(process, orders)
            async with asyncio.timeout(_CONNECT_SECONDS_MAX):
                await asyncio.gather(*(self._hear(one) for one in self._generators))
            start_ns = self.collected.start_ns = time.monotonic_ns() + _LEAD_NS
            if on_begin is not None:
                on_begin(start_ns)
            for process in self._generators:
                _write(process, Go(start_ns))
            async with asyncio.timeout(self._seconds_max()):
                await self._collect(start_ns)
        except TimeoutError:
            raise LoadTestError("a generator does not end in time") from None
        finally:
            await asyncio.gather(*map(end, self._generators))
        return self.collected

    def _seconds_max(self) -> float:
        return _END_SECONDS_MAX + max(
            orders.closed_seconds
            + orders.drain_seconds
            + sum(stretch.seconds for stretch in orders.stretches)
            for orders in self._orders
        )

    async def _collect(self, start_ns: int) -> None:
        ticking = asyncio.create_task(self._tick(start_ns))
        try:
            await asyncio.gather(*map(self._hear_to_the_end, self._generators))
        finally:
            ticking.cancel()

    async def _hear_to_the_end(self, process: Process) -> None:
        while (await self._hear(process)).state != "ended":
            pass

    async def _hear(self, process: Process) -> Samples:
        reader = process.stdout
        assert reader is not None, "generators are started with a pipe"
        try:
            head = await reader.readexactly(FRAME.size)
            data = await reader.readexactly(FRAME.unpack(head)[0])
        except asyncio.IncompleteReadError:
            raise LoadTestError(
                f"generator {process.pid} ended unasked; what it said is above"
            ) from None
        samples = msgspec.msgpack.decode(data, type=Samples)
        self._first.setdefault(process.pid, samples)
        self._latest[process.pid] = samples
        self.collected.add(samples)
        return samples

    async def _tick(self, start_ns: int) -> None:
        """Tell of each second what has come in since the last."""
        told = 0
        while self._on_tick is not None:
            await asyncio.sleep(1)
            total = len(self.collected.dues)
            self._on_tick(self._summary(range(told, total), start_ns))
            told = total

    def _summary(self, rows: range, start_ns: int) -> Tick:
        collected, part = self.collected, slice(rows.start, rows.stop)
        latencies = sorted(collected.latencies[part])
        outcomes = Counter(collected.outcomes[part])
        failed = sum(
            count
            for number, count in outcomes.items()
            if collected.outcome_names[number].startswith(ERROR_PREFIX)
        )
        return Tick(
            elapsed_seconds=(time.monotonic_ns() - start_ns) / NANOS_PER_SECOND,
            answered=len(rows),
            denied=len(rows) - outcomes[0] - failed,
            failed=failed,
            p50_ms=_at(latencies, 0.5),
            p99_ms=_at(latencies, 0.99),
            in_flight=sum(one.in_flight for one in self._latest.values()),
            calls=sum(one.calls for one in self._latest.values()),
        )


@contextlib.asynccontextmanager
async def echo_server() -> AsyncIterator[tuple[Target, int]]:
    """Run the echo server in a process of its own; yield where it listens and its pid."""
    process = await spawn("loadtest.echo")
    try:
        assert process.stdout is not None, "it is started with a pipe"
        line = await process.stdout.readline()
        if not line:
            raise LoadTestError("the echo server did not start; what it said is above")
        yield Target(port=int(line)), process.pid
    finally:
        await end(process)


async def spawn(module: str) -> Process:
    """Start a module of this package with pipes; what it writes as errors is seen."""
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", module,
        stdin=PIPE, stdout=PIPE, cwd=_ROOT, env={**os.environ, "PYTHONUNBUFFERED": "1"},
        limit=1 << 24,
    )  # fmt: skip


async def end(process: Process) -> None:
    """Close a child's input, which ends it; kill it if it does not."""
    if process.stdin is not None:
        process.stdin.close()
    try:
        async with asyncio.timeout(2):
            await process.wait()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def _write(process: Process, message: msgspec.Struct) -> None:
    assert process.stdin is not None, "generators are started with a pipe"
    process.stdin.write(encode_frame(message))


def _at(ascending: Sequence[int], fraction: float) -> float:
    if not ascending:
        return 0.0
    return ascending[min(len(ascending) - 1, int(fraction * len(ascending)))] / 1e6
