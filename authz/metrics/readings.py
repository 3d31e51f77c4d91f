"""Figures on their way to a page: checked against the table, then in Prometheus's families."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.core import (
    Metric as Family,
)

from authz.errors import InvariantError
from authz.meters.kinds import Kind, Metric
from authz.meters.table import METRICS

_MICROS_PER_UNIT: Final = 1_000_000


class Readings:
    """Values of metrics that are not counted, by name and labels."""

    def __init__(self) -> None:
        self._values: dict[str, dict[tuple[str, ...], float]] = {}

    def add(self, name: str, value: float, *labels: str) -> None:
        """Enter one value; raises InvariantError if the table has no such metric."""
        metric = METRICS.get(name)
        if metric is None or metric.is_counted or len(metric.label_names) != len(labels):
            raise InvariantError(f"the table of metrics has no {name} to be read with {labels}")
        self._values.setdefault(name, {})[labels] = value

    def add_money(self, name: str, amount_micros: int, *labels: str) -> None:
        """Enter an amount. Prometheus knows only floats: this one is for showing, never for
        reckoning.
        """
        self.add(name, amount_micros / _MICROS_PER_UNIT, *labels)

    def merge(self, other: Readings) -> None:
        """Take the other's values too."""
        for name, values in other._values.items():
            self._values.setdefault(name, {}).update(values)

    def families(self) -> Iterator[Family]:
        """Yield everything entered, in the order of the table."""
        for metric in METRICS.values():
            values = self._values.get(metric.name)
            if values:
                family = make_family(metric)
                for labels, value in values.items():
                    family.add_metric(labels, value)
                yield family


def make_family(
    metric: Metric,
) -> CounterMetricFamily | GaugeMetricFamily:
    """Return an empty family of a counter or a gauge."""
    kind = CounterMetricFamily if metric.kind is Kind.COUNTER else GaugeMetricFamily
    return kind(metric.name, metric.meaning, labels=metric.label_names)


def make_histogram(metric: Metric) -> HistogramMetricFamily:
    """Return an empty family of a histogram."""
    return HistogramMetricFamily(metric.name, metric.meaning, labels=metric.label_names)
