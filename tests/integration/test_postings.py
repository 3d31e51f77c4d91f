"""Credits, debits and refunds on real stores: amounts, references, races, and their loss."""

from __future__ import annotations

import asyncio
import random

import pytest
from audit_helper import assert_clean_audit
from books import Books
from calls import settled_call

from authz.engine.postings import CreditRequest, Posted, PostingRefused
from authz.engine.refunds import share_refund
from authz.engine.resend import ResendWindow
from authz.errors import Conflict, InvalidInput, NotFound
from authz.money import BOUND_UNITS
from authz.store import keys
from authz.store.client import StoreClient
from authz.store.constants import Kind


@pytest.fixture
def books(any_store: StoreClient) -> Books:
    """Services on every kind of store in turn."""
    return Books(any_store)


# --- what is booked --------------------------------------------------------------------------


async def test_a_credit_touches_only_the_named_account(books: Books) -> None:
    await books.open("acme", "100")
    await books.open("sales", parent="acme")
    posted = await books.credit("sales", "10.5", description="opening limit")
    assert [(leg.account, leg.amount, leg.balance) for leg in posted.legs] == [
        ("sales", "10.5", "10.5")
    ]
    assert (await books.state("acme")).balance == 100_000_000
    entry = (await books.ledger("sales"))[-1]
    assert (entry.kind, entry.description) == (Kind.PAYMENT, "opening limit")
    assert entry.sequence == posted.sequence
    await assert_clean_audit(books.client)


async def test_a_debit_goes_to_the_whole_chain_even_into_the_negative(books: Books) -> None:
    await books.open("a1", "5")
    await books.open("a2", "1", parent="a1", credit_limit="unlimited")
    await books.open("a3", parent="a2")
    await books.open("a4", "2", parent="a3", credit_limit="7")
    posted = await books.debit("a4", "3.000001", "recurring", quantity=3, unit="lines")
    assert [(leg.account, leg.balance, leg.available) for leg in posted.legs] == [
        ("a4", "-1.000001", "5.999999"),
        ("a3", "-3.000001", "-3.000001"),
        ("a2", "-2.000001", None),
        ("a1", "1.999999", "1.999999"),
    ]
    entry = (await books.ledger("a4"))[-1]
    assert [leg.amount for leg in entry.legs] == [-3_000_001] * 4
    assert entry.description == "3 lines"
    await assert_clean_audit(books.client)


async def test_a_debit_of_scope_self_moves_one_account(books: Books) -> None:
    await books.open("acme", "5")
    await books.open("sales", "5", parent="acme")
    posted = await books.debit("sales", "1", scope="self", description="fee", quantity=2)
    assert [leg.account for leg in posted.legs] == ["sales"]
    assert (await books.ledger("sales"))[-1].description == "2; fee"
    assert (await books.state("acme")).balance == 5_000_000
    await assert_clean_audit(books.client)


@pytest.mark.parametrize("kind", ["sms", "asr", "mobile_data", "recurring", "manual"])
async def test_only_usage_counts_as_spend(store: StoreClient, kind: str) -> None:
    books = Books(store)
    await books.open("acme", "5")
    await books.debit("acme", "1", kind)
    spent = 1_000_000 if kind in {"sms", "asr", "mobile_data"} else 0
    state = await books.state("acme")
    assert (state.day_spend, state.month_spend) == (spent, spent)


async def test_yesterdays_spend_counts_against_no_limit_of_today(books: Books) -> None:
    await books.open("acme", "50", daily_spend_limit="5", monthly_spend_limit="8")
    await books.debit("acme", "5", "sms")
    state = await books.state("acme")
    await books.set_state("acme", day=state.day - 1)
    await books.debit("acme", "3", "sms", require_available=True)
    state = await books.state("acme")
    assert (state.day_spend, state.month_spend) == (3_000_000, 8_000_000)


async def test_a_disabled_account_is_still_charged_and_paid(books: Books) -> None:
    await books.open("acme", enabled=False)
    await books.credit("acme", "2")
    await books.debit("acme", "1")
    assert (await books.state("acme")).balance == 1_000_000


# --- amounts at their bounds -----------------------------------------------------------------


@pytest.mark.parametrize("amount", ["0", "-1", "0.0000001", "2000000000.000001", "1e3", ""])
async def test_an_amount_is_positive_and_exact(store: StoreClient, amount: str) -> None:
    books = Books(store)
    await books.open("acme")
    for attempt in (books.credit("acme", amount), books.debit("acme", amount)):
        with pytest.raises(InvalidInput) as caught:
            await attempt
        assert caught.value.field == "amount"


async def test_balances_reach_their_bounds_and_no_further(books: Books) -> None:
    bound = str(BOUND_UNITS)
    await books.open("acme", bound)
    credit = CreditRequest(kind="payment", amount="0.000001", reference="one-more")
    refused = await books.postings.credit("acme", credit)
    assert isinstance(refused, PostingRefused)
    assert (refused.reason, refused.account) == ("amount_out_of_range", "acme")
    await books.debit("acme", bound)
    assert (await books.state("acme")).balance == 0
    await books.debit("acme", bound)
    assert (await books.state("acme")).balance == -BOUND_UNITS * 1_000_000
    refused = await books.try_debit("acme", "0.000001")
    assert isinstance(refused, PostingRefused)
    assert refused.reason == "amount_out_of_range"
    await books.credit("acme", bound)
    await books.debit("acme", "0.000001")
    await books.credit("acme", "0.000001")
    assert (await books.state("acme")).balance == 0
    await assert_clean_audit(books.client)


async def test_a_bound_anywhere_in_the_chain_books_nothing(books: Books) -> None:
    await books.open("acme")
    await books.open("sales", "5", parent="acme")
    await books.debit("acme", str(BOUND_UNITS))
    refused = await books.try_debit("sales", "1")
    assert isinstance(refused, PostingRefused)
    assert refused.account == "acme"
    assert (await books.state("sales")).balance == 5_000_000
    await assert_clean_audit(books.client)


# --- require_available -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "held", "fits", "reason", "short"),
    [
        ({}, 0, "5", "insufficient_credit", "sales"),
        ({"credit_limit": "2"}, 0, "7", "insufficient_credit", "sales"),
        ({"credit_limit": "2"}, 3_000_000, "4", "insufficient_credit", "sales"),
        ({"credit_limit": "unlimited"}, 0, "20", "insufficient_credit", "acme"),
        ({"credit_limit": "20"}, 0, "20", "insufficient_credit", "acme"),
        ({"daily_spend_limit": "3"}, 0, "3", "daily_spend_limit", "sales"),
        ({"monthly_spend_limit": "4"}, 1_000_000, "3", "monthly_spend_limit", "sales"),
    ],
)
async def test_a_debit_may_require_what_it_takes(
    store: StoreClient,
    fields: dict[str, str],
    held: int,
    fits: str,
    reason: str,
    short: str,
) -> None:
    books = Books(store)
    await books.open("acme", "20")
    await books.open("sales", "5", parent="acme", **fields)
    await books.set_state("sales", held=held)
    refused = await books.try_debit("sales", f"{fits}.000001", "sms", require_available=True)
    assert isinstance(refused, PostingRefused)
    assert (refused.reason, refused.account) == (reason, short)
    assert f"{fits} left of {fits}.000001" in refused.detail
    await books.debit("sales", fits, "sms", require_available=True)
    refused = await books.try_debit("sales", "0.000001", "sms", require_available=True)
    assert isinstance(refused, PostingRefused)
    await books.set_state("sales", held=0)
    await assert_clean_audit(store)


async def test_what_is_no_usage_is_bound_by_no_spend_limit(books: Books) -> None:
    await books.open("acme", "5", daily_spend_limit="0", monthly_spend_limit="0")
    await books.debit("acme", "5", "recurring", require_available=True)
    refused = await books.try_debit("acme", "1", "recurring", require_available=True)
    assert isinstance(refused, PostingRefused)
    assert refused.reason == "insufficient_credit"


async def test_of_200_racing_debits_exactly_the_affordable_pass(any_store: StoreClient) -> None:
    processes = [Books(any_store) for _ in range(4)]
    await processes[0].open("acme", "7")
    await processes[0].open("sales", "10", parent="acme")
    results = await asyncio.gather(
        *(
            processes[number % 4].try_debit(
                "sales", "0.07", "sms", f"race-{number}", require_available=True
            )
            for number in range(200)
        )
    )
    passed = [result for result in results if isinstance(result, Posted)]
    assert len(passed) == 100
    assert (await processes[0].state("acme")).balance == 0
    assert (await processes[0].state("sales")).balance == 3_000_000
    assert len({result.sequence for result in passed}) == 100
    assert {one.account for one in results if isinstance(one, PostingRefused)} == {"acme"}
    await assert_clean_audit(any_store)


# --- references ------------------------------------------------------------------------------


async def test_the_same_reference_again_is_a_duplicate(books: Books) -> None:
    await books.open("acme", "5")
    first = await books.credit("acme", "1", reference="invoice-7")
    again = await books.credit("acme", "1", reference="invoice-7")
    assert (first.duplicate, again.duplicate) == (False, True)
    assert again.sequence == first.sequence
    assert again.legs == first.legs
    tag = await books.tag("acme")
    kept = await books.client.execute("TTL", keys.reference(tag, "acme", "invoice-7"))
    assert 34 * 86_400 < kept <= 35 * 86_400
    await assert_clean_audit(books.client)


async def test_a_reference_used_otherwise_is_a_conflict(books: Books) -> None:
    await books.open("acme", "5")
    await books.open("other", "5")
    await books.credit("acme", "1", "payment", "r1")
    for attempt in (
        books.credit("acme", "1.000001", "payment", "r1"),
        books.credit("acme", "1", "manual", "r1"),
        books.debit("acme", "1", "manual", reference="r1"),
        books.debit("acme", "1", "sms", reference="r1"),
    ):
        with pytest.raises(Conflict, match="r1"):
            await attempt
    assert not (await books.credit("other", "1", "payment", "r1")).duplicate
    await assert_clean_audit(books.client)


async def test_of_racing_duplicates_one_is_booked(any_store: StoreClient) -> None:
    processes = [Books(any_store) for _ in range(4)]
    await processes[0].open("acme", "100")
    await processes[0].open("sales", "100", parent="acme")
    results = await asyncio.gather(
        *(
            processes[number % 4].debit("sales", "2", reference="the-one", require_available=True)
            for number in range(100)
        )
    )
    assert sum(not result.duplicate for result in results) == 1
    assert len({result.sequence for result in results}) == 1
    assert (await processes[0].state("acme")).balance == 98_000_000
    await assert_clean_audit(any_store)


async def test_a_configuration_changed_by_another_process_is_reread(
    any_store: StoreClient,
) -> None:
    here, there = Books(any_store), Books(any_store)
    await here.open("acme", "1")
    await here.open("sales", "1", parent="acme")
    await here.debit("sales", "0.5", require_available=True)
    await there.accounts.patch("acme", {"credit_limit": "10"})
    await there.accounts.patch("sales", {"credit_limit": "10"})
    posted = await here.debit("sales", "9", require_available=True)
    assert [leg.available for leg in posted.legs] == ["1.5", "1.5"]
    await there.accounts.put("sales", (await there.accounts.read("sales")).config)
    await here.credit("sales", "1")


async def test_a_wrong_clock_is_corrected_by_the_store(any_store: StoreClient) -> None:
    books = Books(any_store)
    await books.open("acme", "1")
    books.clock.correct(1_000_000)
    books.directory.forget("acme")
    await books.debit("acme", "1", "sms")
    assert (await books.balance("acme")).spend_today == "1"


async def test_unknown_and_closed_accounts_are_not_found(books: Books) -> None:
    await books.open("acme")
    await books.credit("acme", "1")
    await books.debit("acme", "1")
    other = Books(books.client)
    await other.accounts.close("acme")
    for account in ("acme", "nobody"):
        with pytest.raises(NotFound):
            await books.credit(account, "1")
    await assert_clean_audit(books.client)


async def test_requests_that_make_no_sense_are_refused(store: StoreClient) -> None:
    books = Books(store)
    await books.open("acme", "1")
    with pytest.raises(InvalidInput, match="only a refund"):
        await books.credit("acme", "1", "payment", call_id="c1")
    with pytest.raises(InvalidInput, match="amount"):
        await books.credit("acme", None, "refund")
    with pytest.raises(InvalidInput) as caught:
        await books.debit("acme", "1", unit="lines")
    assert caught.value.field == "unit"


# --- refunds of calls ------------------------------------------------------------------------


async def test_a_refund_gives_each_leg_its_part(books: Books) -> None:
    await books.open("acme", "10")
    await books.open("sales", "10", parent="acme")
    await settled_call(books, "sales", "c1", (300_001, 100_001))
    first = await books.credit("sales", "0.100000", "refund", call_id="c1")
    assert [leg.amount for leg in first.legs] == ["0.1", "0.033334"]
    rest = await books.credit("sales", None, "refund", reference="rest", call_id="c1")
    assert [leg.amount for leg in rest.legs] == ["0.200001", "0.066667"]
    again = await books.credit("sales", None, "refund", reference="rest", call_id="c1")
    assert again.duplicate
    assert [leg.amount for leg in again.legs] == [None, None]
    assert [leg.balance for leg in again.legs] == ["10", "10"]
    with pytest.raises(Conflict, match="only 0 can be given back"):
        await books.credit("sales", "0.000001", "refund", call_id="c1")
    with pytest.raises(Conflict, match="only 0 can"):
        await books.credit("sales", None, "refund", call_id="c1")
    assert (await books.state("sales")).day_spend == 300_001
    await assert_clean_audit(books.client)


async def test_a_refund_is_measured_by_the_first_charged_leg(books: Books) -> None:
    await books.open("acme", "10")
    await books.open("sales", "10", parent="acme")
    await settled_call(books, "sales", "c1", (0, 500_000))
    posted = await books.credit("sales", "0.2", "refund", call_id="c1")
    assert [leg.amount for leg in posted.legs] == ["0", "0.2"]
    with pytest.raises(Conflict, match=r"only 0\.3 can"):
        await books.credit("sales", "0.300001", "refund", call_id="c1")
    await settled_call(books, "sales", "free", (0, 0))
    with pytest.raises(Conflict):
        await books.credit("sales", None, "refund", call_id="free")
    with pytest.raises(NotFound, match="c2"):
        await books.credit("sales", None, "refund", call_id="c2")
    await assert_clean_audit(books.client)


async def test_racing_refunds_never_give_more_than_was_charged(any_store: StoreClient) -> None:
    processes = [Books(any_store) for _ in range(4)]
    await processes[0].open("acme", "10")
    await processes[0].open("sales", "10", parent="acme")
    await settled_call(processes[0], "sales", "c1", (300_000, 70_001))
    results = await asyncio.gather(
        *(
            processes[number % 4].credit("sales", "0.05", "refund", f"part-{number}", call_id="c1")
            for number in range(12)
        ),
        return_exceptions=True,
    )
    assert sum(isinstance(result, Posted) for result in results) == 6
    assert sum(isinstance(result, Conflict) for result in results) == 6
    assert (await processes[0].state("sales")).balance == 10_000_000
    assert (await processes[0].state("acme")).balance == 10_000_000
    await assert_clean_audit(any_store)


def test_parts_of_a_refund_make_up_the_whole_on_every_leg(rng: random.Random) -> None:
    for _ in range(300):
        costs = tuple(
            rng.choice((0, 1, rng.randrange(10 ** rng.randrange(1, 15)))) for _ in range(4)
        )
        first = next((leg for leg, cost in enumerate(costs) if cost), None)
        if first is None:
            continue
        given = [0, 0, 0, 0]
        while given[first] < costs[first]:
            amount = rng.randint(1, max(1, costs[first] // 3))
            amount = min(amount, costs[first] - given[first])
            parts = share_refund(costs, tuple(given), first, amount)
            assert parts[first] == amount
            given = [before + part for before, part in zip(given, parts, strict=True)]
            assert all(total <= cost for total, cost in zip(given, costs, strict=True))
        assert tuple(given) == costs


# --- what a store has lost is said again -----------------------------------------------------


async def _lose_last_posting(books: Books, before: dict[bytes, bytes]) -> None:
    """Put the whole store back to an earlier moment, as a power loss does."""
    await books.client.execute("FLUSHDB")
    for key, dump in before.items():
        await books.client.execute("RESTORE", key, 0, dump)


async def _snapshot(client: StoreClient) -> dict[bytes, bytes]:
    return {key: await client.execute("DUMP", key) for key in await client.execute("KEYS", "*")}


async def test_lost_postings_are_booked_again_once(any_store: StoreClient) -> None:
    window = ResendWindow()
    books = Books(any_store, window)
    await books.open("acme", "10")
    before = await _snapshot(any_store)
    await books.credit("acme", "5", reference="r1")
    await books.debit("acme", "2", "sms", reference="r2")
    assert window.operations == 3
    await _lose_last_posting(books, before)
    assert (await books.state("acme")).balance == 10_000_000
    window.repeat("one run", "another run")
    await window.finished()
    assert (await books.state("acme")).balance == 13_000_000
    window.repeat("another run", "a third")
    await window.finished()
    assert (await books.state("acme")).balance == 13_000_000
    assert len(await books.ledger("acme")) == 3
    assert window.operations == 3
    await assert_clean_audit(any_store)


async def test_a_sequence_that_goes_back_gives_the_loss_away(store: StoreClient) -> None:
    window = ResendWindow()
    books = Books(store, window)
    await books.open("acme", "10")
    before = await _snapshot(store)
    await books.credit("acme", "5")
    await books.credit("acme", "5")
    await _lose_last_posting(books, before)
    await books.debit("acme", "1")
    await window.finished()
    assert (await books.state("acme")).balance == 19_000_000
    await assert_clean_audit(store)


async def test_a_lost_debit_is_booked_again_whatever_is_available_by_then(
    store: StoreClient,
) -> None:
    window = ResendWindow()
    books = Books(store, window)
    await books.open("acme", "10")
    before = await _snapshot(store)
    await books.debit("acme", "8", reference="r1", require_available=True)
    await _lose_last_posting(books, before)
    await books.debit("acme", "5", reference="r2")
    window.repeat("one run", "another run")
    await window.finished()
    assert (await books.state("acme")).balance == -3_000_000
    await assert_clean_audit(store)


async def test_the_window_forgets_what_is_too_much() -> None:
    performed: list[int] = []

    async def perform(number: int) -> None:
        performed.append(number)

    window = ResendWindow(operations_max=3)
    for number in range(5):
        window.remember(lambda number=number: perform(number))
    window.repeat("a", "b")
    await window.finished()
    assert performed == [2, 3, 4]


async def test_the_window_waits_for_a_store_that_is_away(store: StoreClient) -> None:
    window = ResendWindow()
    books = Books(store, window)
    await books.open("acme", "10")
    await store.close()
    window.repeat("a", "b")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(window.finished(), 0.3)
    assert window.operations == 1
    await window.close()
    assert window.operations == 1
