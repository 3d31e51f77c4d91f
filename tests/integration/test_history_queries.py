"""Transactions, usage and statements against a ledger that Python adds up, in both databases."""

from __future__ import annotations

import random
import tracemalloc
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from movements import Ledger, Movement, fill
from sqlalchemy import event, text
from sqlalchemy.engine import Engine

from authz.errors import HistoryTooLong, InvalidInput, InvariantError
from authz.ledger.csv_file import csv_chunks
from authz.ledger.database import Database
from authz.ledger.messages import MovementQuery, SortName, Transaction
from authz.ledger.selections import Selection
from authz.ledger.statements import read_sheet
from authz.ledger.time_limit import time_limit
from authz.ledger.transactions import (
    STREAM_ROWS,
    page_statement,
    position_of,
    read_page,
    stream_rows,
)
from authz.ledger.usage import ORIGINS_MAX, Usage, read_usage
from authz.ledger.windows import Month, Window, month_at
from authz.money import format_amount
from authz.reasons import Billing, CallClass, Direction
from authz.store.constants import Kind, Mark

UTC = ZoneInfo("UTC")
NEW_YORK = ZoneInfo("America/New_York")
START_US = 1_767_225_600_000_000  # 2026-01-01T00:00:00Z
DAY_US = 86_400_000_000
NUMBERS = ("+14155550100", "+442071838750", "+14416550100", "911", "+18005551212")


@pytest.fixture
async def database(archive_url: str, tmp_path: Path) -> AsyncIterator[Database]:
    opened = await Database.open(archive_url, tmp_path)
    yield opened
    await opened.close()


def business(rng: random.Random, days: int, entries_a_day: int) -> Ledger:
    """Return the ledger of a master with two resellers and their customers."""
    ledger = Ledger()
    chains = [
        ("master",),
        *((reseller, "master") for reseller in ("east", "west")),
        *((f"east-{number}", "east", "master") for number in range(3)),
        ("west-1", "west", "master"),
    ]
    for day in range(days):
        for second in sorted(rng.choices(range(86_400), k=rng.randint(0, entries_a_day * 2))):
            chain = rng.choice(chains)
            at_us = START_US + day * DAY_US + second * 1_000_000
            if rng.random() < 0.8:
                _book_call(ledger, rng, chain, at_us)
            elif rng.random() < 0.5:
                ledger.book({chain[0]: rng.randint(1, 50) * 1_000_000}, at_us, Kind.PAYMENT)
            else:
                kind = rng.choice([Kind.SMS, Kind.RECURRING, Kind.MANUAL])
                ledger.book(dict.fromkeys(chain, -rng.randint(1, 900_000)), at_us, kind)
    return ledger


def _book_call(ledger: Ledger, rng: random.Random, chain: tuple[str, ...], at_us: int) -> None:
    ledger.call(
        {account: -rng.randint(0, 300_000) for account in chain},
        at_us,
        call_class=rng.choice([CallClass.NATIONAL, CallClass.INTERNATIONAL, CallClass.EMERGENCY]),
        direction=rng.choice(list(Direction)),
        billing=rng.choice(list(Billing)),
        seconds=rng.randint(0, 600),
        number=rng.choice(NUMBERS),
    )


def selection(account: str = "master", zone: ZoneInfo = UTC, **words: Any) -> Selection:
    """Return a selection in a caller's words."""
    if "class" in words:
        words["class_"] = words.pop("class")
    return Selection.of(MovementQuery(id=account, **words), zone)


async def pages(
    database: Database, chosen: Selection, sort: SortName = "booked", limit: int = 500
) -> list[Transaction]:
    """Return all transactions of a selection, page by page."""
    found: list[Transaction] = []
    cursor = None
    while True:
        async with database.read() as connection:
            page = await read_page(connection, chosen, sort, cursor, limit)
        assert len(page.transactions) <= limit
        found += page.transactions
        cursor = page.cursor
        if cursor is None:
            return found


def ids(rows: list[Movement]) -> list[str]:
    """Return the ids under which callers know rows."""
    return [f"txn_{row.bucket}_{row.sequence}_{row.leg}" for row in rows]


_SHAPES: list[tuple[dict[str, Any], Callable[[Movement], bool]]] = [
    ({}, lambda row: True),
    ({"kind": "call"}, lambda row: row.kind == Kind.CALL),
    ({"kind": "payment"}, lambda row: row.kind == Kind.PAYMENT),
    ({"kind": "sms"}, lambda row: row.kind == Kind.SMS),
    ({"direction": "inbound"}, lambda row: row.kind == Kind.CALL and row.direction == 1),
    # What is no call has no class, although its row has the number of this one.
    ({"class": "emergency"}, lambda row: row.kind == Kind.CALL and row.call_class == 0),
    ({"class": "national", "kind": "call"},
     lambda row: row.kind == Kind.CALL and row.call_class == CallClass.NATIONAL),
    ({"destination": "+1"}, lambda row: row.number.startswith("+1")),
    ({"destination": "1441"}, lambda row: row.number.startswith("+1441")),
    ({"destination": "911"}, lambda row: row.number == "911"),
    ({"destination": "44", "direction": "outbound"},
     lambda row: row.number.startswith("+44") and row.direction == 0),
    ({"origin": "master"}, lambda row: row.origin == "master"),
    ({"origin": "east"}, lambda row: row.origin == "east"),
    ({"under": "east"}, lambda row: row.origin.startswith("east")),
    ({"under": "east-1"}, lambda row: row.origin == "east-1"),
    ({"under": "master"}, lambda row: True),
    ({"under": "nobody"}, lambda row: False),
    ({"kind": "recurring", "under": "west"},
     lambda row: row.kind == Kind.RECURRING and row.origin.startswith("west")),
]  # fmt: skip


async def test_every_filter_finds_what_python_finds(database: Database, rng: random.Random) -> None:
    ledger = business(rng, days=10, entries_a_day=25)
    await ledger.store(database)
    for words, condition in _SHAPES:
        rows = list(ledger.of("master", condition))
        assert [one.id for one in await pages(database, selection(**words))] == ids(rows), words
        usage = await read(database, selection(**words))
        assert (usage.total.entries, usage.total.amount) == (
            len(rows),
            format_amount(sum(row.amount_micros for row in rows)),
        ), words


@pytest.mark.parametrize("limit", [1, 2, 7, 500])
async def test_pages_of_every_order_hold_each_row_once(
    database: Database, rng: random.Random, limit: int
) -> None:
    ledger = business(rng, days=3, entries_a_day=20)
    await ledger.store(database)
    rows = list(ledger.of("east"))
    by_amount = sorted(rows, key=lambda row: (row.amount_micros, row.booked_us, row.sequence))
    window = {"start": "2026-01-01", "end": "2026-01-31"}
    orders: list[tuple[SortName, list[Movement]]] = [
        ("booked", rows), ("-booked", rows[::-1]),
        ("amount", by_amount), ("-amount", by_amount[::-1]),
    ]  # fmt: skip
    for sort, expected in orders:
        found = await pages(database, selection("east", **window), sort, limit)
        assert [one.id for one in found] == ids(expected), sort


async def test_what_is_booked_between_pages_moves_none(database: Database) -> None:
    ledger = Ledger()
    for number in range(10):
        ledger.book({"master": 1}, START_US + number // 3)
    await ledger.store(database)
    cursors: dict[SortName, str | None] = {"booked": None, "-booked": None}
    found: dict[SortName, list[str]] = {"booked": [], "-booked": []}
    for number in range(4):
        for sort in cursors:
            async with database.read() as connection:
                page = await read_page(connection, selection(), sort, cursors[sort], 3)
            found[sort] += [one.id for one in page.transactions]
            cursors[sort] = page.cursor
        # At the very moment of the last, too: only the sequence tells them apart.
        ledger.book({"master": 1}, START_US + 3 + number // 2)
        await ledger.store(database)
    assert found["booked"] == ids(ledger.rows[:12])
    assert found["-booked"] == ids(ledger.rows[9::-1])
    assert cursors["-booked"] is None


async def test_a_window_begins_with_its_start_and_ends_before_its_end(database: Database) -> None:
    ledger = Ledger()
    for offset_us in (-1_000, 0, 1_000, DAY_US - 1_000, DAY_US):
        ledger.book({"master": 1}, START_US + offset_us)
    await ledger.store(database)
    found = await pages(database, selection(start="2026-01-01", end="2026-01-01"))
    assert [one.id for one in found] == ids(ledger.rows[1:4])
    found = await pages(
        database, selection(start="2026-01-01T00:00:00.001Z", end="2026-01-02T00:00:00Z")
    )
    assert [one.id for one in found] == ids(ledger.rows[2:4])


async def test_a_transaction_tells_all_of_a_row(database: Database) -> None:
    ledger = Ledger()
    ledger.call(
        {"sub": -20_000, "master": -5_000}, START_US, seconds=61, reference="c1",
        description="NORMAL_CLEARING", marks=Mark.DEGRADED | Mark.CORRECTION,
    )  # fmt: skip
    ledger.book({"sub": 20_000, "master": 5_000}, START_US, Kind.REFUND, refunded_call="c1")
    await ledger.store(database)
    refund, call = await pages(database, selection("master"), "-booked")
    assert call == Transaction(
        id="txn_3_1_1", account="master", origin="sub", booked_at="2026-01-01T00:00:00.000Z",
        started_at="2025-12-31T23:58:59Z", kind="call", marks=("degraded", "correction"),
        direction="outbound", class_="national", number="+14155550100", seconds=61,
        billing="per_minute", amount="-0.005", balance="-0.005", call_id="c1", reference=None,
        description="NORMAL_CLEARING",
    )  # fmt: skip
    assert (refund.call_id, refund.reference, refund.amount) == ("c1", "reference-2", "0.005")
    assert refund.class_ is refund.direction is refund.billing is refund.number is None


@pytest.mark.parametrize("sort", ["booked", "-booked"])
async def test_a_stream_has_every_row_once_and_none_booked_meanwhile(
    database: Database, sort: SortName
) -> None:
    ledger = Ledger()
    for number in range(STREAM_ROWS * 2 + 10):
        ledger.book({"sub": 1, "master": 1}, START_US + number // 5 * 1_000)
    await ledger.store(database)
    expected = ids(list(ledger.of("master")))
    found = []
    async for part in stream_rows(database.read, selection(), sort):
        found += [f"txn_{row.bucket}_{row.sequence}_{row.leg}" for row in part]
        ledger.book({"master": 1}, ledger.rows[-1].booked_us + 1_000)
        await ledger.store(database)
    assert found == (expected if sort == "booked" else expected[::-1])


async def test_a_stream_of_nothing_is_empty(database: Database) -> None:
    assert [part async for part in stream_rows(database.read, selection(), "booked")] == []


@pytest.mark.parametrize("archive_url", ["sqlite"], indirect=True)
async def test_a_file_takes_the_same_memory_however_long_it_is(database: Database) -> None:
    peaks = []
    for number, count in enumerate((5 * STREAM_ROWS, 50 * STREAM_ROWS)):
        await fill(database, f"account-{number}", count, bucket=70 + number)
        parts = stream_rows(database.read, selection(f"account-{number}"), "booked")
        tracemalloc.start()
        lines = 0
        async for chunk in csv_chunks(parts, NEW_YORK, "USD"):
            lines += chunk.count(b"\r\n")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert lines == count + 1
    assert peaks[1] < 1.5 * peaks[0]


@pytest.mark.parametrize("archive_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("sort", ["booked", "-booked"])
async def test_the_last_page_costs_what_the_first_does(database: Database, sort: SortName) -> None:
    await fill(database, "account", 30_000)
    chosen = selection("account", start="2026-01-01", end="2026-12-31")
    costs: list[int] = []

    def count() -> None:
        costs[-1] += 1

    position = None
    for _ in range(30):
        costs.append(0)
        async with database.read() as connection:
            driver: Any = (await connection.get_raw_connection()).driver_connection
            # Called once for so many steps of SQLite's machine.
            await driver.set_progress_handler(count, 100)
            rows = (await connection.execute(page_statement(chosen, sort, position, 1_000))).all()
            await driver.set_progress_handler(None, 0)
        assert len(rows) == 1_000
        position = position_of(rows[-1])
    assert max(costs) < 2 * min(costs)


async def test_a_question_may_not_take_for_ever(database: Database, rng: random.Random) -> None:
    ledger = business(rng, days=30, entries_a_day=60)
    await ledger.store(database)
    # Pairs of all rows: no question of ours, but one that takes as long as it is let.
    endless = text("SELECT count(*) FROM movements a, movements b, movements c WHERE a.leg < b.leg")
    async with database.read() as connection:
        with pytest.raises(HistoryTooLong):
            async with time_limit(connection, 50):
                await connection.execute(endless)
    async with database.read() as connection, time_limit(connection, 60_000):
        assert (await read_usage(connection, selection())).total.entries


@pytest.mark.parametrize("sort", ["amount", "-amount"])
async def test_an_order_by_amount_needs_a_window(database: Database, sort: SortName) -> None:
    for words in ({}, {"start": "2026-01-01"}, {"start": "2026-01-01", "end": "2026-02-01"}):
        with pytest.raises(InvalidInput, match="31 days"):
            await pages(database, selection(**words), sort)
    # The longest month is let through, also with the hour that its clocks go back.
    window = {"start": "2026-10-01", "end": "2026-10-31"}
    assert await pages(database, selection(zone=ZoneInfo("Europe/Paris"), **window), sort) == []
    with pytest.raises(InvalidInput, match="order of booking"):
        await anext(stream_rows(database.read, selection(), sort))


async def test_only_calls_have_a_class() -> None:
    for words in ({"class": "national"}, {"direction": "inbound"}, {"destination": "1"}):
        with pytest.raises(InvalidInput, match="only calls"):
            selection(kind="payment", **words)


async def read(database: Database, chosen: Selection) -> Usage:
    """Return the usage of a selection."""
    async with database.read() as connection:
        return await read_usage(connection, chosen)


def lines(sums: Any) -> dict[str, tuple[int, int, int, str]]:
    """Return the sums of a list by its word."""
    named = {}
    for one in sums:
        (word,) = (getattr(one, name) for name in one.__struct_fields__[4:])
        named[word] = (one.entries, one.calls, one.seconds, one.amount)
    return named


async def test_usage_is_what_python_adds_up(database: Database, rng: random.Random) -> None:
    ledger = business(rng, days=20, entries_a_day=20)
    await ledger.store(database)
    usage = await read(database, selection(start="2026-01-03", end="2026-01-17"))
    rows = [
        row
        for row in ledger.of("master")
        if START_US + 2 * DAY_US <= row.booked_us < START_US + 17 * DAY_US
    ]
    calls = [row for row in rows if row.kind == Kind.CALL]

    def expected(
        chosen: list[Movement], word: Callable[[Movement], str]
    ) -> dict[str, tuple[int, int, int, str]]:
        groups: dict[str, list[Movement]] = {}
        for row in chosen:
            groups.setdefault(word(row), []).append(row)
        return {
            name: (
                len(group),
                sum(row.kind == Kind.CALL for row in group),
                sum(row.seconds for row in group),
                format_amount(sum(row.amount_micros for row in group)),
            )
            for name, group in groups.items()
        }

    assert lines(usage.by_kind) == expected(rows, lambda row: Kind(row.kind).label)
    assert lines(usage.by_class) == expected(calls, lambda row: CallClass(row.call_class).label)
    assert lines(usage.by_billing) == expected(calls, lambda row: Billing(row.billing).label)
    assert lines(usage.by_origin) == expected(rows, lambda row: row.origin)
    assert not usage.more_origins
    charged = [Decimal(one.amount) for one in usage.by_origin]
    assert charged == sorted(charged)


async def test_usage_of_nothing_is_zero(database: Database) -> None:
    usage = await read(database, selection("nobody"))
    assert (usage.total.entries, usage.total.calls, usage.total.amount) == (0, 0, "0")
    assert usage.by_kind == usage.by_class == usage.by_origin == ()


async def test_usage_lists_the_accounts_that_were_charged_most(database: Database) -> None:
    ledger = Ledger()
    for number in range(ORIGINS_MAX + 5):
        amounts = {f"sub-{number}": -number, "master": -number}
        ledger.call(amounts, START_US, seconds=1)
    await ledger.store(database)
    usage = await read(database, selection())
    assert usage.more_origins
    assert len(usage.by_origin) == ORIGINS_MAX
    assert usage.by_origin[0].origin == f"sub-{ORIGINS_MAX + 4}"
    assert usage.total.calls == ORIGINS_MAX + 5


async def test_a_corrected_orphan_is_one_call_of_its_last_length(database: Database) -> None:
    ledger = Ledger()
    chain = ("sub", "master")

    def book(amount: int, marks: Mark, seconds: int, **fields: Any) -> None:
        amounts = dict.fromkeys(fields.pop("chain", chain), amount)
        ledger.call(amounts, START_US, marks=marks, seconds=seconds, **fields)

    # Corrected by its switch.
    book(-60, Mark.PROVISIONAL, 60, reference="c1")
    book(-30, Mark.CORRECTION, 90, reference="c1")
    # Came back, was taken back, ran on; an orphan again, and corrected to less.
    book(-10, Mark.PROVISIONAL, 10, reference="c2")
    book(10, Mark.PROVISIONAL | Mark.CORRECTION, 0, reference="c2")
    book(-50, Mark.PROVISIONAL | Mark.REOPENED, 50, reference="c2")
    book(20, Mark.CORRECTION | Mark.REOPENED, 30, reference="c2")
    # The same call id of another account, and a payment that is called so.
    book(-7, Mark.PROVISIONAL, 7, reference="c1", chain=("other", "master"))
    ledger.book({"sub": 1000}, START_US, Kind.PAYMENT, reference="c1")
    await ledger.store(database)
    usage = await read(database, selection("sub", kind="call"))
    total = usage.total
    assert (total.entries, total.calls, total.seconds) == (6, 2, 120)
    assert total.amount == format_amount(-120)
    assert lines(usage.by_kind) == {"call": (6, 2, 120, "-0.00012")}
    total = (await read(database, selection("master"))).total
    assert (total.entries, total.calls, total.seconds) == (7, 3, 127)
    async with database.read() as connection:
        sheet = await read_sheet(connection, "sub", START_US, START_US + DAY_US)
    assert [(one.kind, one.calls, one.seconds) for one in sheet.totals] == [
        ("call", 2, 120), ("payment", 0, 0),
    ]  # fmt: skip


async def test_every_statement_adds_up_and_carries_over(
    database: Database, rng: random.Random
) -> None:
    ledger = business(rng, days=130, entries_a_day=4)
    await ledger.store(database)
    for zone in (UTC, NEW_YORK, ZoneInfo("Pacific/Kiritimati")):
        for account in ("master", "east", "east-1"):
            rows = ledger.of(account)
            by_month: Counter[Month] = Counter()
            for row in rows:
                by_month[month_at(row.booked_us, zone)] += row.amount_micros
            carried = 0
            for number in range(11, 18):
                month = Month(2025 + number // 12, number % 12 + 1)
                async with database.read() as connection:
                    sheet = await read_sheet(connection, account, *month.window(zone))
                assert sheet.opening_micros == carried, month
                assert sheet.closing_micros == carried + by_month[month], month
                assert sum(one.entries for one in sheet.totals) == sum(
                    month_at(row.booked_us, zone) == month for row in rows
                )
                carried = sheet.closing_micros
            assert carried == ledger.balances[account]


async def test_a_closed_month_stays_as_it_is(database: Database, rng: random.Random) -> None:
    ledger = business(rng, days=35, entries_a_day=5)
    await ledger.store(database)
    window = Month(2026, 1).window(UTC)
    async with database.read() as connection:
        before = await read_sheet(connection, "master", *window)
    ledger.book({"master": 5_000_000}, START_US + 40 * DAY_US)
    # The correction of a call of the month before is booked in this one.
    ledger.call({"master": -9}, START_US + 41 * DAY_US, marks=Mark.CORRECTION, seconds=5000)
    await ledger.store(database)
    async with database.read() as connection:
        assert await read_sheet(connection, "master", *window) == before


async def test_an_archive_that_began_late_begins_with_what_was_there(database: Database) -> None:
    ledger = Ledger()
    ledger.balances["master"] = 7_000_000
    ledger.book({"master": -1_000_000}, START_US, Kind.MANUAL)
    await ledger.store(database)
    for year, opening, closing in ((2025, 7, 7), (2026, 7, 6)):
        async with database.read() as connection:
            sheet = await read_sheet(connection, "master", *Month(year, 1).window(UTC))
        assert (sheet.opening_micros, sheet.closing_micros) == (
            opening * 1_000_000,
            closing * 1_000_000,
        )


async def test_a_statement_that_does_not_add_up_is_none(database: Database) -> None:
    ledger = Ledger()
    ledger.book({"master": 5}, START_US)
    # A movement that the archive never got.
    ledger.balances["master"] += 1
    ledger.book({"master": 5}, START_US + DAY_US)
    await ledger.store(database)
    async with database.read() as connection:
        with pytest.raises(InvariantError, match="missing"):
            await read_sheet(connection, "master", START_US, START_US + 2 * DAY_US)


@pytest.fixture
def statements() -> Iterator[list[tuple[str, Any]]]:
    """Every statement that is executed meanwhile, with its parameters."""
    executed: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, sql: str, parameters: Any, *_: Any) -> None:
        if sql.startswith("SELECT"):
            executed.append((sql, parameters))

    event.listen(Engine, "before_cursor_execute", note)
    yield executed
    event.remove(Engine, "before_cursor_execute", note)


async def plan(database: Database, sql: str, parameters: Any) -> list[str]:
    """Return how the database means to answer a statement."""
    explain = "EXPLAIN QUERY PLAN" if database.is_sqlite else "EXPLAIN"
    async with database.read() as connection:
        if not database.is_sqlite:
            # What matters is that it can do without, however small the tables of a test are.
            await connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
        rows = await connection.exec_driver_sql(f"{explain} {sql}", tuple(parameters))
        return [str(row[-1]) for row in rows]


async def test_no_question_looks_through_the_whole_table(
    database: Database, rng: random.Random, statements: list[tuple[str, Any]]
) -> None:
    ledger = business(rng, days=20, entries_a_day=20)
    await ledger.store(database)
    statements.clear()
    sorts: tuple[SortName, ...] = ("booked", "-booked", "amount", "-amount")
    window = {"start": "2026-01-02", "end": "2026-01-20"}
    for words, _ in _SHAPES:
        for sort in sorts:
            await pages(database, selection(**window, **words), sort, limit=100)
        await pages(database, selection(**words), "-booked", limit=100)
        await read(database, selection(**words))
    async for _ in stream_rows(database.read, selection(), "booked"):
        pass
    async with database.read() as connection:
        await read_sheet(connection, "master", START_US, START_US + DAY_US)
    shapes = dict(statements)
    assert len(shapes) > 40
    for sql, parameters in shapes.items():
        steps = "\n".join(await plan(database, sql, parameters))
        assert "SCAN" not in steps, sql + steps
        assert "Seq Scan" not in steps, sql + steps
        assert "movements_" in steps, sql + steps
        if "AS other" in sql:
            assert "other USING PRIMARY KEY" in steps or "movements_pkey" in steps, sql + steps
        if "earlier" in sql:
            assert "movements_by_reference" in steps, sql + steps
        if "kind <> 1" in sql and "sum(" not in sql and "amount_micros ASC" not in sql:
            assert "movements_but_calls" in steps, sql + steps
        if "ORDER BY movements.booked_us" in sql and database.is_sqlite:
            assert "TEMP B-TREE" not in steps, sql + steps


async def test_a_window_beyond_all_time_is_empty(database: Database) -> None:
    ledger = Ledger()
    ledger.book({"master": 1}, START_US)
    await ledger.store(database)
    for words in ({"end": "1970-01-02"}, {"start": "9998-01-01"}):
        assert await pages(database, selection(**words)) == []
    assert selection(start="1970-01-01").window == Window(0, None)
