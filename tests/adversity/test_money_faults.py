"""Money over a connection that is cut at any byte: whoever asks until answered is booked once."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

import pytest
from audit_helper import assert_clean_audit
from books import Books
from proxy import Proxy
from servers import Server

from authz.engine.accounts import Stored
from authz.errors import NotExecuted, OutcomeUnknown
from authz.model import AccountConfig
from authz.store.client import StoreClient

T = TypeVar("T")
_PAUSE_SECONDS = 0.02


@pytest.fixture
async def proxy(store_server: Server, rng: random.Random) -> AsyncIterator[Proxy]:
    """A proxy in front of the store."""
    async with Proxy(store_server.url.removeprefix("unix://").partition("?")[0], rng=rng) as proxy:
        yield proxy


async def _until_answered(ask: Callable[[], Awaitable[T]]) -> tuple[T, int]:
    """Ask until there is an answer; return it, and how often the outcome was left open."""
    unknown = 0
    while True:
        try:
            return await ask(), unknown
        except OutcomeUnknown:
            unknown += 1
        except NotExecuted:
            await asyncio.sleep(_PAUSE_SECONDS)


async def test_a_posting_asked_for_again_is_booked_once(
    proxy: Proxy, store: StoreClient, rng: random.Random
) -> None:
    direct = Books(store)
    await direct.open("acme", "1000")
    await direct.open("sales", "1000", parent="acme")
    client = await StoreClient.connect(proxy.url)
    books = Books(client)
    open_outcomes = duplicates = 0
    for number in range(60):
        way = rng.choice((proxy.requests, proxy.replies))
        way.cut_after_bytes = rng.choice((None, 0, 5, rng.randrange(600)))
        posted, unknown = await _until_answered(
            lambda number=number: books.debit("sales", "1", reference=f"fee-{number}")
        )
        open_outcomes += unknown
        duplicates += posted.duplicate
        assert posted.duplicate <= (unknown > 0)
    await client.close()
    assert open_outcomes > 0
    assert duplicates > 0
    assert (await direct.state("sales")).balance == 940_000_000
    assert (await direct.state("acme")).balance == 940_000_000
    await assert_clean_audit(store)


async def test_an_account_asked_for_again_is_created_once(
    proxy: Proxy, store: StoreClient, rng: random.Random
) -> None:
    direct = Books(store)
    await direct.open("acme")
    client = await StoreClient.connect(proxy.url)
    books = Books(client)
    config = AccountConfig(parent="acme", max_calls=3)

    async def create(account: str) -> Stored:
        return await books.accounts.put(account, config)

    for number in range(40):
        way = rng.choice((proxy.requests, proxy.replies))
        way.cut_after_bytes = rng.choice((None, 0, rng.randrange(1_200)))
        stored, _ = await _until_answered(lambda number=number: create(f"sales{number}"))
        assert stored.record.config == config
    await client.close()
    page = await direct.accounts.page(parent="acme")
    assert len(page.records) == 40
    assert len((await direct.accounts.page()).records) == 41
    await assert_clean_audit(store)


async def test_what_the_store_lost_while_away_comes_back_by_itself(
    store_server: Server, proxy: Proxy, store: StoreClient
) -> None:
    direct = Books(store)
    await direct.open("acme", "10")
    keys = await store.execute("KEYS", "*")
    before = {key: await store.execute("DUMP", key) for key in keys}
    client = await StoreClient.connect(proxy.url)
    books = Books(client)
    client.on_run_id_change(books.resend.repeat)
    await books.credit("acme", "5")
    await books.debit("acme", "1", "sms")
    await proxy.refuse()
    store_server.store.stop()
    store_server.store.start()
    again = await StoreClient.connect(store_server.url)
    await again.execute("FLUSHDB")
    for key, dump in before.items():
        await again.execute("RESTORE", key, 0, dump)
    assert (await Books(again).state("acme")).balance == 10_000_000
    await proxy.listen()
    await _until_answered(lambda: books.debit("acme", "2", reference="after"))
    await books.resend.finished()
    assert (await Books(again).state("acme")).balance == 12_000_000
    await assert_clean_audit(again)
    await again.close()
    await client.close()
