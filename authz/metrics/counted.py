"""From the rows of all processes to the families of what they count."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from prometheus_client.core import HistogramMetricFamily
from prometheus_client.core import Metric as Family

from authz import meters
from authz.meters.kinds import BUCKETS_NS, NANOSECONDS, Kind, Metric, Scope
from authz.meters.shared import Row
from authz.meters.table import COUNTED
from authz.metrics.readings import make_family, make_histogram

_BOUNDS: Final = tuple(repr(bound / NANOSECONDS) for bound in BUCKETS_NS)


def counted_families(rows: Sequence[Row]) -> Iterator[Family]:
    """Yield what the processes have counted: summed, or by process where the table says so."""
    for metric in COUNTED:
        if metric.kind is Kind.HISTOGRAM:
            yield _histogram(metric, rows)
        elif metric.scope is Scope.PROCESS:
            yield _by_process(metric, rows)
        else:
            family = make_family(metric)
            for labels, slot in meters.slots_of(metric):
                family.add_metric(labels, sum(row.values[slot] for row in rows))
            yield family


def _by_process(metric: Metric, rows: Sequence[Row]) -> Family:
    """Return a series for each process; a gauge only of those that set it and live."""
    family = make_family(metric)
    is_gauge = metric.kind is Kind.GAUGE
    for labels, slot in meters.slots_of(metric):
        for row in rows:
            if not is_gauge or (row.is_alive and row.program in metric.programs):
                family.add_metric((*labels, row.name), row.values[slot])
    return family


def _histogram(metric: Metric, rows: Sequence[Row]) -> HistogramMetricFamily:
    family = make_histogram(metric)
    for labels, first in meters.slots_of(metric):
        counts = [
            sum(row.values[first + index] for row in rows) for index in range(len(BUCKETS_NS) + 2)
        ]
        sum_ns = counts.pop()
        total, buckets = 0, []
        for bound, count in zip((*_BOUNDS, "+Inf"), counts, strict=True):
            total += count
            buckets.append((bound, total))
        family.add_metric(labels, buckets, sum_ns / NANOSECONDS)
    return family
