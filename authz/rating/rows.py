"""The words of a deck: one row as it was imported, and what its price cells say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from msgspec import Struct

from authz_ext.rating import Rate, Tier, Window

#: Most rows of one deck, counted after ranges and lists of prefixes are taken apart.
ROWS_MAX = 2_000_000
#: Most bytes of one deck file.
FILE_BYTES_MAX = 512 * 1024 * 1024
#: Longest cell of a deck file, in characters.
CELL_LENGTH_MAX = 4_096
#: Longest description, in characters.
DESCRIPTION_LENGTH_MAX = 200
#: Seconds charged at a time when neither file nor cell says: whole minutes.
INCREMENT_SECONDS_DEFAULT = 60
PRICE_DECIMALS = 9
MONEY_DECIMALS = 6

RoundingMode = Literal["up", "half_up", "down"]
MaxCostAction = Literal["free", "end"]


class TimeWindow(Struct, frozen=True, gc=False):
    """When a row's price holds: days (bit 0 is Monday) and minutes of the day, end exclusive.

    A start later than the end runs past midnight; 1440 is midnight at the day's end.
    """

    days: int
    start_minute: int
    end_minute: int


class Terms(Struct, frozen=True):
    """What the price cells of a row say. Fees and costs are micros; tiers carry nanos."""

    tiers: tuple[Tier, ...]
    connect_fee: int = 0
    free_seconds: int = 0
    rounding_mode: RoundingMode = "half_up"
    rounding_decimals: int = 6
    max_cost: int | None = None
    max_cost_action: MaxCostAction = "free"


def rate_of(terms: Terms, windows: Sequence[Window] = (), timezone: str = "UTC") -> Rate:
    """Return the rate of terms, with the windows in which others hold.

    Raises ValueError where they are out of bounds.
    """
    return Rate(
        tiers=terms.tiers,
        connect_fee=terms.connect_fee,
        free_seconds=terms.free_seconds,
        rounding_mode=terms.rounding_mode,
        rounding_decimals=terms.rounding_decimals,
        max_cost=terms.max_cost,
        max_cost_action=terms.max_cost_action,
        windows=windows,
        timezone=timezone,
    )


class PriceRow(Struct, frozen=True, gc=False):
    """One prefix of one line of a deck file.

    `direction` (authz.reasons.Direction) is None for both; `terms` is None for a blocked row
    without a price. `effective` (inclusive) and `expires` (exclusive) are ISO dates or times of
    the deck's time zone, which sort as text.
    """

    line: int
    prefix: str
    description: str
    direction: int | None
    call_class: int | None
    blocked: bool
    terms: Terms | None
    window: TimeWindow | None
    effective: str | None
    expires: str | None
