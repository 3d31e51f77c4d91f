"""Amounts of money as text."""

from __future__ import annotations

def format_amount(micros: int) -> str:
    """Return micros as the shortest decimal string: `9990000` is `"9.99"`.

    Raises OverflowError beyond 64 bits, thousands of times the bound of an amount.
    """
