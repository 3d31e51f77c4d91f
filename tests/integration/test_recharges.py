"""Recharges as a payment system answers them, and what the sweeper does without any traffic."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from audit_helper import assert_clean_audit
from books import Books

from authz.engine.postings import Posted, PostingRefused
from authz.engine.recharges import (
    REQUEST_KEEP_SECONDS,
    RechargeFailed,
    RechargeService,
    RechargeSucceeded,
    RechargeSweeper,
)
from authz.errors import Conflict, InvalidInput, NotFound
from authz.model import AutoRecharge
from authz.money import BOUND_UNITS
from authz.store import keys
from authz.store.client import StoreClient
from authz.store.constants import RECHARGE_PENDING_SECONDS, RECHARGE_RETRY_SECONDS, Kind
from authz.store.layouts import RECHARGE_REQUEST


class Desk:
    """One process's recharges on a store."""

    def __init__(self, client: StoreClient) -> None:
        self.books = Books(client)
        books = self.books
        self.service = RechargeService(client, books.directory, books.clock, books.postings)
        self.sweeper = RechargeSweeper(client, books.directory, books.clock)

    async def open_low(self, account: str = "acme", **fields: Any) -> None:
        """Create an account and let it ask for its first recharge of 20."""
        recharge = AutoRecharge(threshold="5", amount="20", **fields)
        await self.books.open(account, "6", auto_recharge=recharge)
        await self.books.debit(account, "2")

    async def succeeded(self, recharge: str, amount: str | None = None) -> Posted:
        """Report the money, which must be taken."""
        posted = await self.service.succeeded(recharge, RechargeSucceeded(amount=amount))
        assert isinstance(posted, Posted)
        return posted

    async def failed(self, recharge: str, detail: str = "card declined") -> bool:
        """Report a failure; return whether it was known before."""
        return (await self.service.failed(recharge, RechargeFailed(detail))).duplicate

    async def later(self, account: str, seconds: int) -> None:
        """Move an account's recharge times, and when it is looked at, into the past."""
        books, tag = self.books, await self.books.tag(account)
        state = await books.state(account)
        await books.set_state(
            account,
            recharge_at=state.recharge_at - seconds,
            recharge_succeeded_at=max(0, state.recharge_succeeded_at - seconds),
        )
        for name, score in await self.checks(account):
            await books.client.execute("ZADD", keys.recharge_checks(tag), score - seconds, name)

    async def checks(self, account: str) -> list[tuple[bytes, int]]:
        """Return which accounts of the bucket are to be looked at, and when."""
        found = await self.books.client.execute(
            "ZRANGE", keys.recharge_checks(await self.books.tag(account)), 0, -1, "WITHSCORES"
        )
        return [(name, int(score)) for name, score in zip(found[::2], found[1::2], strict=True)]

    async def told(self, account: str = "acme") -> list[tuple[str, str]]:
        """Return events and ids of an account's recharges, oldest first."""
        return [
            (event["event"].partition(".")[2], event["recharge"])
            for event in await self.books.events(account)
            if event["event"].startswith("recharge.")
        ]


@pytest.fixture
def desk(any_store: StoreClient) -> Desk:
    """Recharges on every kind of store in turn."""
    return Desk(any_store)


# --- succeeded -------------------------------------------------------------------------------


async def test_money_that_came_is_credited_once(desk: Desk) -> None:
    await desk.open_low()
    first = await desk.succeeded("acme-1", "20.00")
    again = await desk.succeeded("acme-1")
    assert (first.duplicate, again.duplicate) == (False, True)
    assert [leg.balance for leg in again.legs] == ["24"]
    assert await desk.told() == [("due", "acme-1"), ("succeeded", "acme-1")]
    assert (await desk.books.ledger("acme"))[-1].kind == Kind.RECHARGE
    assert (await desk.service.page("acme", None, None, 10)).recharges == ()
    await assert_clean_audit(desk.books.client)


async def test_of_racing_reports_one_is_booked(any_store: StoreClient) -> None:
    desks = [Desk(any_store) for _ in range(4)]
    await desks[0].open_low()
    posted = await asyncio.gather(*(desks[turn % 4].succeeded("acme-1") for turn in range(40)))
    assert sum(not one.duplicate for one in posted) == 1
    assert (await desks[0].books.state("acme")).balance == 24_000_000
    await assert_clean_audit(any_store)


async def test_another_amount_is_refused_and_changes_nothing(desk: Desk) -> None:
    await desk.open_low()
    with pytest.raises(Conflict, match=r"is of 20, not of 19\.99"):
        await desk.succeeded("acme-1", "19.99")
    with pytest.raises(InvalidInput, match="decimal"):
        await desk.succeeded("acme-1", "twenty")
    assert (await desk.books.state("acme")).balance == 4_000_000
    await desk.succeeded("acme-1")
    with pytest.raises(Conflict, match="is of 20"):
        await desk.succeeded("acme-1", "21")
    await assert_clean_audit(desk.books.client)


async def test_what_was_asked_for_counts_though_the_amount_was_changed_since(desk: Desk) -> None:
    await desk.open_low()
    await desk.books.accounts.patch("acme", {"auto_recharge": {"amount": "50"}})
    assert (await desk.succeeded("acme-1")).legs[0].amount == "20"
    await assert_clean_audit(desk.books.client)


@pytest.mark.parametrize(
    "recharge",
    ["acme-2", "acme-0", "acme-01", "acme", "-1", "nobody-1", "acme-1x", "acme-99999999999999999",
     "a c-1", "acme\n-1", "x" * 300],
)  # fmt: skip
async def test_what_nobody_asked_for_is_not_found(store: StoreClient, recharge: str) -> None:
    desk = Desk(store)
    await desk.open_low()
    with pytest.raises(NotFound, match="no recharge"):
        await desk.succeeded(recharge)
    with pytest.raises(NotFound, match="no recharge"):
        await desk.failed(recharge)
    assert await desk.told() == [("due", "acme-1")]
    await assert_clean_audit(store)


async def test_another_posting_of_that_name_is_no_recharge(desk: Desk) -> None:
    await desk.open_low()
    await desk.books.credit("acme", "1", "payment", "acme-7")
    with pytest.raises(NotFound):
        await desk.succeeded("acme-7")
    await desk.books.credit("acme", "1", "payment", "acme-1")
    with pytest.raises(Conflict):
        await desk.succeeded("acme-1")
    await assert_clean_audit(desk.books.client)


async def test_a_recharge_beyond_the_bound_is_refused(desk: Desk) -> None:
    await desk.open_low()
    await desk.books.credit("acme", str(BOUND_UNITS - 10))
    refused = await desk.service.succeeded("acme-1", RechargeSucceeded())
    assert isinstance(refused, PostingRefused)
    assert refused.reason == "amount_out_of_range"
    await assert_clean_audit(desk.books.client)


async def test_a_sub_accounts_own_limit_is_no_request_to_be_answered(desk: Desk) -> None:
    await desk.books.open("acme", "100")
    recharge = AutoRecharge(threshold="5", amount="20", mode="credit")
    await desk.books.open("acme-sales", "6", parent="acme", auto_recharge=recharge)
    await desk.books.debit("acme-sales", "2")
    assert await desk.told("acme-sales") == [("succeeded", "acme-sales-1")]
    with pytest.raises(NotFound):
        await desk.succeeded("acme-sales-1")
    state = await desk.books.state("acme-sales")
    assert (state.balance, state.recharge_pending) == (24_000_000, 0)
    await assert_clean_audit(desk.books.client)


# --- failed ----------------------------------------------------------------------------------


async def test_a_failure_is_told_once_and_tried_again_after_a_while(desk: Desk) -> None:
    await desk.open_low()
    assert not await desk.failed("acme-1")
    assert await desk.failed("acme-1", "again")
    event = (await desk.books.events("acme"))[-1]
    assert (event["event"], event["amount"], event["detail"]) == (
        "recharge.failed", "20000000", "card declined",
    )  # fmt: skip
    await desk.books.debit("acme", "1")
    assert await desk.told() == [("due", "acme-1"), ("failed", "acme-1")]
    await desk.later("acme", RECHARGE_RETRY_SECONDS - 30)
    assert await desk.sweeper.sweep() == 0
    await desk.later("acme", 30)
    assert await desk.sweeper.sweep() == 1
    assert (await desk.told())[2:] == [("due", "acme-2")]
    await assert_clean_audit(desk.books.client)


async def test_failures_wait_twice_as_long_each_time_and_block_no_day(desk: Desk) -> None:
    await desk.open_low()
    for number in (1, 2, 3, 4):
        await desk.failed(f"acme-{number}")
        ((_, due_at),) = await desk.checks("acme")
        state = await desk.books.state("acme")
        assert due_at - state.recharge_at == RECHARGE_RETRY_SECONDS * 2 ** (number - 1)
        await desk.later("acme", due_at - state.recharge_at)
        await desk.sweeper.sweep()
    assert (await desk.told())[-1] == ("due", "acme-5")
    await desk.succeeded("acme-5")
    assert (await desk.books.state("acme")).recharge_failures == 0
    await assert_clean_audit(desk.books.client)


async def test_a_failed_one_may_still_succeed_and_a_succeeded_one_cannot_fail(desk: Desk) -> None:
    await desk.open_low()
    await desk.failed("acme-1")
    await desk.succeeded("acme-1")
    with pytest.raises(Conflict, match="credited already"):
        await desk.failed("acme-1")
    assert (await desk.books.state("acme")).balance == 24_000_000
    await assert_clean_audit(desk.books.client)


async def test_of_a_racing_success_and_failure_the_money_counts(any_store: StoreClient) -> None:
    one, other = Desk(any_store), Desk(any_store)
    await one.open_low()
    await asyncio.gather(one.succeeded("acme-1"), other.failed("acme-1"), return_exceptions=True)
    assert (await one.books.state("acme")).balance == 24_000_000
    assert (await one.books.state("acme")).recharge_pending == 0
    await assert_clean_audit(any_store)


# --- without traffic -------------------------------------------------------------------------


async def test_a_request_expires_and_is_asked_for_again_without_a_call(desk: Desk) -> None:
    await desk.open_low()
    await desk.later("acme", RECHARGE_PENDING_SECONDS - 30)
    assert await desk.sweeper.sweep() == 0
    await desk.later("acme", 30)
    assert await desk.sweeper.sweep() == 1
    assert await desk.told() == [("due", "acme-1"), ("expired", "acme-1"), ("due", "acme-2")]
    posted = await desk.succeeded("acme-1")
    assert (posted.duplicate, posted.legs[0].balance) == (False, "24")
    page = await desk.service.page("acme", "pending", None, 10)
    assert [one.id for one in page.recharges] == ["acme-2"]
    await assert_clean_audit(desk.books.client)


async def test_a_request_expires_also_when_the_money_came_another_way(desk: Desk) -> None:
    await desk.open_low()
    await desk.books.credit("acme", "100")
    await desk.later("acme", RECHARGE_PENDING_SECONDS)
    await desk.sweeper.sweep()
    assert await desk.told() == [("due", "acme-1"), ("expired", "acme-1")]
    assert await desk.checks("acme") == []


async def test_the_next_recharge_waits_for_the_interval_and_comes_by_itself(desk: Desk) -> None:
    await desk.open_low(min_interval_hours=2)
    await desk.books.debit("acme", "21")
    await desk.succeeded("acme-1")
    assert (await desk.books.state("acme")).balance == 3_000_000
    await desk.later("acme", 7_170)
    assert await desk.sweeper.sweep() == 0
    await desk.later("acme", 30)
    await desk.sweeper.sweep()
    assert (await desk.told())[-1] == ("due", "acme-2")
    await assert_clean_audit(desk.books.client)


async def test_a_capped_account_is_looked_at_until_the_month_is_over(desk: Desk) -> None:
    await desk.open_low(min_interval_hours=0, monthly_cap="20")
    await desk.succeeded("acme-1")
    await desk.books.debit("acme", "22")
    assert len(await desk.told()) == 2
    await desk.later("acme", RECHARGE_PENDING_SECONDS)
    assert await desk.sweeper.sweep() == 1
    assert len(await desk.told()) == 2
    state = await desk.books.state("acme")
    await desk.books.set_state("acme", recharge_month=state.recharge_month - 1)
    await desk.later("acme", RECHARGE_PENDING_SECONDS)
    await desk.sweeper.sweep()
    assert (await desk.told())[-1] == ("due", "acme-2")


async def test_an_empty_account_that_is_given_a_recharge_asks_for_it(desk: Desk) -> None:
    recharge = AutoRecharge(threshold="5", amount="20")
    await desk.books.open("acme", "4")
    await desk.books.accounts.patch("acme", {"auto_recharge": {"threshold": "4", "amount": "20"}})
    await desk.books.accounts.patch("acme", {"auto_recharge": {"threshold": "5"}})
    await desk.sweeper.sweep()
    assert await desk.told() == [("due", "acme-1")]
    await desk.books.accounts.patch("acme", {"auto_recharge": {"threshold": "6"}})
    await desk.sweeper.sweep()
    await desk.books.open("new", auto_recharge=recharge)
    await desk.sweeper.sweep()
    assert await desk.told() == [("due", "acme-1")]
    assert await desk.told("new") == []
    await assert_clean_audit(desk.books.client)


async def test_a_recharge_that_is_switched_on_again_is_asked_for(desk: Desk) -> None:
    await desk.open_low()
    await desk.failed("acme-1")
    await desk.books.accounts.patch("acme", {"auto_recharge": {"enabled": False}})
    await desk.later("acme", RECHARGE_RETRY_SECONDS)
    await desk.sweeper.sweep()
    await desk.books.accounts.patch("acme", {"auto_recharge": {"enabled": True}})
    await desk.sweeper.sweep()
    assert (await desk.told())[-1] == ("due", "acme-2")
    await assert_clean_audit(desk.books.client)


async def test_a_sub_accounts_limit_is_raised_when_its_interval_ends(desk: Desk) -> None:
    await desk.books.open("acme", "100")
    recharge = AutoRecharge(threshold="5", amount="20", mode="credit", min_interval_hours=1)
    await desk.books.open("sales", "6", parent="acme", auto_recharge=recharge)
    await desk.books.debit("sales", "2")
    await desk.books.debit("sales", "20")
    assert (await desk.books.state("sales")).balance == 4_000_000
    await desk.later("sales", 3_600)
    await desk.sweeper.sweep()
    state = await desk.books.state("sales")
    assert (state.balance, (await desk.books.state("acme")).balance) == (24_000_000, 78_000_000)
    await assert_clean_audit(desk.books.client)


async def test_any_number_of_sweepers_ask_once(any_store: StoreClient) -> None:
    desks = [Desk(any_store) for _ in range(3)]
    for number in range(5):
        await desks[0].open_low(f"acme{number}")
        await desks[0].later(f"acme{number}", RECHARGE_PENDING_SECONDS)
    await asyncio.gather(*(desk.sweeper.sweep() for desk in desks))
    for number in range(5):
        name = f"acme{number}"
        assert await desks[0].told(name) == [
            ("due", f"{name}-1"), ("expired", f"{name}-1"), ("due", f"{name}-2"),
        ]  # fmt: skip
    await assert_clean_audit(any_store)


async def test_a_closed_or_changed_account_does_not_hold_the_sweeper_up(desk: Desk) -> None:
    await desk.open_low()
    await desk.books.debit("acme", "4")
    other = Desk(desk.books.client)
    await other.books.accounts.patch("acme", {"auto_recharge": None})
    await desk.later("acme", RECHARGE_PENDING_SECONDS)
    await desk.sweeper.sweep()
    assert await desk.told() == [("due", "acme-1"), ("expired", "acme-1")]
    await other.books.accounts.close("acme")
    tag = await desk.books.tag("acme")
    await desk.books.client.execute("ZADD", keys.recharge_checks(tag), 1, "acme")
    await desk.sweeper.sweep()
    assert await desk.checks("acme") == []


async def test_requests_are_forgotten_after_35_days(desk: Desk) -> None:
    await desk.open_low()
    await desk.open_low("fresh")
    key = keys.recharges(await desk.books.tag("acme"))
    record = RECHARGE_REQUEST.unpack(await desk.books.client.execute("HGET", key, "acme-1"))
    old = record._asdict() | {"requested_at": record.requested_at - REQUEST_KEEP_SECONDS - 1}
    await desk.books.client.execute("HSET", key, "acme-1", RECHARGE_REQUEST.pack(**old))
    await desk.sweeper.sweep()
    with pytest.raises(NotFound, match="35 days"):
        await desk.succeeded("acme-1")
    await desk.succeeded("fresh-1")


# --- lists -----------------------------------------------------------------------------------


async def test_open_recharges_are_listed(desk: Desk) -> None:
    await desk.books.open("master")
    names = [f"acme{number}" for number in range(12)]
    for name in names:
        await desk.open_low(name)
    await desk.failed("acme3-1")
    found: list[str] = []
    cursor = None
    while True:
        page = await desk.service.page(None, None, cursor, 5)
        found += [one.id for one in page.recharges]
        cursor = page.cursor
        if cursor is None:
            break
    assert sorted(found) == sorted(f"{name}-1" for name in names)
    (failed,) = (await desk.service.page(None, "failed", None, 500)).recharges
    assert (failed.id, failed.account, failed.amount) == ("acme3-1", "acme3", "20")
    assert (await desk.service.page("acme4", "failed", None, 5)).recharges == ()
    with pytest.raises(NotFound):
        await desk.service.page("nobody", None, None, 5)
    for cursor in ("x", "64-0", "1", "-1-0"):
        with pytest.raises(InvalidInput, match="cursor"):
            await desk.service.page(None, None, cursor, 5)
