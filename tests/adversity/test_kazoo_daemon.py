"""Kazoo's calls through `authz serve`, whose agents process and whose broker die in mid-call."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest
from audit_helper import assert_clean_audit
from daemons import Daemon
from kazoo.ecallmgr import EXAMPLES, Ecallmgr
from processes import is_alive, until
from rabbitmq import RabbitServer

from authz.hooks.kazoo.encoding import to_gregorian
from authz.store.client import StoreClient

VARIABLES: Final = EXAMPLES["authz/authz_req"]["Custom-Channel-Vars"]
ACCOUNT: Final = VARIABLES["Account-ID"]
RESELLER: Final = VARIABLES["Reseller-ID"]
#: A minute costs the account 6 cents and the reseller 3, by the second.
DECKS: Final = {"retail": "0.06", "wholesale": "0.03"}
_TRIES_MAX: Final = 200
_PAUSE_SECONDS: Final = 0.1


class Site:
    """A daemon with a reseller and its account, on a broker."""

    def __init__(self, daemon: Daemon, session: aiohttp.ClientSession) -> None:
        self.daemon = daemon
        self._session = session

    @property
    def connects(self) -> int:
        """How many times an agents process has come to the broker; the office does so too."""
        connected = self.daemon.logged("kazoo_connected")
        return sum(event["process"] == "agents" for event in connected)

    async def admin(self, method: str, path: str, **how: Any) -> dict[str, Any]:
        """Ask the admin API, which must agree."""
        async with self._session.request(
            method, f"{self.daemon.admin}/v1/{path}", **how
        ) as response:
            answer: dict[str, Any] = await response.json(content_type=None)
            assert response.status < 300, answer
            return answer

    async def prepare(self) -> None:
        """Make decks, accounts and credit."""
        for deck, price in DECKS.items():
            data = f"prefix,price,increment\n44,{price},1/1\n".encode()
            headers = {"Content-Type": "text/csv"}
            await self.admin("PUT", f"decks/{deck}?currency=USD", data=data, headers=headers)
        await self.admin("PUT", f"accounts/{RESELLER}", json={"deck": "wholesale"})
        own = {"deck": "retail", "parent": RESELLER}
        await self.admin("PUT", f"accounts/{ACCOUNT}", json=own)
        for account in (RESELLER, ACCOUNT):
            body = {"amount": "10", "kind": "payment", "reference": "first"}
            await self.admin("POST", f"accounts/{account}/credits", json=body)

    async def balances(self) -> tuple[str, str]:
        """Return what account and reseller have."""
        answers = [
            await self.admin("GET", f"accounts/{account}/balance")
            for account in (ACCOUNT, RESELLER)
        ]
        return answers[0]["balance"], answers[1]["balance"]

    async def until_balances(self, account: str, reseller: str) -> None:
        """Return when both have so much."""
        for _ in range(_TRIES_MAX):
            if await self.balances() == (account, reseller):
                return
            await asyncio.sleep(_PAUSE_SECONDS)
        raise AssertionError(await self.balances())


@pytest.fixture
async def site(rabbit_server: RabbitServer, tmp_path: Path) -> AsyncIterator[Site]:
    """A prepared site; its books are audited at the end."""
    config = tmp_path / "authz.toml"
    config.write_text(
        f'[kazoo]\nmode = "active"\nbrokers = [{{ url = "{rabbit_server.url}" }}]\n',
        encoding="utf-8",
    )
    daemon = Daemon(tmp_path / "state", AUTHZ_CONFIG=str(config))
    await daemon.start()
    await daemon.ready()
    async with aiohttp.ClientSession() as session:
        site = Site(daemon, session)
        await site.prepare()
        await until(lambda: site.connects == 1)
        yield site
    client = await StoreClient.connect(daemon.store_url)
    await assert_clean_audit(client)
    await client.close()
    assert await daemon.stop() == 0


async def allowed(ecallmgr: Ecallmgr, call_id: str) -> None:
    """Begin a call and have it answered, until the deck is in use everywhere."""
    for _ in range(_TRIES_MAX):
        answer = await ecallmgr.ask("authz/authz_req", Call_ID=call_id)
        if answer["Is-Authorized"]:
            break
        await asyncio.sleep(_PAUSE_SECONDS)
    assert (answer["Account-Billing"], answer["Reseller-Billing"]) == ("per_minute", "per_minute")
    now = to_gregorian(int(time.time()))
    await ecallmgr.tell("CHANNEL_CREATE", call_id, Timestamp=now)
    await ecallmgr.tell("CHANNEL_ANSWER", call_id, Timestamp=now)


async def end(ecallmgr: Ecallmgr, call_id: str, seconds: int) -> None:
    """End a call."""
    now = to_gregorian(int(time.time()))
    await ecallmgr.tell("CHANNEL_DESTROY", call_id, Timestamp=now, Billing_Seconds=seconds)


async def test_a_hangup_that_nobody_was_there_to_hear_is_charged(
    rabbit_server: RabbitServer, site: Site
) -> None:
    ecallmgr = await Ecallmgr.connect(rabbit_server.url)
    await ecallmgr.serve_channels({})
    await allowed(ecallmgr, "c1@fs")
    agents = site.daemon.child("agents")
    os.kill(agents, signal.SIGKILL)
    await end(ecallmgr, "c1@fs", 61)
    await until(lambda: not is_alive(agents))
    await site.until_balances("9.939", "9.9695")
    # Said again, it is charged once.
    await end(ecallmgr, "c1@fs", 61)
    await allowed(ecallmgr, "c2@fs")
    await end(ecallmgr, "c2@fs", 30)
    await site.until_balances("9.909", "9.9545")
    await ecallmgr.close()


async def test_a_broker_that_restarts_in_mid_call_costs_nobody_anything(
    rabbit_server: RabbitServer, site: Site
) -> None:
    ecallmgr = await Ecallmgr.connect(rabbit_server.url)
    await allowed(ecallmgr, "c1@fs")
    await allowed(ecallmgr, "c2@fs")
    rabbit_server.kill()
    rabbit_server.start()
    await ecallmgr.close()
    ecallmgr = await Ecallmgr.connect(rabbit_server.url)
    live = {"Account-ID": ACCOUNT, "Account-Billing": "per_minute", "Answered": True}
    await ecallmgr.serve_channels({"c1@fs": live, "c2@fs": live})
    await until(lambda: site.connects == 2)
    for call_id in ("c1@fs", "c2@fs"):
        await end(ecallmgr, call_id, 60)
    await site.until_balances("9.88", "9.94")
    await ecallmgr.close()
