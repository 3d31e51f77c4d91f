"""Transactions as a CSV file after RFC 4180, row by row, for spreadsheets and programs.

A spreadsheet takes a cell that begins with `=`, `+`, `-` or `@` for a formula, and what callers
have written into a description or a reference is theirs. So such a cell gets an apostrophe in
front, unless it is a plain number: amounts and numbers in E.164 stay what they are.
"""

from __future__ import annotations

import csv
import datetime as dt
import io
import re
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

from authz.ledger.transactions import transaction_of

COLUMNS: Final = (
    "id", "booked_at", "started_at", "account", "origin", "kind", "direction", "class", "number",
    "description", "seconds", "billing", "amount", "balance", "currency", "call_id", "reference",
    "marks",
)  # fmt: skip
_PLAIN_NUMBER = re.compile(r"[+-]?[0-9]+(?:\.[0-9]+)?\Z", re.ASCII)
#: Before what could be a formula: also after what other countries' spreadsheets take for the end
#: of a cell, and also in the wide characters that some take for the narrow ones.
_FORMULA = re.compile(r"\A(?=[\t\r\n])|(?:\A|[;\t\r\n|])(?=[\s\0]*[=+\-@＝＋－＠])")


def safe_cell(text: str) -> str:
    """Return a text that no spreadsheet takes for a formula."""
    if _FORMULA.search(text) is None or _PLAIN_NUMBER.match(text):
        return text
    return _FORMULA.sub(r"\g<0>'", text)


async def csv_chunks(
    parts: AsyncIterator[Sequence[Any]], zone: dt.tzinfo, currency: str
) -> AsyncIterator[bytes]:
    """Yield the file of these parts of rows, with times of a zone; the first begins with a header.

    It holds one part at a time, however many there are.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    async for rows in parts:
        writer.writerows([_cells(row, zone, currency) for row in rows])
        yield _taken(text)
    if text.tell():
        yield _taken(text)


def _taken(text: io.StringIO) -> bytes:
    data = text.getvalue().encode()
    text.seek(0)
    text.truncate()
    return data


def _cells(row: Any, zone: dt.tzinfo, currency: str) -> tuple[object, ...]:
    one = transaction_of(row, zone)
    return (
        one.id, one.booked_at, one.started_at, one.account, one.origin, one.kind, one.direction,
        one.class_, None if one.number is None else safe_cell(one.number),
        safe_cell(one.description), one.seconds, one.billing, one.amount, one.balance, currency,
        None if one.call_id is None else safe_cell(one.call_id),
        None if one.reference is None else safe_cell(one.reference), " ".join(one.marks),
    )  # fmt: skip
