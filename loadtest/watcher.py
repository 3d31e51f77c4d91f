"""Who had the processors when: run and waiting times of every process, 500 times a second.

A process of its own samples what the kernel's scheduler counts (`/proc/PID/task/TID/schedstat`:
time on a processor, time ready for one but waiting). It takes some hundredths of a core itself.
"""

from __future__ import annotations

import asyncio
import os
import select
import sys
import time
from array import array
from asyncio.subprocess import Process
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Self

import msgspec
from msgspec import Struct

from loadtest import processes
from loadtest.errors import LoadTestError
from loadtest.fleet import end, spawn
from loadtest.plan import FRAME, encode_frame

_PAUSE_SECONDS: Final = 0.002
#: A watcher that nobody ends: twice the longest run there may be.
_SAMPLES_MAX: Final = round(1_200 / _PAUSE_SECONDS)
_END_SECONDS_MAX: Final = 30
_READ_BYTES: Final = 128


class Watched(Struct, frozen=True):
    """What a watcher is told: the process ids of each role."""

    pids: dict[str, list[int]]


class Sightings(Struct, frozen=True):
    """What a watcher has seen: 64-bit numbers in the machine's byte order, one a sample.

    `at_ns` is `time.monotonic_ns`; by role, how long all its threads together had run, and had
    waited for a processor, by then.
    """

    at_ns: bytes
    ran_ns: dict[str, bytes]
    waited_ns: dict[str, bytes]


class Watcher:
    """A watching process, as its parent has it."""

    def __init__(self, process: Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, pids: Sequence[int]) -> Self:
        """Begin to watch processes."""
        process = await spawn("loadtest.watcher")
        assert process.stdin is not None, "it is started with a pipe"
        process.stdin.write(encode_frame(Watched(processes.by_role(pids))))
        return cls(process)

    async def finish(self) -> Sightings:
        """Have it end, and return what was seen; raises LoadTestError if it failed.

        Call `stop` afterwards, whatever this came to.
        """
        reader, writer = self._process.stdout, self._process.stdin
        assert reader is not None, "it is started with pipes"
        assert writer is not None, "it is started with pipes"
        writer.close()
        try:
            async with asyncio.timeout(_END_SECONDS_MAX):
                head = await reader.readexactly(FRAME.size)
                data = await reader.readexactly(FRAME.unpack(head)[0])
        except (asyncio.IncompleteReadError, TimeoutError):
            raise LoadTestError("the watcher has failed; what it said is above") from None
        return msgspec.msgpack.decode(data, type=Sightings)

    async def stop(self) -> None:
        """End the process, whatever it has seen."""
        await end(self._process)


class _Threads:
    """The counters of all threads of one role."""

    def __init__(self, pids: Sequence[int]) -> None:
        self._files: list[int] = []
        for pid in pids:
            for task in Path(f"/proc/{pid}/task").glob("*/schedstat"):
                self._files.append(os.open(task, os.O_RDONLY))

    def read(self) -> tuple[int, int]:
        """Return how long they have run, and waited to run, in ns. Those that end stand still."""
        ran_ns = waited_ns = 0
        for file in self._files:
            try:
                ran, waited, _ = os.pread(file, _READ_BYTES, 0).split()
            except (OSError, ValueError):
                continue
            ran_ns += int(ran)
            waited_ns += int(waited)
        return ran_ns, waited_ns


def watch(watched: Watched, stop_file: int) -> Sightings:
    """Sample until `stop_file` has something to read, or its end."""
    threads = {role: _Threads(pids) for role, pids in watched.pids.items()}
    at_ns = array("q")
    ran_ns = {role: array("q") for role in threads}
    waited_ns = {role: array("q") for role in threads}
    stop = select.poll()
    stop.register(stop_file, select.POLLIN | select.POLLHUP)
    while not stop.poll(0) and len(at_ns) < _SAMPLES_MAX:
        at_ns.append(time.monotonic_ns())
        for role, one in threads.items():
            ran, waited = one.read()
            ran_ns[role].append(ran)
            waited_ns[role].append(waited)
        time.sleep(_PAUSE_SECONDS)
    return Sightings(
        at_ns.tobytes(),
        {role: column.tobytes() for role, column in ran_ns.items()},
        {role: column.tobytes() for role, column in waited_ns.items()},
    )


def main() -> None:
    """Take orders from standard input, watch until it ends, tell on standard output."""
    reader = sys.stdin.buffer
    length = FRAME.unpack(reader.read(FRAME.size))[0]
    watched = msgspec.msgpack.decode(reader.read(length), type=Watched)
    sightings = watch(watched, reader.fileno())
    sys.stdout.buffer.write(encode_frame(sightings))
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
