"""docs/metrics.md, made from the table: `python -m authz.metrics.docs` prints it."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Final

from authz.meters.kinds import BUCKETS_NS, Kind, Metric, Scope
from authz.meters.table import COUNTED
from authz.meters.table_read import READ

_INTRODUCTION: Final = """\
# Metrics

Generated from `authz/meters/` by `python -m authz.metrics.docs`.

`GET /metrics` on the admin listener (`127.0.0.1:8701`) answers for the whole daemon of a host: its
processes count in memory that they share, so one scrape target is enough, whichever process
answers, and no counter goes back when a process dies. Counters begin at 0 when the daemon is
started. The text format and OpenMetrics are understood.

Who may read the page is the setting `metrics.access`: by default programs of this host, without a
token; anybody else needs a token that is not bound to an account tree
(`authz token create prometheus --role read`). A proxy on this host makes everybody a program of
this host: leave `/metrics` out of it, or set `metrics.access = "token"`. The page answers while the
store is away; what only the store knows is missing then.

No label carries an account, a number or a call. *Scope* says of what a figure tells: `daemon`, the
sum over its processes; `process`, one of them, named by the label `process`; `store`, the same at
every daemon that uses the store, so that it must be aggregated by `max`, never by `sum`.

Prometheus, alerts, dashboards: `deploy/prometheus/`, `deploy/grafana/`,
[operations.md](operations.md).
"""


def markdown() -> str:
    """Return docs/metrics.md."""
    milliseconds = ", ".join(f"{bound / 1_000_000:g}" for bound in BUCKETS_NS)
    return "\n".join(
        [
            _INTRODUCTION,
            "## Counted by every process",
            "",
            "All series are there from the beginning, at 0.",
            "",
            *_table(COUNTED),
            "",
            f"Histograms have buckets up to {milliseconds} ms.",
            "",
            "## Read at a scrape",
            "",
            *_table(READ),
            "",
        ]
    )


def _table(metrics: Iterable[Metric]) -> list[str]:
    lines = ["| metric | kind | scope | labels | meaning |", "| --- | --- | --- | --- | --- |"]
    for one in metrics:
        labels = ", ".join(f"`{label}`" for label in one.labels) or "-"
        lines.append(
            f"| `{one.name}` | {one.kind.value} | {one.scope.value} | {labels} | {_meaning(one)} |"
        )
    return lines


def _meaning(metric: Metric) -> str:
    if metric.kind is Kind.GAUGE and metric.scope is Scope.PROCESS and metric.is_counted:
        return f"{metric.meaning} Told by: {', '.join(metric.programs)}."
    return metric.meaning


if __name__ == "__main__":
    sys.stdout.write(markdown())
