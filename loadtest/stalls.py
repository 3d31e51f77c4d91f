"""What the machine did while requests waited: the profile behind the worst percentiles.

A stall is a time in which at least one request waited that took longer than 99 of 100. For all
stalls together, and for all other time, it is told how much of a core each kind of process had,
how much it waited for one or was blocked by a disk or a page, how long it computed for an answer,
and how much of the cores other virtual machines had. If processes wait, the cores are short; if an
answer takes longer to compute than otherwise, the machine is slow or there is more to do for it;
what is stolen is the host's doing.
"""

from __future__ import annotations

import operator
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from msgspec import Struct

from loadtest.fleet import Collected
from loadtest.schedule import NANOS_PER_SECOND
from loadtest.watcher import Sightings

_QUANTILE: Final = 0.99
_TOLD_MAX: Final = 8
_NANOS_PER_MS: Final = 1_000_000


class Use(Struct, frozen=True):
    """How one kind of processes used a stretch of time."""

    #: Of one core: having one, being ready without one, and waiting for a disk or a page.
    ran_share: float
    waited_share: float
    blocked_share: float
    #: What it computed for each request that was answered, in microseconds.
    us_per_request: float


class Stall(Struct, frozen=True):
    """One stall: when it began in its run, and how much each kind of processes did what."""

    begin_seconds: float
    duration_ms: float
    #: Requests that took longer than the limit, and the longest of them.
    requests: int
    worst_ms: float
    ran_ms: dict[str, float]
    waited_ms: dict[str, float]
    blocked_ms: dict[str, float]
    stolen_ms: float


class Stalls(Struct, frozen=True):
    """All stalls of some runs: their share of the time, and who did what within and otherwise."""

    limit_ms: float
    count: int
    time_share: float
    within: dict[str, Use]
    otherwise: dict[str, Use]
    #: What other virtual machines had of this one's cores, of one core.
    stolen_within: float
    stolen_otherwise: float
    #: The longest ones, longest first.
    longest: tuple[Stall, ...]


class _Stretch(NamedTuple):
    begin_ns: int
    end_ns: int
    requests: int
    worst_ns: int


class _Doing(NamedTuple):
    """How long the processes of one role ran, waited and were blocked, in ns."""

    ran: float
    waited: float
    blocked: float


class _Totals:
    """Sums over stretches of time, by role."""

    def __init__(self) -> None:
        self.nanos = 0
        self._answers = 0
        self._stolen = 0.0
        self._doings: dict[str, _Doing] = {}

    def add(self, seen: _Seen, begin_ns: int, end_ns: int) -> None:
        self.nanos += end_ns - begin_ns
        self._answers += seen.answers(begin_ns, end_ns)
        self._stolen += seen.stolen(begin_ns, end_ns)
        for role, doing in seen.doings(begin_ns, end_ns).items():
            before = self._doings.get(role, _Doing(0, 0, 0))
            self._doings[role] = _Doing(*map(operator.add, before, doing))

    @property
    def stolen_share(self) -> float:
        return round(self._stolen / max(1, self.nanos), 3)

    def uses(self) -> dict[str, Use]:
        nanos, answers = max(1, self.nanos), max(1, self._answers)
        return {
            role: Use(
                ran_share=round(doing.ran / nanos, 3),
                waited_share=round(doing.waited / nanos, 3),
                blocked_share=round(doing.blocked / nanos, 3),
                us_per_request=round(doing.ran / answers / 1_000, 1),
            )
            for role, doing in self._doings.items()
        }


class _Seen:
    """A run's sightings and answers, to be asked about any stretch of it."""

    def __init__(self, sightings: Sightings, collected: Collected) -> None:
        self._at = _numbers(sightings.at_ns)
        self._columns = {
            role: tuple(
                _numbers(column[role])
                for column in (sightings.ran_ns, sightings.waited_ns, sightings.blocked_ns)
            )
            for role in sightings.ran_ns
        }
        self._stolen = _numbers(sightings.stolen_ns)
        self._answered = sorted(
            due + latency for due, latency in zip(collected.dues, collected.latencies, strict=True)
        )

    def answers(self, begin_ns: int, end_ns: int) -> int:
        return bisect_left(self._answered, end_ns) - bisect_left(self._answered, begin_ns)

    def doings(self, begin_ns: int, end_ns: int) -> dict[str, _Doing]:
        return {
            role: _Doing(*(self._growth(column, begin_ns, end_ns) for column in columns))
            for role, columns in self._columns.items()
        }

    def stolen(self, begin_ns: int, end_ns: int) -> float:
        return self._growth(self._stolen, begin_ns, end_ns)

    def _growth(self, column: Sequence[int], begin_ns: int, end_ns: int) -> float:
        return self._value(column, end_ns) - self._value(column, begin_ns)

    def _value(self, column: Sequence[int], moment_ns: int) -> float:
        """Return a counter's value at a moment, between the samples around it."""
        place = bisect_right(self._at, moment_ns)
        if place == 0 or place == len(self._at):
            return column[min(place, len(column) - 1)]
        before, after = self._at[place - 1], self._at[place]
        part = (moment_ns - before) / (after - before)
        return column[place - 1] + part * (column[place] - column[place - 1])


class Observed(NamedTuple):
    """A run as its generators measured it and its watcher saw it, and the part that counts."""

    collected: Collected
    sightings: Sightings
    begin_ns: int
    end_ns: int


def find_stalls(runs: Sequence[Observed]) -> Stalls:
    """Return the stalls of all runs; without any request there are none."""
    latencies = sorted(
        latency
        for run in runs
        for due, latency in zip(run.collected.dues, run.collected.latencies, strict=True)
        if run.begin_ns <= due < run.end_ns
    )
    limit_ns = latencies[int(_QUANTILE * len(latencies))] if latencies else 0
    within, otherwise = _Totals(), _Totals()
    found: list[Stall] = []
    for run in runs:
        seen = _Seen(run.sightings, run.collected)
        reached_ns = run.begin_ns
        for stretch in _stretches(run, limit_ns):
            otherwise.add(seen, reached_ns, stretch.begin_ns)
            within.add(seen, stretch.begin_ns, stretch.end_ns)
            reached_ns = stretch.end_ns
            found.append(_stall(seen, stretch, run.collected.start_ns))
        otherwise.add(seen, reached_ns, max(reached_ns, run.end_ns))
    return Stalls(
        limit_ms=round(limit_ns / _NANOS_PER_MS, 3),
        count=len(found),
        time_share=round(within.nanos / max(1, within.nanos + otherwise.nanos), 4),
        within=within.uses(),
        otherwise=otherwise.uses(),
        stolen_within=within.stolen_share,
        stolen_otherwise=otherwise.stolen_share,
        longest=tuple(sorted(found, key=lambda one: -one.duration_ms)[:_TOLD_MAX]),
    )


def _stretches(run: Observed, limit_ns: int) -> Iterable[_Stretch]:
    """Yield when requests beyond the limit waited, those that overlap as one."""
    slow = sorted(
        (due, latency)
        for due, latency in zip(run.collected.dues, run.collected.latencies, strict=True)
        if latency > limit_ns and run.begin_ns <= due < run.end_ns
    )
    open_one: _Stretch | None = None
    for due, latency in slow:
        if open_one is None or due > open_one.end_ns:
            if open_one is not None:
                yield open_one
            open_one = _Stretch(due, due + latency, 1, latency)
        else:
            open_one = _Stretch(
                open_one.begin_ns,
                max(open_one.end_ns, due + latency),
                open_one.requests + 1,
                max(open_one.worst_ns, latency),
            )
    if open_one is not None:
        yield open_one


def _stall(seen: _Seen, stretch: _Stretch, start_ns: int) -> Stall:
    begin_ns, end_ns = stretch.begin_ns, stretch.end_ns
    doings = seen.doings(begin_ns, end_ns)
    return Stall(
        begin_seconds=round((begin_ns - start_ns) / NANOS_PER_SECOND, 3),
        duration_ms=_ms(end_ns - begin_ns),
        requests=stretch.requests,
        worst_ms=_ms(stretch.worst_ns),
        ran_ms={role: _ms(doing.ran) for role, doing in doings.items()},
        waited_ms={role: _ms(doing.waited) for role, doing in doings.items()},
        blocked_ms={role: _ms(doing.blocked) for role, doing in doings.items()},
        stolen_ms=_ms(seen.stolen(begin_ns, end_ns)),
    )


def _numbers(data: bytes) -> Sequence[int]:
    numbers = array("q")
    numbers.frombytes(data)
    return numbers


def _ms(nanos: float) -> float:
    return round(nanos / _NANOS_PER_MS, 1)
