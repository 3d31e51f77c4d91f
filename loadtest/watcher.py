"""Who had the processors when: run and waiting times of every process, 500 times a second.

A process of its own samples what the kernel counts (`/proc/PID/task/TID/schedstat`: time on a
processor, time ready for one but waiting), which threads wait for a disk or a page (state D of
`stat`), and the time that other virtual machines had this one's cores (`steal` of `/proc/stat`).
It takes some hundredths of a core itself.
"""

from __future__ import annotations

import asyncio
import contextlib
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
_READ_BYTES: Final = 512
_NANOS_PER_TICK: Final = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
#: Of the first line of /proc/stat, whose first word is its name.
_STEAL_PLACE: Final = 8


class Watched(Struct, frozen=True):
    """What a watcher is told: the process ids of each role."""

    pids: dict[str, list[int]]


class Sightings(Struct, frozen=True):
    """What a watcher has seen: 64-bit numbers in the machine's byte order, one a sample.

    `at_ns` is `time.monotonic_ns`; by role, how long all its threads together had run, had waited
    for a processor, and had been blocked by a disk or a page, by then; how long all cores together
    had been stolen by other machines (the kernel tells it in steps of 10 ms).
    """

    at_ns: bytes
    ran_ns: dict[str, bytes]
    waited_ns: dict[str, bytes]
    blocked_ns: dict[str, bytes]
    stolen_ns: bytes


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


class _Thread:
    """One thread's counters, which stand still once it has ended."""

    def __init__(self, task: Path) -> None:
        """Raises OSError for one that has ended already."""
        self._counters, self._state = _open(task / "schedstat"), _open(task / "stat")
        self.ran_ns = self.waited_ns = self.blocked_ns = 0

    def sample(self, passed_ns: int) -> None:
        """Read them; who is blocked now was so since the sample before, `passed_ns` ago."""
        with contextlib.suppress(OSError, ValueError):
            ran, waited, _ = os.pread(self._counters, _READ_BYTES, 0).split()
            if b") D " in os.pread(self._state, _READ_BYTES, 0):
                self.blocked_ns += passed_ns
            self.ran_ns, self.waited_ns = int(ran), int(waited)


class _Role:
    """The counters of all threads that one role's processes have now; later ones are not seen."""

    def __init__(self, pids: Sequence[int]) -> None:
        self._threads: list[_Thread] = []
        self.ran_ns, self.waited_ns, self.blocked_ns = array("q"), array("q"), array("q")
        for pid in pids:
            for task in Path(f"/proc/{pid}/task").glob("*"):
                with contextlib.suppress(OSError):
                    self._threads.append(_Thread(task))

    def sample(self, passed_ns: int) -> None:
        """Note how long they have run, waited and been blocked together."""
        for thread in self._threads:
            thread.sample(passed_ns)
        self.ran_ns.append(sum(thread.ran_ns for thread in self._threads))
        self.waited_ns.append(sum(thread.waited_ns for thread in self._threads))
        self.blocked_ns.append(sum(thread.blocked_ns for thread in self._threads))


def _open(path: Path) -> int:
    return os.open(path, os.O_RDONLY)


def watch(watched: Watched, stop_file: int) -> Sightings:
    """Sample until `stop_file` has something to read, or its end."""
    roles = {role: _Role(pids) for role, pids in watched.pids.items()}
    machine = _open(Path("/proc/stat"))
    at_ns, stolen_ns = array("q"), array("q")
    stop = select.poll()
    stop.register(stop_file, select.POLLIN | select.POLLHUP)
    last_ns = time.monotonic_ns()
    while not stop.poll(0) and len(at_ns) < _SAMPLES_MAX:
        now_ns = time.monotonic_ns()
        at_ns.append(now_ns)
        stolen_ns.append(_stolen_ticks(machine) * _NANOS_PER_TICK)
        for one in roles.values():
            one.sample(now_ns - last_ns)
        last_ns = now_ns
        time.sleep(_PAUSE_SECONDS)
    return Sightings(
        at_ns.tobytes(),
        {role: one.ran_ns.tobytes() for role, one in roles.items()},
        {role: one.waited_ns.tobytes() for role, one in roles.items()},
        {role: one.blocked_ns.tobytes() for role, one in roles.items()},
        stolen_ns.tobytes(),
    )


def _stolen_ticks(machine: int) -> int:
    return int(os.pread(machine, _READ_BYTES, 0).split(maxsplit=_STEAL_PLACE + 1)[_STEAL_PLACE])


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
