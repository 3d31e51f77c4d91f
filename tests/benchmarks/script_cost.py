"""`python -m benchmarks.script_cost`: what each script costs the store, as ratios in one run.

Every round runs the minimal pair, a chain of two and a chain of four one after the other, on an
empty store and on one full of live calls; a ratio is taken within its round, and the median of
the rounds is what is printed. Costs are the store's own: microseconds of EVALSHA in
`INFO commandstats`, and CPU of the server's process in `INFO cpu`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from benchmarks.live_calls import load_live_calls
from benchmarks.minimal import MinimalPair
from benchmarks.pipeline import Pipeline
from benchmarks.recording import CALL_ID, CallTemplates, record_chains

from authz.store import keys
from authz.store.embedded import EmbeddedStore

CHAINS: Final = {
    "chain of 2": ("pair-sub", "pair-master"),
    "chain of 4": ("four-leaf", "four-team", "four-division", "four-root"),
}
MINIMAL: Final = "minimal"
KINDS: Final = ("authorize", "reserve", "settle")
#: Nothing rewrites the log in the middle of a measurement.
QUIET: Final = {"auto-aof-rewrite-percentage": "0"}


class Goal(NamedTuple):
    """One line of DESIGN's goals: a ratio of two costs and its upper bound."""

    label: str
    above: tuple[str, str, str]
    below: tuple[str, str, str]
    bound: float


def _goals() -> list[Goal]:
    empty, full = "empty", "full"
    goals = []
    for kind, bound in (("authorize", 1.8), ("reserve", 1.8), ("settle", 1.5)):
        pair_kind = "settle" if kind == "settle" else "authorize"
        goals.append(
            Goal(
                f"{kind}, chain of 2 / minimal {pair_kind}",
                (empty, "chain of 2", kind),
                (empty, MINIMAL, pair_kind),
                bound,
            )
        )
    for kind in KINDS:
        goals.append(
            Goal(
                f"{kind}, chain of 4 / chain of 2",
                (empty, "chain of 4", kind),
                (empty, "chain of 2", kind),
                1.6,
            )
        )
    for kind, bound in (("authorize", 1.25), ("reserve", 1.5), ("settle", 1.5)):
        goals.append(
            Goal(
                f"{kind}, with live calls / without",
                (full, "chain of 2", kind),
                (empty, "chain of 2", kind),
                bound,
            )
        )
    return goals


class Subjects:
    """Everything that is measured on one store."""

    def __init__(self, url: str, templates: Sequence[CallTemplates]) -> None:
        self.store = Pipeline(url)
        self.pair = MinimalPair(self.store)
        self.templates = dict(zip(CHAINS, templates, strict=True))
        self._next_call = 1_000

    @classmethod
    async def prepare(cls, url: str, live_calls: int) -> Subjects:
        """Return the subjects on the store at `url`, which then has that many live calls."""
        if live_calls:
            await load_live_calls(url, live_calls)
        return cls(url, await record_chains(url, tuple(CHAINS.values())))

    def measure_round(self, calls: int) -> dict[tuple[str, str], tuple[float, float]]:
        """Lead `calls` calls of every subject through their lives; return µs per script.

        By (subject, kind): microseconds of the command, microseconds of the process's CPU.
        """
        costs = {}
        call_ids = [CALL_ID.format(self._next_call + number) for number in range(calls)]
        self._next_call += calls
        for kind in KINDS:
            for name, subject in ((MINIMAL, self.pair), *self.templates.items()):
                if subject is self.pair and kind == "reserve":
                    continue
                commands = subject.commands(kind, call_ids)
                costs[name, kind] = self._cost(commands, 1 if subject is self.pair else 0)
        return costs

    def _cost(self, commands: Sequence[bytes], success: int) -> tuple[float, float]:
        store = self.store
        store.execute("CONFIG", "RESETSTAT")
        before = _cpu_seconds(store)
        replies = store.run(commands)
        after = _cpu_seconds(store)
        refused = [reply for reply in replies if reply[0] != success]
        if refused:
            raise RuntimeError(f"{len(refused)} of {len(replies)} were refused: {refused[0]}")
        statistic = store.information("commandstats")["cmdstat_evalsha"]
        microseconds = int(dict(part.split("=") for part in statistic.split(","))["usec"])
        count = len(commands)
        return microseconds / count, (after - before) * 1e6 / count


def _cpu_seconds(store: Pipeline) -> float:
    information = store.information("cpu")
    return float(information["used_cpu_user"]) + float(information["used_cpu_sys"])


class Costs:
    """Microseconds of every round by (state of the store, subject, kind)."""

    def __init__(self) -> None:
        self._rounds: dict[tuple[str, str, str], list[tuple[float, float]]] = {}

    def add(self, state: str, costs: dict[tuple[str, str], tuple[float, float]]) -> None:
        """Add one round."""
        for (subject, kind), cost in costs.items():
            self._rounds.setdefault((state, subject, kind), []).append(cost)

    def median(self, key: tuple[str, str, str], column: int = 0) -> float:
        """Return the median over the rounds: 0 the command's µs, 1 the process's."""
        return statistics.median(cost[column] for cost in self._rounds[key])

    def ratio(self, goal: Goal, column: int = 0) -> float | None:
        """Return the median of the rounds' ratios, or None for what was not measured."""
        if goal.above not in self._rounds or goal.below not in self._rounds:
            return None
        pairs = zip(self._rounds[goal.above], self._rounds[goal.below], strict=True)
        return statistics.median(above[column] / below[column] for above, below in pairs)

    def __iter__(self) -> Iterator[tuple[str, str, str]]:
        return iter(self._rounds)


def measure(calls: int, rounds: int, live_calls: int, server: Path | None) -> Costs:
    """Measure on private stores, an empty one and, with `live_calls`, a full one in turns."""
    states = {"empty": 0, **({"full": live_calls} if live_calls else {})}
    costs = Costs()
    with contextlib.ExitStack() as stack:
        subjects: dict[str, Subjects] = {}
        for state, live in states.items():
            directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="authz-bench-"))
            store = EmbeddedStore(Path(directory) / "state", server=server, options=QUIET)
            stack.enter_context(store)
            subjects[state] = asyncio.run(Subjects.prepare(store.url, live))
            stack.callback(subjects[state].store.close)
        for number in range(rounds + 1):
            for state, subject in subjects.items():
                measured = subject.measure_round(calls)
                # The first round warms up: allocators, hash tables, branch predictors.
                if number > 0:
                    costs.add(state, measured)
    return costs


def report(costs: Costs) -> str:
    """Return the tables: medians in microseconds, then the ratios beside their goals."""
    lines = [f"{'store':6} {'subject':12} {'script':10} {'script µs':>10} {'process µs':>11}"]
    lines += [
        f"{key[0]:6} {key[1]:12} {key[2]:10} {costs.median(key):10.2f} {costs.median(key, 1):11.2f}"
        for key in costs
    ]
    lines += ["", f"{'ratio (medians within a round)':44} {'script':>7} {'process':>8} {'goal':>7}"]
    for goal in _goals():
        by_script, by_process = costs.ratio(goal), costs.ratio(goal, 1)
        if by_script is not None and by_process is not None:
            missed = "" if by_script <= goal.bound else "  missed"
            lines.append(
                f"{goal.label:44} {by_script:7.2f} {by_process:8.2f} ≤ {goal.bound:<5}{missed}"
            )
    return "\n".join(lines)


def as_json(costs: Costs) -> str:
    """Return the same as JSON."""
    document = {
        "microseconds": [
            {
                "store": state,
                "subject": subject,
                "script": kind,
                "script_us": round(costs.median((state, subject, kind)), 3),
                "process_us": round(costs.median((state, subject, kind), 1), 3),
            }
            for state, subject, kind in costs
        ],
        "ratios": [
            {"ratio": goal.label, "value": round(ratio, 3), "goal": goal.bound}
            for goal in _goals()
            if (ratio := costs.ratio(goal)) is not None
        ],
    }
    return json.dumps(document, indent=2, ensure_ascii=False)


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.script_cost", description=__doc__)
    parser.add_argument("--calls", type=int, default=2_000, help="calls of a subject in a round")
    parser.add_argument("--rounds", type=int, default=7, help="rounds after the first")
    parser.add_argument("--live", type=int, default=0, help="live calls of the second store")
    parser.add_argument("--server", type=Path, help="server binary instead of the embedded one")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    options = parser.parse_args(arguments)
    costs = measure(options.calls, options.rounds, options.live, options.server)
    sys.stdout.write((as_json(costs) if options.json else report(costs)) + os.linesep)
    return 0


if __name__ == "__main__":
    sys.exit(main())
