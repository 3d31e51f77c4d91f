"""Ledgers that part from their archive: each way is found, stops one bucket, and is repaired."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from archives import archived_rows, drain_all, drain_of, lead_calls, open_archive
from audit_helper import assert_clean_audit
from sqlalchemy import select
from world import World

from authz.admin.services import Services
from authz.cli.archive_repair import repair
from authz.engine.postings import CreditRequest
from authz.errors import ArchiveUnavailable, Conflict
from authz.ledger.archive import Archive
from authz.ledger.repair import Verdict, accept, find_divergence
from authz.ledger.schema import disowned, gaps
from authz.ledger.streams import LEDGERS
from authz.ledger.survey import survey
from authz.store import keys
from authz.store.constants import Kind
from authz.store.records import unpack_ledger_entry

ACCOUNTS = ("sub", "master")


class Bank:
    """The usual two accounts with an archive, and a store that can be taken back in time."""

    def __init__(self, world: World, archive: Archive) -> None:
        self.world = world
        self.archive = archive
        self.client = world.client
        self.tag = keys.tag_of_root("master")
        self.bucket = keys.TAGS.index(self.tag)
        self.services = Services(world.engine.context)

    async def snapshot(self) -> dict[bytes, bytes]:
        """Return everything that the bucket has in the store."""
        return {key: await self.client.execute("DUMP", key) for key in await self._keys()}

    async def restore(self, snapshot: dict[bytes, bytes]) -> None:
        """Take the store back to an earlier moment, as a power loss does."""
        for key in await self._keys():
            await self.client.execute("DEL", key)
        for key, dump in snapshot.items():
            await self.client.execute("RESTORE", key, 0, dump)
        self.world.engine.context.directory.forget_all()

    async def _keys(self) -> list[bytes]:
        found, cursor = [], b"0"
        while True:
            pattern = f"authz:{{{self.tag}}}:*"
            cursor, page = await self.client.execute("SCAN", cursor, "MATCH", pattern)
            found += page
            if cursor == b"0":
                return found

    async def fork(self) -> str:
        """Run a turn; return why the bucket's ledger is forked."""
        drain = drain_of(self.archive)
        await drain.look_again()
        await drain_all(self.archive)
        (status,) = [one for one in self.archive.statuses if one.fork is not None]
        assert (status.stream, status.bucket) == ("ledger", self.bucket)
        assert status.fork is not None
        return status.fork.partition(":")[0]

    async def repair(self, verdict: Verdict) -> None:
        """Repair the bucket, after which everything is archived again."""
        found = await repair(self.services, self.archive, self.bucket, None)
        assert found.is_parted
        await repair(self.services, self.archive, self.bucket, verdict)
        assert not (await repair(self.services, self.archive, self.bucket, None)).is_parted
        await drain_of(self.archive).look_again()
        await drain_all(self.archive)
        assert not drain_of(self.archive).is_forked

    async def balances(self) -> list[int]:
        """Return what sub and master have in the store."""
        return [await self.world.balance(name) for name in ACCOUNTS]

    async def disowned(self) -> list[Any]:
        """Return what was set aside."""
        async with self.archive.database.read() as connection:
            return list((await connection.execute(select(disowned))).all())


@pytest.fixture
async def bank(store_url: str, archive_url: str, tmp_path: Path) -> AsyncIterator[Bank]:
    """Two accounts with some archived history, audited together with the archive at the end."""
    world = await World.start(store_url, tmp_path)
    await world.pair()
    await lead_calls(world, 3)
    async with open_archive(world.client, tmp_path, archive_url, keep_seconds=60) as archive:
        await drain_all(archive)
        yield Bank(world, archive)
        await drain_all(archive)
        await assert_clean_audit(world.client, archive)
    await world.close()


# --- the store loses its last moments ----------------------------------------------------------


async def lose_moments(bank: Bank) -> None:
    """Book a payment, an SMS and two calls, archive them, and let the store forget them all."""
    world = bank.world
    await world.granted("open")
    before = await bank.snapshot()
    await world.settle("open", 60)
    await lead_calls(world, 1, "lost")
    await world.postings.credit("sub", payment("INV-1", "5"))
    await world.debit("sub", "1", kind="sms", reference="SMS-1")
    await drain_all(bank.archive)
    await bank.restore(before)


def payment(reference: str, amount: str) -> Any:
    """Return a payment."""
    return CreditRequest(kind="payment", amount=amount, reference=reference)


async def test_a_store_behind_its_archive_is_left_alone(bank: Bank) -> None:
    await lose_moments(bank)
    assert await bank.fork() == "behind"
    with pytest.raises(ArchiveUnavailable, match="forked"):
        await bank.archive.catch_up("sub")
    # Other buckets go on.
    await bank.world.account("other", "3", deck="retail")
    await bank.archive.catch_up("other")
    found = await survey(bank.client, bank.archive.database)
    assert [one.bucket for one in found.forked] == [bank.bucket]
    await bank.world.settle("open", 60)
    await bank.repair("store")


async def test_the_store_is_right(bank: Bank) -> None:
    await lose_moments(bank)
    await bank.world.settle("open", 60)
    await lead_calls(bank.world, 1, "new")
    before = await bank.balances()
    assert await bank.fork() in ("behind", "repeat")
    await bank.repair("store")
    assert await bank.balances() == before
    set_aside = await bank.disowned()
    assert {row.reference for row in set_aside} == {"open", "lost-0", "INV-1", "SMS-1"}
    assert {row.verdict for row in set_aside} == {"store"}


async def test_the_archive_is_right(bank: Bank) -> None:
    await lose_moments(bank)
    # A living daemon has said one of them again, under another number.
    await bank.world.postings.credit("sub", payment("INV-1", "5"))
    assert await bank.fork() in ("behind", "repeat")
    await bank.repair("archive")
    spent = 5 * 10_000 + 1_000_000
    assert await bank.balances() == [15_000_000 - spent, 10_000_000 - 5 * 5_000 - 1_000_000]
    assert (await bank.world.settle("lost-0", 60, to="+14155550100")).duplicate
    assert (await bank.world.settle("open", 60)).duplicate
    posted = await bank.world.postings.credit("sub", payment("INV-1", "5"))
    assert posted.duplicate
    names = [row.reference for row in await archived_rows(bank.archive) if row.leg == 0]
    assert sorted(names[-4:]) == ["INV-1", "SMS-1", "lost-0", "open"]


async def test_a_repair_killed_halfway_is_begun_anew(bank: Bank) -> None:
    await lose_moments(bank)
    found = await find_divergence(bank.client, bank.archive.database, bank.bucket)
    assert [row["reference"] for row in found.only_archived()] == [
        "open", "lost-0", "INV-1", "SMS-1",
    ]  # fmt: skip
    # The first postings were made, the archive was not told.
    await bank.world.postings.credit("sub", payment("INV-1", "5"))
    await bank.world.settle("open", 60)
    await bank.repair("archive")
    assert (await bank.balances())[0] == 15_000_000 - 5 * 10_000 - 1_000_000


async def test_an_archive_that_moved_meanwhile_is_not_repaired(bank: Bank) -> None:
    await lose_moments(bank)
    found = await find_divergence(bank.client, bank.archive.database, bank.bucket)
    await bank.repair("store")
    with pytest.raises(Conflict, match="has moved"):
        await accept(bank.archive.database, found, "store")


# --- the store loses what was not archived ------------------------------------------------------


async def delete_entries(bank: Bank, *, keep: int) -> None:
    """Delete the entries of the last calls but for the newest `keep`."""
    stream = keys.ledger(bank.tag)
    entries = await bank.client.execute("XRANGE", stream, "-", "+")
    newest = [
        entry_id
        for entry_id, fields in entries
        if unpack_ledger_entry(entry_id, fields[1]).reference.startswith("later")
    ]
    for entry_id in newest[: len(newest) - keep]:
        await bank.client.execute("XDEL", stream, entry_id)


@pytest.mark.parametrize(("keep", "reason"), [(2, "gap"), (0, "missing")])
async def test_lost_entries_are_bridged_by_an_adjustment(
    bank: Bank, keep: int, reason: str
) -> None:
    await lead_calls(bank.world, 5, "later")
    await delete_entries(bank, keep=keep)
    assert await bank.fork() == reason
    before = await bank.balances()
    await bank.repair("store")
    assert await bank.balances() == before
    rows = await archived_rows(bank.archive)
    bridges = [row for row in rows if row.reference.startswith("archive-repair")]
    lost = 5 - keep
    assert {(row.account, row.amount_micros) for row in bridges} == {
        ("sub", -lost * 10_000), ("master", -lost * 5_000),
    }  # fmt: skip
    assert {row.kind for row in bridges} == {Kind.ADJUSTMENT}
    for account in ACCOUNTS:
        own = [row for row in rows if row.account == account]
        assert own == sorted(own, key=lambda row: (row.booked_us, row.sequence))
    async with bank.archive.database.read() as connection:
        (gap,) = (await connection.execute(select(gaps))).all()
    assert gap.last_sequence - gap.first_sequence + 1 == lost
    await lead_calls(bank.world, 2, "after")


async def test_an_unreadable_entry_is_lost_too(bank: Bank) -> None:
    stream = keys.ledger(bank.tag)
    await lead_calls(bank.world, 1, "later")
    ((entry_id, _),) = await bank.client.execute("XREVRANGE", stream, "+", "-", "COUNT", 1)
    await bank.client.execute("XDEL", stream, entry_id)
    await bank.client.execute("XADD", stream, "*", "e", b"\x01garbage")
    assert await bank.fork() == "unreadable"
    await bank.repair("store")
    # The audit reads the stream, where the garbage still is.
    ((entry_id, _),) = await bank.client.execute("XREVRANGE", stream, "+", "-", "COUNT", 1)
    await bank.client.execute("XDEL", stream, entry_id)
    await bank.client.execute("XTRIM", stream, "MAXLEN", 0)


async def test_somebody_else_s_progress_is_no_fork(
    bank: Bank, archive_url: str, tmp_path: Path
) -> None:
    async with open_archive(bank.client, tmp_path, archive_url) as other:
        await bank.client.execute("CONFIG", "SET", "stream-node-max-entries", 1)
        await lead_calls(bank.world, 20, "later")
        await drain_all(other)
        await lead_calls(bank.world, 20, "last")
        await drain_all(bank.archive)
    assert not drain_of(bank.archive).is_forked
    assert len(await archived_rows(bank.archive)) == 2 + 2 * 43


async def test_nothing_to_repair(bank: Bank) -> None:
    found = await repair(bank.services, bank.archive, bank.bucket, "store")
    assert not found.is_parted
    assert found.common == found.cursor.sequence == 5
    for bucket in range(len(LEDGERS)):
        assert not (await find_divergence(bank.client, bank.archive.database, bucket)).is_parted
