"""Stalls and the machine's steadiness in words and cells, for terminal and page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from loadtest.stalls import Stalls, Use
from loadtest.steadiness import Steadiness

STALL_COLUMNS: Final = (
    "process", "ran", "waited", "blocked", "µs a request",
    "ran otherwise", "waited", "blocked", "µs a request", "ratio",
)  # fmt: skip


def steadiness_line(steadiness: Steadiness) -> str:
    """Return how steady the machine was, in one line."""
    return (
        f"machine: before the load the same work took {steadiness.slow_ratio:.2f} times as long "
        f"in {steadiness.slow_share:.1%} of the time, for up to {steadiness.slow_max_ms:.0f} ms"
    )


def stalls_line(stalls: Stalls) -> str:
    """Return how many stalls there were and for how long, in one line."""
    return (
        f"stalls: {stalls.count}, {stalls.time_share:.1%} of the time, in which at least one "
        f"request waited that took more than {stalls.limit_ms:.2f} ms (the 99th percentile); other "
        f"machines had {stalls.stolen_within:.0%} of one of this one's cores in them, and "
        f"{stalls.stolen_otherwise:.0%} otherwise"
    )


def stall_rows(stalls: Stalls) -> list[tuple[str, ...]]:
    """Return the cells under STALL_COLUMNS: shares of a core within stalls, and otherwise."""
    return [
        (
            role,
            *_cells(within),
            *_cells(stalls.otherwise[role]),
            f"{within.us_per_request / max(0.1, stalls.otherwise[role].us_per_request):.2f}",
        )
        for role, within in stalls.within.items()
    ]


def _cells(use: Use) -> tuple[str, ...]:
    shares = (use.ran_share, use.waited_share, use.blocked_share)
    return (*(f"{share:.0%}" for share in shares), f"{use.us_per_request:.0f}")


def stall_lines(stalls: Stalls) -> list[str]:
    """Return the longest stalls, one line each."""
    return [
        f"{one.begin_seconds:7.3f} s: {one.duration_ms:.0f} ms, {one.requests} requests, worst "
        f"{one.worst_ms:.1f} ms; ran {milliseconds(one.ran_ms)}; waited "
        f"{milliseconds(one.waited_ms)}; blocked {milliseconds(one.blocked_ms)}; "
        f"stolen {one.stolen_ms:.0f}"
        for one in stalls.longest
    ]


def milliseconds(times: Mapping[str, float]) -> str:
    """Return times by role as text, the longest first, without those below a millisecond."""
    told = sorted(times.items(), key=lambda item: -item[1])
    return ", ".join(f"{role} {value:.0f}" for role, value in told if value >= 1) or "none"


def show_stalls(console: Console, steadiness: Steadiness | None, stalls: Stalls | None) -> None:
    """Print both, as far as they were looked for."""
    if steadiness is not None:
        console.print(Text(steadiness_line(steadiness)))
    if stalls is None:
        return
    console.print(Text(stalls_line(stalls)))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(STALL_COLUMNS[0])
    for name in STALL_COLUMNS[1:]:
        table.add_column(name, justify="right")
    for row in stall_rows(stalls):
        table.add_row(*row)
    console.print(table)
    for line in stall_lines(stalls):
        console.print(Text(f"  {line}"))
