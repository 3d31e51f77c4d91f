"""`authz serve` as an operator runs it: own store, both APIs, killed and started again."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from processes import is_alive

LIMIT_SECONDS = 30


class Authz:
    """A running `authz serve` on free ports."""

    def __init__(self, state_dir: Path) -> None:
        self.state_dir = state_dir
        self.process: asyncio.subprocess.Process
        self.hook = self.admin = ""
        self.store_pid = 0
        self._rest: asyncio.Task[bytes]

    async def start(self, *options: str, **environ: str) -> None:
        self.process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "authz", "serve", "--listen", "127.0.0.1:0", *options),
            stderr=asyncio.subprocess.PIPE,
            env={
                **os.environ,
                "AUTHZ_STATE_DIR": str(self.state_dir),
                "AUTHZ_ADMIN__LISTEN": "127.0.0.1:0",
                **environ,
            },
        )
        assert self.process.stderr is not None
        async with asyncio.timeout(LIMIT_SECONDS):
            async for line in self.process.stderr:
                event: dict[str, Any] = json.loads(line)
                if event["event"] in ("store_started", "store_adopted"):
                    self.store_pid = event["pid"]
                if event["event"] == "serving":
                    self.hook = f"http://{event['listeners']['hook_tcp']}"
                    self.admin = f"http://{event['listeners']['admin']}"
                    break
        self._rest = asyncio.create_task(self.process.stderr.read())

    async def stop(self, number: int = signal.SIGTERM) -> int:
        if self.process.returncode is None:
            self.process.send_signal(number)
        async with asyncio.timeout(LIMIT_SECONDS):
            status = await self.process.wait()
            await self._rest
        return status


@pytest.fixture
async def authz(tmp_path: Path) -> AsyncIterator[Authz]:
    one = Authz(tmp_path / "state")
    yield one
    await one.stop()


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def ask(http: aiohttp.ClientSession, method: str, url: str, body: Any = None) -> Any:
    async with http.request(method, url, json=body) as response:
        assert response.status < 300, await response.text()
        return await response.json()


async def fund(authz: Authz, http: aiohttp.ClientSession) -> None:
    account = f"{authz.admin}/v1/accounts/acme"
    await ask(http, "PUT", account, {"trunks": {"outbound": 1}})
    credit = {"amount": "12.5", "kind": "payment", "reference": "r1"}
    await ask(http, "POST", f"{account}/credits", credit)


async def authorize(authz: Authz, http: aiohttp.ClientSession, call_id: str) -> Any:
    body = {"call_id": call_id, "account": "acme", "to": "+14155550100"}
    return await ask(http, "POST", f"{authz.hook}/v1/authorize", body)


async def test_it_serves_switches_and_operators(authz: Authz, http: aiohttp.ClientSession) -> None:
    await authz.start("--workers", "2")
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
    assert await authz.stop() == 0
    assert not is_alive(authz.store_pid)


async def test_what_was_booked_survives_a_kill_of_the_supervisor(
    authz: Authz, http: aiohttp.ClientSession
) -> None:
    await authz.start()
    await fund(authz, http)
    assert (await authorize(authz, http, "c1"))["allowed"] is True
    store_pid = authz.store_pid
    assert await authz.stop(signal.SIGKILL) == -signal.SIGKILL
    await authz.start()
    assert authz.store_pid == store_pid, "the store lives on and is adopted"
    balance = await ask(http, "GET", f"{authz.admin}/v1/accounts/acme/balance")
    assert (balance["balance"], balance["calls"]) == ("12.5", 1)
    assert await authz.stop() == 0
    assert not is_alive(store_pid)


async def test_two_daemons_share_one_store(
    authz: Authz, http: aiohttp.ClientSession, tmp_path: Path, store_url: str
) -> None:
    other = Authz(tmp_path / "other")
    await authz.start(AUTHZ_STORE__URL=store_url)
    await other.start(AUTHZ_STORE__URL=store_url)
    try:
        await fund(authz, http)
        assert (await authorize(authz, http, "c1"))["allowed"] is True
        refused = await authorize(other, http, "c2")
        assert (refused["allowed"], refused["reason"]) == (False, "no_rate")
        state = await ask(http, "GET", f"{other.hook}/v1/calls/c1?account=acme")
        assert state["state"] == "open"
    finally:
        await other.stop()
