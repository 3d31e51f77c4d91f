"""An agent that serves a simulated switch, on a real engine and store, for tests of calls."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from audit_helper import assert_clean_audit
from world import World

from authz.config.freeswitch import FreeswitchSettings, SwitchSettings
from authz.hooks.freeswitch.serving import SwitchServer
from authz.hooks.freeswitch.settling import Settler
from authz.store.constants import Kind
from authz.store.records import unpack_ledger_entry
from freeswitch.fast_loop import FastLoop
from freeswitch.legs import Leg
from freeswitch.switch_simulator import Callee, Door, SwitchSimulator

SWITCH = "fs-sim"
#: National by its class, and what the simulator's callees are known by.
NUMBER = "14155550100"
#: Seconds of the loop, which may be short ones.
_WAIT_SECONDS = 600


class AgentStage:
    """See the module. `server` serves `switch`; `world` has the accounts."""

    def __init__(self, world: World, switch: SwitchSimulator, settings: FreeswitchSettings) -> None:
        self.world = world
        self.switch = switch
        self.settings = settings
        self.settler = Settler(world.engine)
        self.owners = 0
        self.server = self.new_server()
        self._task: asyncio.Task[None] | None = None

    def new_server(self) -> SwitchServer:
        """Return another process's server of the same switch."""
        self.owners += 1
        address = SwitchSettings(name=SWITCH, host="127.0.0.1", port=self.switch.port)
        return SwitchServer(
            address, self.settings, self.world.engine, self.settler, f"owner-{self.owners}"
        )

    def is_busy(self) -> bool:
        """Return whether the store or the switch has something to answer."""
        client, connection = self.world.client, self.server.agent.desk.connection
        is_asking = connection is not None and bool(connection.in_flight or connection.queued)
        return is_asking or bool(client.in_flight or client.queued)

    async def start(self) -> None:
        """Let the agent serve the switch, and wait until it does."""
        self._task = asyncio.get_running_loop().create_task(self.server.run())
        await self.until(lambda: self.server.is_connected)

    async def kill(self) -> None:
        """End the agent without a word; what it has begun is lost with it."""
        assert self._task is not None
        self.server.agent.legs.forget_all()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self.server._board.leave()
        self.server = self.new_server()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return when the condition holds; raise TimeoutError if it does not."""
        async with asyncio.timeout(_WAIT_SECONDS):
            while True:
                if condition():
                    return
                await asyncio.sleep(0.1)

    def call(self, to: str = NUMBER, account: str = "sub", **more: Any) -> Leg:
        """Let somebody call a number, on the account of a channel variable."""
        variables = {"authz_account": account} if account else {}
        # On a busy machine skipped time may pass before the agent has even heard of the call.
        more.setdefault("door", Door(park_timeout_seconds=_WAIT_SECONDS))
        return self.switch.call(to, context="authz", **variables, **more)

    def callee(self, number: str = NUMBER, **how: Any) -> None:
        """Say how a number answers."""
        self.switch.callees[number] = Callee(**how)

    async def ended(self, leg: Leg) -> Leg:
        """Wait until a leg has ended and nothing of it is left to do."""
        async with asyncio.timeout(_WAIT_SECONDS):
            await self.switch.until_ended(leg)
        await self.settled()
        return leg

    async def talked(self, leg: Leg, seconds: int) -> None:
        """Wait until a leg has talked for so long."""
        async with asyncio.timeout(_WAIT_SECONDS):
            while True:
                now_us = self.switch.clock.now_us()
                if leg.is_answered and now_us - leg.answered_us >= seconds * 1_000_000:
                    return
                await asyncio.sleep(0.1)

    async def settled(self) -> None:
        """Wait until the agent knows no leg and no settle waits."""
        await self.until(lambda: not len(self.server.agent.legs) and not self.settler.waiting)

    async def bookings(self, account: str = "sub") -> list[tuple[str, int]]:
        """Return the (call id, seconds) of every call in the account's ledger, oldest first."""
        tag = await self.world.engine.context.directory.tag_of(account)
        entries = await self.world.client.execute("XRANGE", f"authz:{{{tag}}}:ledger", "-", "+")
        found = [unpack_ledger_entry(entry_id, fields[1]) for entry_id, fields in entries]
        return [(one.reference, one.seconds) for one in found if one.kind == Kind.CALL]

    async def charged_seconds(self, account: str = "sub") -> list[int]:
        """Return the seconds of every call in the account's ledger, oldest first."""
        return [seconds for _, seconds in await self.bookings(account)]

    async def stop(self) -> None:
        """End the agent in good order."""
        await self.server.drain(5)
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self.settler.drain(5)


@contextlib.asynccontextmanager
async def agent_stage(
    url: str, directory: Path, *, credit: str = "10", world: dict[str, Any] | None = None,
    **settings: Any,
) -> AsyncIterator[AgentStage]:  # fmt: skip
    """Yield a stage with `sub` under `master`; the audit is its end."""
    business = await World.start(url, directory, **(world or {}))
    switch = await SwitchSimulator.start()
    await business.pair(sub=credit, master="100")
    stage = AgentStage(business, switch, FreeswitchSettings(**settings))
    loop = asyncio.get_running_loop()
    if isinstance(loop, FastLoop):
        loop.skip_time(unless=stage.is_busy)
    try:
        await stage.start()
        yield stage
        await stage.stop()
        await assert_clean_audit(business.client)
    finally:
        await stage.stop()
        await switch.close()
        await business.close()


__all__ = ["NUMBER", "SWITCH", "AgentStage", "Callee", "Door", "agent_stage"]
