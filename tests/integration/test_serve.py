"""`authz serve` as an operator runs it: own store, both APIs, killed and started again."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from audit_helper import assert_clean_audit
from daemons import Daemon
from processes import attributes_of, has_slices, is_alive

from authz.store.client import StoreClient

Start = Callable[..., Awaitable[Daemon]]


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """Start daemons, each with a state directory of its own; they end with the test."""
    started: list[Daemon] = []

    async def start(*options: str, **environ: str) -> Daemon:
        daemon = Daemon(tmp_path / f"state-{len(started)}", *options, **environ)
        started.append(daemon)
        await daemon.start()
        return daemon

    yield start
    for daemon in started:
        await daemon.stop()


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def ask(http: aiohttp.ClientSession, method: str, url: str, body: Any = None) -> Any:
    async with http.request(method, url, json=body) as response:
        assert response.status < 300, await response.text()
        return await response.json()


async def fund(authz: Daemon, http: aiohttp.ClientSession) -> None:
    account = f"{authz.admin}/v1/accounts/acme"
    await ask(http, "PUT", account, {"trunks": {"outbound": 1}})
    credit = {"amount": "12.5", "kind": "payment", "reference": "r1"}
    await ask(http, "POST", f"{account}/credits", credit)


async def authorize(authz: Daemon, http: aiohttp.ClientSession, call_id: str) -> Any:
    body = {"call_id": call_id, "account": "acme", "to": "+14155550100"}
    return await ask(http, "POST", f"{authz.hook}/v1/authorize", body)


async def audit(store_url: str) -> None:
    """Prove the books of a running daemon's store."""
    client = await StoreClient.connect(store_url)
    try:
        await assert_clean_audit(client)
    finally:
        await client.close()


async def test_it_serves_switches_and_operators(start: Start, http: aiohttp.ClientSession) -> None:
    authz = await start("--workers", "2")
    assert (await ask(http, "GET", f"{authz.hook}/readyz"))["status"] == "ready"
    assert (await ask(http, "GET", f"{authz.admin}/readyz"))["status"] == "ready"
    await fund(authz, http)
    grant = await authorize(authz, http, "c1")
    assert grant["legs"][0]["billing"] == "trunk"
    assert (await authorize(authz, http, "c2"))["allowed"] is False
    end = {"call_id": "c1", "account": "acme", "seconds": 61}
    settled = await ask(http, "POST", f"{authz.hook}/v1/settle", end)
    assert settled["settled"] is True
    assert (await authorize(authz, http, "c3"))["allowed"] is True
    await audit(authz.store_url)
    assert await authz.stop() == 0
    assert not is_alive(authz.store_pid)


async def until(is_so: Callable[[], bool], what: str) -> None:
    for _ in range(1_000):
        if is_so():
            return
        await asyncio.sleep(0.02)
    raise TimeoutError(what)


async def test_what_the_store_has_rewritten_is_removed(
    start: Start, http: aiohttp.ClientSession
) -> None:
    authz = await start()
    await fund(authz, http)
    data = authz.state_dir / "store"

    def names(directory: str) -> set[str]:
        paths = (data / directory).glob("appendonly.aof.[0-9]*")
        return {path.name.rpartition("-")[0] or path.name for path in paths}

    await until(lambda: names("retired") == names("appendonlydir"), "every file has two names")
    first = names("retired")
    client = await StoreClient.connect(authz.store_url)
    await client.execute("BGREWRITEAOF")
    await client.close()
    await until(lambda: not first & names("appendonlydir"), "the log is rewritten")
    await until(lambda: names("retired") == names("appendonlydir"), "the old files are gone")
    await audit(authz.store_url)
    assert await authz.stop() == 0
    assert not (data / "retired").exists()
    assert names("appendonlydir")
    await authz.start()
    await audit(authz.store_url)


async def test_who_decides_calls_runs_sooner_than_the_office(start: Start) -> None:
    authz = await start()

    office = attributes_of(authz.child("office"))
    assert office[0] == os.SCHED_BATCH
    for pid in (authz.child("worker-1"), authz.store_pid):
        policy, niceness, slice_ns = attributes_of(pid)
        assert policy == os.SCHED_OTHER
        assert niceness < office[1]
        if has_slices():
            assert slice_ns < office[2]
    assert await authz.stop() == 0


async def test_what_was_booked_survives_a_kill_of_the_supervisor(
    start: Start, http: aiohttp.ClientSession
) -> None:
    authz = await start()
    await fund(authz, http)
    assert (await authorize(authz, http, "c1"))["allowed"] is True
    store_pid = authz.store_pid
    os.kill(authz.pid, signal.SIGKILL)
    await authz.start()
    assert [event["pid"] for event in authz.logged("store_adopted")] == [store_pid]
    balance = await ask(http, "GET", f"{authz.admin}/v1/accounts/acme/balance")
    assert (balance["balance"], balance["calls"]) == ("12.5", 1)
    await audit(authz.store_url)
    assert await authz.stop() == 0
    assert not is_alive(store_pid)


async def test_two_daemons_share_one_store(
    start: Start, http: aiohttp.ClientSession, store_url: str
) -> None:
    authz = await start(AUTHZ_STORE__URL=store_url)
    other = await start(AUTHZ_STORE__URL=store_url)
    await fund(authz, http)
    assert (await authorize(authz, http, "c1"))["allowed"] is True
    refused = await authorize(other, http, "c2")
    assert (refused["allowed"], refused["reason"]) == (False, "no_rate")
    state = await ask(http, "GET", f"{other.hook}/v1/calls/c1?account=acme")
    assert state["state"] == "open"
    await audit(store_url)
