"""`python -m benchmarks.archive_stalls`: how long others wait while the archive is filled.

A store gets ledger entries at a steady rate, an office drains them, and two probes do what worker
and switch do: one sleeps for a millisecond and tells how late it wakes up, the other asks the store
for a PING and tells how long that took. The variants (none: nobody drains; else how the kernel is
to schedule the office) run in turns, so that what else the machine does falls on all alike.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import socket
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import uvloop

from authz.config import Settings
from authz.config.archive import ArchiveSettings
from authz.ledger.archive import Archive
from authz.server.courtesy import NICENESS, give_way
from authz.store import keys
from authz.store.client import StoreClient
from authz.store.connection import pack_command
from authz.store.embedded import EmbeddedStore
from benchmarks.archive_drain import entry_of
from benchmarks.pipeline import Pipeline
from benchmarks.roles import running

#: How the kernel schedules the office: policy and niceness.
POLICIES: Final = {
    "nice-0": (os.SCHED_OTHER, 0),
    "nice-10": (os.SCHED_OTHER, 10),
    "nice-19": (os.SCHED_OTHER, 19),
    "batch-10": (os.SCHED_BATCH, 10),
    "batch-19": (os.SCHED_BATCH, 19),
    "idle": (os.SCHED_IDLE, 10),
}
#: As the office of `authz serve` has it.
OFFICE: Final = "office"
NOBODY: Final = "none"
_WARM_UP_SECONDS: Final = 5
_STEP_SECONDS: Final = 0.01
_PERIOD_NS: Final = 1_000_000
_NAME: Final = "archive_stalls"


def office(url: str, directory: str, variant: str) -> None:
    """Archive until killed."""
    if variant == OFFICE:
        give_way(NICENESS)
    else:
        policy, niceness = POLICIES[variant]
        os.nice(niceness)
        os.sched_setscheduler(0, policy, os.sched_param(0))

    async def run() -> None:
        client = await StoreClient.connect(url)
        archive = Archive(
            client,
            Settings(
                state_dir=Path(directory),
                archive=ArchiveSettings(delay_seconds=1, keep_seconds=2),
            ),
        )
        archive.start()
        await asyncio.Event().wait()

    uvloop.run(run())


def feed(url: str, entries_per_second: int) -> None:
    """Append entries, spread over all buckets, until killed."""
    sequences = [0] * keys.BUCKETS
    began, fed = time.monotonic(), 0
    with Pipeline(url) as store:
        while True:
            time.sleep(_STEP_SECONDS)
            due = int((time.monotonic() - began) * entries_per_second)
            commands = []
            for number in range(fed, due):
                bucket = number % keys.BUCKETS
                sequences[bucket] += 1
                tag, entry = keys.TAGS[bucket], entry_of(bucket, sequences[bucket])
                commands.append(pack_command(("XADD", keys.ledger(tag), "*", "e", entry)))
                count = ("HSET", keys.bucket(tag), "sequence", sequences[bucket])
                commands.append(pack_command(count))
            store.run(commands)
            fed = due


def sleeper(seconds: float) -> list[int]:
    """Return how late a sleeper woke up, in nanoseconds, each time."""
    late = []
    end = time.monotonic_ns() + int(seconds * 1_000_000_000)
    while (now := time.monotonic_ns()) < end:
        time.sleep(_PERIOD_NS / 1_000_000_000)
        late.append(time.monotonic_ns() - now - _PERIOD_NS)
    return late


def pinger(path: str, seconds: float) -> list[int]:
    """Return how long the store took to answer, in nanoseconds, each time."""
    took = []
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        end = time.monotonic_ns() + int(seconds * 1_000_000_000)
        while time.monotonic_ns() < end:
            time.sleep(_PERIOD_NS / 1_000_000_000)
            now = time.monotonic_ns()
            connection.sendall(b"PING\r\n")
            connection.recv(64)
            took.append(time.monotonic_ns() - now)
    return took


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(
    variant: str, rate: int, seconds: float, warm_up_seconds: float = _WARM_UP_SECONDS
) -> dict[str, list[int]]:
    """Return what the probes tell of one variant, and the office's share of a core in 1/1000."""
    with (
        tempfile.TemporaryDirectory(prefix="authz-bench-") as directory,
        EmbeddedStore(Path(directory) / "state") as store,
        running(_NAME, "feed", store.url, rate),
        contextlib.ExitStack() as stack,
    ):
        drain = None
        if variant != NOBODY:
            drain = stack.enter_context(running(_NAME, "office", store.url, directory, variant))
        time.sleep(warm_up_seconds)
        used = cpu_seconds(drain.pid) if drain else 0
        path = store.url.partition("://")[2].partition("?")[0]
        with (
            running(_NAME, "sleeper", seconds) as one,
            running(_NAME, "pinger", path, seconds) as two,
        ):
            told = [json.loads(probe.communicate()[0]) for probe in (one, two)]
        share = (cpu_seconds(drain.pid) - used) / seconds if drain else 0
        return {"wake": told[0], "ping": told[1], "office": [round(share * 1_000)]}


def quantile(values: Sequence[int], thousandths: int) -> int:
    """Return the value that so many thousandths do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * thousandths // 1_000)]


def describe(variant: str, told: list[dict[str, list[int]]]) -> str:
    """Return a line: medians over the rounds of each round's quantiles, in microseconds."""
    parts = []
    for name in ("wake", "ping"):
        figures = [
            quantile([quantile(one[name], part) for one in told], 500) // 1_000
            for part in (500, 990, 999)
        ]
        parts.append(f"{name} p50 {figures[0]:>5} p99 {figures[1]:>6} p99.9 {figures[2]:>6} µs")
    share = quantile([one["office"][0] for one in told], 500) / 10
    return f"{variant:<10} {'   '.join(parts)}   office {share:.1f} % of a core"


def act(role: str, *words: str) -> None:
    """Play a role in a process of its own."""
    if role == "office":
        office(*words)
    elif role == "feed":
        feed(words[0], int(words[1]))
    else:
        found = sleeper(float(words[0])) if role == "sleeper" else pinger(words[0], float(words[1]))
        sys.stdout.write(json.dumps(found))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the variants in turns and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=int, default=1_700, help="entries of two legs a second")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=6)
    parser.add_argument("--variants", nargs="+", default=[NOBODY, OFFICE, *POLICIES])
    parser.add_argument("--role", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.role:
        act(*options.role)
        return
    told: dict[str, list[dict[str, list[int]]]] = {name: [] for name in options.variants}
    for _ in range(options.rounds):
        for variant in options.variants:
            told[variant].append(measure(variant, options.rate, options.seconds))
    for variant, rounds in told.items():
        sys.stdout.write(describe(variant, rounds) + "\n")


if __name__ == "__main__":
    main()
