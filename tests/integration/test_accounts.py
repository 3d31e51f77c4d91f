"""Accounts on real stores: create, replace, patch, close, list, balances, races and crashes."""

from __future__ import annotations

import asyncio

import pytest
from books import Books

from authz.engine.accounts import Stored, patched
from authz.errors import ConfigError, Conflict, InvalidInput, NotFound
from authz.model import AccountConfig, LowBalance, Trunks
from authz.store import keys
from authz.store.client import StoreClient
from authz.store.identity import check_store_identity


@pytest.fixture
def books(any_store: StoreClient) -> Books:
    """Services on every kind of store in turn."""
    return Books(any_store)


# --- creating and replacing ------------------------------------------------------------------


async def test_an_account_is_created_and_read_back(books: Books) -> None:
    config = AccountConfig(currency="EUR", trunks=Trunks(outbound=2), metadata={"name": "ACME"})
    stored = await books.accounts.put("acme", config)
    assert stored.created
    assert stored.record.config == config
    assert stored.record.state.version == 1
    assert await books.accounts.read("acme") == stored.record
    assert await books.client.execute("GET", keys.root("acme")) == b"acme"


async def test_replacing_keeps_the_balance_and_takes_a_new_version(books: Books) -> None:
    await books.open("acme", "12.5")
    replaced = await books.accounts.put("acme", AccountConfig(credit_limit="3"))
    assert not replaced.created
    assert replaced.record.state.version == 2
    assert replaced.record.state.balance == 12_500_000
    assert (await books.balance("acme")).available == "15.5"


async def test_a_child_lives_in_its_roots_bucket(books: Books) -> None:
    await books.open("acme")
    await books.open("sales", parent="acme")
    await books.open("desk", parent="sales")
    assert await books.client.execute("GET", keys.root("desk")) == b"acme"
    assert await books.tag("desk") == await books.tag("acme")
    chain = await books.directory.chain("desk")
    assert chain is not None
    assert [account.id for account in chain.accounts] == ["desk", "sales", "acme"]


@pytest.mark.parametrize("account", ["", "a b", "-a", "a:b", "a" * 65, "ä", "a{b}", "acme\n"])
async def test_an_id_must_be_plain(store: StoreClient, account: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        await Books(store).accounts.put(account, AccountConfig())
    assert caught.value.field == "id"


async def test_a_configuration_is_checked(store: StoreClient) -> None:
    with pytest.raises(InvalidInput) as caught:
        await Books(store).accounts.put("acme", AccountConfig(timezone="Mars/Olympus"))
    assert caught.value.field == "timezone"
    assert await store.execute("DBSIZE") == 0


async def test_parent_and_currency_never_change(books: Books) -> None:
    await books.open("acme")
    await books.open("other")
    await books.open("sales", parent="acme")
    with pytest.raises(Conflict, match="parent"):
        await books.accounts.put("sales", AccountConfig(parent="other"))
    with pytest.raises(Conflict, match="parent"):
        await books.accounts.put("sales", AccountConfig())
    with pytest.raises(Conflict, match="currency"):
        await books.accounts.put("acme", AccountConfig(currency="EUR"))
    with pytest.raises(Conflict, match="parent"):
        await books.accounts.patch("sales", {"parent": None})


async def test_a_parent_must_exist_and_have_the_same_currency(books: Books) -> None:
    await books.open("acme", currency="EUR")
    for parent in ("nobody", "sales"):
        with pytest.raises(InvalidInput) as caught:
            await books.accounts.put("sales", AccountConfig(parent=parent))
        assert caught.value.field == "parent"
    with pytest.raises(InvalidInput) as caught:
        await books.accounts.put("sales", AccountConfig(parent="acme", currency="USD"))
    assert caught.value.field == "currency"
    assert await books.client.execute("EXISTS", keys.root("sales")) == 0


async def test_a_chain_has_four_accounts_at_most(books: Books) -> None:
    await books.open("a1")
    for child, parent in (("a2", "a1"), ("a3", "a2"), ("a4", "a3")):
        await books.open(child, parent=parent)
    with pytest.raises(InvalidInput, match="3 accounts above"):
        await books.accounts.put("a5", AccountConfig(parent="a4"))


async def test_a_deck_may_be_named_before_it_exists(books: Books) -> None:
    stored = await books.accounts.put("acme", AccountConfig(deck="of-tomorrow"))
    assert stored.record.config.deck == "of-tomorrow"


# --- crashes and races -----------------------------------------------------------------------


async def test_a_crash_after_the_root_key_is_mended_by_the_same_request(books: Books) -> None:
    await books.open("acme")
    await books.client.execute("SET", keys.root("sales"), "acme")
    await books.client.execute("ZADD", keys.ACCOUNTS, 0, "sales")
    with pytest.raises(NotFound):
        await books.accounts.read("sales")
    assert [record.id for record in (await books.accounts.page()).records] == ["acme"]
    with pytest.raises(Conflict, match="another tree"):
        await books.accounts.put("sales", AccountConfig())
    stored = await books.accounts.put("sales", AccountConfig(parent="acme"))
    assert stored.created


async def test_of_racing_creates_one_creates_and_all_succeed(any_store: StoreClient) -> None:
    processes = [Books(any_store) for _ in range(20)]
    config = AccountConfig(max_calls=1)
    stored = await asyncio.gather(*(one.accounts.put("acme", config) for one in processes))
    assert sum(one.created for one in stored) == 1
    assert (await processes[0].state("acme")).balance == 0


async def test_of_racing_creates_in_two_trees_one_tree_wins(any_store: StoreClient) -> None:
    processes = [Books(any_store) for _ in range(20)]
    await processes[0].open("one")
    await processes[0].open("two")
    results = await asyncio.gather(
        *(
            books.accounts.put("sales", AccountConfig(parent=("one", "two")[number % 2]))
            for number, books in enumerate(processes)
        ),
        return_exceptions=True,
    )
    stored = [result for result in results if isinstance(result, Stored)]
    assert len(stored) == 10
    assert sum(one.created for one in stored) == 1
    assert len({one.record.config.parent for one in stored}) == 1
    assert sum(isinstance(result, Conflict) for result in results) == 10


async def test_racing_patches_all_take_effect(any_store: StoreClient) -> None:
    processes = [Books(any_store) for _ in range(20)]
    await processes[0].open("acme", "1")
    await asyncio.gather(
        *(
            books.accounts.patch("acme", {"metadata": {f"key{number}": "set"}})
            for number, books in enumerate(processes)
        )
    )
    record = await processes[0].accounts.read("acme")
    assert len(record.config.metadata) == 20
    assert record.state.balance == 1_000_000


async def test_a_child_and_the_end_of_its_parent_race(any_store: StoreClient) -> None:
    parents, children = Books(any_store), Books(any_store)
    for number in range(20):
        await parents.open(f"acme{number}")
        await children.directory.chain(f"acme{number}")
        closed, created = await asyncio.gather(
            parents.accounts.close(f"acme{number}"),
            children.accounts.put(f"sales{number}", AccountConfig(parent=f"acme{number}")),
            return_exceptions=True,
        )
        assert (closed is None) == isinstance(created, InvalidInput | NotFound)
        assert isinstance(closed, Conflict) == isinstance(created, Stored)


# --- patching --------------------------------------------------------------------------------


def test_a_merge_patch_merges_objects_and_removes_by_null() -> None:
    config = AccountConfig(
        max_calls=5, low_balance=LowBalance("5", 24), max_calls_by_class={"premium": 1}
    )
    changes = {
        "max_calls": None,
        "low_balance": {"threshold": "7"},
        "max_calls_by_class": {"premium": None, "national": 3},
        "blocked_classes": ["premium"],
    }
    after = patched(config, changes)
    assert after.max_calls is None
    assert after.low_balance == LowBalance("7", 24)
    assert after.max_calls_by_class == {"national": 3}
    assert after.blocked_classes == ("premium",)
    assert patched(after, {"low_balance": None}).low_balance is None


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"max_calls": -1}, "max_calls"),
        ({"trunks": {"inbound": "two"}}, "trunks.inbound"),
        ({"trunks": {"sideways": 1}}, "trunks.sideways"),
        ({"colour": "red"}, "colour"),
        ({"blocked_classes": ["premium", "rude"]}, "blocked_classes[1]"),
        ({"credit_limit": 5}, "credit_limit"),
    ],
)
def test_a_wrong_patch_names_its_field(changes: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        patched(AccountConfig(), changes)
    assert caught.value.field == field


async def test_a_patch_is_checked_as_a_whole(books: Books) -> None:
    await books.open("acme")
    with pytest.raises(InvalidInput) as caught:
        await books.accounts.patch("acme", {"credit_limit": "-1"})
    assert caught.value.field == "credit_limit"
    with pytest.raises(NotFound):
        await books.accounts.patch("nobody", {})


# --- closing ---------------------------------------------------------------------------------


async def test_a_closed_id_is_never_used_again(books: Books) -> None:
    await books.open("acme")
    await books.open("sales", parent="acme")
    await books.accounts.close("sales")
    await books.accounts.close("acme")
    for config in (AccountConfig(), AccountConfig(max_calls=1)):
        with pytest.raises(Conflict, match="closed"):
            await books.accounts.put("acme", config)
    with pytest.raises(Conflict):
        await books.accounts.put("sales", AccountConfig())
    with pytest.raises(InvalidInput, match="no account acme"):
        await books.accounts.put("sales", AccountConfig(parent="acme"))
    with pytest.raises(NotFound):
        await books.accounts.close("acme")
    with pytest.raises(NotFound):
        await books.accounts.patch("acme", {})
    with pytest.raises(NotFound):
        await books.balance("acme")
    assert (await books.accounts.page()).records == ()


async def test_an_account_in_use_is_not_closed(books: Books) -> None:
    await books.open("acme", "0.000001")
    await books.open("sales", parent="acme")
    with pytest.raises(Conflict, match=r"0 open calls, a balance of 0.000001 and 1 children"):
        await books.accounts.close("acme")
    await books.debit("acme", "0.000001")
    await books.accounts.close("sales")
    await books.set_state("acme", calls=2)
    with pytest.raises(Conflict, match="2 open calls"):
        await books.accounts.close("acme")
    await books.set_state("acme", calls=0)
    await books.accounts.close("acme")


# --- listing ---------------------------------------------------------------------------------


async def test_accounts_are_listed_in_pages(books: Books) -> None:
    names = sorted(f"acme{number}" for number in range(25))
    for name in reversed(names):
        await books.open(name)
    found: list[str] = []
    cursor: str | None = None
    while True:
        page = await books.accounts.page(cursor=cursor, limit=10)
        assert len(page.records) <= 10
        found += [record.id for record in page.records]
        cursor = page.cursor
        if cursor is None:
            break
    assert found == names


async def test_accounts_are_found_by_parent_and_by_part_of_the_id(books: Books) -> None:
    await books.open("Acme")
    await books.open("other")
    for child in ("acme-sales", "acme-support", "desk"):
        await books.open(child, parent="Acme")
    page = await books.accounts.page(parent="Acme")
    assert [record.id for record in page.records] == ["acme-sales", "acme-support", "desk"]
    page = await books.accounts.page(q="ACME")
    assert [record.id for record in page.records] == ["Acme", "acme-sales", "acme-support"]
    page = await books.accounts.page(parent="Acme", q="sup")
    assert [record.id for record in page.records] == ["acme-support"]
    page = await books.accounts.page(q="acme", limit=2)
    assert [record.id for record in page.records] == ["Acme", "acme-sales"]
    assert page.cursor == "acme-sales"
    page = await books.accounts.page(q="acme", limit=2, cursor=page.cursor)
    assert [record.id for record in page.records] == ["acme-support"]
    assert page.cursor is None
    with pytest.raises(NotFound):
        await books.accounts.page(parent="nobody")
    with pytest.raises(InvalidInput):
        await books.accounts.page(limit=501)


async def test_a_rare_match_is_found_over_many_pages(store: StoreClient) -> None:
    books = Books(store)
    await books.open("wanted")
    members = [part for number in range(11_000) for part in (0, f"a{number:05d}")]
    for start in range(0, len(members), 2_000):
        await store.execute("ZADD", keys.ACCOUNTS, *members[start : start + 2_000])
    page = await books.accounts.page(q="wanted")
    assert page.records == ()
    assert page.cursor == "a09999"
    page = await books.accounts.page(q="wanted", cursor=page.cursor)
    assert [record.id for record in page.records] == ["wanted"]
    assert page.cursor is None


# --- balances --------------------------------------------------------------------------------


async def test_a_balance_shows_the_whole_chain(books: Books) -> None:
    await books.open("acme", "250", trunks=Trunks(outbound=4), credit_limit="unlimited")
    await books.open("sales", "10", parent="acme", credit_limit="1.5")
    await books.debit("sales", "0.25", "sms")
    await books.set_state("sales", held=1_000_000, used=20_000, calls=3, trunks_inbound=1)
    view = await books.balance("sales")
    assert (view.balance, view.held, view.used) == ("9.75", "1", "0.02")
    assert (view.available, view.credit_limit) == ("10.25", "1.5")
    assert (view.calls, view.trunks.inbound, view.trunks.outbound) == (3, 1, 0)
    assert (view.spend_today, view.spend_month) == ("0.25", "0.25")
    (master,) = view.chain
    assert (master.account, master.balance) == ("acme", "249.75")
    assert (master.available, master.credit_limit) == (None, "unlimited")


async def test_the_spend_of_another_day_is_not_todays(books: Books) -> None:
    await books.open("acme", "10", timezone="Pacific/Kiritimati")
    await books.debit("acme", "1", "sms")
    state = await books.state("acme")
    await books.set_state("acme", day=state.day - 1)
    view = await books.balance("acme")
    assert (view.spend_today, view.spend_month) == ("0", "1")
    await books.set_state("acme", month=state.month - 1)
    assert (await books.balance("acme")).spend_month == "0"


# --- the store's identity --------------------------------------------------------------------


async def test_a_store_keeps_its_identity(any_store: StoreClient) -> None:
    first = await check_store_identity(any_store)
    assert len(first) == 32
    assert await check_store_identity(any_store) == first


@pytest.mark.parametrize("field", ["buckets", "layout"])
async def test_a_store_of_another_layout_is_refused(store: StoreClient, field: str) -> None:
    await store.execute("HSET", keys.STORE_IDENTITY, field, 32)
    with pytest.raises(ConfigError, match=f"has {field} 32"):
        await check_store_identity(store)
