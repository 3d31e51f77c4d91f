"""The canonical CSV of a deck: what export writes and import reads back, byte for byte.

Cells hold the shortest text that says the same; what is the default is left empty.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from authz.money import format_amount
from authz.rating.cells import DAYS
from authz.rating.rows import PRICE_DECIMALS, PriceRow, Terms, TimeWindow
from authz.reasons import CallClass, Direction
from authz_ext.rating import Tier

HEADER = (
    "prefix", "description", "direction", "class", "price", "connect_fee", "increment",
    "free_seconds", "tiers", "window", "rounding", "max_cost", "max_cost_action", "effective",
    "expires", "blocked",
)  # fmt: skip
_NANOS_PER_UNIT = 10**PRICE_DECIMALS


def write_canonical(rows: Sequence[PriceRow]) -> str:
    """Return the canonical CSV of rows, in their order, with lines ending in a line feed."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADER)
    known_terms: dict[int, tuple[str, ...]] = {}
    for row in rows:
        price_cells = known_terms.get(id(row.terms))
        if price_cells is None:
            price_cells = known_terms[id(row.terms)] = _terms_cells(row.terms)
        price, fee, increment, free_seconds, tiers, rounding, max_cost, action = price_cells
        writer.writerow(
            (
                row.prefix,
                row.description,
                "" if row.direction is None else Direction(row.direction).label,
                "" if row.call_class is None else CallClass(row.call_class).label,
                price,
                fee,
                increment,
                free_seconds,
                tiers,
                "" if row.window is None else window_text(row.window),
                rounding,
                max_cost,
                action,
                row.effective or "",
                row.expires or "",
                "yes" if row.blocked else "",
            )
        )
    return text.getvalue()


def price_text(price_nanos: int) -> str:
    """Return nanos as the shortest decimal: `13700000` is `0.0137`."""
    whole, decimals = divmod(price_nanos, _NANOS_PER_UNIT)
    if not decimals:
        return str(whole)
    return f"{whole}.{decimals:0{PRICE_DECIMALS}d}".rstrip("0")


def window_text(window: TimeWindow) -> str:
    """Return a window as its cell: `mon-fri 08:00-18:00`."""
    start_hour, start_minute = divmod(window.start_minute, 60)
    end_hour, end_minute = divmod(window.end_minute, 60)
    times = f"{start_hour:02d}:{start_minute:02d}-{end_hour:02d}:{end_minute:02d}"
    return f"{_days_text(window.days)} {times}"


def _days_text(days: int) -> str:
    spans: list[list[str]] = []
    for index, name in enumerate(DAYS):
        if not days >> index & 1:
            continue
        if index and days >> (index - 1) & 1:
            spans[-1][1:] = [name]
        else:
            spans.append([name])
    return ",".join("-".join(span) for span in spans)


def _terms_cells(terms: Terms | None) -> tuple[str, ...]:
    """Return price, connect_fee, increment, free_seconds, tiers, rounding, max_cost, action."""
    if terms is None:
        return ("",) * 8
    price, increment, tiers = _price_cells(terms.tiers)
    rounding = f"{terms.rounding_mode} {terms.rounding_decimals}"
    return (
        price,
        format_amount(terms.connect_fee) if terms.connect_fee else "",
        increment,
        str(terms.free_seconds) if terms.free_seconds else "",
        tiers,
        "" if rounding == "half_up 6" else rounding,
        "" if terms.max_cost is None else format_amount(terms.max_cost),
        "" if terms.max_cost is None else terms.max_cost_action,
    )


def _price_cells(tiers: tuple[Tier, ...]) -> tuple[str, str, str]:
    """Return (price, increment, ""), or ("", "", tiers) for what these two cannot say."""
    first, last = tiers[0], tiers[-1]
    one_price = all(
        (tier.price_nanos, tier.per_seconds) == (first.price_nanos, 60) for tier in tiers
    )
    if one_price and len(tiers) == 1:
        seconds = first.increment_seconds
        return price_text(first.price_nanos), "" if seconds == 60 else str(seconds), ""
    if (
        one_price
        and len(tiers) == 2
        and last.from_second == first.increment_seconds
        and last.increment_seconds != first.increment_seconds
    ):
        increment = f"{first.increment_seconds}/{last.increment_seconds}"
        return price_text(first.price_nanos), increment, ""
    return "", "", " ".join(map(_tier_text, tiers))


def _tier_text(tier: Tier) -> str:
    price = price_text(tier.price_nanos)
    return f"{tier.from_second}:{price}/{tier.per_seconds}/{tier.increment_seconds}"
