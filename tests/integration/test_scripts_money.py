"""The scripts of accounts and postings on every store: answers, alerts, recharges, exact numbers.

Time cannot be moved in a store; tests move the moments that an account remembers instead.
"""

from __future__ import annotations

from typing import Any

import pytest
from audit_helper import assert_clean_audit
from books import Books
from calls import authorize, orphan, reserve, settle, settled_call

from authz.engine.steps import pack_costs
from authz.errors import Conflict
from authz.model import AutoRecharge, LowBalance
from authz.money import BOUND_MICROS, BOUND_UNITS
from authz.reasons import CallClass, Outcome
from authz.store import keys
from authz.store.client import StoreClient
from authz.store.constants import RECHARGE_PENDING_SECONDS, RECHARGE_RETRY_SECONDS, Kind
from authz.store.layouts import POSTING
from authz.store.records import ledger_strings
from authz.store.scripts import load_scripts


@pytest.fixture
def books(any_store: StoreClient) -> Books:
    """Services on every kind of store in turn."""
    return Books(any_store)


# --- the account script ----------------------------------------------------------------------


async def _put_raw(books: Books, version: int, config: bytes = b"{}") -> list[Any]:
    """Run the account script for an account `acme` that is a root."""
    tag = keys.tag_of_root("acme")
    account = keys.account(tag, "acme")
    reply: list[Any] = await books.client.call_script(
        load_scripts()["account"],
        [
            account,
            keys.bucket(tag),
            keys.children(tag, ""),
            keys.children(tag, "acme"),
            account,
            keys.events(tag),
        ],
        [b"put", config, version, b"acme", await _limits(books)],
    )
    return reply


async def _limits(books: Books) -> bytes:
    await books.open("template")
    chain = await books.directory.chain("template")
    assert chain is not None
    return chain.accounts[0].limits(CallClass.UNKNOWN, books.clock.now())


async def test_an_account_is_written_only_at_the_version_that_was_read(books: Books) -> None:
    assert await _put_raw(books, 7) == [Outcome.ACCOUNT_MISSING, 1]
    created = await _put_raw(books, 0)
    assert (created[0], created[2]) == (0, 1)
    assert await _put_raw(books, 0) == [Outcome.STALE_CONFIG, created[1]]
    assert await _put_raw(books, created[1] + 1) == [Outcome.STALE_CONFIG, created[1]]
    replaced = await _put_raw(books, created[1])
    assert (replaced[0], replaced[2]) == (0, 0)
    assert replaced[1] > created[1]
    assert (await _put_raw(books, -1))[0] == 0
    assert await books.client.execute(
        "ZRANGE", keys.children(keys.tag_of_root("acme"), ""), 0, -1
    ) == [b"acme"]


async def test_versions_of_a_bucket_are_never_used_twice(books: Books) -> None:
    seen = set()
    await books.open("acme")
    for child in ("a", "b", "a", "b"):
        await books.open(child, parent="acme")
        seen.add((await books.state(child)).version)
    await books.accounts.close("a")
    await books.open("c", parent="acme")
    seen.add((await books.state("c")).version)
    seen.add((await books.state("acme")).version)
    assert len(seen) == 6


# --- numbers at their bounds -----------------------------------------------------------------


@pytest.mark.parametrize(
    "amount", ["0.000001", "1", "123.456789", "1999999999.999999", str(BOUND_UNITS)]
)
async def test_amounts_come_out_as_they_went_in(books: Books, amount: str) -> None:
    await books.open("acme", low_balance=LowBalance(threshold=str(BOUND_UNITS)))
    await books.open("sales", parent="acme", low_balance=LowBalance(threshold=str(BOUND_UNITS)))
    debited = await books.debit("sales", amount)
    assert [leg.balance for leg in debited.legs] == [f"-{amount}"] * 2
    credited = await books.credit("sales", amount)
    assert [leg.balance for leg in credited.legs] == ["0"]
    credited = await books.credit("acme", amount)
    assert credited.legs[0].available == "0"
    entries = await books.ledger("sales")
    micros = -entries[0].legs[0].amount
    assert [entry.legs[-1].balance for entry in entries] == [-micros, 0, 0]
    low = (await books.events("sales"))[0]
    assert (low["balance"], low["threshold"]) == (str(-micros), str(BOUND_MICROS))
    await assert_clean_audit(books.client)


async def test_a_script_refunds_no_more_than_was_charged(books: Books) -> None:
    await books.open("acme", "10")
    await settled_call(books, "acme", "c1", (100,))
    chain = await books.directory.chain("acme")
    assert chain is not None
    valid_from, valid_until = chain.validity(books.clock.now())
    numbers = POSTING.pack(
        amount=101,
        kind=Kind.REFUND,
        legs=1,
        valid_from=valid_from,
        valid_until=valid_until,
        keep_seconds=60,
        per_leg=1,
    )

    async def refund(digest: bytes, amount: int) -> list[Any]:
        reply: list[Any] = await books.client.call_script(
            load_scripts()["post"],
            [
                keys.reference(chain.tag, "acme", "r1"),
                keys.refunded(chain.tag, "acme", "c1"),
                chain.closed_prefix,
                chain.bucket_key,
                chain.ledger_key,
                chain.events_key,
                *chain.account_keys,
            ],
            [
                numbers,
                digest,
                24,
                pack_costs((amount,)),
                ledger_strings(["acme"], "r1"),
                chain.accounts[0].limits(CallClass.UNKNOWN, books.clock.now()),
            ],
        )
        return reply

    digest = keys.call_digest("acme", "c1")
    assert await refund(digest, 101) == [Outcome.NOT_REFUNDABLE, 1, 100]
    assert await refund(digest + pack_costs((1,)), 100) == [Outcome.STALE_CALL]
    assert await refund(keys.call_digest("acme", "c2"), 1) == [Outcome.UNKNOWN_CALL]
    assert (await books.state("acme")).balance == 9_999_900
    assert (await refund(digest, 100))[0] == 0
    await assert_clean_audit(books.client)


# --- low, exhausted, restored ----------------------------------------------------------------


async def test_low_balance_is_told_once_a_crossing(books: Books) -> None:
    await books.open("acme", "10", low_balance=LowBalance(threshold="5"))
    await books.debit("acme", "4.999999")
    assert await books.event_names("acme") == []
    await books.debit("acme", "0.000001")
    await books.debit("acme", "1")
    (event,) = await books.events("acme")
    assert (event["event"], event["balance"], event["threshold"]) == (
        "balance.low", "5000000", "5000000",
    )  # fmt: skip
    await books.credit("acme", "1")
    await books.debit("acme", "1")
    assert len(await books.events("acme")) == 1
    await books.credit("acme", "1.000001")
    assert (await books.state("acme")).low_at == 0
    await books.debit("acme", "1.000001")
    assert await books.event_names("acme") == ["balance.low"] * 2


async def test_low_balance_is_repeated_after_its_hours(books: Books) -> None:
    await books.open("acme", "10", low_balance=LowBalance(threshold="5", repeat_hours=2))
    await books.debit("acme", "6")
    state = await books.state("acme")
    await books.set_state("acme", low_at=state.low_at - 7_199 + 60)
    await books.debit("acme", "0.1")
    assert len(await books.events("acme")) == 1
    await books.set_state("acme", low_at=state.low_at - 7_200)
    await books.debit("acme", "0.1")
    await books.debit("acme", "0.1")
    assert await books.event_names("acme") == ["balance.low"] * 2


async def test_exhausted_and_restored_come_in_turn(books: Books) -> None:
    await books.open("acme", "1", credit_limit="2")
    await books.debit("acme", "2.999999")
    assert await books.event_names("acme") == []
    await books.debit("acme", "0.000001")
    await books.debit("acme", "5")
    await books.credit("acme", "5")
    assert await books.event_names("acme") == ["balance.exhausted"]
    await books.credit("acme", "0.000001")
    await books.credit("acme", "1")
    await books.debit("acme", "9")
    assert await books.event_names("acme") == [
        "balance.exhausted", "balance.restored", "balance.exhausted",
    ]  # fmt: skip
    exhausted, restored, _ = await books.events("acme")
    assert (exhausted["balance"], exhausted["credit_limit"]) == ("-2000000", "2000000")
    assert restored["balance"] == "-1999999"


async def test_an_unlimited_account_raises_no_balance_event(books: Books) -> None:
    await books.open("acme", credit_limit="unlimited", low_balance=LowBalance(threshold="5"))
    await books.debit("acme", "100")
    await books.credit("acme", "200")
    assert await books.event_names("acme") == []


async def test_every_account_of_the_chain_is_told_of_its_own(books: Books) -> None:
    await books.open("acme", "3", low_balance=LowBalance(threshold="1"))
    await books.open("sales", "2", parent="acme", low_balance=LowBalance(threshold="-1"))
    await books.debit("sales", "2")
    assert await books.event_names("acme") == ["balance.low"]
    assert await books.event_names("sales") == ["balance.exhausted"]
    await books.debit("sales", "1")
    assert await books.event_names("acme") == ["balance.low", "balance.exhausted"]
    assert await books.event_names("sales") == ["balance.exhausted", "balance.low"]


async def test_a_running_calls_use_counts_before_it_is_booked(books: Books) -> None:
    await books.open("acme", "10", low_balance=LowBalance(threshold="5"))
    await authorize(books, "acme", "c1", (9_000_000,))
    assert await books.event_names("acme") == []
    await reserve(books, "acme", "c1", (5_000_000,), (9_000_000,))
    (event,) = await books.events("acme")
    assert (event["event"], event["balance"]) == ("balance.low", "5000000")
    await settle(books, "acme", "c1", (10_000_000,))
    assert await books.event_names("acme") == ["balance.low", "balance.exhausted"]
    await assert_clean_audit(books.client)


async def test_a_new_limit_rearms_what_it_moves_out_of_reach(books: Books) -> None:
    limits = {"low_balance": {"threshold": "5"}, "daily_spend_limit": "10"}
    await books.open("acme", "10")
    await books.accounts.patch("acme", limits)
    await books.debit("acme", "10", "sms")
    assert await books.event_names("acme") == [
        "spend_limit.reached", "balance.low", "balance.exhausted",
    ]  # fmt: skip
    raised = {"credit_limit": "30", "low_balance": {"threshold": "-5"}, "daily_spend_limit": "20"}
    await books.accounts.patch("acme", raised)
    assert (await books.event_names("acme"))[3:] == ["balance.restored"]
    await books.debit("acme", "6", "sms")
    assert (await books.event_names("acme"))[4:] == ["spend_limit.warning", "balance.low"]
    await books.debit("acme", "24", "sms")
    assert (await books.event_names("acme"))[6:] == ["spend_limit.reached", "balance.exhausted"]


# --- spend limits ----------------------------------------------------------------------------


async def test_spend_limits_warn_and_tell_once_a_period(books: Books) -> None:
    await books.open("acme", "100", daily_spend_limit="10", monthly_spend_limit="50")
    await books.debit("acme", "7.999999", "sms")
    assert await books.event_names("acme") == []
    await books.debit("acme", "0.000001", "asr")
    await books.debit("acme", "1", "mobile_data")
    await settled_call(books, "acme", "c1", (1_000_000,))
    await books.debit("acme", "1", "sms")
    events = await books.events("acme")
    assert [(event["event"], event["period"], event["spend"]) for event in events] == [
        ("spend_limit.warning", "day", "8000000"),
        ("spend_limit.reached", "day", "10000000"),
    ]
    state = await books.state("acme")
    await books.set_state("acme", day=state.day - 1)
    await books.debit("acme", "40", "sms")
    events = (await books.events("acme"))[2:]
    assert [(event["event"], event["period"], event["spend"]) for event in events] == [
        ("spend_limit.reached", "day", "40000000"),
        ("spend_limit.reached", "month", "51000000"),
    ]
    await books.set_state("acme", day=state.day - 1, month=state.month - 1)
    await books.debit("acme", "1", "sms")
    assert (await books.state("acme")).month_spend == 1_000_000
    await assert_clean_audit(books.client)


async def test_what_a_provisional_charge_gives_back_is_no_spend(books: Books) -> None:
    await books.open("acme", "100")
    await authorize(books, "acme", "c1", (60_000,))
    await reserve(books, "acme", "c1", (30_000,), (120_000,))
    await orphan(books, "acme", "c1", 1, used_seconds=30)
    assert (await books.state("acme")).day_spend == 30_000
    await settle(books, "acme", "c1", (10_000,))
    state = await books.state("acme")
    assert (state.day_spend, state.balance) == (10_000, 99_990_000)
    await assert_clean_audit(books.client)


# --- recharges -------------------------------------------------------------------------------


def _request(**fields: Any) -> AutoRecharge:
    return AutoRecharge(threshold="5", amount="20", **fields)


async def test_a_recharge_is_requested_once_while_it_is_pending(books: Books) -> None:
    await books.open("acme", "6", auto_recharge=_request())
    await books.debit("acme", "1")
    assert await books.event_names("acme") == []
    await books.debit("acme", "0.000001")
    await books.debit("acme", "1")
    (event,) = await books.events("acme")
    assert (event["event"], event["recharge"]) == ("recharge.due", "acme-1")
    assert (event["amount"], event["balance"]) == ("20000000", "4999999")
    assert (await books.state("acme")).balance == 3_999_999


async def test_a_recharge_that_succeeds_is_credited_once_and_starts_the_interval(
    books: Books,
) -> None:
    await books.open("acme", "4", auto_recharge=_request(min_interval_hours=2))
    await books.debit("acme", "1")
    posted = await books.credit("acme", "20", "recharge", "acme-1")
    again = await books.credit("acme", "20", "recharge", "acme-1")
    assert (posted.duplicate, again.duplicate) == (False, True)
    assert posted.legs[0].balance == "23"
    state = await books.state("acme")
    assert (state.recharge_pending, state.recharge_month_amount) == (0, 20_000_000)
    await books.debit("acme", "22")
    names = ["recharge.due", "recharge.succeeded", "balance.exhausted"]
    assert await books.event_names("acme") == names[:2]
    await books.set_state("acme", recharge_succeeded_at=state.recharge_succeeded_at - 7_200)
    await books.debit("acme", "1")
    assert [event.get("recharge") for event in await books.events("acme")] == [
        "acme-1", "acme-1", "acme-2", None,
    ]  # fmt: skip
    await assert_clean_audit(books.client)


async def test_a_recharge_expires_and_is_asked_for_again_with_back_off(books: Books) -> None:
    await books.open("acme", "4", auto_recharge=_request())
    await books.debit("acme", "1")
    asked_at = (await books.state("acme")).recharge_at
    await books.set_state("acme", recharge_at=asked_at - RECHARGE_PENDING_SECONDS + 60)
    await books.debit("acme", "0.1")
    assert await books.event_names("acme") == ["recharge.due"]
    await books.set_state("acme", recharge_at=asked_at - RECHARGE_PENDING_SECONDS)
    await books.debit("acme", "0.1")
    events = await books.events("acme")
    assert [(event["event"], event["recharge"]) for event in events] == [
        ("recharge.due", "acme-1"), ("recharge.expired", "acme-1"), ("recharge.due", "acme-2"),
    ]  # fmt: skip
    # Six failures wait 300 s doubled five times, which is longer than a request is pending.
    wait_seconds = RECHARGE_RETRY_SECONDS * 2**5
    failed_at = (await books.state("acme")).recharge_at
    await books.set_state(
        "acme", recharge_pending=0, recharge_failures=6, recharge_at=failed_at - wait_seconds + 60
    )
    await books.debit("acme", "0.1")
    assert len(await books.events("acme")) == 3
    await books.set_state("acme", recharge_at=failed_at - wait_seconds)
    await books.debit("acme", "0.1")
    assert (await books.event_names("acme"))[3:] == ["recharge.due"]
    # The one that had expired comes in after all.
    await books.credit("acme", "20", "recharge", "acme-1")
    state = await books.state("acme")
    assert (state.recharge_pending, state.recharge_failures) == (3, 0)
    assert (await books.events("acme"))[-1]["recharge"] == "acme-1"
    await assert_clean_audit(books.client)


@pytest.mark.parametrize("reference", ["acme-2", "acme-0", "acme-01", "other-1", "shop-4711"])
async def test_a_recharge_that_nobody_asked_for_is_a_plain_credit(
    store: StoreClient, reference: str
) -> None:
    books = Books(store)
    await books.open("acme", "4", auto_recharge=_request())
    await books.debit("acme", "1")
    await books.credit("acme", "20", "recharge", reference)
    await books.credit("acme", "1", "payment", "acme-1")
    state = await books.state("acme")
    assert (state.recharge_pending, state.recharge_succeeded_at) == (1, 0)
    assert await books.event_names("acme") == ["recharge.due"]


async def test_recharges_of_a_month_are_capped(books: Books) -> None:
    await books.open(
        "acme", "4", auto_recharge=_request(min_interval_hours=0, monthly_cap="40.000000")
    )
    for number in (1, 2):
        await books.debit("acme", "21" if number > 1 else "1")
        await books.credit("acme", "20", "recharge", f"acme-{number}")
    await books.debit("acme", "19")
    assert await books.event_names("acme") == ["recharge.due", "recharge.succeeded"] * 2
    state = await books.state("acme")
    assert state.recharge_month_amount == 40_000_000
    await books.set_state("acme", recharge_month=state.recharge_month - 1)
    await books.debit("acme", "0.1")
    assert (await books.event_names("acme"))[-1] == "recharge.due"


async def test_mode_credit_raises_a_sub_accounts_limit_at_once(books: Books) -> None:
    await books.open("acme", "100")
    recharge = _request(mode="credit", min_interval_hours=0, monthly_cap="45")
    await books.open("sales", "10", parent="acme", auto_recharge=recharge)
    posted = await books.debit("sales", "6")
    assert [leg.balance for leg in posted.legs] == ["24", "94"]
    entry = (await books.ledger("sales"))[-1]
    assert (entry.kind, entry.reference) == (Kind.RECHARGE, "sales-1")
    assert [(leg.account, leg.amount, leg.sequence) for leg in entry.legs] == [
        ("sales", 20_000_000, 3)
    ]
    await settled_call(books, "sales", "c1", (24_000_000, 1_000_000))
    # It never was exhausted: the recharge came first. The third would pass the cap.
    assert (await books.state("sales")).balance == 20_000_000
    await books.debit("sales", "20")
    assert await books.event_names("sales") == [
        "recharge.succeeded", "recharge.succeeded", "balance.exhausted",
    ]  # fmt: skip
    await assert_clean_audit(books.client)


async def test_mode_credit_keeps_its_interval_and_the_bound(books: Books) -> None:
    await books.open("acme", str(BOUND_UNITS))
    recharge = AutoRecharge(threshold=str(BOUND_UNITS), amount="20", mode="credit")
    await books.open("sales", "1", parent="acme", auto_recharge=recharge)
    await books.debit("sales", "1")
    assert (await books.state("sales")).balance == 1_000_000 + 20_000_000 - 1_000_000
    await books.debit("sales", "1")
    state = await books.state("sales")
    assert state.balance == 19_000_000
    await books.credit("sales", str(BOUND_UNITS - 20))
    await books.set_state("sales", recharge_succeeded_at=0)
    await books.debit("sales", "0.000001")
    assert (await books.state("sales")).balance == (BOUND_UNITS - 1) * 1_000_000 - 1
    assert (await books.event_names("sales")).count("recharge.succeeded") == 1
    await assert_clean_audit(books.client)


async def test_a_recharge_that_is_switched_off_is_not_asked_for(books: Books) -> None:
    await books.open("acme", "4", auto_recharge=_request(enabled=False))
    await books.debit("acme", "1")
    assert await books.event_names("acme") == []


async def test_a_reference_of_a_recharge_is_still_checked(books: Books) -> None:
    await books.open("acme", "4", auto_recharge=_request())
    await books.debit("acme", "1")
    await books.credit("acme", "20", "recharge", "acme-1")
    with pytest.raises(Conflict):
        await books.credit("acme", "21", "recharge", "acme-1")
