"""Two daemons on one store: a thousand calls at once never spend more than there is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from audit_helper import assert_clean_audit
from books import Books
from daemons import Daemon
from traffic import MASTER, SUB, UK, Api, cost, decks_are_used, prepare

from authz.store.client import StoreClient

CALLS = 1_000
CREDIT_MICROS = 7_000_000
#: What a chunk and an increment of the master's rate cost.
CHUNK_MICROS = cost("wholesale", UK, 60)
#: A thousand calls at once wait for each other on two busy cores: this is no test of deadlines.
PATIENCE = {
    "AUTHZ_STORE__DECISION_DEADLINE_MS": "10000",
    "AUTHZ_STORE__SETTLE_DEADLINE_MS": "60000",
}


@pytest.fixture
async def apis(tmp_path: Path, store_url: str) -> AsyncIterator[list[Api]]:
    """Two daemons, each with ports and a state directory of its own, and the usual accounts."""
    daemons = [
        Daemon(tmp_path / name, AUTHZ_STORE__URL=store_url, **PATIENCE) for name in ("one", "two")
    ]
    connector = aiohttp.TCPConnector(limit_per_host=100)
    async with aiohttp.ClientSession(connector=connector) as session:
        try:
            await asyncio.gather(*(daemon.start() for daemon in daemons))
            apis = [Api(daemon, session) for daemon in daemons]
            await prepare(apis[0], sub="10", master="7")
            await decks_are_used(apis[1])
            yield apis
        finally:
            for daemon in daemons:
                await daemon.stop()


async def ask(api: Api, verb: str, number: int, **body: Any) -> dict[str, Any]:
    status, answer = await api.hook(verb, call_id=f"call-{number}", account=SUB, **body)
    assert status == 200, answer
    return answer


@pytest.fixture
async def books(store: StoreClient) -> AsyncIterator[Books]:
    """The store's books, looked at all the time: the master never holds more than it has."""
    books = Books(store)
    looks = 0

    async def watch() -> None:
        nonlocal looks
        while True:
            state = await books.state(MASTER)
            assert 0 <= state.held <= state.balance <= CREDIT_MICROS
            looks += 1
            await asyncio.sleep(0.005)

    watcher = asyncio.create_task(watch())
    yield books
    watcher.cancel()
    (outcome,) = await asyncio.gather(watcher, return_exceptions=True)
    assert isinstance(outcome, asyncio.CancelledError), outcome
    # How often depends on how fast the machine is.
    assert looks > 0
    await assert_clean_audit(store)


async def test_a_thousand_calls_at_once_use_all_of_the_money_and_no_more(
    apis: list[Api], books: Books
) -> None:

    async def authorize(number: int) -> dict[str, Any]:
        return await ask(apis[number % 2], "authorize", number, to=UK)

    answers = await asyncio.gather(*(authorize(number) for number in range(CALLS)))
    assert {answer["reason"] for answer in answers} == {"ok", "insufficient_credit"}
    allowed = [number for number, answer in enumerate(answers) if answer["allowed"]]
    assert len(allowed) == CREDIT_MICROS // CHUNK_MICROS
    for account, deck in ((MASTER, "wholesale"), (SUB, "retail")):
        state = await books.state(account)
        assert (state.calls, state.held) == (len(allowed), len(allowed) * cost(deck, UK, 60))

    async def settle(number: int) -> dict[str, Any]:
        # By the other daemon than the one that had authorized it.
        return await ask(apis[(number + 1) % 2], "settle", number, seconds=60)

    settled = await asyncio.gather(*(settle(number) for number in allowed))
    assert not any(answer["duplicate"] for answer in settled)
    state = await books.state(MASTER)
    assert (state.calls, state.held) == (0, 0)
    assert state.balance == CREDIT_MICROS % CHUNK_MICROS


async def test_calls_extended_through_either_daemon_spend_the_last_increment(
    apis: list[Api], books: Books
) -> None:

    async def live(number: int) -> int:
        answer = await ask(apis[number % 2], "authorize", number, to=UK)
        seconds = turn = 0
        while answer["allowed"]:
            seconds, turn = answer["seconds"], turn + 1
            api = apis[(number + turn) % 2]
            answer = await ask(api, "reserve", number, used_seconds=seconds)
        if seconds:
            await ask(apis[(number + turn) % 2], "settle", number, seconds=seconds)
        return seconds

    seconds = await asyncio.gather(*(live(number) for number in range(50)))
    assert sum(seconds) == CREDIT_MICROS // CHUNK_MICROS * 60
    state = await books.state(MASTER)
    assert (state.held, state.calls, state.balance) == (0, 0, CREDIT_MICROS % CHUNK_MICROS)
