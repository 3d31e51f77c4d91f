"""Amounts of money: integer micros inside, decimal strings outside.

One micro is 1e-6 of the currency unit. Nothing here, and nothing that calls it, uses a float.
"""

from __future__ import annotations

import re
from decimal import Decimal

from authz.errors import InvalidInput
from authz_ext.amounts import format_amount

MICROS_PER_UNIT = 1_000_000
BOUND_UNITS = 2_000_000_000
#: Greatest absolute amount or balance, in micros; four of them stay exact in Lua's doubles.
BOUND_MICROS = BOUND_UNITS * MICROS_PER_UNIT

__all__ = [
    "BOUND_MICROS", "BOUND_UNITS", "MICROS_PER_UNIT", "format_amount", "format_percent",
    "parse_amount", "percent_basis_points",
]  # fmt: skip

_PERCENT_DECIMALS = 2
_PERCENT_MAX = 100
_AMOUNT = re.compile(r"(?P<sign>-?)(?P<whole>[0-9]{1,10})(?:\.(?P<decimals>[0-9]{1,6}))?\Z")


def parse_amount(text: str, field: str = "amount") -> int:
    """Return the micros of a decimal string such as `"12.34"` or `"-0.000001"`.

    Raises InvalidInput naming `field` for anything but digits with at most six decimals,
    and for an amount beyond ±2,000,000,000 units.
    """
    if not isinstance(text, str):
        raise InvalidInput(field, 'must be a decimal string such as "12.34"')
    match = _AMOUNT.match(text)
    if match is None:
        raise InvalidInput(field, f"{text[:40]!r} is not a decimal amount with at most 6 decimals")
    micros = int(match["whole"]) * MICROS_PER_UNIT + int((match["decimals"] or "").ljust(6, "0"))
    if micros > BOUND_MICROS:
        raise InvalidInput(field, f"{text[:40]!r} is beyond ±{BOUND_UNITS} units")
    return -micros if match["sign"] else micros


def percent_basis_points(percent: Decimal, field: str = "percent") -> int:
    """Return a percentage from 0 to 100 in basis points: 1250 for 12.5.

    Raises InvalidInput naming `field` for more than two decimals, and for what is out of bounds.
    """
    if not (percent.is_finite() and 0 <= percent <= _PERCENT_MAX):
        raise InvalidInput(field, f"{str(percent)[:40]!r} is not a percentage from 0 to 100")
    # What is left has five digits at most, and is exact in decimals.
    exponent = percent.as_tuple().exponent
    if not isinstance(exponent, int) or exponent < -_PERCENT_DECIMALS:
        raise InvalidInput(field, f"{str(percent)[:40]!r} has more than 2 decimals")
    return int(percent * 10**_PERCENT_DECIMALS)


def format_percent(basis_points: int) -> str:
    """Return basis points as percent, the shortest way: "12.5" for 1250."""
    whole, decimals = divmod(basis_points, 10**_PERCENT_DECIMALS)
    return f"{whole}.{decimals:02}".rstrip("0").rstrip(".")
