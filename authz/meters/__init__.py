"""Meters: what a process counts, from any layer, at the cost of one addition in memory.

An instrument is looked up once, where a module is loaded, and used on the hot path:

    _ORPHANED = meters.counter("authz_calls_orphaned_total")
    _REPLIES = meters.histogram("authz_store_reply_seconds")
    _SETTLES = meters.counters("authz_settles_total")
    _ORPHANED.add()
    _REPLIES.observe_since(started_ns)          # started_ns = meters.now_ns()
    _SETTLES["booked"].add()                    # of several labels: _X["authorize", "allowed"]

A name, a label or a value that `table.py` does not have raises InvariantError there and then.
Gauges are set every second by whoever runs the process. How the figures reach Prometheus is the
business of `authz.metrics`; nothing here knows of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from authz.errors import InvariantError
from authz.meters.kinds import BUCKETS_NS, Kind, Metric
from authz.meters.table import COUNTED
from authz_ext.meters import Board, Counter, Gauge, Histogram, now_ms, now_ns, now_us

__all__ = [
    "BOARD", "SLOTS", "Counter", "Gauge", "Histogram", "counter", "counters", "gauge",
    "histogram", "histograms", "now_ms", "now_ns", "now_us",
    "slots_of",
]  # fmt: skip

#: Slots of one series of a histogram: its buckets, the one above them, and the sum.
_HISTOGRAM_SLOTS: Final = len(BUCKETS_NS) + 2

Labels = tuple[str, ...]


def width_of(metric: Metric) -> int:
    """Return how many slots one series of the metric takes."""
    return _HISTOGRAM_SLOTS if metric.kind is Kind.HISTOGRAM else 1


def _lay_out() -> Iterator[tuple[tuple[str, Labels], int]]:
    slot = 0
    for metric in COUNTED:
        for labels in metric.series or ():
            yield (metric.name, labels), slot
            slot += width_of(metric)


_SLOTS: Final[dict[tuple[str, Labels], int]] = dict(_lay_out())
_COUNTED: Final[dict[str, Metric]] = {one.name: one for one in COUNTED}
#: How many slots a process has.
SLOTS: Final = sum(width_of(one) * len(one.series or ()) for one in COUNTED)
#: This process's slots.
BOARD: Final = Board(SLOTS)


def slots_of(metric: Metric) -> Iterator[tuple[Labels, int]]:
    """Yield the labels' values and the first slot of each series of a counted metric."""
    for labels in metric.series or ():
        yield labels, _SLOTS[metric.name, labels]


def counter(name: str, *labels: str) -> Counter:
    """Return the counter of one series."""
    return Counter(BOARD, _find(Kind.COUNTER, name, labels))


def gauge(name: str) -> Gauge:
    """Return a gauge of this process."""
    return Gauge(BOARD, _find(Kind.GAUGE, name, ()))


def histogram(name: str, *labels: str) -> Histogram:
    """Return the histogram of one series; it counts nanoseconds."""
    return Histogram(BOARD, _find(Kind.HISTOGRAM, name, labels), BUCKETS_NS)


def counters(name: str, *first: str) -> dict[str | Labels, Counter]:
    """Return the counters of a metric by their labels, the `first` of which are given.

    The key is the value of the label that is left, or the tuple of several.
    """
    return {key: counter(name, *labels) for key, labels in _family(name, first)}


def histograms(name: str, *first: str) -> dict[str | Labels, Histogram]:
    """Do as `counters` for a histogram."""
    return {key: histogram(name, *labels) for key, labels in _family(name, first)}


def _family(name: str, first: Labels) -> Iterator[tuple[str | Labels, Labels]]:
    metric = _COUNTED.get(name)
    series = [
        one for one in (metric.series if metric else None) or () if one[: len(first)] == first
    ]
    if not series:
        raise InvariantError(f"the table of metrics has no {name} with labels {first}")
    for labels in series:
        rest = labels[len(first) :]
        yield rest[0] if len(rest) == 1 else rest, labels


def _find(kind: Kind, name: str, labels: Labels) -> int:
    slot = _SLOTS.get((name, labels))
    if slot is None or _COUNTED[name].kind is not kind:
        raise InvariantError(f"the table of metrics has no {kind.value} {name} with {labels}")
    return slot
