"""What a row of the table of metrics says: name, kind, unit, labels and the values they take."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import Final, NamedTuple

PREFIX: Final = "authz_"
NANOSECONDS: Final = 1_000_000_000
#: What a call takes is counted finely; what only goes wrong is counted coarsely. Nanoseconds.
BUCKETS_NS: Final = tuple(
    microseconds * 1_000
    for microseconds in (
        50, 100, 150, 200, 300, 400, 500, 750, 1_000, 1_500, 2_000, 3_000, 5_000, 7_500, 10_000,
        20_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    )
)  # fmt: skip


class Kind(enum.Enum):
    """What a metric is to Prometheus."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Scope(enum.Enum):
    """Of what a figure tells."""

    #: One daemon: the sum over its processes.
    DAEMON = "daemon"
    #: One process of it, named by the label `process`.
    PROCESS = "process"
    #: The store, and so the same at every daemon that uses it: aggregate by max, never by sum.
    STORE = "store"


#: The values of a metric's labels, one tuple for each series.
Series = tuple[tuple[str, ...], ...]
_UNLABELLED: Final[Series] = ((),)


class Metric(NamedTuple):
    """One row. Counted metrics have all their series from the beginning, at 0; read ones are
    asked for at a scrape and have `series` None, because their labels' values are not known.
    """

    name: str
    kind: Kind
    meaning: str
    labels: tuple[str, ...] = ()
    series: Series | None = _UNLABELLED
    scope: Scope = Scope.DAEMON
    #: Which programs set a gauge of their processes.
    programs: tuple[str, ...] = ()

    @property
    def is_counted(self) -> bool:
        """Whether processes count it in their slots."""
        return self.series is not None

    @property
    def label_names(self) -> tuple[str, ...]:
        """The labels with `process`, where the scope asks for it."""
        return (*self.labels, "process") if self.scope is Scope.PROCESS else self.labels


def one_of(*values: Iterable[str]) -> Series:
    """Return the series of one label for each set of values, in every combination."""
    series: list[tuple[str, ...]] = [()]
    for words in values:
        series = [(*before, word) for before in series for word in tuple(words)]
    return tuple(series)
