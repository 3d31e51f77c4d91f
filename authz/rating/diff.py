"""What publishing a deck would change: the difference to the deck in force, row by row."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple
from zoneinfo import ZoneInfo

from msgspec import Struct

from authz.rating.canonical import price_text, window_text
from authz.rating.importer import ImportOptions, import_deck
from authz.rating.rows import PriceRow, rate_of
from authz.reasons import Direction

#: Most changes that a difference lists; it counts the rest.
CHANGES_LISTED_MAX = 100_000

#: `dearer` and `cheaper` go by the dearest per-minute price, then by the connect fee;
#: `changed` is any other difference (increment, description, class, dates).
Kind = Literal["added", "removed", "dearer", "cheaper", "blocked", "unblocked", "changed"]


class RowChange(Struct, frozen=True):
    """One difference. Prices are per minute, null where a side has none.

    `effective` is set when the new row is not in force yet.
    """

    kind: Kind
    prefix: str
    direction: str | None
    window: str
    description: str
    old_price: str | None
    new_price: str | None
    effective: str | None


class DeckDifference(Struct, frozen=True):
    """All differences of two decks: how many of each kind, and a bounded list of them."""

    counts: dict[Kind, int]
    unchanged: int
    changes: tuple[RowChange, ...]

    @property
    def total(self) -> int:
        """How many rows differ."""
        return sum(self.counts.values())


class _Place(NamedTuple):
    """What rows of two decks are compared by."""

    prefix: str
    direction: int | None
    window: str


def compare_decks(
    old: Sequence[PriceRow], new: Sequence[PriceRow], timezone: str, at: int
) -> DeckDifference:
    """Return the difference of two decks' rows.

    Of rows of one prefix, direction and window that differ in date, the one in force at Unix
    second `at` counts, else the next one to take effect, so that a deck with the same prices
    and new dates shows no difference in price.
    """
    now = datetime.datetime.fromtimestamp(at, ZoneInfo(timezone))
    now_text = now.replace(tzinfo=None).isoformat(timespec="seconds")
    before, after = _by_place(old, now_text), _by_place(new, now_text)
    counts: dict[Kind, int] = {}
    changes: list[RowChange] = []
    unchanged = 0
    for place in sorted(before.keys() | after.keys(), key=_place_order):
        old_row, new_row = before.get(place), after.get(place)
        kind = _kind(old_row, new_row)
        if kind is None:
            unchanged += 1
            continue
        counts[kind] = counts.get(kind, 0) + 1
        if len(changes) < CHANGES_LISTED_MAX:
            changes.append(_change(kind, place, old_row, new_row, now_text))
    return DeckDifference(counts, unchanged, tuple(changes))


def rows_of_canonical(data: bytes, currency: str) -> tuple[PriceRow, ...]:
    """Return the rows of a deck's canonical CSV, `Deck.canonical`; none of an empty deck."""
    return import_deck(data, ImportOptions(currency=currency)).rows


def _by_place(rows: Iterable[PriceRow], now: str) -> dict[_Place, PriceRow]:
    chosen: dict[_Place, PriceRow] = {}
    for row in rows:
        window = "" if row.window is None else window_text(row.window)
        place = _Place(row.prefix, row.direction, window)
        other = chosen.get(place)
        if other is None or _nearness(row, now) > _nearness(other, now):
            chosen[place] = row
    return chosen


def _nearness(row: PriceRow, now: str) -> tuple[int, str]:
    """Return what is greatest of the row that counts: in force, then coming, then past.

    Rows come sorted by effective date, so of several to come the first one stays.
    """
    effective = row.effective or ""
    if effective > now:
        return 1, ""
    if row.expires is not None and row.expires <= now:
        return 0, effective
    return 2, effective


def _place_order(place: _Place) -> tuple[str, int, str]:
    return place.prefix, -1 if place.direction is None else place.direction, place.window


def _kind(old: PriceRow | None, new: PriceRow | None) -> Kind | None:
    if old is None or new is None:
        return "added" if old is None else "removed"
    if old.blocked != new.blocked:
        return "blocked" if new.blocked else "unblocked"
    old_price, new_price = _dearness(old), _dearness(new)
    if not new.blocked and old_price != new_price:
        return "dearer" if new_price > old_price else "cheaper"
    return "changed" if _content(old) != _content(new) else None


def _dearness(row: PriceRow) -> tuple[int, int]:
    if row.terms is None:
        return 0, 0
    return rate_of(row.terms).dearest_per_minute_nanos, row.terms.connect_fee


def _content(row: PriceRow) -> tuple[object, ...]:
    return (row.terms, row.description, row.call_class, row.expires, row.effective)


def _change(
    kind: Kind, place: _Place, old: PriceRow | None, new: PriceRow | None, now: str
) -> RowChange:
    row = new or old
    is_coming = new is not None and new.effective is not None and new.effective > now
    return RowChange(
        kind=kind,
        prefix=place.prefix,
        direction=None if place.direction is None else Direction(place.direction).label,
        window=place.window,
        description="" if row is None else row.description,
        old_price=_price(old),
        new_price=_price(new),
        effective=new.effective if new is not None and is_coming else None,
    )


def _price(row: PriceRow | None) -> str | None:
    if row is None or row.blocked or row.terms is None:
        return None
    return price_text(_dearness(row)[0])
