"""What only the archive still knows: old references, calls to refund, calls reported too late."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from archives import archive_settings, drain_all, open_archive
from audit_helper import assert_clean_audit
from world import UK, US, World

from authz.engine.late import LateBooker, hand_over
from authz.engine.postings import CreditRequest, DebitRequest, Posted, PostingService
from authz.engine.spool_replay import DeadLetter
from authz.errors import ArchiveUnavailable, Conflict, NotFound, SpoolFull
from authz.ledger.archive import Archive
from authz.model import SettleRequest, Spooled
from authz.store import keys


class Desk:
    """A business whose store has forgotten what only its archive knows."""

    def __init__(self, world: World, archive: Archive, directory: Path) -> None:
        context = world.engine.context
        self.world = world
        self.archive = archive
        self.dead: list[DeadLetter] = []
        self.postings = PostingService(
            world.client, context.directory, context.clock, archive=archive
        )
        self.late = LateBooker(context, archive, directory / "spool", self._bury)

    async def _bury(self, letter: DeadLetter) -> None:
        self.dead.append(letter)

    async def forget(self, *references: str, account: str = "sub") -> None:
        """Let the store lose references, and everything of ended calls but the ledger."""
        client = self.world.client
        for name in ("sub", "master"):
            for reference in references:
                await client.execute("DEL", keys.reference(await self.tag(), name, reference))
        cursor = b"0"
        while True:
            pattern = f"authz:{{{await self.tag()}}}:closed:*"
            cursor, found = await client.execute("SCAN", cursor, "MATCH", pattern, "COUNT", 1000)
            if found:
                await client.execute("DEL", *found)
            if cursor == b"0":
                return

    async def tag(self) -> str:
        """Return the bucket of the business."""
        return keys.tag_of_root("master")

    async def credit(self, account: str = "sub", **body: Any) -> Posted:
        """Book a credit, which must be booked."""
        posted = await self.postings.credit(account, CreditRequest(**body))
        assert isinstance(posted, Posted)
        return posted

    async def debit(self, account: str = "sub", **body: Any) -> Posted:
        """Book a debit, which must be booked."""
        posted = await self.postings.debit(account, DebitRequest(**body))
        assert isinstance(posted, Posted)
        return posted

    async def settle_late(self, call_id: str, seconds: int, **more: Any) -> None:
        """Hand over the settle of a call that ended two days ago, and let the office have it."""
        ended_at = self.world.engine.context.clock.now() - 2 * 86_400
        request = SettleRequest(
            call_id=call_id,
            account="sub",
            seconds=seconds,
            to=more.pop("to", US),
            direction="outbound",
            ended_at=ended_at,
            **more,
        )
        await self.world.engine.settle(request)
        await self.late.book_all()

    async def balances(self) -> tuple[int, int]:
        """Return what sub and master have."""
        return await self.world.balance("sub"), await self.world.balance("master")


@pytest.fixture
async def desk(store_url: str, archive_url: str, tmp_path: Path) -> AsyncIterator[Desk]:
    """The usual two accounts, whose books are audited at the end."""
    world = await World.start(store_url, tmp_path)
    await world.pair()
    async with open_archive(world.client, tmp_path, archive_url) as archive:
        yield Desk(world, archive, tmp_path)
        await drain_all(archive)
        await assert_clean_audit(world.client, archive)
    await world.close()


# --- references --------------------------------------------------------------------------------


async def test_an_old_reference_is_known(desk: Desk) -> None:
    first = await desk.credit(amount="5", kind="payment", reference="INV-1")
    debited = await desk.debit(amount="1", kind="sms", reference="SMS-1")
    await drain_all(desk.archive)
    await desk.forget("INV-1", "SMS-1")
    again = await desk.credit(amount="5", kind="payment", reference="INV-1")
    assert (again.duplicate, again.sequence) == (True, first.sequence)
    assert [(leg.account, leg.amount, leg.balance) for leg in again.legs] == [("sub", "5", "14")]
    again = await desk.debit(amount="1", kind="sms", reference="SMS-1")
    assert (again.duplicate, again.sequence) == (True, debited.sequence)
    assert [(leg.account, leg.amount) for leg in again.legs] == [("sub", "-1"), ("master", "-1")]
    assert await desk.balances() == (14_000_000, 9_000_000)


@pytest.mark.parametrize(
    "other",
    [
        {"amount": "6", "kind": "payment"},
        {"amount": "5", "kind": "manual"},
        {"call_id": "c1", "kind": "refund"},
    ],
)
async def test_an_old_reference_of_something_else_is_refused(
    desk: Desk, other: dict[str, str]
) -> None:
    await desk.credit(amount="5", kind="payment", reference="INV-1")
    await drain_all(desk.archive)
    await desk.forget("INV-1")
    with pytest.raises(Conflict, match="INV-1 of account sub is used"):
        await desk.credit(**other, reference="INV-1")
    with pytest.raises(Conflict, match="INV-1 of account sub is used"):
        await desk.debit(amount="5", kind="manual", reference="INV-1")
    assert await desk.balances() == (15_000_000, 10_000_000)


async def test_a_reference_is_an_account_s_own(desk: Desk) -> None:
    await desk.credit(amount="5", kind="payment", reference="INV-1")
    await desk.debit(amount="1", kind="manual", reference="D-1")
    await drain_all(desk.archive)
    # The debit has moved the master too, but it is not the master's reference.
    await desk.credit("master", amount="7", kind="payment", reference="D-1")
    await desk.credit("master", amount="7", kind="payment", reference="INV-1")
    assert await desk.balances() == (14_000_000, 23_000_000)


async def test_money_does_not_wait_for_an_archive_that_is_away(desk: Desk, tmp_path: Path) -> None:
    desk.postings._archive = Archive(desk.world.client, archive_settings(tmp_path, None))
    await desk.credit(amount="5", kind="payment", reference="INV-1")
    assert (await desk.credit(amount="5", kind="payment", reference="INV-1")).duplicate
    assert await desk.balances() == (15_000_000, 10_000_000)


# --- refunds -----------------------------------------------------------------------------------


async def test_an_archived_call_is_refunded_and_never_more_than_charged(desk: Desk) -> None:
    await desk.world.granted("c1")
    await desk.world.settle("c1", 60)
    await desk.forget()
    await desk.credit(kind="refund", call_id="c1", amount="0.004", reference="R-1")
    assert await desk.balances() == (9_994_000, 9_997_000)
    # Known by the store's own count first, by the archive alone after 35 days.
    with pytest.raises(Conflict, match=r"only 0\.006 can be given back"):
        await desk.credit(kind="refund", call_id="c1", amount="0.007", reference="R-2")
    await drain_all(desk.archive)
    await desk.world.client.execute("DEL", keys.refunded(await desk.tag(), "sub", "c1"))
    with pytest.raises(Conflict, match=r"only 0\.006 can be given back"):
        await desk.credit(kind="refund", call_id="c1", amount="0.007", reference="R-2")
    posted = await desk.credit(kind="refund", call_id="c1", reference="R-3")
    assert [leg.amount for leg in posted.legs] == ["0.006", "0.003"]
    assert await desk.balances() == (10_000_000, 10_000_000)
    with pytest.raises(Conflict, match="only 0 can"):
        await desk.credit(kind="refund", call_id="c1", reference="R-4")


async def test_the_same_old_refund_is_a_duplicate(desk: Desk) -> None:
    await desk.world.granted("c1")
    await desk.world.settle("c1", 60)
    await desk.credit(kind="refund", call_id="c1", reference="R-1")
    await drain_all(desk.archive)
    await desk.forget("R-1")
    await desk.world.client.execute("DEL", keys.refunded(await desk.tag(), "sub", "c1"))
    assert (await desk.credit(kind="refund", call_id="c1", reference="R-1")).duplicate
    assert (
        await desk.credit(kind="refund", call_id="c1", amount="0.01", reference="R-1")
    ).duplicate
    with pytest.raises(Conflict):
        await desk.credit(kind="refund", call_id="c2", reference="R-1")
    with pytest.raises(Conflict):
        await desk.credit(kind="refund", call_id="c1", amount="0.009", reference="R-1")
    assert await desk.balances() == (10_000_000, 10_000_000)


async def test_what_nobody_knows_is_not_refunded(desk: Desk, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no settled call c9"):
        await desk.credit(kind="refund", call_id="c9", reference="R-1")
    desk.postings._archive = Archive(desk.world.client, archive_settings(tmp_path, None))
    with pytest.raises(ArchiveUnavailable):
        await desk.credit(kind="refund", call_id="c9", reference="R-1")


# --- late settles ------------------------------------------------------------------------------


async def test_a_late_call_that_was_never_booked_is_booked(desk: Desk) -> None:
    await desk.settle_late("c1", 60, to=UK)
    assert await desk.balances() == (10_000_000 - 13_700, 10_000_000 - 10_000)
    assert desk.dead == []
    await desk.settle_late("c1", 60, to=UK)
    await desk.forget()
    await desk.settle_late("c1", 60, to=UK)
    assert await desk.balances() == (10_000_000 - 13_700, 10_000_000 - 10_000)
    assert await desk.world.client.execute("XLEN", keys.late()) == 0


async def test_a_switch_whose_clock_is_ahead_is_charged_once(desk: Desk) -> None:
    now = desk.world.engine.context.clock.now()
    request = SettleRequest(
        call_id="c1", account="sub", seconds=60, to=US, direction="outbound", ended_at=now + 86_400
    )
    assert isinstance(await desk.world.engine.settle(request), Spooled)
    await desk.late.book_all()
    charged = await desk.balances()
    assert max(charged) < 10_000_000
    # Its tombstone goes before the clock that was ahead has come to the end it told.
    await desk.forget()
    await desk.world.engine.settle(request)
    await desk.late.book_all()
    assert await desk.balances() == charged
    assert desk.dead == []


async def test_a_late_settle_of_a_booked_call_changes_nothing(desk: Desk) -> None:
    await desk.world.granted("c1")
    await desk.world.settle("c1", 60)
    await drain_all(desk.archive)
    await desk.forget()
    before = await desk.balances()
    await desk.settle_late("c1", 60)
    assert desk.dead == []
    await desk.settle_late("c1", 61)
    (letter,) = desk.dead
    assert letter.reason.startswith("settled_differently")
    kept = (desk.late._directory / "late.jsonl").read_bytes().splitlines()
    assert [json.loads(line)["reason"] for line in kept] == [letter.reason]
    assert await desk.balances() == before


async def test_a_late_settle_corrects_an_orphan(desk: Desk) -> None:
    await desk.world.granted("c1")
    await desk.world.reserve("c1", 30)
    await desk.world.engine.switch_restarted("")
    assert (await desk.balances())[0] < 10_000_000
    await drain_all(desk.archive)
    # Its record goes as a tombstone does.
    await desk.world.client.execute("DEL", keys.call(await desk.tag(), "sub", "c1"))
    desk.world.engine.context.memory.forget("sub", "c1")
    await desk.settle_late("c1", 120)
    assert desk.dead == []
    assert await desk.balances() == (10_000_000 - 20_000, 10_000_000 - 10_000)
    await desk.settle_late("c1", 120)
    await desk.forget()
    await desk.settle_late("c1", 120)
    assert await desk.balances() == (10_000_000 - 20_000, 10_000_000 - 10_000)


async def test_late_settles_wait_for_the_archive(desk: Desk, tmp_path: Path) -> None:
    archive, desk.late._archive = (
        desk.archive,
        Archive(desk.world.client, archive_settings(tmp_path, None)),
    )
    await desk.settle_late("c1", 60)
    assert await desk.world.client.execute("XLEN", keys.late()) == 1
    assert await desk.balances() == (10_000_000, 10_000_000)
    desk.late._archive = archive
    assert await desk.late.book_all() == 1
    assert await desk.balances() == (9_990_000, 9_995_000)


async def test_two_offices_book_a_late_call_once(desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "two").mkdir()
    other = LateBooker(desk.world.engine.context, desk.archive, tmp_path / "two", desk._bury)
    now = desk.world.engine.context.clock.now()
    for number in range(20):
        request = SettleRequest(
            call_id=f"c{number}",
            account="sub",
            seconds=60,
            to=US,
            direction="outbound",
            ended_at=now - 100_000,
        )
        await hand_over(desk.world.client, request, now)
    await asyncio.gather(desk.late.book_all(), other.book_all())
    assert await desk.balances() == (10_000_000 - 200_000, 10_000_000 - 100_000)
    assert desk.dead == []


async def test_what_cannot_be_booked_becomes_a_dead_letter(desk: Desk) -> None:
    client = desk.world.client
    await client.execute("XADD", keys.late(), "*", "settle", b"{}")
    request = SettleRequest(
        call_id="c1", account="nobody", seconds=60, to=US, direction="outbound", ended_at=1
    )
    await hand_over(client, request, 2)
    assert await desk.late.book_all() == 2
    reasons = [letter.reason for letter in desk.dead]
    assert reasons[0].startswith("Object missing required field")
    assert reasons[1].startswith("call_unknown: account nobody")


async def test_there_is_an_end_to_late_settles(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("authz.engine.late.LATE_MAX", 0)
    request = SettleRequest(call_id="c1", account="sub", seconds=60)
    with pytest.raises(SpoolFull):
        await hand_over(desk.world.client, request, 0)
