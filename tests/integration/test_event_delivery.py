"""Events on their way to receivers: signed, retried, told apart, never lost; on both databases."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from alerting import Office, open_office
from processes import until
from receivers import Inbox, answer_with, closed_port, drop, hang, open_inbox
from sqlalchemy import Select, insert, select, text, update
from sqlalchemy.dialects import sqlite
from world import World

from authz.config.alerts import EventSettings, WebhookSettings
from authz.errors import ArchiveUnavailable, Conflict, InvalidInput, NotFound, StoreError
from authz.events.messages import DeliveryQuery, EventQuery, SendResult
from authz.ledger.schema import deliveries, events
from authz.model import LowBalance


@pytest.fixture
async def world(store_url: str, tmp_path: Path) -> AsyncIterator[World]:
    world = await World.start(store_url, tmp_path)
    yield world
    await world.close()


@pytest.fixture
async def office(world: World, archive_url: str, tmp_path: Path) -> AsyncIterator[Office]:
    async with open_office(world, tmp_path, archive_url) as office:
        yield office


@pytest.fixture
async def local(world: World, tmp_path: Path) -> AsyncIterator[Office]:
    """An office with an archive in its own directory, where the database does not matter."""
    async with open_office(world, tmp_path, None) as office:
        yield office


@pytest.fixture
async def inbox() -> AsyncIterator[Inbox]:
    async with open_inbox() as inbox:
        yield inbox


# --- who is told -----------------------------------------------------------------------------


async def test_a_crossing_is_one_signed_message(office: Office, inbox: Inbox) -> None:
    secret = await office.webhook("crm", inbox.url)
    office.start()
    await office.fall_low(currency="EUR")
    (row,) = await office.settled("delivered")
    await office.drain()
    assert inbox.ids == [row.event_id]
    headers, _ = inbox.requests[0]
    assert headers["content-type"] == "application/json"
    assert headers["user-agent"].startswith("authz/")
    payload = inbox.verified(secret)
    assert payload.pop("timestamp").endswith("Z")
    assert payload == {
        "type": "balance.low",
        "data": {"account": "acme", "currency": "EUR", "balance": "4", "threshold": "5"},
    }
    assert (row.channel, row.target, row.attempts, row.last_error) == ("webhook", "crm", 1, "")
    assert row.delivered_at >= row.created_at


async def test_receivers_get_what_they_asked_for(office: Office, inbox: Inbox) -> None:
    await office.world.account("other", "10", low_balance=LowBalance("5"))
    await office.world.account("acme", "100")
    for name, fields in {
        "all": {},
        "balance": {"events": ("balance.*",)},
        "exhausted": {"events": ("balance.exhausted", "call.orphaned")},
        "tree": {"account": "acme"},
        "leaf": {"account": "sub"},
        "elsewhere": {"account": "other"},
        "off": {"enabled": False},
        "not-yet": {"account": "nobody"},
    }.items():
        await office.webhook(name, inbox.url, **fields)
    await office.fall_low("sub", parent="acme")
    assert [row.target for row in await office.rows()] == ["all", "balance", "leaf", "tree"]
    await office.world.debit("other", "6")
    await office.drain()
    assert [row.target for row in await office.rows()] == [
        "all", "all", "balance", "balance", "elsewhere", "leaf", "tree",
    ]  # fmt: skip


async def test_an_event_nobody_asked_for_is_kept_all_the_same(office: Office) -> None:
    await office.fall_low()
    assert await office.rows() == []
    page = await office.service.events(EventQuery())
    assert [(one.event, one.account, one.data) for one in page.events] == [
        ("balance.low", "acme", {"balance": "4", "threshold": "5"})
    ]


async def test_without_the_store_no_event_is_taken_without_its_deliveries(
    office: Office, inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    await office.webhook("crm", inbox.url)

    async def away() -> None:
        raise StoreError("away")

    with monkeypatch.context() as patch:
        patch.setattr(office.webhooks, "endpoints", away)
        with pytest.raises(StoreError):
            await office.fall_low()
    assert (await office.service.events(EventQuery())).events == ()
    await office.drain()
    assert len((await office.service.events(EventQuery())).events) == 1
    assert len(await office.rows()) == 1


async def test_the_log_tells_every_event(office: Office, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "authz")
    await office.fall_low()
    (record,) = [one for one in caplog.records if one.getMessage() == "account_event"]
    assert record.levelname == "WARNING"
    facts = record.__dict__["fields"]
    assert (facts["type"], facts["account"], facts["balance"]) == ("balance.low", "acme", "4")


# --- receivers that misbehave ----------------------------------------------------------------


@pytest.mark.parametrize(("status", "text"), [(500, "boom"), (302, "")])
async def test_what_is_not_taken_is_sent_again_with_the_same_id(
    local: Office, inbox: Inbox, status: int, text: str
) -> None:
    secret = await local.webhook("crm", inbox.url)
    inbox.respond = answer_with(status, text, {"Location": "http://127.0.0.1:1/"})
    local.start()
    await local.fall_low()
    await until(lambda: len(inbox.requests) >= 2)
    (row,) = await local.rows()
    assert row.last_error.startswith(str(status))
    assert text in row.last_error
    inbox.respond = answer_with(200)
    (row,) = await local.settled("delivered")
    assert set(inbox.ids) == {row.event_id}
    for place in range(len(inbox.requests)):
        inbox.verified(secret, place)


@pytest.mark.parametrize(
    ("respond", "error"), [(hang, "no answer within 1 s"), (drop, "Server disconnected")]
)
async def test_hanging_and_dropping_are_failures(
    world: World, tmp_path: Path, inbox: Inbox, respond: object, error: str
) -> None:
    hooks = WebhookSettings(allow_private=True, timeout_seconds=1)
    settings = EventSettings(attempts_max=1)
    async with open_office(world, tmp_path, None, webhooks=hooks, events=settings) as local:
        await local.webhook("crm", inbox.url)
        inbox.respond = respond  # type: ignore[assignment]
        local.start()
        await local.fall_low()
        (row,) = await local.settled("dead")
        assert error in row.last_error
        inbox.respond = answer_with(204)


async def test_a_huge_answer_is_not_read(local: Office, inbox: Inbox) -> None:
    sent = 0

    async def flood(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        answer = web.StreamResponse(status=500)
        await answer.prepare(request)
        for _ in range(10_000):
            await answer.write(b"x" * 65_536)
            sent += 65_536
        return answer

    await local.webhook("crm", inbox.url)
    inbox.respond = flood
    local.start()
    await local.fall_low()
    (row,) = await local.failed()
    assert len(row.last_error) <= 200
    assert sent < 50_000_000
    inbox.respond = answer_with(204)


@pytest.fixture
async def patient(world: World, tmp_path: Path) -> AsyncIterator[Office]:
    """Like `local`, but nobody who hangs is given up during a test."""
    webhooks = WebhookSettings(allow_private=True, timeout_seconds=60)
    async with open_office(world, tmp_path, None, webhooks=webhooks) as office:
        yield office


async def test_an_unreachable_receiver_holds_up_no_other(patient: Office, inbox: Inbox) -> None:
    local = patient
    await local.webhook("dead", f"http://127.0.0.1:{closed_port()}/")
    await local.webhook("good", inbox.url)
    async with open_inbox() as slow:
        slow.respond = hang
        await local.webhook("slow", slow.url)
        local.start()
        for number in range(20):
            await local.fall_low(f"a{number}")
        await until(lambda: len(inbox.requests) >= 20)
        assert slow.open_max == 4
        slow.respond = answer_with(204)
        await local.stop()
    assert len(set(inbox.ids)) == 20
    states = {(row.target, row.state) for row in await local.rows()}
    assert ("dead", "pending") in states


async def test_a_busy_receiver_is_left_alone_as_long_as_it_asks(
    local: Office, inbox: Inbox
) -> None:
    await local.webhook("crm", inbox.url)
    inbox.respond = answer_with(429, headers={"Retry-After": "3600"})
    local.start()
    await local.fall_low()
    (row,) = await local.failed()
    assert row.next_attempt_at >= int(time.time()) + 3_500


async def test_a_receiver_that_is_gone_is_switched_off(local: Office, inbox: Inbox) -> None:
    await local.webhook("crm", inbox.url)
    inbox.respond = answer_with(410)
    local.start()
    await local.fall_low()
    await local.settled("dead")
    view = await local.webhooks.get("crm")
    assert (view.enabled, view.disabled_reason) == (False, "it answered 410 Gone")
    await local.world.account("b", "10", low_balance=LowBalance("5"))
    await local.world.debit("b", "6")
    await local.drain()
    assert len(await local.rows()) == 1
    assert len(inbox.requests) == 1


async def test_what_waits_for_a_removed_receiver_is_a_dead_letter(local: Office) -> None:
    await local.webhook("crm", f"http://127.0.0.1:{closed_port()}/")
    await local.fall_low()
    await local.webhooks.remove("crm")
    now = int(time.time())
    # It may be for a receiver that another process has added just now.
    assert await local.outbox.bury_unwanted((), now, has_mail=True) == 0
    assert await local.outbox.bury_unwanted(("crm",), now + 60, has_mail=True) == 0
    await let_time_pass(local, 60)
    local.start()
    (row,) = await local.settled("dead")
    assert row.last_error == "the receiver is removed or switched off"


async def test_private_addresses_are_refused_when_they_are_connected_to(
    world: World, tmp_path: Path, inbox: Inbox
) -> None:
    settings = EventSettings(attempts_max=1)
    async with open_office(world, tmp_path, None, events=settings) as lax:
        secure = inbox.url.replace("http:", "https:")
        await lax.webhook("ip", secure)
        await lax.webhook("name", secure.replace("127.0.0.1", "localhost"))
        await lax.webhook("plain", inbox.url)
        await lax.fall_low()
    strict = WebhookSettings(timeout_seconds=2)
    async with open_office(world, tmp_path, None, webhooks=strict, events=settings) as local:
        with pytest.raises(InvalidInput):
            await local.webhook("new", inbox.url)
        local.start()
        rows = await local.settled("dead", "dead", "dead")
        errors = {row.target: row.last_error for row in rows}
        assert "127.0.0.1 is not a public address" in errors["ip"]
        assert "localhost leads to" in errors["name"]
        assert "http is not https" in errors["plain"]
    assert inbox.requests == []


async def test_what_cannot_be_told_is_given_up_like_anything_else(
    world: World, tmp_path: Path, inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_told: object) -> bytes:
        raise TypeError("no such thing")

    settings = EventSettings(attempts_max=2, retry_seconds=1)
    async with open_office(world, tmp_path, None, events=settings) as local:
        await local.webhook("crm", inbox.url)
        monkeypatch.setattr("authz.events.messages.Told.payload", broken)
        local.start()
        await local.fall_low()
        (row,) = await local.settled("dead")
        assert (row.attempts, row.last_error) == (2, "TypeError: no such thing")


# --- attempts, dead letters ------------------------------------------------------------------


async def test_waits_grow_to_about_three_days(office: Office) -> None:
    outbox = office.outbox
    outbox._settings = EventSettings()
    waits = [outbox.wait_seconds(attempts) for attempts in range(1, 15)]
    assert 4 <= waits[0] <= 6
    assert 12 <= waits[1] <= 18
    assert max(waits) <= 43_200 * 1.2
    assert 2 * 86_400 < sum(waits) < 4 * 86_400
    assert outbox.wait_seconds(1_000_000) <= 43_200 * 1.2


async def test_dead_letters_are_listed_and_sent_again(
    world: World, archive_url: str, tmp_path: Path, inbox: Inbox
) -> None:
    settings = EventSettings(attempts_max=2, retry_seconds=1)
    async with open_office(world, tmp_path, archive_url, events=settings) as office:
        await office.webhook("crm", inbox.url)
        inbox.respond = answer_with(500)
        office.start()
        await office.fall_low("a")
        await office.fall_low("b")
        await office.settled("dead", "dead")
        assert [inbox.ids.count(one) for one in set(inbox.ids)] == [2, 2]
        page = await office.service.deliveries(DeliveryQuery(state="dead", target="crm"))
        assert [(one.event, one.state, one.attempts) for one in page.deliveries] == [
            ("balance.low", "dead", 2)
        ] * 2
        inbox.respond = answer_with(204)
        again = await office.service.retry(page.deliveries[0].id)
        assert (again.state, again.attempts) == ("pending", 0)
        await office.settled("dead", "delivered")
        with pytest.raises(Conflict, match="has arrived"):
            await office.service.retry(page.deliveries[0].id)
        assert (await office.service.retry_webhook("crm")).deliveries == 1
        await office.settled("delivered", "delivered")
        with pytest.raises(NotFound):
            await office.service.retry("dlv_nothing")
        with pytest.raises(NotFound):
            await office.service.retry_webhook("nobody")
        await office.webhook("crm", inbox.url, enabled=False)
        with pytest.raises(Conflict, match="switched off"):
            await office.service.retry_webhook("crm")


# --- at least once ---------------------------------------------------------------------------


async def test_an_attempt_without_a_record_is_made_again(office: Office, inbox: Inbox) -> None:
    secret = await office.webhook("crm", inbox.url)
    answered = asyncio.Event()

    async def take_and_wait(request: web.Request) -> web.StreamResponse:
        answered.set()
        await asyncio.sleep(30)
        return web.Response(status=204)

    inbox.respond = take_and_wait
    office.start()
    await office.fall_low()
    await answered.wait()
    await office.stop()
    (row,) = await office.rows()
    assert (row.state, row.attempts) == ("pending", 1)
    assert row.next_attempt_at > row.created_at
    inbox.respond = answer_with(204)
    await let_time_pass(office, 60)
    office.start()
    (row,) = await office.settled("delivered")
    assert inbox.ids == [row.event_id] * 2
    inbox.verified(secret)


async def let_time_pass(office: Office, seconds: int) -> None:
    """Move what waits into the past."""
    earlier = (
        update(deliveries)
        .where(deliveries.c.state == "pending")
        .values(next_attempt_at=deliveries.c.next_attempt_at - seconds)
    )
    for _ in range(10):
        # It takes rows in another order than offices do, so PostgreSQL may find a deadlock.
        with contextlib.suppress(ArchiveUnavailable):
            async with office.archive.database.write() as connection:
                await connection.execute(earlier)
            return
    raise AssertionError("the deliveries are always locked")


async def test_two_offices_send_each_once(
    world: World, archive_url: str, tmp_path: Path, inbox: Inbox
) -> None:
    async with open_office(world, tmp_path, archive_url) as one:
        await one.webhook("crm", inbox.url)
        async with open_office(world, tmp_path, archive_url) as other:
            one.start()
            other.start()
            for number in range(30):
                await (one, other)[number % 2].fall_low(f"a{number}")
            await one.settled(*["delivered"] * 30)
    assert len(inbox.ids) == len(set(inbox.ids)) == 30


async def test_in_all_confusion_every_event_arrives(
    world: World, archive_url: str, tmp_path: Path, inbox: Inbox, rng: random.Random
) -> None:
    """Offices that die all the time, receivers that fail half of the time."""

    async def moody(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(rng.random() / 50)
        mood = rng.choice((drop, answer_with(503), answer_with(204), answer_with(204)))
        return await mood(request)

    settings = EventSettings(attempts_max=100, retry_seconds=1)
    async with (
        open_office(world, tmp_path, archive_url, events=settings) as one,
        open_office(world, tmp_path, archive_url, events=settings) as other,
    ):
        secret = await one.webhook("crm", inbox.url)
        inbox.respond = moody
        for number in range(30):
            office = rng.choice((one, other))
            await office.fall_low(f"a{number}")
            office.start()
            await asyncio.sleep(rng.random() / 20)
            await rng.choice((one, other)).stop()
        inbox.respond = answer_with(204)
        one.start()
        for _ in range(15):
            # The leases of those that died run out; what is being sent now has its time.
            await let_time_pass(one, 60)
            await asyncio.sleep(1)
            if all(row.state == "delivered" for row in await one.rows()):
                break
        rows = await one.settled(*["delivered"] * 30)
        assert set(inbox.ids) == {row.event_id for row in rows}
        for place in range(len(inbox.requests)):
            inbox.verified(secret, place)


async def test_a_lost_lease_records_nothing(office: Office, inbox: Inbox) -> None:
    await office.webhook("crm", inbox.url)
    await office.fall_low()
    now = int(time.time())
    (first,) = await office.outbox.claim("webhook", "crm", now, 0, 10)
    (second,) = await office.outbox.claim("webhook", "crm", now, 60, 10)
    assert (first.attempts, second.attempts) == (1, 2)
    assert await office.outbox.record(first, SendResult("refused", "late"), now) is None
    assert await office.outbox.record(second, SendResult("delivered"), now) == "delivered"
    assert await office.outbox.record(second, SendResult("failed"), now) is None
    assert await office.outbox.claim("webhook", "crm", now + 999, 60, 10) == []
    (row,) = await office.rows()
    assert row.state == "delivered"


# --- keeping and listing ---------------------------------------------------------------------


async def test_what_is_old_is_removed_but_nothing_that_waits(office: Office, inbox: Inbox) -> None:
    await office.webhook("crm", inbox.url)
    for account in ("a", "b", "c"):
        await office.fall_low(account)
    long_ago = int(time.time()) - 401 * 86_400
    async with office.archive.database.write() as connection:
        a, b, _ = (await connection.execute(select(events.c.id).order_by(events.c.id))).scalars()
        await connection.execute(update(events).where(events.c.id.in_((a, b))).values(at=long_ago))
        await connection.execute(
            update(deliveries).where(deliveries.c.event_id.in_((a, b))).values(created_at=long_ago)
        )
        await connection.execute(
            update(deliveries).where(deliveries.c.event_id == a).values(state="delivered")
        )
    assert await office.outbox.purge(int(time.time())) == 2
    assert await office.outbox.purge(int(time.time())) == 0
    assert len(await office.rows()) == 2
    assert len((await office.service.events(EventQuery())).events) == 2


async def test_events_are_listed_in_pages(office: Office) -> None:
    row = {"bucket": 1, "account": "a", "data": "{}"}
    rows = [
        {**row, "id": f"evt_1_{number}_0", "entry_id": f"{number}-0",
         "at": 1_000_000_000 + number // 3,
         "event": "balance.low" if number % 2 else "call.orphaned",
         "account": f"a{number % 4}"}
        for number in range(25)
    ]  # fmt: skip
    async with office.archive.database.write() as connection:
        await connection.execute(insert(events), rows)

    async def ids(**query: object) -> list[str]:
        found: list[str] = []
        cursor = None
        while True:
            page = await office.service.events(EventQuery(**query, cursor=cursor, limit=4))
            found += [one.id for one in page.events]
            cursor = page.cursor
            if cursor is None:
                return found

    by_time = sorted(rows, key=lambda one: (one["at"], one["id"]))
    assert await ids(sort="at") == [one["id"] for one in by_time]
    assert await ids() == [one["id"] for one in reversed(by_time)]
    assert await ids(account="a1") == [
        one["id"] for one in reversed(by_time) if one["account"] == "a1"
    ]
    assert len(await ids(event="balance.low")) == 12
    assert len(await ids(event="balance.*")) == 12
    assert len(await ids(start="1000000002", end="1000000004")) == 6
    for wrong in ({"event": "b*e"}, {"event": "nonsense"}, {"start": "x"}, {"cursor": "AAAA"},
                  {"cursor": "ä"}, {"start": "1000000005", "end": "1000000005"}):  # fmt: skip
        with pytest.raises(InvalidInput):
            await office.service.events(EventQuery(**wrong))
    page = await office.service.events(EventQuery(limit=1))
    with pytest.raises(InvalidInput, match="another list"):
        await office.service.events(EventQuery(sort="at", cursor=page.cursor))
    with pytest.raises(InvalidInput, match="another list"):
        await office.service.deliveries(DeliveryQuery(cursor=page.cursor))


@pytest.mark.parametrize(
    "query",
    [{}, {"account": "a"}, {"event": "balance.low"}, {"sort": "at", "start": "1000000000"},
     {"account": "a", "event": "balance.*", "end": "1000000000"}],
)  # fmt: skip
async def test_no_list_of_events_sorts_or_reads_them_all(
    local: Office, query: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Select[Any]] = []

    async def note(wanted: Select[Any], limit: int) -> list[Any]:
        asked.append(wanted.limit(limit + 1))
        return []

    monkeypatch.setattr(local.service, "_rows", note)
    await local.service.events(EventQuery(**query))
    (wanted,) = asked
    text_of_query = wanted.compile(dialect=sqlite.dialect(), compile_kwargs={"literal_binds": True})
    async with local.archive.database.read() as connection:
        plan = (await connection.execute(text(f"EXPLAIN QUERY PLAN {text_of_query}"))).all()
    assert all("USING INDEX" in row.detail for row in plan), plan


async def test_deliveries_are_listed_in_pages(office: Office, inbox: Inbox) -> None:
    for name in ("x", "y"):
        await office.webhook(name, inbox.url)
    for number in range(4):
        await office.fall_low(f"a{number}")
    first = await office.service.deliveries(DeliveryQuery(limit=5))
    rest = await office.service.deliveries(DeliveryQuery(limit=5, cursor=first.cursor))
    assert (len(first.deliveries), len(rest.deliveries), rest.cursor) == (5, 3, None)
    assert len({one.id for one in (*first.deliveries, *rest.deliveries)}) == 8
    (one,) = (
        await office.service.deliveries(
            DeliveryQuery(target="x", event_id=first.deliveries[0].event_id)
        )
    ).deliveries
    assert (one.state, one.attempts, one.delivered_at) == ("pending", 0, None)
    backlog = await office.outbox.backlog()
    assert backlog == {
        ("webhook", "pending"): 8,
        ("webhook", "dead"): 0,
        ("email", "pending"): 0,
        ("email", "dead"): 0,
    }


async def test_an_archive_that_is_away_is_waited_for(office: Office, inbox: Inbox) -> None:
    await office.webhook("crm", inbox.url)
    archive = office.archive
    await office.fall_low()
    database = archive._database
    archive._database = None
    office.start()
    await asyncio.sleep(0.2)
    assert inbox.requests == []
    archive._database = database
    await office.settled("delivered")
