"""Kazoo's calls through `authz serve`, whose agents process and whose broker die in mid-call."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest
from kazoo.ecallmgr import EXAMPLES
from kazoo.site import KazooSite, kazoo_site
from processes import is_alive, until
from rabbitmq import RabbitServer

from authz.hooks.kazoo.encoding import to_gregorian

VARIABLES: Final = EXAMPLES["authz/authz_req"]["Custom-Channel-Vars"]
ACCOUNT: Final = VARIABLES["Account-ID"]
RESELLER: Final = VARIABLES["Reseller-ID"]
#: A minute costs the account 6 cents and the reseller 3, by the second.
RATES: Final = "prefix,rate_cost,rate_minimum,rate_increment,internal_rate_cost\n44,0.06,1,1,0.03\n"
_DOCUMENTS: Final = [
    {"_id": RESELLER, "pvt_type": "account"},
    {"_id": ACCOUNT, "pvt_type": "account", "pvt_reseller_id": RESELLER},
]
_TRIES_MAX: Final = 900
_PAUSE_SECONDS: Final = 0.1


@pytest.fixture
async def site(rabbit_server: RabbitServer, tmp_path: Path) -> AsyncIterator[KazooSite]:
    """A reseller and its account, each with money; the books are audited at the end."""
    async with kazoo_site(rabbit_server, tmp_path) as site:
        await site.import_rates(tmp_path, RATES)
        await site.import_documents(tmp_path, _DOCUMENTS)
        await site.equip(ACCOUNT, "retail", "10")
        await site.equip(RESELLER, "wholesale", "10")
        yield site


async def allowed(site: KazooSite, call_id: str) -> None:
    """Begin a call and have it answered, until the deck is in use everywhere."""
    for _ in range(_TRIES_MAX):
        answer = await site.ecallmgr.ask("authz/authz_req", Call_ID=call_id)
        if answer["Is-Authorized"]:
            break
        await asyncio.sleep(_PAUSE_SECONDS)
    assert (answer["Account-Billing"], answer["Reseller-Billing"]) == ("per_minute", "per_minute")
    site.channels[call_id] = {
        "Account-ID": ACCOUNT, "Account-Billing": "per_minute", "Answered": True,
    }  # fmt: skip
    now = to_gregorian(int(time.time()))
    await site.ecallmgr.tell("CHANNEL_CREATE", call_id, Timestamp=now)
    await site.ecallmgr.tell("CHANNEL_ANSWER", call_id, Timestamp=now)


async def end(site: KazooSite, call_id: str, seconds: int) -> None:
    """End a call."""
    site.channels.pop(call_id, None)
    now = to_gregorian(int(time.time()))
    await site.ecallmgr.tell("CHANNEL_DESTROY", call_id, Timestamp=now, Billing_Seconds=seconds)


async def until_charged(site: KazooSite, seconds: dict[str, int]) -> None:
    """Return when these calls were charged for so long, and no others."""
    await site.until_charged(ACCOUNT, {call: [1_000 * one] for call, one in seconds.items()})
    await site.until_charged(RESELLER, {call: [500 * one] for call, one in seconds.items()})


async def test_a_hangup_that_nobody_was_there_to_hear_is_charged(site: KazooSite) -> None:
    await allowed(site, "c1@fs")
    agents = site.daemon.child("agents")
    os.kill(agents, signal.SIGKILL)
    await end(site, "c1@fs", 61)
    await until(lambda: not is_alive(agents))
    await until_charged(site, {"c1@fs": 61})
    # Said again, it is charged once.
    await end(site, "c1@fs", 61)
    await allowed(site, "c2@fs")
    await end(site, "c2@fs", 30)
    await until_charged(site, {"c1@fs": 61, "c2@fs": 30})


async def test_a_broker_that_restarts_in_mid_call_costs_nobody_anything(
    rabbit_server: RabbitServer, site: KazooSite
) -> None:
    await allowed(site, "c1@fs")
    await allowed(site, "c2@fs")
    rabbit_server.kill()
    rabbit_server.start()
    await site.ecallmgr.close()
    await site.connect()
    await until(lambda: site.connects == 2)
    for call_id in ("c1@fs", "c2@fs"):
        await end(site, call_id, 60)
    await until_charged(site, {"c1@fs": 60, "c2@fs": 60})
