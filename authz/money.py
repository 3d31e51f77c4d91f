"""Amounts of money: integer micros inside, decimal strings outside.

One micro is 1e-6 of the currency unit. Nothing here, and nothing that calls it, uses a float.
"""

from __future__ import annotations

import re

from authz.errors import InvalidInput
from authz_ext.amounts import format_amount

MICROS_PER_UNIT = 1_000_000
BOUND_UNITS = 2_000_000_000
#: Greatest absolute amount or balance, in micros; four of them stay exact in Lua's doubles.
BOUND_MICROS = BOUND_UNITS * MICROS_PER_UNIT

__all__ = [
    "BOUND_MICROS", "BOUND_UNITS", "MICROS_PER_UNIT", "format_amount", "parse_amount",
]  # fmt: skip

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
