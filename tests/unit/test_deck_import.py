"""Whole deck files: as carriers send them, and as nobody should."""

from __future__ import annotations

from pathlib import Path

import pytest

from authz.errors import DeckError
from authz.rating import importer
from authz.rating.importer import ImportedDeck, ImportOptions, import_deck
from authz.rating.report import DeckRefused, LineIssue
from authz.rating.rows import PriceRow, Terms, TimeWindow
from authz.reasons import CallClass, Direction
from authz_ext.rating import Tier

DATA = Path(__file__).resolve().parents[1] / "data"


def load(
    text: str | bytes,
    *,
    currency: str = "USD",
    direction: int | None = None,
    skip_bad: bool = False,
) -> ImportedDeck:
    data = text.encode() if isinstance(text, str) else text
    options = ImportOptions(currency=currency, direction=direction, skip_bad=skip_bad)
    return import_deck(data, options)


def row_of(deck: ImportedDeck, prefix: str) -> PriceRow:
    (row,) = [row for row in deck.rows if row.prefix == prefix]
    return row


def issues_of(text: str) -> list[LineIssue]:
    with pytest.raises(DeckRefused) as refused:
        load(text)
    return list(refused.value.report.issues)


# --- a real deck -----------------------------------------------------------------------------


def test_the_retail_deck_is_refused_for_its_damaged_line() -> None:
    with pytest.raises(DeckRefused, match=r"line 37: .*5\.41144E\+11.*spreadsheet") as refused:
        load((DATA / "retail_deck.csv").read_bytes())
    report = refused.value.report
    assert report.bad_lines == 1
    assert [(issue.line, issue.outcome) for issue in report.issues] == [
        (37, "refused"),
        (553, "note"),
    ]


def test_the_retail_deck_imports_without_its_damaged_line() -> None:
    data = (DATA / "retail_deck.csv").read_bytes()
    deck = load(data, skip_bad=True)
    report = deck.report
    assert report.lines == data.count(b"\n") - 1
    assert len(deck.rows) == report.rows == report.prefixes == report.lines - 1
    assert [(issue.line, issue.column, issue.outcome) for issue in report.issues] == [
        (37, "Code", "left_out"),
        (553, "Increment Rate Per Minute", "note"),
    ]
    assert [(column.column, column.values) for column in report.ignored_columns] == [
        ("Time Of Day", ("peak",))
    ]
    assert report.blocked == sum(b"Blocked" in line for line in data.splitlines())
    assert row_of(deck, "*1003").terms == Terms(tiers=(Tier(0, 0, 60, 60),))
    assert row_of(deck, "59951").blocked
    assert row_of(deck, "*2007").terms == Terms(
        tiers=(Tier(0, 330_000_000, 60, 60), Tier(60, 100_000_000, 60, 60))
    )
    assert row_of(deck, "50322010").description == "El Salvador,Cte"


# --- carriers' habits ------------------------------------------------------------------------


def test_semicolons_decimal_commas_and_latin_1() -> None:
    data = (DATA / "wholesale_semicolon_latin1.csv").read_bytes()
    deck = load(data, currency="EUR")
    assert (deck.report.encoding, deck.report.delimiter) == ("latin-1", ";")
    assert deck.report.header_line == 3
    assert [row.prefix for row in deck.rows] == [
        "43", "4475", "4476", "4477", "49", "6138", "6139",
    ]  # fmt: skip
    assert row_of(deck, "43").description == "Österreich"
    assert row_of(deck, "49").effective == "2026-01-31"
    assert row_of(deck, "6139").terms == Terms(
        tiers=(Tier(0, 12_500_000, 60, 30), Tier(30, 12_500_000, 60, 6))
    )
    assert row_of(deck, "4476").terms == Terms(
        tiers=(Tier(0, 84_000_000, 60, 1),), connect_fee=10_000
    )
    assert {row.line for row in deck.rows} == {4, 5, 6, 7}
    assert [(issue.line, issue.outcome) for issue in deck.report.issues] == [(1, "note")]


def test_tabs_a_byte_order_mark_and_two_increment_columns() -> None:
    deck = load((DATA / "tabs_with_bom.csv").read_bytes())
    assert (deck.report.encoding, deck.report.delimiter) == ("utf-8-sig", "\t")
    assert [row.prefix for row in deck.rows] == ["1264", "44", "4420"]
    assert row_of(deck, "4420").terms == Terms(tiers=(Tier(0, 10_000_000, 60, 1),))
    assert row_of(deck, "44").terms == Terms(
        tiers=(Tier(0, 13_700_000, 60, 30), Tier(30, 13_700_000, 60, 6))
    )
    assert row_of(deck, "1264").terms == Terms(tiers=(Tier(0, 150_000_000, 60, 60),))
    assert [column.column for column in deck.report.ignored_columns] == ["Comment"]


def test_utf_16_of_a_spreadsheet() -> None:
    deck = load("Code\tRate\n44\t0,01\n".encode("utf-16"))
    assert row_of(deck, "44").terms == Terms(tiers=(Tier(0, 10_000_000, 60, 60),))


@pytest.mark.parametrize(
    "header",
    ["Prefix,Price", "Code,Rate", "Dial Code,Cost", "AreaCode,Per Minute", "dial_code,RATE (USD)",
     "Dialing Code,Price/Min", "Country Code,Rate per minute"],
)  # fmt: skip
def test_header_synonyms(header: str) -> None:
    assert row_of(load(f"{header}\n44,0.01\n"), "44").terms is not None


def test_the_best_description_is_taken() -> None:
    deck = load("Country,Destination,Code,Rate\nUK,UK Mobile,447,0.1\n")
    assert row_of(deck, "447").description == "UK Mobile"
    assert [column.column for column in deck.report.ignored_columns] == ["Country"]


def test_every_canonical_column() -> None:
    deck = load(
        "prefix,description,direction,class,price,connect_fee,increment,free_seconds,tiers,window,"
        "rounding,max_cost,max_cost_action,effective,expires,blocked\n"
        "44,UK,outbound,premium,,0.05,,3,0:0.20/60/60 60:0.10/60/1,,up 2,5,end,"
        "2026-01-01,2026-06-01T12:00:00,\n"
        "44,UK,outbound,premium,0.01,,30/6,,,sat-sun 00:00-24:00,up 2,5,end,"
        "2026-01-01,2026-06-01T12:00:00,\n"
    )
    base, weekend = deck.rows
    assert base == PriceRow(
        line=2,
        prefix="44",
        description="UK",
        direction=Direction.OUTBOUND,
        call_class=CallClass.PREMIUM,
        blocked=False,
        terms=Terms(
            tiers=(Tier(0, 200_000_000, 60, 60), Tier(60, 100_000_000, 60, 1)),
            connect_fee=50_000,
            free_seconds=3,
            rounding_mode="up",
            rounding_decimals=2,
            max_cost=5_000_000,
            max_cost_action="end",
        ),
        window=None,
        effective="2026-01-01",
        expires="2026-06-01T12:00:00",
    )
    assert weekend.window == TimeWindow(0b1100000, 0, 1440)


def test_the_direction_of_the_import_holds_for_lines_that_name_none() -> None:
    text = "prefix,price,direction\n44,1,\n45,1,inbound\n46,1,both\n"
    directions = {row.prefix: row.direction for row in load(text).rows}
    assert directions == {"44": None, "45": Direction.INBOUND, "46": None}
    directions = {
        row.prefix: row.direction for row in load(text, direction=Direction.OUTBOUND).rows
    }
    assert directions == {"44": Direction.OUTBOUND, "45": Direction.INBOUND, "46": None}


# --- bad lines -------------------------------------------------------------------------------


def test_every_bad_line_is_reported() -> None:
    issues = issues_of(
        "Prefix,Description,Price,Effective\n"
        "44,UK,0.01,\n"
        "x,bad prefix,0.01,\n"
        "45,bad price,abc,\n"
        "46,bad date,0.01,01/02/2026\n"
        "47,bad,many,\n"
        "\n"
        "48,more,0.01,,5\n"
        f"49,{'long ' * 50},0.01,\n"
    )
    assert [(issue.line, issue.column) for issue in issues] == [
        (3, "Prefix"), (4, "Price"), (5, "Effective"), (6, "Price"), (8, ""), (9, "Description"),
    ]  # fmt: skip
    assert {issue.outcome for issue in issues} == {"refused"}


def test_skip_bad_blocks_what_is_readable_and_leaves_the_rest_out() -> None:
    deck = load("Prefix,Price\n44,0.01\n45,abc\nx,0.01\n44,\n46-47,-1\n48,1,2\n", skip_bad=True)
    assert [(row.prefix, row.blocked) for row in deck.rows] == [
        ("44", True), ("45", True), ("46", True), ("47", True),
    ]  # fmt: skip
    assert [(issue.line, issue.outcome) for issue in deck.report.issues] == [
        (2, "blocked"), (3, "blocked"), (4, "left_out"), (5, "blocked"), (6, "blocked"),
        (7, "left_out"),
    ]  # fmt: skip
    assert deck.report.bad_lines == 6


def test_a_deck_of_bad_lines_only_is_no_deck() -> None:
    with pytest.raises(DeckError, match="no row that can be used"):
        load("Prefix,Price\nx,1\n", skip_bad=True)


def test_peak_and_off_peak_rows_are_duplicates_not_last_wins() -> None:
    data = (DATA / "peak_and_offpeak.csv").read_bytes()
    with pytest.raises(DeckRefused, match=r"line 3: prefix 44 is on line 2.*'Time Of Day'"):
        load(data)
    deck = load(data, skip_bad=True)
    assert [(row.prefix, row.blocked) for row in deck.rows] == [("33", False), ("44", True)]
    assert [(issue.line, issue.outcome) for issue in deck.report.issues] == [
        (2, "blocked"), (3, "blocked"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "rows",
    [
        "44,1,,,\n44,1,,,\n",
        "44,1,outbound,,\n44,1,,,\n",
        '"44,44",1,,,\n',
        "44,1,,,2026-01-01\n44,2,,,1-Jan-2026\n",
        "44-45,1,,,\n44,2,,,\n",
    ],
)
def test_duplicates_are_refused(rows: str) -> None:
    issues = issues_of("prefix,price,direction,window,effective\n" + rows)
    assert "already" in issues[0].reason


@pytest.mark.parametrize(
    "rows",
    [
        "44,1,outbound,,\n44,2,inbound,,\n",
        "44,1,,,\n44,2,,,2026-01-01\n44,3,,,2026-02-01\n",
        "44,1,,,\n44,2,,mon 08:00-18:00,\n44,3,,tue 08:00-18:00,\n",
        "44,1,,,\n44,2,outbound,mon 08:00-18:00,\n",
    ],
)
def test_rows_of_one_prefix_that_differ_where_they_may(rows: str) -> None:
    assert len(load("prefix,price,direction,window,effective\n" + rows).rows) == rows.count("\n")


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ("44,1,mon 08:00-18:00,,\n", "none without one"),
        ("44,1,,,\n44,1,mon 08:00-18:00,2026-01-01,\n", "none without one"),
        ("44,1,,,\n44,1,mon 08:00-18:00,,\n44,1,mon-tue 17:00-19:00,,\n", "overlaps"),
        ("44,1,,,\n44,1,sun 22:00-06:00,,\n44,1,mon 05:00-07:00,,\n", "overlaps"),
        ("44,1,,,\n44,1,mon 08:00-18:00,,premium\n", "class must be as on line 2"),
    ],
)
def test_windows_that_contradict_are_refused(rows: str, reason: str) -> None:
    issues = issues_of("prefix,price,window,effective,class\n" + rows)
    assert reason in issues[0].reason


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("prefix,price,expires,effective\n44,1,2026-01-01,2026-01-01\n", "before it is effective"),
        ("prefix,price,class\n44,1,friendly\n", "class 'friendly'"),
        ("prefix,price,direction\n44,1,sideways\n", "direction 'sideways'"),
        ("prefix,price,currency\n44,1,EUR\n", "currency is USD"),
        ("prefix,price,increment\n44,1,0\n", "increment_seconds"),
        ("prefix,price,max_cost_action\n44,1,stop\n", "free or end"),
        ("prefix,price,tiers\n44,,10:1/60/60\n", "second 0"),
        ("prefix,price\n44,1000001\n", "price_nanos"),
        ('prefix,price\n44,"1\n45,2\n', "quote missing"),
        ("prefix,description,price\n44,a\tb,1\n", "control characters"),
        ("prefix,price\n44\n", "price is empty"),
    ],
)
def test_other_bad_lines(text: str, reason: str) -> None:
    assert reason in issues_of(text)[0].reason


def test_a_bad_price_is_named_on_each_of_its_lines() -> None:
    issues = issues_of("prefix,price\n44,abc\n45,abc\n")
    assert [(issue.line, issue.value) for issue in issues] == [(2, "abc"), (3, "abc")]


# --- files that are no deck ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"\n\n \n", "empty"),
        (b"PK\x03\x04rest", "spreadsheet"),
        (b"Prefix,Price\n44,\x000.1\n", "null bytes"),
        (b"\xff\xfe\x00", "not the utf-16"),
        (b"44,0.01\n45,0.02\n", "none of the first 30 lines is a header"),
        (b"Prefix,Description\n44,UK\n", "none of the first 30 lines is a header"),
        (b"Prefix,Price\n", "no row"),
        (b"Prefix,Rate,Price\n44,1,2\n", "both 'Rate' and 'Price'"),
        (b"Prefix,Dial Code,Price\n44,1,2\n", "both 'Prefix' and 'Dial Code'"),
        (b"Country Code,Area Code,Price\n61,38,2\n", "join 'Country Code' and 'Area Code'"),
        (b"Prefix,Rate,Initial Rate\n44,1,2\n", "increment rate"),
        (b'Prefix,Price\n44,"' + b"1" * 200_000 + b'"\n', "not readable as CSV"),
        (b"Prefix,Price," + b"x," * 300 + b"\n", "more than 200 columns"),
    ],
)
def test_files_that_are_no_deck(data: bytes, reason: str) -> None:
    with pytest.raises(DeckError, match=reason):
        load(data)


def test_too_many_rows_are_refused_on_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importer, "ROWS_MAX", 2_500)
    ranges = "".join(f"{head}000-{head}999,1\n" for head in range(100, 104))
    with pytest.raises(DeckError, match="line 4: the deck has more than 2500 rows"):
        load("prefix,price\n" + ranges)


def test_progress_is_told_and_ends_at_the_total() -> None:
    told: list[tuple[int, int]] = []
    lines = "".join(f"{number},1\n" for number in range(100_000, 112_000))
    import_deck(
        ("prefix,price\n" + lines).encode(),
        ImportOptions(),
        lambda done, total: told.append((done, total)),
    )
    assert [done for done, _ in told[:2]] == [5_000, 10_000]
    assert told[-1][0] == told[-1][1]
