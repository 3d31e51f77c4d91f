"""An account's history over HTTP: real calls and postings, drained from a real store."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import io
import random
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from audit_helper import assert_clean_audit
from movements import fill
from msgspec.structs import replace
from sqlalchemy import text
from world import UK, US, World

from authz.admin.app import create_app
from authz.admin.services import Services
from authz.config.archive import ArchiveSettings
from authz.engine.orphans import orphan_switch
from authz.errors import ArchiveElsewhere
from authz.ledger.archive import Archive
from authz.ledger.csv_file import COLUMNS
from authz.ledger.history import History
from authz.model import AccountConfig
from authz.store import keys

CSV = {"Accept": "text/csv"}


class Portal:
    """What an account manager works with: the API, over a world that makes calls."""

    def __init__(
        self, world: World, archive: Archive, session: aiohttp.ClientSession, url: str
    ) -> None:
        self.world = world
        self.archive = archive
        self.session = session
        self.url = url

    async def ask(self, account: str, what: str, **options: Any) -> tuple[int, Any]:
        """Return status and document of a question about an account."""
        url = f"{self.url}/v1/accounts/{account}/{what}"
        async with self.session.get(url, **options) as answer:
            return answer.status, await answer.json(content_type=None)

    async def get(self, account: str, what: str, **words: str) -> Any:
        """Return the document of a question that must be answered."""
        status, document = await self.ask(account, what, params=words)
        assert status == 200, document
        return document

    async def rows(self, account: str, **words: str) -> list[dict[str, str]]:
        """Return the rows of a file that must be complete."""
        url = f"{self.url}/v1/accounts/{account}/transactions"
        async with self.session.get(url, params=words, headers=CSV) as answer:
            assert answer.status == 200
            assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
            content = (await answer.read()).decode()
        return list(csv.DictReader(io.StringIO(content, newline=""), strict=True))

    async def all(self, account: str, **words: str) -> list[dict[str, Any]]:
        """Return every transaction, page by page."""
        found: list[dict[str, Any]] = []
        page = await self.get(account, "transactions", **words)
        while True:
            found += page["transactions"]
            if page["cursor"] is None:
                return found
            page = await self.get(account, "transactions", **words, cursor=page["cursor"])


@contextlib.asynccontextmanager
async def served(services: Services) -> AsyncIterator[str]:
    """Serve the admin API; yield its URL."""
    runner = web.AppRunner(create_app(services, lambda: None), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


@pytest.fixture
async def unaudited(store_url: str, archive_url: str, tmp_path: Path) -> AsyncIterator[Portal]:
    """For tests that leave no archive to audit with."""
    world = await World.start(store_url, tmp_path)
    settings = replace(world.settings, archive=ArchiveSettings(url=archive_url))
    archive = Archive(world.client, settings)
    await archive.open(create=True)
    context = world.engine.context
    services = Services(context, History(world.client, context.directory, archive))
    async with served(services) as url, aiohttp.ClientSession() as session:
        yield Portal(world, archive, session, url)
    await archive.close()
    await world.close()


@pytest.fixture
async def portal(unaudited: Portal) -> AsyncIterator[Portal]:
    yield unaudited
    await assert_clean_audit(unaudited.world.client, unaudited.archive)


async def test_what_is_booked_is_seen_at_once(portal: Portal) -> None:
    await portal.world.pair("100", "100")
    for number in range(1, 6):
        await portal.world.debit("sub", "0.5", kind="sms", quantity=number, unit="message")
        (newest,) = (await portal.get("sub", "transactions", limit="1"))["transactions"]
        assert newest["description"] == f"{number} message"
        assert Decimal(newest["balance"]) == 100 - Decimal(number) / 2
    usage = await portal.get("master", "usage", origin="sub")
    assert usage["by_kind"] == [
        {"kind": "sms", "entries": 5, "calls": 0, "seconds": 0, "amount": "-2.5"}
    ]


async def test_a_master_reviews_its_tree(portal: Portal) -> None:
    world = portal.world
    await world.pair("20", "100")
    await world.account("other", "5", parent="master", deck="retail")
    for call_id, to, account in (("c1", US, "sub"), ("c2", UK, "sub"), ("c3", US, "other")):
        await world.granted(call_id, to, account=account)
        await world.settle(call_id, 90, account, hangup_cause="NORMAL_CLEARING")
    await world.debit("sub", "0.7", kind="asr", reference="asr-1")
    found = await portal.all("master", sort="booked")
    assert [(one["kind"], one["origin"], one["number"]) for one in found] == [
        ("payment", "master", None), ("call", "sub", US), ("call", "sub", UK),
        ("call", "other", US), ("asr", "sub", None),
    ]  # fmt: skip
    assert (found[1]["call_id"], found[1]["seconds"], found[1]["description"]) == (
        "c1", 90, "NORMAL_CLEARING",
    )  # fmt: skip
    assert {one["account"] for one in found} == {"master"}
    (own,) = await portal.all("sub", kind="call", destination="44")
    assert own["amount"] != found[2]["amount"]
    assert own["id"] != found[2]["id"]
    usage = await portal.get("master", "usage", kind="call")
    assert [(one["origin"], one["calls"], one["seconds"]) for one in usage["by_origin"]] == [
        ("sub", 2, 180), ("other", 1, 90),
    ]  # fmt: skip
    assert [one["class"] for one in usage["by_class"]] == ["national", "international"]
    statement = await portal.get("master", "statement")
    assert [one["kind"] for one in statement["totals"]] == ["call", "payment", "asr"]
    assert (statement["opening_balance"], statement["complete"]) == ("0", False)
    assert statement["closing_balance"] == (await portal.get("master", "balance"))["balance"]


async def test_a_refund_is_found_under_its_call(portal: Portal) -> None:
    await portal.world.pair()
    await portal.world.granted("c1", UK)
    await portal.world.settle("c1", 60)
    url = f"{portal.url}/v1/accounts/sub/credits"
    body = {"kind": "refund", "reference": "r1", "call_id": "c1"}
    async with portal.session.post(url, json=body) as answer:
        assert answer.status == 200
    (refund,) = await portal.all("master", kind="refund")
    assert (refund["call_id"], refund["reference"], refund["origin"]) == ("c1", "r1", "sub")


async def test_the_file_has_what_the_pages_have(portal: Portal) -> None:
    await portal.world.account("sub", "50", timezone="America/New_York", currency="EUR")
    for number in range(7):
        await portal.world.debit(
            "sub", "0.25", description=f"=cmd{number}", reference=f"+r{number}"
        )
    pages = await portal.all("sub", limit="3")
    rows = await portal.rows("sub")
    assert len(rows) == 8
    assert list(rows[0]) == list(COLUMNS)
    for row, one in zip(rows, pages, strict=True):
        assert (row["id"], row["amount"], row["balance"]) == (
            one["id"], one["amount"], one["balance"],
        )  # fmt: skip
        assert row["currency"] == "EUR"
        assert row["booked_at"].endswith(("-04:00", "-05:00"))
    assert rows[0]["description"] == "'=cmd6"
    assert rows[0]["reference"] == "'+r6"
    assert await portal.rows("sub", kind="payment", sort="booked") == rows[-1:]


async def test_a_file_is_named_by_what_it_has(portal: Portal) -> None:
    await portal.world.account("sub", timezone="America/New_York")
    url = f"{portal.url}/v1/accounts/sub/transactions"
    for words, name in (
        ({}, "transactions-sub.csv"),
        ({"start": "2026-11-01", "end": "2026-11-30"},
         "transactions-sub-2026-11-01-2026-11-30.csv"),
        ({"end": "2026-11-01T04:00:00Z"}, "transactions-sub-2026-10-31.csv"),
    ):  # fmt: skip
        async with portal.session.get(url, params=words, headers=CSV) as answer:
            assert answer.headers["Content-Disposition"] == f'attachment; filename="{name}"'
            assert await answer.read() == (",".join(COLUMNS) + "\r\n").encode()


_ACCEPTED = [
    ("text/csv", True),
    ("TEXT/CSV; charset=utf-8", True),
    ("text/csv, */*;q=0.1", True),
    ("text/csv;q=0.9, application/json;q=0.8", True),
    ("application/json, text/csv", False),
    ("application/json, text/csv;q=0.5", False),
    ("text/csv;q=0", False),
    ("*/*", False),
    ("text/*", False),
    ("", False),
]


@pytest.mark.parametrize("archive_url", ["sqlite"], indirect=True)
async def test_the_caller_chooses_the_form(portal: Portal) -> None:
    await portal.world.account("sub")
    url = f"{portal.url}/v1/accounts/sub/transactions"
    for accept, is_csv in _ACCEPTED:
        async with portal.session.get(url, headers={"Accept": accept}) as answer:
            assert answer.status == 200
            assert answer.content_type == ("text/csv" if is_csv else "application/json"), accept


_WRONG_QUESTIONS: list[tuple[str, dict[str, str], str]] = [
    ("transactions", {"start": "tomorrow"}, "start"),
    ("transactions", {"start": "2026-11-02", "end": "2026-11-01"}, "end"),
    ("transactions", {"kind": "calls"}, "kind"),
    ("transactions", {"class": "mobile"}, "class"),
    ("transactions", {"direction": "both"}, "direction"),
    ("transactions", {"kind": "sms", "class": "national"}, "class"),
    ("transactions", {"destination": "+1%"}, "destination"),
    ("transactions", {"destination": "+"}, "destination"),
    ("transactions", {"origin": "no such/account"}, "origin"),
    ("transactions", {"sort": "name"}, "sort"),
    ("transactions", {"sort": "amount"}, "sort"),
    ("transactions", {"limit": "0"}, "limit"),
    ("transactions", {"limit": "501"}, "limit"),
    ("transactions", {"limit": "many"}, "limit"),
    ("transactions", {"cursor": ""}, "cursor"),
    ("transactions", {"cursor": "!"}, "cursor"),
    ("transactions", {"cursor": "x" * 129}, "cursor"),
    ("transactions", {"cursor": "AAAA"}, "cursor"),
    ("transactions", {"cursor": "é" * 46}, "cursor"),
    ("transactions", {"colour": "red"}, "colour"),
    ("usage", {"limit": "1"}, "limit"),
    ("usage", {"end": "2026-02-30"}, "end"),
    ("statement", {"month": "2026-13"}, "month"),
    ("statement", {"month": "november"}, "month"),
    ("statement", {"month": "2999-01"}, "month"),
    ("statement", {"start": "2026-11-01"}, "start"),
]


@pytest.mark.parametrize("archive_url", ["sqlite"], indirect=True)
async def test_a_wrong_question_names_its_word(portal: Portal) -> None:
    await portal.world.account("sub")
    for what, words, field in _WRONG_QUESTIONS:
        for headers in ({}, CSV):
            status, document = await portal.ask("sub", what, params=words, headers=headers)
            assert (status, document["reason"]) == (400, "invalid_input"), (words, document)
            assert document["field"] == field


async def test_a_file_has_no_pages(portal: Portal) -> None:
    await portal.world.account("sub")
    for name, value in (("cursor", "AAAA"), ("limit", "10")):
        status, document = await portal.ask(
            "sub", "transactions", params={name: value}, headers=CSV
        )
        assert (status, document["field"]) == (400, name)


async def test_a_cursor_serves_its_own_question_only(portal: Portal) -> None:
    for account in ("sub", "other"):
        await portal.world.account(account, "5")
        await portal.world.credit(account, "6")
    page = await portal.get("sub", "transactions", limit="1", kind="payment")
    cursor = page["cursor"]
    for account, words in (
        ("other", {"kind": "payment"}),
        ("sub", {}),
        ("sub", {"kind": "payment", "sort": "booked"}),
        ("sub", {"kind": "payment", "start": "2026-01-01"}),
        ("sub", {"kind": "payment", "under": "sub"}),
    ):
        status, document = await portal.ask(
            account, "transactions", params={**words, "cursor": cursor}
        )
        assert (status, document["field"]) == (400, "cursor"), words
    for place in range(0, len(cursor), 3):
        forged = cursor[:place] + ("A" if cursor[place] != "A" else "B") + cursor[place + 1 :]
        words = {"kind": "payment", "cursor": forged}
        status, document = await portal.ask("sub", "transactions", params=words)
        # A forged place is a place in the account's own list, or no place at all.
        assert status == 200 or document["field"] == "cursor"
    words = {"kind": "payment", "cursor": cursor[:-1]}
    status, document = await portal.ask("sub", "transactions", params=words)
    assert (status, document["field"]) == (400, "cursor")


async def test_an_unknown_account_has_no_history(portal: Portal) -> None:
    for what in ("transactions", "usage", "statement"):
        assert (await portal.ask("nobody", what))[0] == 404


async def test_a_closed_account_keeps_its_history(portal: Portal) -> None:
    await portal.world.account("sub", "5", timezone="Asia/Tokyo", currency="JPY")
    await portal.world.debit("sub", "5")
    before = await portal.get("sub", "statement")
    await portal.world.accounts.close("sub")
    assert await portal.get("sub", "statement") == before
    assert before["currency"] == "JPY"
    assert len(await portal.rows("sub")) == 2
    # Its id stays closed.
    url = f"{portal.url}/v1/accounts/sub"
    async with portal.session.put(url, json={}) as answer:
        assert answer.status == 409


async def test_a_month_before_the_account_is_empty_and_complete(portal: Portal) -> None:
    await portal.world.account("sub", "5", timezone="America/New_York")
    statement = await portal.get("sub", "statement", month="2020-03")
    assert statement == {
        "account": "sub", "currency": "USD", "timezone": "America/New_York", "month": "2020-03",
        "start": "2020-03-01T05:00:00Z", "end": "2020-04-01T04:00:00Z", "complete": True,
        "opening_balance": "0", "totals": [], "closing_balance": "0",
    }  # fmt: skip


async def test_an_archive_elsewhere_is_said(unaudited: Portal) -> None:
    await unaudited.world.account("sub", "5")
    await unaudited.archive.close()
    await unaudited.world.client.execute("SET", keys.archive(), "another")
    settings = replace(unaudited.world.settings, archive=ArchiveSettings())
    other = Archive(unaudited.world.client, settings)
    context = unaudited.world.engine.context
    services = Services(context, History(context.client, context.directory, other))
    with pytest.raises(ArchiveElsewhere, match="another"):
        await other.open(create=True)
    await _expect_503(services, "archive_elsewhere")
    await other.close()


async def test_without_an_archive_there_is_no_history(unaudited: Portal) -> None:
    await _expect_503(Services(unaudited.world.engine.context), "archive_unavailable")


async def _expect_503(services: Services, reason: str) -> None:
    await services.accounts.put("sub", AccountConfig())
    async with served(services) as url, aiohttp.ClientSession() as session:
        for what in ("transactions", "usage", "statement"):
            for headers in ({}, CSV):
                address = f"{url}/v1/accounts/sub/{what}"
                async with session.get(address, headers=headers) as answer:
                    document = await answer.json(content_type=None)
                    assert (answer.status, document["reason"]) == (503, reason)
                    assert answer.headers["Retry-After"]


@pytest.mark.parametrize("archive_url", ["sqlite"], indirect=True)
async def test_a_file_that_breaks_off_is_no_file(unaudited: Portal) -> None:
    await unaudited.world.account("master")
    database = unaudited.archive.database
    # Far more than sockets buffer.
    await fill(database, "master", 150_000)
    url = f"{unaudited.url}/v1/accounts/master/transactions"
    async with unaudited.session.get(url, headers=CSV) as answer:
        assert answer.status == 200
        assert (await answer.content.readexactly(2)) == b"id"
        async with database.write() as connection:
            await connection.execute(text("ALTER TABLE movements RENAME TO gone"))
        with pytest.raises(aiohttp.ClientError):
            await answer.read()
    async with unaudited.session.get(url, headers=CSV) as answer:
        # Before its first byte a failure has an answer of its own.
        assert answer.status == 503
    # Whoever sends no chunks shows the end by closing: there a reset tells it from the end.
    async with database.write() as connection:
        await connection.execute(text("ALTER TABLE gone RENAME TO movements"))
    host, _, port = unaudited.url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET /v1/accounts/master/transactions HTTP/1.0\r\nHost: localhost\r\n"
                 b"Accept: text/csv\r\n\r\n")  # fmt: skip
    assert b"200" in await reader.readline()
    async with database.write() as connection:
        await connection.execute(text("ALTER TABLE movements RENAME TO gone"))
    with pytest.raises(ConnectionResetError):
        await reader.read()
    writer.close()


@pytest.mark.parametrize("archive_url", ["sqlite"], indirect=True)
async def test_too_much_to_look_through_is_said(unaudited: Portal) -> None:
    await unaudited.world.account("master")
    await fill(unaudited.archive.database, "master", 100_000)
    context = unaudited.world.engine.context
    history = History(context.client, context.directory, unaudited.archive, read_ms_max=1)
    session = unaudited.session
    async with served(Services(context, history)) as url:
        async with session.get(f"{url}/v1/accounts/master/usage") as answer:
            document = await answer.json(content_type=None)
            assert (answer.status, document["reason"]) == (400, "history_too_long")
        # The connection is none the worse for it.
        async with session.get(f"{url}/v1/accounts/master/transactions?limit=1") as answer:
            assert answer.status == 200


async def test_many_questions_at_once_are_all_answered(portal: Portal) -> None:
    await portal.world.pair("20", "100")
    for _ in range(20):
        await portal.world.debit("sub", "0.25", kind="sms")
    words = {"sort": "booked", "limit": "4"}
    answers = await asyncio.gather(
        *(portal.get("sub", "statement") for _ in range(10)),
        *(portal.get("master", "usage") for _ in range(10)),
        *(portal.all("master", **words) for _ in range(10)),
        *(portal.rows("master") for _ in range(10)),
    )
    assert {answer["closing_balance"] for answer in answers[:10]} == {"15"}
    assert {answer["total"]["amount"] for answer in answers[10:20]} == {"95"}
    assert {len(answer) for answer in answers[20:]} == {21}


@pytest.mark.parametrize("archive_url", ["sqlite"], indirect=True)
async def test_who_leaves_a_file_leaves_nothing_behind(unaudited: Portal) -> None:
    await unaudited.world.account("master")
    await fill(unaudited.archive.database, "master", 100_000)
    url = f"{unaudited.url}/v1/accounts/master/transactions"
    for _ in range(12):
        async with unaudited.session.get(url, headers=CSV) as answer:
            await answer.content.readexactly(100)
            answer.close()
    # More than the questions that are answered at a time: none is still held by the files.
    assert (await unaudited.get("master", "usage"))["total"]["entries"] == 100_000


async def test_random_traffic_adds_up(portal: Portal, rng: random.Random) -> None:
    world = portal.world
    await world.pair("1000", "1000")
    await world.account("other", "1000", parent="master", deck="retail")
    seconds: dict[str, list[int]] = {"sub": [], "other": []}
    for number in range(60):
        account = rng.choice(("sub", "other"))
        if rng.random() < 0.3:
            await world.debit(
                account, f"0.{rng.randint(1, 999):03}", kind=rng.choice(("sms", "asr"))
            )
            continue
        call_id = f"c{number}"
        await world.granted(call_id, rng.choice((US, UK)), account=account, switch="fs1")
        used = rng.randint(0, 60)
        if rng.random() < 0.4:
            await world.reserve(call_id, used, account)
            await orphan_switch(world.engine.context, "fs1")
            if rng.random() < 0.3:
                # It comes back, and is orphaned again or runs on.
                await world.reserve(call_id, used + 1, account)
                if rng.random() < 0.5:
                    await orphan_switch(world.engine.context, "fs1")
        final = rng.randint(used, 90)
        await world.settle(call_id, final, account)
        seconds[account].append(final)
    for account in ("sub", "other", "master"):
        talk = seconds.get(account) or seconds["sub"] + seconds["other"]
        usage = await portal.get(account, "usage", kind="call")
        assert (usage["total"]["calls"], usage["total"]["seconds"]) == (len(talk), sum(talk))
        statement = await portal.get(account, "statement")
        amounts = [Decimal(one["amount"]) for one in statement["totals"]]
        balance = (await portal.get(account, "balance"))["balance"]
        assert statement["closing_balance"] == balance
        assert Decimal(statement["opening_balance"]) + sum(amounts) == Decimal(balance)
        transactions = await portal.all(account, sort="booked", limit="17")
        assert sum(Decimal(one["amount"]) for one in transactions) == Decimal(balance)
        assert transactions[-1]["balance"] == balance


async def test_pages_of_a_busy_account_miss_and_repeat_nothing(portal: Portal) -> None:
    await portal.world.account("sub", "100")
    count = 120

    async def traffic() -> None:
        for _ in range(count):
            await portal.world.debit("sub", "0.01")

    busy = asyncio.create_task(traffic())
    seen: list[str] = []
    words = {"sort": "booked", "limit": "5"}
    while True:
        done = busy.done()
        page = await portal.get("sub", "transactions", **words)
        seen += [one["id"] for one in page["transactions"]]
        if page["cursor"] is None:
            if done:
                break
            # Newer ones come after the last that was seen, whatever was the end of that page.
            seen.clear()
            words.pop("cursor", None)
        else:
            words["cursor"] = page["cursor"]
    await busy
    assert len(seen) == len(set(seen)) == count + 1
