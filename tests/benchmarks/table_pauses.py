"""`python -m benchmarks.table_pauses`: for how long one step of a table of live calls stops all.

So many calls come; then as many go as come, any of them, until every one has been replaced some
times. Told is the longest single step of either time (processor time, so that others' work does
not count), and what a step takes on average, for a dict, an OrderedDict, which can forget its
oldest entry, and `Latest`, with which a worker remembers its calls. At last so many calls live in
the gate that counts them, each extended once, and the first leases come up one after the other.
"""

from __future__ import annotations

import argparse
import gc
import random
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import msgspec

from authz_ext.gate import CallGate
from authz_ext.tables import Latest

_LIVE: Final = (10_000, 100_000)
_TURNOVERS: Final = 3
_CHAIN: Final = ("sub", "master")
_OUTBOUND: Final = 0
_NATIONAL: Final = 2
_LEASE_US: Final = 90_000_000


class Pauses(NamedTuple):
    """What was found of one table. Microseconds of processor time."""

    table: str
    live: int
    growing_max_us: float
    steady_max_us: float
    mean_us: float


class _Table(NamedTuple):
    put: Callable[[str, object], object]
    pop: Callable[[str], object]


def _of_dict(_: int) -> _Table:
    table: dict[str, object] = {}
    return _Table(table.__setitem__, table.pop)


def _of_ordered_dict(_: int) -> _Table:
    table: OrderedDict[str, object] = OrderedDict()
    return _Table(table.__setitem__, table.pop)


def _of_latest(live: int) -> _Table:
    table: Latest[str, object] = Latest(2 * live)
    return _Table(table.put, table.pop)


_TABLES: Final = {"dict": _of_dict, "OrderedDict": _of_ordered_dict, "Latest": _of_latest}


def measure(name: str, live: int) -> Pauses:
    """Return the pauses of one table with so many live calls."""
    put, pop = _TABLES[name](live)
    keys = [f"customer-{number % 997}:{number:08}" for number in range((1 + _TURNOVERS) * live)]
    rng = random.Random(1)
    present: list[str] = []
    growing: list[int] = []
    steady: list[int] = []
    for key in keys:
        value = key.encode()
        took = growing if len(present) < live else steady
        if len(present) == live:
            place = rng.randrange(live)
            present[place], present[-1] = present[-1], present[place]
            gone = present.pop()
            took.append(_timed(pop, gone))
        took.append(_timed(put, key, value))
        present.append(key)
    mean = sum(growing) + sum(steady)
    return Pauses(
        name, live, max(growing) / 1e3, max(steady) / 1e3,
        mean / (len(growing) + len(steady)) / 1e3,
    )  # fmt: skip


def measure_gate(live: int) -> float:
    """Return how long at most a new call waits while leases of live ones are looked at."""
    gate = CallGate()
    step_us = _LEASE_US // live
    for number in range(live):
        now_us = number * step_us
        gate.opened(f"{number}", _CHAIN, _OUTBOUND, _NATIONAL, now_us + _LEASE_US, now_us)
    # Each is extended once before its first lease ends.
    for number in range(live):
        gate.renewed(f"{number}", (live + number) * step_us + _LEASE_US)
    longest = 0
    for number in range(live):
        now_us = (live + number) * step_us
        new = (f"new-{number}", _CHAIN, _OUTBOUND, _NATIONAL, now_us + _LEASE_US, now_us)
        longest = max(longest, _timed(gate.opened, *new))
        gate.closed(new[0])
    return longest / 1e3


def _timed(step: Callable[..., object], *arguments: object) -> int:
    begun = time.thread_time_ns()
    step(*arguments)
    return time.thread_time_ns() - begun


def report(found: Sequence[Pauses], gates: dict[int, float]) -> str:
    """Return the figures as a table."""
    lines = ["longest step, µs               live   as they come   come and go   a step (mean)"]
    lines += [
        f"{one.table:24} {one.live:10,} {one.growing_max_us:14,.0f} {one.steady_max_us:13,.0f}"
        f" {one.mean_us:15.2f}"
        for one in found
    ]
    lines += [f"{'gate, leases':24} {live:10,} {'':14} {us:13,.0f}" for live, us in gates.items()]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, measure, print."""
    program = "python -m benchmarks.table_pauses"
    parser = argparse.ArgumentParser(prog=program, description=__doc__)
    parser.add_argument("--live", type=int, nargs="+", default=list(_LIVE), help="live calls")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args(arguments)
    gc.disable()
    found = [measure(name, live) for live in options.live for name in _TABLES]
    gates = {live: measure_gate(live) for live in options.live}
    if options.json:
        told = msgspec.json.encode({"tables": [one._asdict() for one in found], "gate": gates})
        sys.stdout.write(told.decode() + "\n")
    else:
        sys.stdout.write(report(found, gates))
    return 0


if __name__ == "__main__":
    sys.exit(main())
