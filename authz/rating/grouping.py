"""Which rows of one prefix make one rate, and which contradict each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from authz.rating.rows import PriceRow, Terms, TimeWindow, rate_of
from authz.reasons import Direction
from authz_ext.rating import Rate, Tier, Window

_DAY_MINUTES = 1_440
_WEEK_MINUTES = 7 * _DAY_MINUTES
#: What a blocked row without a price would cost; no call is ever priced by it.
_NO_PRICE = Terms(tiers=(Tier(0, 0, 60, 60),))


class PriceGroup(NamedTuple):
    """The rows that make one rate of one prefix: one without a window, and its windows."""

    direction: int
    base: PriceRow
    windows: tuple[PriceRow, ...]

    def rate(self, timezone: str) -> Rate:
        """Return the rate. Raises ValueError where it is out of bounds."""
        windows = [_window(row) for row in self.windows]
        return rate_of(self.base.terms or _NO_PRICE, windows, timezone)


def _window(row: PriceRow) -> Window:
    terms = row.terms or _NO_PRICE
    window = row.window or TimeWindow(127, 0, _DAY_MINUTES)
    return Window(
        window.days,
        window.start_minute,
        window.end_minute,
        terms.tiers,
        terms.connect_fee,
        terms.free_seconds,
    )


class Complaint(NamedTuple):
    """A row that contradicts another of its prefix."""

    row: PriceRow
    reason: str


def group_rows(rows: Sequence[PriceRow]) -> tuple[list[PriceGroup], list[Complaint]]:
    """Return the groups of one prefix's rows, by direction and effective date, and what is wrong.

    A row without direction belongs to both. A group about which there is a complaint is left
    out.
    """
    groups: list[PriceGroup] = []
    complaints: dict[PriceRow, str] = {}
    for direction in Direction:
        by_effective: dict[str, list[PriceRow]] = {}
        for row in rows:
            if row.direction is None or row.direction == direction:
                by_effective.setdefault(row.effective or "", []).append(row)
        for effective in sorted(by_effective):
            members = by_effective[effective]
            found = list(_complaints(members))
            for complaint in found:
                complaints.setdefault(complaint.row, complaint.reason)
            if not found:
                base = next(row for row in members if row.window is None)
                windows = tuple(row for row in members if row.window is not None)
                groups.append(PriceGroup(int(direction), base, windows))
    return groups, [Complaint(row, reason) for row, reason in complaints.items()]


def _complaints(members: Sequence[PriceRow]) -> Iterator[Complaint]:
    bases = [row for row in members if row.window is None]
    windows = [row for row in members if row.window is not None]
    if not bases:
        yield Complaint(
            windows[0],
            f"prefix {windows[0].prefix} has rows with a window and none without one: "
            "the rest of the time has no price",
        )
        return
    for row in bases[1:]:
        yield Complaint(
            row,
            f"prefix {row.prefix} is on line {bases[0].line} already, with the same direction "
            "and effective date",
        )
    for number, row in enumerate(windows):
        yield from _window_complaints(bases[0], row, windows[:number])
    if len(bases) == 1 and windows:
        try:
            PriceGroup(0, bases[0], tuple(windows)).rate("UTC")
        except ValueError as error:
            yield Complaint(windows[-1], f"the rows of prefix {bases[0].prefix}: {error}")


def _window_complaints(
    base: PriceRow, row: PriceRow, others: Sequence[PriceRow]
) -> Iterator[Complaint]:
    shared, expected = _shared(row), _shared(base)
    differing = [name for name, value in shared.items() if value != expected[name]]
    if differing:
        yield Complaint(
            row,
            f"{' and '.join(differing)} must be as on line {base.line}: the rows of one prefix "
            "differ in window and price only",
        )
    for other in others:
        if _overlap(row.window, other.window):
            yield Complaint(row, f"its window overlaps that of line {other.line}")


def _shared(row: PriceRow) -> dict[str, object]:
    """Return what all rows of a group have in common, by its column."""
    terms = row.terms or _NO_PRICE
    return {
        "class": row.call_class,
        "blocked": row.blocked,
        "expires": row.expires,
        "rounding": (terms.rounding_mode, terms.rounding_decimals),
        "max_cost": terms.max_cost,
        "max_cost_action": terms.max_cost_action,
    }


def _overlap(one: TimeWindow | None, other: TimeWindow | None) -> bool:
    if one is None or other is None:
        return False
    return any(
        start < other_end and other_start < end
        for start, end in _minutes(one)
        for other_start, other_end in _minutes(other)
    )


def _minutes(window: TimeWindow) -> Iterator[tuple[int, int]]:
    """Yield the spans of a window as (first, end) minutes of the week, which begins on Monday."""
    for day in range(7):
        if not window.days >> day & 1:
            continue
        start = day * _DAY_MINUTES + window.start_minute
        end = day * _DAY_MINUTES + window.end_minute
        if window.end_minute <= window.start_minute:
            end += _DAY_MINUTES
        yield start, min(end, _WEEK_MINUTES)
        if end > _WEEK_MINUTES:
            yield 0, end - _WEEK_MINUTES
