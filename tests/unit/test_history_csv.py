"""The CSV of transactions: safe cells, right quotes, words that both sides know."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator
from typing import Any, get_args
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.ledger.csv_file import COLUMNS, csv_chunks, safe_cell
from authz.ledger.messages import KindName
from authz.store.constants import Kind

NEW_YORK = ZoneInfo("America/New_York")
BOOKED_US = 1_793_491_200_250_000  # 2026-11-01T00:00:00.25Z


def row(**fields: Any) -> tuple[Any, ...]:
    """Return a row as the page statement selects it: a call, unless said otherwise."""
    values = {
        "bucket": 3, "sequence": 7, "leg": 1, "account": "acme", "origin": "acme-sales",
        "kind": int(Kind.CALL), "marks": 0, "class": 4, "direction": 0, "billing": 3, "seconds": 61,
        "booked_us": BOOKED_US, "started_at": BOOKED_US // 1_000_000 - 61, "amount_micros": -20_000,
        "balance_micros": 9_980_000, "reference": "c1", "number": "+14155550100",
        "description": "NORMAL_CLEARING", "refunded_call": "",
    }  # fmt: skip
    return tuple((values | fields).values())


async def file_of(*parts: list[tuple[Any, ...]]) -> bytes:
    """Return the whole file of these parts."""

    async def each() -> AsyncIterator[list[tuple[Any, ...]]]:
        for part in parts:
            yield part

    return b"".join([chunk async for chunk in csv_chunks(each(), NEW_YORK, "USD")])


async def cells_of(**fields: Any) -> dict[str, str]:
    """Return the cells of one row as a program reads them back."""
    text = (await file_of([row(**fields)])).decode()
    (cells,) = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    return cells


def test_every_kind_has_a_word() -> None:
    assert sorted(get_args(KindName)) == sorted(kind.label for kind in Kind)


async def test_a_call_is_a_row() -> None:
    assert await cells_of() == {
        "id": "txn_3_7_1", "booked_at": "2026-10-31T20:00:00.250-04:00",
        "started_at": "2026-10-31T19:58:59-04:00", "account": "acme", "origin": "acme-sales",
        "kind": "call", "direction": "outbound", "class": "national", "number": "+14155550100",
        "description": "NORMAL_CLEARING", "seconds": "61", "billing": "per_minute",
        "amount": "-0.02", "balance": "9.98", "currency": "USD", "call_id": "c1", "reference": "",
        "marks": "",
    }  # fmt: skip


async def test_a_payment_has_nothing_of_a_call() -> None:
    cells = await cells_of(kind=int(Kind.PAYMENT), reference="inv-1", number="", description="")
    assert (cells["reference"], cells["call_id"], cells["kind"]) == ("inv-1", "", "payment")
    assert all(not cells[name] for name in ("direction", "class", "number", "seconds", "billing"))


async def test_a_refund_names_its_call() -> None:
    cells = await cells_of(kind=int(Kind.REFUND), reference="r1", refunded_call="c1")
    assert (cells["reference"], cells["call_id"]) == ("r1", "c1")


async def test_marks_are_words() -> None:
    assert (await cells_of(marks=12))["marks"] == "provisional correction"


async def test_an_empty_file_has_its_header() -> None:
    assert await file_of() == (",".join(COLUMNS) + "\r\n").encode()


async def test_a_file_of_many_parts_has_one_header() -> None:
    lines = (await file_of([row(), row()], [row()])).split(b"\r\n")
    assert len(lines) == 1 + 3 + 1
    assert lines[1] == lines[2] == lines[3]


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("", ""),
        ("plain", "plain"),
        ("=1+1", "'=1+1"),
        ("+cmd|' /C calc'!A0", "'+cmd|' /C calc'!A0"),
        ("-2+3", "'-2+3"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "'\t'=1"),
        ("\rx", "'\rx"),
        ("\nx", "'\nx"),
        ("  =1", "'  =1"),
        ("＝1", "'＝1"),
        # Other countries' spreadsheets split at a semicolon.
        ("5 MB;=1+1", "5 MB;'=1+1"),
        # Numbers of every kind stay what they are.
        ("-0.02", "-0.02"),
        ("+14155550100", "+14155550100"),
        ("+1;=1", "'+1;'=1"),
        ("+1415#", "'+1415#"),
        ("*67", "*67"),
        ("a - b", "a - b"),
    ],
)
def test_no_cell_begins_a_formula(text: str, safe: str) -> None:
    assert safe_cell(text) == safe


@given(st.text(alphabet="=+-@;|\t\r\n\" ,0x'", max_size=12))
async def test_whatever_is_written_comes_back_harmless(text: str) -> None:
    cells = await cells_of(kind=int(Kind.MANUAL), description=text)
    cell = cells["description"]
    is_number = cell.lstrip("+-").isdecimal() and len(cell) - len(cell.lstrip("+-")) <= 1
    assert is_number or not cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
    assert cell.replace("'", "") == text.replace("'", "")
