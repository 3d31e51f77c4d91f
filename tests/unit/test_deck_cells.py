"""The readers of single cells: what they accept, and how they refuse the rest."""

from __future__ import annotations

import pytest

from authz.rating import cells
from authz.rating.canonical import price_text, window_text
from authz.rating.cells import CellError
from authz.rating.rows import TimeWindow
from authz_ext.rating import Tier


@pytest.mark.parametrize(
    ("cell", "prefixes"),
    [
        ("44", ["44"]),
        ("+44", ["44"]),
        ("+44 20 ", ["4420"]),
        ("44 207 946", ["44207946"]),
        ("61 38,39", ["6138", "6139"]),
        ("61 38; 39", ["6138", "6139"]),
        ("4475-4477", ["4475", "4476", "4477"]),
        ("61 38-39", ["6138", "6139"]),
        ("61 38-39,45", ["6138", "6139", "6145"]),
        ("098-101", ["098", "099", "100", "101"]),
        ("4420, 4421", ["4420", "4421"]),
        ("*1003", ["*1003"]),
        ("#31#", ["#31#"]),
        ("'4420", ["4420"]),
        ('="4420"', ["4420"]),
        ("0", ["0"]),
        ("1234567890123456", ["1234567890123456"]),
    ],
)
def test_prefixes(cell: str, prefixes: list[str]) -> None:
    assert list(cells.read_prefixes(cell)) == prefixes


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ("", "empty"),
        ("+", "empty item"),
        ("44,", "empty item"),
        ("5.41144E+11", "spreadsheet"),
        ("5,41144E+11", "spreadsheet"),
        ("541E9", "spreadsheet"),
        ("44.0", "decimal point"),
        ("44a", "can be dialled"),
        ("٤٤", "can be dialled"),
        ("0044", "begins with 00"),
        ("00", "begins with 00"),
        ("12345678901234567", "longer than 16"),
        ("4477-4475", "no clear range"),
        ("4475-77", "no clear range"),
        ("1-264", "no clear range"),
        ("4*-4#", "not a range"),
        ("4475-", "not a range"),
        ("10000000-99999999", "stands for more than"),
        ("61 38, 6139", "ambiguous"),
        ("61 38, 62 39", "ambiguous"),
        ("44 4475-4477", "ambiguous"),
        ("4420 4421", "ambiguous"),
        ("1" * 15 + " 1-99", "no clear range"),
        ("1" * 15 + " 10-99", "longer than 16"),
    ],
)
def test_prefixes_refused(cell: str, reason: str) -> None:
    with pytest.raises(CellError, match=reason):
        cells.read_prefixes(cell)


@pytest.mark.parametrize(
    ("cell", "nanos"),
    [
        ("0", 0),
        ("0.0137", 13_700_000),
        ("0,0137", 13_700_000),
        (".5", 500_000_000),
        ("1.", 1_000_000_000),
        ("0.000000001", 1),
        ("0.0100000000000", 10_000_000),
        ("$0.15", 150_000_000),
        ("0.15 USD", 150_000_000),
        ("USD 0.15", 150_000_000),
    ],
)
def test_prices(cell: str, nanos: int) -> None:
    assert cells.read_price(cell, "USD") == nanos


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ("", "empty"),
        (".", "not a decimal"),
        ("0.0000000001", "more than 9 decimals"),
        ("-0.01", "negative"),
        ("1,234.5", "both a comma and a point"),
        ("5E-04", "scientific"),
        ("€0.15", "not in the deck's currency"),
        ("0.15 EUR", "not a decimal"),
        ("n/a", "not a decimal"),
        ("٠.٥", "not a decimal"),
        ("1" * 17, "not a decimal"),
    ],
)
def test_prices_refused(cell: str, reason: str) -> None:
    with pytest.raises(CellError, match=reason):
        cells.read_price(cell, "USD")


@pytest.mark.parametrize(
    ("cell", "date"),
    [
        ("2026-12-31", "2026-12-31"),
        ("2026/12/31", "2026-12-31"),
        ("20261231", "2026-12-31"),
        ("31.12.2026", "2026-12-31"),
        ("12/31/2026", "2026-12-31"),
        ("1/1/2026", "2026-01-01"),
        ("31-Dec-2026", "2026-12-31"),
        ("31 December 2026", "2026-12-31"),
        ("Dec 31, 2026", "2026-12-31"),
        ("2026-12-31T08:30", "2026-12-31T08:30:00"),
        ("2026-12-31 08:30:15", "2026-12-31T08:30:15"),
        ("12/31/2026 12:00:00 AM", "2026-12-31"),
        ("12/31/2026 1:30 PM", "2026-12-31T13:30:00"),
    ],
)
def test_dates(cell: str, date: str) -> None:
    assert cells.read_date(cell) == date


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ("01/02/2026", "ambiguous"),
        ("1.2.2026", "ambiguous"),
        ("31/12/26", "not understood"),
        ("2026-02-30", "does not exist"),
        ("31/31/2026", "does not exist"),
        ("31-Foo-2026", "no month"),
        ("46023", "not understood"),
        ("2026-12-31T08:30Z", "not understood"),
        ("2026-12-31 25:00", "does not exist"),
        ("2026-12-31 13:00 PM", "does not exist"),
    ],
)
def test_dates_refused(cell: str, reason: str) -> None:
    with pytest.raises(CellError, match=reason):
        cells.read_date(cell)


@pytest.mark.parametrize(
    ("cell", "window", "canonical"),
    [
        ("mon-fri 08:00-18:00", TimeWindow(0b0011111, 480, 1080), "mon-fri 08:00-18:00"),
        ("sat,sun", TimeWindow(0b1100000, 0, 1440), "sat-sun 00:00-24:00"),
        ("22:00-6:00", TimeWindow(0b1111111, 1320, 360), "mon-sun 22:00-06:00"),
        ("fri-mon 00:00-24:00", TimeWindow(0b1110001, 0, 1440), "mon,fri-sun 00:00-24:00"),
        ("Wed 20:00-00:00", TimeWindow(0b0000100, 1200, 1440), "wed 20:00-24:00"),
    ],
)
def test_windows(cell: str, window: TimeWindow, canonical: str) -> None:
    assert cells.read_window(cell) == window
    assert window_text(window) == canonical
    assert cells.read_window(canonical) == window


@pytest.mark.parametrize(
    "cell",
    ["workdays 08:00-18:00", "mon-foo 08:00-18:00", "08:00", "08:00-08:00", "24:00-08:00",
     "08:00-24:30", "08:00-18:60", "mon 08:00-18:00 tue"],
)  # fmt: skip
def test_windows_refused(cell: str) -> None:
    with pytest.raises(CellError, match="window"):
        cells.read_window(cell)


def test_tiers() -> None:
    assert cells.read_tiers("0:0.20/60/60 60:0,10/60/1", "USD") == (
        Tier(0, 200_000_000, 60, 60),
        Tier(60, 100_000_000, 60, 1),
    )


@pytest.mark.parametrize("cell", ["0.20/60/60", "0:0.20/60", "0:x/60/60", "0:0.2/0/60"])
def test_tiers_refused(cell: str) -> None:
    with pytest.raises(CellError, match=r"tier|price"):
        cells.read_tiers(cell, "USD")


def test_increments() -> None:
    assert cells.read_increment("30/6") == (30, 6)
    assert cells.read_increment("6") == (6, 6)
    assert cells.read_increment("60 sec / 1 sec") == (60, 1)
    for cell in ["30-6", "Jun-30", "30/6/1", "1.5", "-1"]:
        with pytest.raises(CellError, match="whole number of seconds"):
            cells.read_increment(cell)


def test_rounding_and_flags() -> None:
    assert cells.read_rounding("half_up 6") == ("half_up", 6)
    assert cells.read_rounding("down 0") == ("down", 0)
    for cell in ["half_up", "half_up 7", "nearest 2", "up  2"]:
        with pytest.raises(CellError, match="rounding"):
            cells.read_rounding(cell)
    assert cells.read_flag("Yes")
    assert not cells.read_flag("")
    with pytest.raises(CellError, match="neither"):
        cells.read_flag("perhaps")


def test_price_text_is_the_shortest() -> None:
    assert [price_text(nanos) for nanos in (0, 1, 13_700_000, 2_000_000_000)] == [
        "0", "0.000000001", "0.0137", "2",
    ]  # fmt: skip
