"""`python -m benchmarks.waking`: how soon a process that wakes up gets a processor that is in use.

One process computes for some milliseconds and sleeps for some, again and again; another sleeps for
a moment, tells how late it woke up, and computes for a moment. Both are bound to one core. The rows
differ in policy, niceness and slice of the first, and in the slice of the second, and are measured
in turns. It shows why the office is scheduled as it is (`authz/server/courtesy.py`).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
from collections.abc import Sequence
from typing import Final, NamedTuple

from authz.server.courtesy import NICENESS, SLICE_US_MAX, schedule
from benchmarks.roles import running

#: Lets the kernel choose.
_ANY: Final = 0
_COMPUTES_SECONDS: Final = 0.004
_PAUSES_SECONDS: Final = 0.002
_SLEEPS_SECONDS: Final = 0.0003
_WORKS_SECONDS: Final = 0.0001


class Setting(NamedTuple):
    """Who computes beside the sleeper, None for nobody, and the slices of both in microseconds."""

    name: str
    policy: int | None
    niceness: int
    slice_us: int
    sleeper_slice_us: int


SETTINGS: Final = (
    Setting("nobody", None, 0, _ANY, _ANY),
    Setting("an equal process", os.SCHED_OTHER, 0, _ANY, _ANY),
    Setting("an equal one, the sleeper's slice short", os.SCHED_OTHER, 0, _ANY, 200),
    Setting("nice", os.SCHED_OTHER, NICENESS, _ANY, _ANY),
    Setting("batch, nice, short slice", os.SCHED_BATCH, NICENESS, 400, _ANY),
    Setting("batch, nice, long slice (the office)", os.SCHED_BATCH, NICENESS, SLICE_US_MAX, _ANY),
)


def compute(policy: int, niceness: int, slice_us: int) -> None:
    """Compute and pause until killed."""
    schedule(policy, niceness, slice_us)
    while True:
        _spin(_COMPUTES_SECONDS)
        time.sleep(_PAUSES_SECONDS)


def sleeper(slice_us: int, seconds: float) -> list[int]:
    """Return how late it woke up, in nanoseconds, each time."""
    schedule(os.SCHED_OTHER, 0, slice_us)
    late_ns = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        began_ns = time.monotonic_ns()
        time.sleep(_SLEEPS_SECONDS)
        late_ns.append(time.monotonic_ns() - began_ns - round(_SLEEPS_SECONDS * 1e9))
        _spin(_WORKS_SECONDS)
    return late_ns


def _spin(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def measure(setting: Setting, seconds: float) -> list[int]:
    """Return how late the sleeper woke up beside one setting, in nanoseconds."""
    core = min(os.sched_getaffinity(0))
    with contextlib.ExitStack() as stack:
        if setting.policy is not None:
            words = (setting.policy, setting.niceness, setting.slice_us)
            stack.enter_context(running("waking", core, "compute", *words))
        probe = stack.enter_context(
            running("waking", core, "sleeper", setting.sleeper_slice_us, seconds)
        )
        late_ns: list[int] = json.loads(probe.communicate()[0])
    return late_ns


def _act(core: str, role: str, *words: str) -> None:
    os.sched_setaffinity(0, {int(core)})
    if role == "compute":
        compute(*map(int, words))
    else:
        sys.stdout.write(json.dumps(sleeper(int(words[0]), float(words[1]))))


def describe(setting: Setting, rounds: Sequence[Sequence[int]]) -> str:
    """Return a line: medians over the rounds of each round's quantiles, in microseconds."""
    figures = []
    for part in (0.5, 0.9, 0.99, 0.999):
        values = sorted(sorted(one)[int(part * (len(one) - 1))] for one in rounds)
        figures.append(f"{values[len(values) // 2] / 1_000:>8,.0f}")
    return f"{setting.name:<40}{''.join(figures)}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure all settings in turns and print a line for each."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.waking", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--role", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.role:
        _act(*options.role)
        return
    told: dict[Setting, list[list[int]]] = {setting: [] for setting in SETTINGS}
    for _ in range(options.rounds):
        for setting in SETTINGS:
            told[setting].append(measure(setting, options.seconds))
    sys.stdout.write(
        f"{'who computes on the core':<40}{'p50':>8}{'p90':>8}{'p99':>8}{'p99.9':>8} µs\n"
    )
    for setting, rounds in told.items():
        sys.stdout.write(describe(setting, rounds) + "\n")


if __name__ == "__main__":
    main()
