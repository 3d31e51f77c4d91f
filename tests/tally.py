"""What this process's meters have counted since a moment, for tests."""

from __future__ import annotations

from authz import meters
from authz.meters.kinds import Kind
from authz.meters.table import METRICS


class Tally:
    """Remembers the counts of its making; `of` tells what has been added since."""

    def __init__(self) -> None:
        self._before = meters.BOARD.values()

    def of(self, name: str) -> dict[tuple[str, ...], int]:
        """Return by how much each series of a counter has grown, those that have."""
        assert METRICS[name].kind is Kind.COUNTER
        grown = {
            labels: meters.BOARD.value(slot) - self._before[slot]
            for labels, slot in meters.slots_of(METRICS[name])
        }
        return {labels: count for labels, count in grown.items() if count}

    def total(self, name: str) -> int:
        """Return by how much all series of a counter have grown together."""
        return sum(self.of(name).values())

    def observed(self, name: str, *labels: str) -> int:
        """Return how many durations one series of a histogram has been told."""
        metric = METRICS[name]
        assert metric.kind is Kind.HISTOGRAM
        slot = dict(meters.slots_of(metric))[labels]
        counts = range(slot, slot + meters.width_of(metric) - 1)
        return sum(meters.BOARD.value(one) - self._before[one] for one in counts)
