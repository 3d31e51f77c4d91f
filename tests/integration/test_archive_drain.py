"""The drain: every entry of the streams in SQL exactly once, and gone from the store only then."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from archives import (
    archive_settings,
    archived_rows,
    balances_of,
    drain_all,
    drain_of,
    lead_calls,
    ledger_of,
    open_archive,
)
from audit_helper import assert_clean_audit
from sqlalchemy import delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection
from world import World

import authz.ledger.archive as archive_module
import authz.ledger.drain as drain_module
from authz.engine.audit import audit
from authz.errors import ArchiveElsewhere, ArchiveRefused, ArchiveUnavailable
from authz.ledger.archive import Archive
from authz.ledger.drain import ENTRIES_MAX, PAGE, Drain
from authz.ledger.rows import movement_rows
from authz.ledger.schema import changes, deliveries, events, movements
from authz.ledger.streams import (
    LEDGERS,
    START,
    STREAMS,
    Cursor,
    Move,
    load_cursors,
    move_cursors,
)
from authz.model import LowBalance
from authz.store import keys
from authz.store.changes import Change, append_change


@pytest.fixture
async def world(store_url: str, tmp_path: Path) -> AsyncIterator[World]:
    """An empty business on a store whose streams are trimmed in small steps."""
    world = await World.start(store_url, tmp_path)
    await world.client.execute("CONFIG", "SET", "stream-node-max-entries", 5)
    yield world
    await world.close()


@pytest.fixture
async def archive(world: World, archive_url: str, tmp_path: Path) -> AsyncIterator[Archive]:
    """The world's archive, which takes and trims at once; what it holds is audited at the end."""
    async with open_archive(world.client, tmp_path, archive_url) as archive:
        yield archive
        await assert_clean_audit(world.client, archive)


async def test_every_leg_of_every_entry_becomes_a_row(world: World, archive: Archive) -> None:
    await world.pair()
    await lead_calls(world, 30)
    await world.debit("sub", "0.5", kind="sms", description="ten messages")
    entries = await ledger_of(world.client, "sub")
    await drain_all(archive)
    rows = [dict(row._mapping) for row in await archived_rows(archive)]
    bucket = keys.TAGS.index(keys.tag_of_root("master"))
    assert rows == [row for entry in entries for row in movement_rows(bucket, entry)]
    assert len(rows) == 2 + 2 * 31


async def test_the_sums_are_the_balances(world: World, archive: Archive) -> None:
    await world.pair()
    await lead_calls(world, 5)
    await drain_all(archive)
    accounts = ("sub", "master")
    assert await balances_of(archive) == {name: await world.balance(name) for name in accounts}


async def test_what_is_archived_is_trimmed_and_no_more(world: World, archive: Archive) -> None:
    await world.pair(sub="100", master="100")
    await lead_calls(world, 60)
    await drain_all(archive)
    assert len(await ledger_of(world.client, "sub")) <= 5
    await lead_calls(world, 3, "later")
    await drain_all(archive)
    assert [row.sequence for row in await archived_rows(archive) if row.leg == 0] == [*range(1, 66)]


async def test_a_trim_that_its_limit_has_ended_goes_on(
    world: World, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The store takes whole nodes away and stops before one that would pass the limit.
    await world.client.execute("CONFIG", "SET", "stream-node-max-entries", 6)
    monkeypatch.setattr(drain_module, "_TRIM_MAX", 20)
    await world.pair(sub="100", master="100")
    await lead_calls(world, 90)
    await drain_all(archive)
    for _ in range(10):
        await drain_of(archive).turn()
    assert len(await ledger_of(world.client, "sub")) <= 6


async def test_an_archive_that_cannot_be_asked_need_be_no_finding(
    world: World, archive: Archive, tmp_path: Path
) -> None:
    await world.pair()
    await lead_calls(world, 20)
    await drain_all(archive)
    other = Archive(world.client, archive_settings(tmp_path, f"sqlite:///{tmp_path}/other"), None)
    try:
        report = await audit(world.client, archive=other)
        assert [one.invariant for one in report.findings] == ["the ledger is whole"]
        with pytest.raises(ArchiveUnavailable):
            await audit(world.client, archive=other, needs_archive=True)
    finally:
        await other.close()
    assert not (await audit(world.client, archive=archive, needs_archive=True)).findings


async def test_nothing_is_trimmed_that_is_not_archived(world: World, archive: Archive) -> None:
    await world.pair()
    await lead_calls(world, 20)
    await drain_all(archive)
    await lead_calls(world, 20, "later")
    drain = drain_of(archive)
    # A turn over the other streams alone trims this one no further.
    await drain.turn(stream for stream in STREAMS if stream.name != "ledger")
    later = [entry for entry in await ledger_of(world.client, "sub") if "later" in entry.reference]
    assert len(later) == 20


async def test_young_entries_wait_and_kept_ones_stay(
    world: World, archive_url: str, tmp_path: Path
) -> None:
    await world.pair()
    await lead_calls(world, 20)
    options = {"delay_seconds": 60, "keep_seconds": 60}
    async with open_archive(world.client, tmp_path, archive_url, **options) as archive:
        assert not await drain_of(archive).turn()
        assert await archived_rows(archive) == []
        (status,) = [one for one in archive.statuses if one.entries_behind]
        assert (status.stream, status.entries_behind, status.fork) == ("ledger", 22, None)
        await archive.catch_up("sub")
        assert len(await archived_rows(archive)) == 42
        assert len(await ledger_of(world.client, "sub")) == 22
        assert not any(one.entries_behind for one in archive.statuses)
        await assert_clean_audit(world.client, archive)


async def test_a_caller_reads_its_own_writes(world: World, archive: Archive) -> None:
    await archive.catch_up("nobody")
    await world.pair()
    await archive.catch_up("master")
    assert len(await archived_rows(archive)) == 2
    await lead_calls(world, 3)
    await asyncio.gather(*(archive.catch_up("sub") for _ in range(5)))
    assert len(await archived_rows(archive)) == 8


async def test_a_backlog_is_archived_page_by_page(world: World, archive: Archive) -> None:
    await world.account("acme", deck="retail", credit_limit="unlimited")
    count = 2 * PAGE + 10
    for start in range(0, count, 100):
        more = range(start, min(count, start + 100))
        await asyncio.gather(*(world.debit("acme", "0.000001") for _ in more))
    assert await drain_of(archive).turn()
    assert len(await archived_rows(archive)) == PAGE
    await drain_all(archive)
    assert len(await archived_rows(archive)) == count


async def test_a_turn_gives_way_between_small_transactions(world: World, archive: Archive) -> None:
    roots = [f"root-{number}" for number in range(12)]
    for root in roots:
        await world.account(root, deck="retail", credit_limit="unlimited")
    for _ in range(60):
        await asyncio.gather(*(world.debit(root, "0.000001") for root in roots))
    stored = [0]

    async def give_way(worked_seconds: float) -> None:
        assert worked_seconds >= 0
        stored.append(len(await archived_rows(archive)))
        if len(stored) == 2:
            # Who asks for a bucket has it, and need not wait for the turn to end.
            await archive.catch_up(roots[-1])
            stored.append(len(await archived_rows(archive)))

    assert not await drain_of(archive).turn(give_way=give_way)
    steps = [after - before for before, after in pairwise(stored)]
    assert sum(steps) == 12 * 60
    assert 0 < max(steps) < ENTRIES_MAX + PAGE
    assert len([step for step in steps if step]) >= 3
    assert not drain_of(archive).is_forked


async def test_what_has_more_than_a_page_is_known(world: World, archive: Archive) -> None:
    for account in ("acme", "other"):
        await world.account(account, deck="retail", credit_limit="unlimited")
    for _ in range(4):
        await asyncio.gather(*(world.debit("acme", "0.000001") for _ in range(PAGE // 2)))
    await world.debit("other", "0.000001")
    drain, bucket = drain_of(archive), keys.TAGS.index(keys.tag_of_root("acme"))
    assert await drain.turn()
    assert drain.full == {LEDGERS[bucket]}
    # The others are not looked at until these are through.
    assert await drain.turn(drain.full)
    assert drain.full == {LEDGERS[bucket]}
    assert not await drain.turn(drain.full)
    assert drain.full == frozenset()
    assert len(await archived_rows(archive)) == 2 * PAGE + 1


async def test_an_office_pauses_unless_it_is_far_behind(
    world: World, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    await world.account("acme", deck="retail", credit_limit="unlimited")
    for _ in range(4):
        await asyncio.gather(*(world.debit("acme", "0.000001") for _ in range(PAGE // 2)))
    drain = drain_of(archive)
    monkeypatch.setattr(archive_module.asyncio, "sleep", pause)
    await archive._give_way(0.004)
    assert await drain.turn()
    await archive._give_way(0.004)
    assert drain.full
    assert pauses == [0.012, 0.004]
    monkeypatch.setattr(archive_module, "_LAG_SECONDS_MAX", -1)
    await archive._give_way(0.004)
    assert len(pauses) == 2
    monkeypatch.undo()
    await drain_all(archive)
    await archive.stop()
    # Stopping, it has no time to lose.
    monkeypatch.setattr(archive_module.asyncio, "sleep", pause)
    await archive._give_way(0.004)
    assert len(pauses) == 2


async def test_what_has_to_wait_for_its_age_is_not_late(
    world: World, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.account("acme", deck="retail", credit_limit="unlimited")
    for _ in range(3):
        await asyncio.gather(*(world.debit("acme", "0.000001") for _ in range(PAGE // 2)))
    drain = Drain(world.client, archive.database, delay_seconds=50, keep_seconds=60)
    store_ms = drain._now_ms

    async def in_50_seconds() -> int:
        return await store_ms() + 50_000

    monkeypatch.setattr(drain, "_now_ms", in_50_seconds)
    assert await drain.turn()
    (stream,) = drain.full
    (status,) = [one for one in drain.statuses if (one.stream, one.bucket) == stream[:2]]
    assert status.seconds_behind >= 50
    # Otherwise a delay of more than half a minute would end all pauses for good.
    assert drain.lag_seconds == status.seconds_behind - 50


async def test_cursors_move_together_or_not_at_all(world: World, archive: Archive) -> None:
    rows = []
    for number, root in enumerate(("acme", "other")):
        await world.account(root, "1", deck="retail")
        (entry,) = await ledger_of(world.client, root)
        bucket = keys.TAGS.index(keys.tag_of_root(root))
        rows += [tuple(row.values()) for row in movement_rows(bucket, entry)]
        assert len(rows) == number + 1
    streams = [LEDGERS[row[0]] for row in rows]
    moves = [Move(stream, START, Cursor("1-0", 1)) for stream in streams]
    stale = [moves[0], Move(streams[1], Cursor("9-9", 9), Cursor("10-0", 10))]
    database = archive.database
    assert not await database.store_movements(stale, rows)
    assert await archived_rows(archive) == []
    with pytest.raises(ArchiveRefused):
        await database.store_movements(moves, [rows[0], rows[0]])
    async with database.read() as connection:
        cursors = await load_cursors(connection)
    assert {cursors[stream] for stream in streams} == {START}
    assert await database.store_movements(moves, rows)
    assert not await database.store_movements(moves, [])
    assert [tuple(row) for row in await archived_rows(archive)] == sorted(rows)
    async with database.read() as connection:
        cursors = await load_cursors(connection)
    assert {cursors[stream] for stream in streams} == {Cursor("1-0", 1)}
    # The audit at the end is to find what it found before: the ledgers from their start.
    back = [Move(move.stream, move.after, START) for move in moves]
    async with database.write() as connection:
        await connection.execute(delete(movements))
        assert await move_cursors(connection, back)


async def test_two_offices_share_the_work(
    world: World, store_url: str, archive_url: str, tmp_path: Path
) -> None:
    roots = [f"root-{number}" for number in range(8)]
    for root in roots:
        await world.account(root, "100", deck="retail")
    other = await World.start(store_url, tmp_path / "other")
    async with (
        open_archive(world.client, tmp_path, archive_url) as first,
        open_archive(other.client, tmp_path, archive_url) as second,
    ):
        ending = asyncio.Event()

        async def drain(archive: Archive) -> None:
            while not ending.is_set():
                await drain_of(archive).turn()

        drains = [asyncio.create_task(drain(archive)) for archive in (first, second)]
        for _ in range(40):
            await asyncio.gather(*(world.debit(root, "0.01") for root in roots))
        ending.set()
        await asyncio.gather(*drains)
        await drain_all(first)
        rows = await archived_rows(second)
        assert len({(row.bucket, row.sequence, row.leg) for row in rows}) == len(rows) == 8 * 41
        assert not drain_of(first).is_forked
        assert not drain_of(second).is_forked
        await assert_clean_audit(world.client, second)
    await other.close()


async def test_events_are_archived_with_what_is_made_of_them(
    world: World, archive_url: str, tmp_path: Path
) -> None:
    seen: list[str] = []

    async def on_events(connection: AsyncConnection, rows: Sequence[dict[str, Any]]) -> None:
        seen.extend(row["id"] for row in rows)
        await connection.execute(insert(deliveries), [delivery_of(row) for row in rows])

    await world.account("acme", "10", deck="retail", low_balance=LowBalance(threshold="5"))
    async with open_archive(world.client, tmp_path, archive_url, on_events) as archive:
        await world.debit("acme", "6")
        await world.debit("acme", "6")
        await drain_all(archive)
        await drain_all(archive)
        async with archive.database.read() as connection:
            found = (await connection.execute(select(events).order_by(events.c.id))).all()
            outbox = (await connection.execute(select(deliveries.c.event_id))).scalars().all()
        assert [row.event for row in found] == ["balance.low", "balance.exhausted"]
        assert json.loads(found[0].data) == {"balance": "4000000", "threshold": "5000000"}
        assert found[0].account == "acme"
        assert found[0].id == f"evt_{found[0].bucket}_{found[0].entry_id.replace('-', '_')}"
        assert sorted(seen) == sorted(outbox) == [row.id for row in found]
        await assert_clean_audit(world.client, archive)


async def test_trouble_with_events_undoes_them_and_leaves_the_money_alone(
    world: World, archive_url: str, tmp_path: Path
) -> None:
    async def on_events(connection: AsyncConnection, rows: Sequence[dict[str, Any]]) -> None:
        await connection.execute(insert(deliveries), [delivery_of(row) for row in rows])
        raise ZeroDivisionError

    await world.account("acme", "1", deck="retail")
    await world.debit("acme", "1")
    async with open_archive(world.client, tmp_path, archive_url, on_events) as archive:
        with pytest.raises(ZeroDivisionError):
            await drain_of(archive).turn()
        async with archive.database.read() as connection:
            assert (await connection.execute(select(events))).all() == []
            assert (await connection.execute(select(deliveries))).all() == []
        assert len(await archived_rows(archive)) == 2
        await assert_clean_audit(world.client, archive)


def delivery_of(row: dict[str, Any]) -> dict[str, Any]:
    """Return what an event part puts into its outbox."""
    return {
        "id": f"{row['id']}:log",
        "event_id": row["id"],
        "channel": "log",
        "target": "",
        "state": "due",
        "attempts": 0,
        "next_attempt_at": 0,
        "last_error": "",
        "created_at": row["at"],
    }


async def test_changes_are_archived(world: World, archive: Archive) -> None:
    change = Change(
        at=1_790_000_000,
        who="ops\x00",
        remote="10.0.0.1",
        action="PUT /v1/accounts/{id}",
        target="acme",
        status=200,
        detail='{"credit_limit": "5"}',
    )
    for _ in range(3):
        await append_change(world.client, change)
    await drain_all(archive)
    async with archive.database.read() as connection:
        rows = (await connection.execute(select(changes).order_by(changes.c.id))).all()
    assert len(rows) == 3
    expected = {name: getattr(change, name) for name in change.__struct_fields__}
    expected["who"] = "ops\ufffd"
    assert {name: rows[0]._mapping[name] for name in expected} == expected


async def test_one_archive_alone_is_the_store_s(
    world: World, archive: Archive, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    rival = Archive(world.client, archive_settings(other, None))
    with pytest.raises(ArchiveElsewhere, match="the store's archive is"):
        await rival.open(create=True)
    with pytest.raises(ArchiveElsewhere):
        await rival.posting("acme", "r1")
    with pytest.raises(ArchiveElsewhere):
        await rival.catch_up("acme")
    assert rival.obstacle is not None
    await rival.close()


async def test_an_archive_of_another_store_is_refused(
    world: World, archive_url: str, tmp_path: Path
) -> None:
    async with open_archive(world.client, tmp_path, archive_url):
        pass
    await world.client.execute("FLUSHALL")
    again = Archive(world.client, archive_settings(tmp_path, archive_url))
    with pytest.raises(ArchiveElsewhere, match="of another store"):
        await again.open(create=True)
    await again.close()
