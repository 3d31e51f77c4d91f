"""What a run's measurements come to: figures of each phase, second by second, median of runs."""

from __future__ import annotations

import statistics
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from msgspec import Struct

from loadtest.fleet import Collected
from loadtest.histogram import Histogram
from loadtest.plan import EMERGENCY, ERROR_PREFIX, OK, OPERATIONS
from loadtest.schedule import NANOS_PER_SECOND

_NANOS_PER_MS = 1_000_000


class Span(NamedTuple):
    """A phase of a run: when it begins after the start of the run, and what it wants."""

    name: str
    begin_seconds: float
    seconds: float
    #: Requests per second that the plan comes to.
    planned_per_second: float
    is_warmup: bool


class Latency(Struct, frozen=True):
    """A distribution of durations in milliseconds."""

    count: int
    mean_ms: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float


class Second(Struct, frozen=True):
    """The requests that were due within one second of a run."""

    second: int
    phase: str
    offered: int
    allowed: int
    denied: int
    failed: int
    p50_ms: float
    p99_ms: float


class PhaseFigures(Struct, frozen=True, kw_only=True):
    """One phase of a run, or the median of it over several runs."""

    name: str
    seconds: float
    planned_per_second: float
    #: Requests due in the phase, and answers that arrived in it, whenever they were due.
    offered_per_second: float
    achieved_per_second: float
    operations: dict[str, Latency]
    #: Decisions against a call, by reason; and failed requests, by what went wrong.
    denials: dict[str, int]
    errors: dict[str, int]
    emergencies: int
    emergencies_allowed: int
    #: How late the generators themselves were. It is part of every latency.
    lag: Latency
    #: Share of one core by role.
    cpu: dict[str, float] = {}  # msgspec copies it


class Run(NamedTuple):
    """One run: its phases, its seconds, and the histograms for curves by (phase, operation)."""

    phases: tuple[PhaseFigures, ...]
    timeline: tuple[Second, ...]
    histograms: dict[tuple[str, str], Histogram]


def run_figures(
    collected: Collected, spans: Sequence[Span], cpu: dict[str, dict[str, float]]
) -> Run:
    """Return the figures of a run; `cpu` is by phase and role. The warm-up has only seconds."""
    rows = _Rows(collected, spans)
    histograms = {
        (spans[phase].name, OPERATIONS[operation]): Histogram(latencies)
        for (phase, operation), latencies in rows.latencies.items()
        if not spans[phase].is_warmup
    }
    phases = tuple(
        rows.phase(number, histograms, cpu.get(span.name, {}))
        for number, span in enumerate(spans)
        if not span.is_warmup
    )
    return Run(phases, tuple(rows.seconds()), histograms)


class _Rows:
    """The measurements sorted into phases and seconds by when they were due."""

    def __init__(self, collected: Collected, spans: Sequence[Span]) -> None:
        self._spans = spans
        self._names = collected.outcome_names
        self.latencies: dict[tuple[int, int], array[int]] = defaultdict(lambda: array("Q"))
        self._lags: dict[int, array[int]] = defaultdict(lambda: array("Q"))
        self._outcomes: dict[tuple[int, int, int], int] = defaultdict(int)
        self._answered: dict[int, int] = defaultdict(int)
        self._by_second: dict[int, tuple[array[int], array[int]]] = defaultdict(
            lambda: (array("Q"), array("H"))
        )
        ends_ns = [int((s.begin_seconds + s.seconds) * NANOS_PER_SECOND) for s in spans]
        for operation, outcome, due_ns, latency_ns, lag_ns in zip(
            collected.operations, collected.outcomes, collected.dues,
            collected.latencies, collected.lags, strict=True,
        ):  # fmt: skip
            since_ns = due_ns - collected.start_ns
            self._answered[_place(ends_ns, since_ns + latency_ns)] += 1
            phase = _place(ends_ns, since_ns)
            # After the last phase calls only end: that is no load any more.
            if phase == len(spans):
                continue
            self.latencies[phase, operation].append(latency_ns)
            self._lags[phase].append(lag_ns)
            self._outcomes[phase, operation, outcome] += 1
            of_second = self._by_second[since_ns // NANOS_PER_SECOND]
            of_second[0].append(latency_ns)
            of_second[1].append(outcome)

    def phase(
        self, number: int, histograms: dict[tuple[str, str], Histogram], cpu: dict[str, float]
    ) -> PhaseFigures:
        span = self._spans[number]
        lags = self._lags[number]
        emergencies = {
            outcome: count
            for (phase, operation, outcome), count in self._outcomes.items()
            if phase == number and operation == EMERGENCY
        }
        return PhaseFigures(
            name=span.name,
            seconds=span.seconds,
            planned_per_second=round(span.planned_per_second, 1),
            offered_per_second=round(len(lags) / span.seconds, 1),
            achieved_per_second=round(self._answered[number] / span.seconds, 1),
            operations={
                name: latency_of(histograms[span.name, name])
                for name in OPERATIONS
                if (span.name, name) in histograms
            },
            denials=self._counts(number, _is_denial),
            errors=self._counts(number, _is_error),
            emergencies=sum(emergencies.values()),
            emergencies_allowed=emergencies.get(0, 0),
            lag=latency_of(Histogram(lags)),
            cpu=cpu,
        )

    def seconds(self) -> Iterable[Second]:
        """Yield the seconds in their order."""
        for second in sorted(self._by_second):
            latencies, outcomes = self._by_second[second]
            names = [self._names[outcome] for outcome in outcomes]
            histogram = Histogram(latencies)
            yield Second(
                second=second,
                phase=self._phase_at(second),
                offered=len(latencies),
                allowed=names.count(OK),
                denied=sum(map(_is_denial, names)),
                failed=sum(map(_is_error, names)),
                p50_ms=_ms(histogram.value_at(0.5)),
                p99_ms=_ms(histogram.value_at(0.99)),
            )

    def _phase_at(self, second: int) -> str:
        begun = [span.name for span in self._spans if span.begin_seconds <= second]
        return begun[-1]

    def _counts(self, number: int, wanted: Callable[[str], bool]) -> dict[str, int]:
        counts: dict[str, int] = {}
        for (phase, _, outcome), count in self._outcomes.items():
            name = self._names[outcome]
            if phase == number and wanted(name):
                name = name.removeprefix(ERROR_PREFIX)
                counts[name] = counts.get(name, 0) + count
        return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def latency_of(histogram: Histogram) -> Latency:
    """Return the figures of a histogram of nanoseconds."""
    return Latency(
        count=histogram.count,
        mean_ms=_ms(histogram.mean),
        p50_ms=_ms(histogram.value_at(0.5)),
        p90_ms=_ms(histogram.value_at(0.9)),
        p99_ms=_ms(histogram.value_at(0.99)),
        p999_ms=_ms(histogram.value_at(0.999)),
        max_ms=_ms(histogram.max),
    )


def median_of(runs: Sequence[Run]) -> tuple[PhaseFigures, ...]:
    """Return each phase with the median of each of its figures over the runs."""
    return tuple(
        _median_phase(versions) for versions in zip(*(run.phases for run in runs), strict=True)
    )


def merged_histograms(runs: Sequence[Run]) -> dict[tuple[str, str], Histogram]:
    """Return the histograms of all runs together, for curves."""
    merged: dict[tuple[str, str], Histogram] = defaultdict(Histogram)
    for run in runs:
        for key, histogram in run.histograms.items():
            merged[key].merge(histogram)
    return dict(merged)


def _median_phase(versions: Sequence[PhaseFigures]) -> PhaseFigures:
    first = versions[0]
    median = statistics.median
    return PhaseFigures(
        name=first.name,
        seconds=first.seconds,
        planned_per_second=median(one.planned_per_second for one in versions),
        offered_per_second=median(one.offered_per_second for one in versions),
        achieved_per_second=median(one.achieved_per_second for one in versions),
        operations={
            name: _median_latency([one.operations[name] for one in versions])
            for name in first.operations
            if all(name in one.operations for one in versions)
        },
        denials=_median_counts([one.denials for one in versions]),
        errors=_median_counts([one.errors for one in versions]),
        emergencies=statistics.median_low([one.emergencies for one in versions]),
        emergencies_allowed=statistics.median_low([one.emergencies_allowed for one in versions]),
        lag=_median_latency([one.lag for one in versions]),
        cpu={
            role: round(median(one.cpu.get(role, 0.0) for one in versions), 3) for role in first.cpu
        },
    )


def _median_latency(versions: Sequence[Latency]) -> Latency:
    return Latency(
        count=statistics.median_low([one.count for one in versions]),
        mean_ms=statistics.median(one.mean_ms for one in versions),
        p50_ms=statistics.median(one.p50_ms for one in versions),
        p90_ms=statistics.median(one.p90_ms for one in versions),
        p99_ms=statistics.median(one.p99_ms for one in versions),
        p999_ms=statistics.median(one.p999_ms for one in versions),
        max_ms=statistics.median(one.max_ms for one in versions),
    )


def _median_counts(versions: Sequence[dict[str, int]]) -> dict[str, int]:
    """Return median counts; a failure that any run has seen stays, with at least 1."""
    names = dict.fromkeys(name for one in versions for name in one)
    return {
        name: max(1, statistics.median_low([one.get(name, 0) for one in versions]))
        for name in names
    }


def _place(ends_ns: Sequence[int], since_ns: int) -> int:
    """Return the number of the phase at that moment; one past the last after all of them."""
    for number, end_ns in enumerate(ends_ns):
        if since_ns < end_ns:
            return number
    return len(ends_ns)


def _is_error(outcome: str) -> bool:
    return outcome.startswith(ERROR_PREFIX)


def _is_denial(outcome: str) -> bool:
    return outcome != OK and not outcome.startswith(ERROR_PREFIX)


def _ms(nanos: float) -> float:
    return round(nanos / _NANOS_PER_MS, 4)
