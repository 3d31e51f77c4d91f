"""Ratios of paired runs: each round measures every subject once, and ratios stay within it."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.compare.subject import Sample, Subject


def measure(
    subjects: Sequence[Subject], rounds: int, calls: int, progress: Callable[[str], None]
) -> dict[str, list[Sample]]:
    """Return the samples of every subject, one a round; a short first round warms up."""
    samples: dict[str, list[Sample]] = {subject.name: [] for subject in subjects}
    first = 1_000
    for number in range(rounds + 1):
        for subject in subjects:
            count = calls if number else max(calls // 10, 1)
            progress(f"round {number} of {rounds}: {subject.name}")
            taken = subject.run(first, count)
            first += count
            if number:
                samples[subject.name].append(taken)
    return samples


def rows(samples: dict[str, list[Sample]]) -> list[dict[str, Any]]:
    """Return one row a subject: medians, and the ratio to the first subject, the ceiling."""
    ceiling = next(iter(samples.values()))
    return [
        {
            "subject": name,
            "requests_per_second": round(statistics.median(one.rate for one in taken)),
            "of_ceiling": _paired(taken, ceiling),
            "service_us": _per_request(one.service_cpu_seconds / one.requests for one in taken),
            "store_us": _per_request(one.store_cpu_seconds / one.requests for one in taken),
            "driver_us": _per_request(one.driver_cpu_seconds / one.requests for one in taken),
        }
        for name, taken in samples.items()
    ]


def _paired(taken: Sequence[Sample], others: Sequence[Sample]) -> float:
    """Return the median of the rates' ratios, round by round."""
    ratios = [one.rate / other.rate for one, other in zip(taken, others, strict=True)]
    return round(statistics.median(ratios), 3)


def _per_request(seconds: Any) -> float:
    return round(statistics.median(seconds) * 1e6, 1)


def text(table: Sequence[dict[str, Any]]) -> str:
    """Return the rows for a terminal. Columns in µs are processor time per request."""
    lines = [f"{'':58}{'requests/s':>11}{'of ceiling':>11}{'service':>9}{'store':>8}{'driver':>8}"]
    for row in table:
        lines.append(
            f"{row['subject']:58}{row['requests_per_second']:11,}{row['of_ceiling']:11.2f}"
            f"{row['service_us']:9.1f}{row['store_us']:8.1f}{row['driver_us']:8.1f}"
        )
    lines.append("service, store, driver: µs of processor time per request")
    return "\n".join(lines)
