"""`python -m benchmarks.script_cost`: what each script costs the store, as ratios in one run.

Every round runs the minimal pair, a chain of two and a chain of four one after the other, on an
empty store and on one full of live calls; a ratio is taken within its round, and the median of
the rounds is what is printed. Costs are the store's own: microseconds of EVALSHA in
`INFO commandstats` (wall clock: preemption counts) and CPU of the server's process in `INFO cpu`
(with the network's part). With `--instructions` they are machine instructions inside EVALSHA,
counted by callgrind, which do not depend on how busy the machine is.
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
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from authz.store.embedded import EmbeddedStore
from authz.store.replies import read_answer
from benchmarks.instructions import CountingStore, missing_tools
from benchmarks.live_calls import load_live_calls
from benchmarks.minimal import MinimalPair
from benchmarks.pipeline import Pipeline
from benchmarks.recording import CALL_ID, CallTemplates, record_chains

CHAINS: Final = {
    "chain of 2": ("pair-sub", "pair-master"),
    "chain of 4": ("four-leaf", "four-team", "four-division", "four-root"),
}
MINIMAL: Final = "minimal"
KINDS: Final = ("authorize", "reserve", "settle")
#: Nothing rewrites the log in the middle of a measurement.
QUIET: Final = {"auto-aof-rewrite-percentage": "0"}
_COUNTED_CALLS: Final = 600
#: Led before, uncounted: with few entries the hour's tombstones and the leases are lists, which a
#: store searches from end to end, and not what they are in any store that is in use.
_CALLS_BEFORE_COUNTING: Final = 1_000

#: Cost of one script call by unit: "script_us", "process_us" or "instructions".
Cost = dict[str, float]
#: Runs commands; returns what one of them costs, and the replies.
Meter = Callable[[Sequence[bytes]], tuple[Cost, list[Any]]]


class Goal(NamedTuple):
    """A ratio of two costs, each by (state of the store, subject, kind), and its upper bound."""

    label: str
    above: tuple[str, str, str]
    below: tuple[str, str, str]
    bound: float


def _goals() -> list[Goal]:
    """Return what DESIGN promises of scripts."""
    empty, full, two, four = "empty", "full", "chain of 2", "chain of 4"
    goals = []
    for kind, bound in (("authorize", 1.8), ("reserve", 1.8), ("settle", 1.5)):
        pair = "settle" if kind == "settle" else "authorize"
        label = f"{kind}, chain of 2 / minimal {pair}"
        goals.append(Goal(label, (empty, two, kind), (empty, MINIMAL, pair), bound))
    for kind in KINDS:
        label = f"{kind}, chain of 4 / chain of 2"
        goals.append(Goal(label, (empty, four, kind), (empty, two, kind), 1.6))
    for kind, bound in (("authorize", 1.25), ("reserve", 1.5), ("settle", 1.5)):
        label = f"{kind}, with live calls / without"
        goals.append(Goal(label, (full, two, kind), (empty, two, kind), bound))
    return goals


class Subjects:
    """Everything that is measured on one store."""

    def __init__(self, url: str, templates: Sequence[CallTemplates]) -> None:
        self.store = Pipeline(url)
        self._pair = MinimalPair(self.store)
        self._templates = dict(zip(CHAINS, templates, strict=True))
        self._next_call = 1_000

    @classmethod
    async def prepare(cls, url: str, live_calls: int) -> Subjects:
        """Return the subjects on the store at `url`, which then has that many live calls."""
        if live_calls:
            await load_live_calls(url, live_calls)
        return cls(url, await record_chains(url, tuple(CHAINS.values())))

    def measure_round(self, calls: int, meter: Meter) -> dict[tuple[str, str], Cost]:
        """Lead `calls` calls of every subject through their lives; return costs per script."""
        costs = {}
        call_ids = [CALL_ID.format(self._next_call + number) for number in range(calls)]
        self._next_call += calls
        for kind in KINDS:
            for name, subject in ((MINIMAL, self._pair), *self._templates.items()):
                if subject is self._pair and kind == "reserve":
                    continue
                costs[name, kind], replies = meter(subject.commands(kind, call_ids))
                success = 1 if subject is self._pair else 0
                refused = [reply for reply in replies if read_answer(reply)[0] != success]
                if refused:
                    raise RuntimeError(f"{name}: {len(refused)} {kind} were refused: {refused[0]}")
        return costs

    def time(self, commands: Sequence[bytes]) -> tuple[Cost, list[Any]]:
        """Measure by the store's own clocks."""
        store = self.store
        store.execute("CONFIG", "RESETSTAT")
        before = _cpu_seconds(store)
        replies = store.run(commands)
        after = _cpu_seconds(store)
        statistic = store.information("commandstats")["cmdstat_evalsha"]
        microseconds = int(dict(part.split("=") for part in statistic.split(","))["usec"])
        count = len(commands)
        cost = {"script_us": microseconds / count, "process_us": (after - before) * 1e6 / count}
        return cost, replies


def _cpu_seconds(store: Pipeline) -> float:
    information = store.information("cpu")
    return float(information["used_cpu_user"]) + float(information["used_cpu_sys"])


class Costs:
    """Costs of every round by (state of the store, subject, kind)."""

    def __init__(self) -> None:
        self._rounds: dict[tuple[str, str, str], list[Cost]] = {}

    def __iter__(self) -> Iterator[tuple[str, str, str]]:
        return iter(self._rounds)

    def add(self, state: str, costs: dict[tuple[str, str], Cost]) -> None:
        """Add one round."""
        for (subject, kind), cost in costs.items():
            self._rounds.setdefault((state, subject, kind), []).append(cost)

    def median(self, key: tuple[str, str, str]) -> Cost:
        """Return the medians over the rounds, by unit."""
        rounds = self._rounds[key]
        return {unit: statistics.median(cost[unit] for cost in rounds) for unit in rounds[0]}

    def ratio(self, goal: Goal) -> Cost | None:
        """Return the medians of the rounds' ratios, or None for what was not measured."""
        if goal.above not in self._rounds or goal.below not in self._rounds:
            return None
        pairs = list(zip(self._rounds[goal.above], self._rounds[goal.below], strict=True))
        return {
            unit: statistics.median(above[unit] / below[unit] for above, below in pairs)
            for unit in pairs[0][0]
        }


def measure(calls: int, rounds: int, live_calls: int, server: Path | None) -> Costs:
    """Measure time on private stores, an empty one and, with `live_calls`, a full one in turns."""
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
                measured = subject.measure_round(calls, subject.time)
                # The first round warms up: allocators, hash tables, branch predictors.
                if number > 0:
                    costs.add(state, measured)
    return costs


def count(server: Path | None) -> Costs:
    """Count instructions on a private, empty store; one round is as good as many."""
    costs = Costs()
    with tempfile.TemporaryDirectory(prefix="authz-bench-") as directory:
        counting = CountingStore(Path(directory), server, QUIET)
        with counting.store as store:
            subjects = asyncio.run(Subjects.prepare(store.url, 0))

            def meter(commands: Sequence[bytes]) -> tuple[Cost, list[Any]]:
                instructions, replies = counting.count(subjects.store, commands)
                return {"instructions": instructions}, replies

            subjects.measure_round(_CALLS_BEFORE_COUNTING, subjects.time)
            counting.begin()
            costs.add("empty", subjects.measure_round(_COUNTED_CALLS, meter))
            subjects.store.close()
    return costs


def report(costs: Costs) -> str:
    """Return the tables: medians, then the ratios beside their goals."""
    units = list(costs.median(next(iter(costs))))
    heads = "".join(f"{unit:>14}" for unit in units)
    lines = [f"{'store':6} {'subject':12} {'script':10}{heads}"]
    for key in costs:
        cells = "".join(f"{value:14,.2f}" for value in costs.median(key).values())
        lines.append(f"{key[0]:6} {key[1]:12} {key[2]:10}{cells}")
    lines += ["", f"{'ratio':40}{heads}    goal"]
    for goal in _goals():
        ratio = costs.ratio(goal)
        if ratio is not None:
            cells = "".join(f"{value:14.2f}" for value in ratio.values())
            lines.append(f"{goal.label:40}{cells}  ≤ {goal.bound}")
    return "\n".join(lines)


def as_json(costs: Costs) -> str:
    """Return the same as JSON."""
    document = {
        "costs": [
            {"store": state, "subject": subject, "script": kind}
            | costs.median((state, subject, kind))
            for state, subject, kind in costs
        ],
        "ratios": [
            {"ratio": goal.label, "goal": goal.bound} | ratio
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
    parser.add_argument("--instructions", action="store_true", help="count instructions instead")
    parser.add_argument("--server", type=Path, help="server binary instead of the embedded one")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    options = parser.parse_args(arguments)
    if options.instructions and (missing := missing_tools()):
        parser.error(f"install {' and '.join(missing)} first (package valgrind)")
    if options.instructions:
        costs = count(options.server)
    else:
        costs = measure(options.calls, options.rounds, options.live, options.server)
    sys.stdout.write((as_json(costs) if options.json else report(costs)) + os.linesep)
    return 0


if __name__ == "__main__":
    sys.exit(main())
