"""`authz serve` with a simulated FreeSWITCH: decided, supervised and settled by its agents process.

The process is killed in the middle of a call, and an operator ends a call by the admin API.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Callable

import pytest
from audit_helper import assert_clean_audit
from freeswitch.legs import Leg
from freeswitch.switch_simulator import Callee, Door, SwitchSimulator
from processes import is_alive
from traffic import SUB, Api, Start

from authz.store.client import StoreClient

NUMBER = "14155550100"
_WAIT_SECONDS = 90


@pytest.fixture
async def switch() -> AsyncIterator[SwitchSimulator]:
    """A running switch."""
    switch = await SwitchSimulator.start()
    yield switch
    await switch.close()


def served(switch: SwitchSimulator, **settings: str) -> dict[str, str]:
    """Return the environment that names a switch."""
    tables = [{"name": "fs-sim", "host": "127.0.0.1", "port": switch.port}]
    return {
        "AUTHZ_FREESWITCH__SWITCHES": json.dumps(tables),
        "AUTHZ_FREESWITCH__LEASE_SECONDS": "3",
        **settings,
    }


async def until(condition: Callable[[], bool]) -> None:
    """Return when the condition holds; raise TimeoutError if it does not."""
    async with asyncio.timeout(_WAIT_SECONDS):
        while True:
            if condition():
                return
            await asyncio.sleep(0.05)


async def settled_seconds(api: Api, leg: Leg) -> int:
    """Return for how long a call was settled, once it is."""
    async with asyncio.timeout(_WAIT_SECONDS):
        while True:
            state = await api.admin("GET", f"calls/{leg.uuid}?account={SUB}")
            if state["state"] == "settled":
                seconds: int = state["used_seconds"]
                return seconds
            await asyncio.sleep(0.1)


async def test_calls_survive_the_end_of_their_agent(start: Start, switch: SwitchSimulator) -> None:
    switch.callees[NUMBER] = Callee(hangup_seconds=None)
    daemon, api = await start(**served(switch))
    await until(lambda: bool(daemon.logged("switch_taken_up")))
    leg = switch.call(NUMBER, context="authz", authz_account=SUB)
    await until(lambda: leg.is_answered)
    agents = daemon.child("agents")
    os.kill(agents, signal.SIGKILL)
    await until(lambda: not is_alive(agents))
    waiting = switch.call(NUMBER, context="authz", authz_account=SUB)
    await until(lambda: daemon.child("agents") != agents)
    await until(lambda: waiting.is_answered)
    switch.caller_hangs_up(leg)
    hangup = await api.admin("DELETE", f"calls/{waiting.uuid}?account={SUB}")
    assert (hangup["asked"], hangup["switch"]) == (True, "fs-sim")
    async with asyncio.timeout(_WAIT_SECONDS):
        await switch.until_ended(waiting)
    for one in (leg, waiting):
        assert await settled_seconds(api, one) == one.begun_seconds
    client = await StoreClient.connect(daemon.store_url)
    await assert_clean_audit(client)
    await client.close()


async def test_the_outbound_socket_is_open_while_a_switch_is_served(
    start: Start, switch: SwitchSimulator
) -> None:
    switch.callees[NUMBER] = Callee(hangup_seconds=1)
    daemon, api = await start(**served(switch, AUTHZ_FREESWITCH__OUTBOUND_LISTEN="127.0.0.1:0"))
    await until(lambda: bool(daemon.logged("switch_taken_up")))
    address = daemon.logged("serving")[0]["listeners"]["switch_outbound"]
    host, _, port = address.rpartition(":")
    door = Door(socket=(host, int(port)))
    leg = switch.call(NUMBER, context="authz", authz_account=SUB, door=door)
    async with asyncio.timeout(_WAIT_SECONDS):
        await switch.until_ended(leg)
    assert await settled_seconds(api, leg) == leg.begun_seconds
    client = await StoreClient.connect(daemon.store_url)
    await assert_clean_audit(client)
    await client.close()
