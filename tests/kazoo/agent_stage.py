"""Kazoo's agent on a real engine, store and RabbitMQ, with an ecallmgr that asks it."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from audit_helper import assert_clean_audit
from rabbitmq import RabbitServer
from world import US, World

from authz.config.kazoo import KazooSettings
from authz.hooks.kazoo.agent import KazooAgent
from authz.hooks.kazoo.broker import KazooBroker
from authz.hooks.kazoo.encoding import to_gregorian
from authz.store.constants import Kind
from authz.store.records import unpack_ledger_entry
from kazoo.ecallmgr import Ecallmgr
from kazoo.stage import settings_for

_WAIT_SECONDS = 90


class KazooStage:
    """`sub` under its reseller `master` in `world`; `agent` serves what `ecallmgr` asks."""

    def __init__(self, world: World, ecallmgr: Ecallmgr, settings: KazooSettings) -> None:
        self.world = world
        self.ecallmgr = ecallmgr
        self.settings = settings
        #: What the ecallmgr has, once it was told to say so.
        self.channels: dict[str, dict[str, Any]] = {}
        self._start_agent()

    def _start_agent(self) -> None:
        self.agent = KazooAgent(self.world.engine, self.settings, secrets.token_hex(4))
        (zone, urls), *_ = self.settings.zones.items()
        self.broker = KazooBroker(zone, urls, self.settings)
        self.broker.use(self.agent)
        self._task = asyncio.get_running_loop().create_task(self.broker.run())

    async def kill_agent(self) -> None:
        """End the agent without a word, as kill -9 does."""
        for call in self.agent.book:
            self.agent.supervisor.stop(call)
        await self.broker.close()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self.agent.hangups.leave()

    async def restart_agent(self) -> None:
        """Have another process take the place of this one."""
        await self.kill_agent()
        self._start_agent()
        await self.until(lambda: self.broker.is_up)

    async def reconnect(self) -> None:
        """Let the ecallmgr come back to a broker that was gone."""
        node, server_id = self.ecallmgr.node, self.ecallmgr.server_id
        self.ecallmgr = await Ecallmgr.connect(self.settings.brokers[0].url)
        self.ecallmgr.node, self.ecallmgr.server_id = node, server_id
        await self.listen()

    async def listen(self) -> None:
        """Let the ecallmgr tell of its channels and carry out orders."""
        await self.ecallmgr.serve_channels(self.channels)
        await self.ecallmgr.serve_metaflow()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return when the condition holds; raise TimeoutError if it does not."""
        async with asyncio.timeout(_WAIT_SECONDS):
            while True:
                if condition():
                    return
                await asyncio.sleep(0.01)

    def variables(self, to: str = US, **more: str) -> dict[str, str]:
        """Return a carrier leg's variables; `Account_ID` stands for `Account-ID`, "" removes."""
        names = {name.replace("_", "-"): value for name, value in more.items()}
        found = {
            "Account-ID": "sub",
            "Reseller-ID": "master",
            "Resource-ID": "carrier",
            "E164-Destination": to,
            "Ecallmgr-Node": self.ecallmgr.node,
            **names,
        }
        return {name: value for name, value in found.items() if value}

    async def ask(
        self, call_id: str, to: str = US, direction: str = "outbound", **more: str
    ) -> dict[str, Any]:
        """Ask about a channel as ecallmgr does, and return the answer."""
        return await self.ecallmgr.ask(
            "authz/authz_req",
            Call_ID=call_id,
            Call_Direction=direction,
            Request=f"{to}@203.0.113.20",
            Custom_Channel_Vars=self.variables(to, **more),
        )

    async def tell(self, name: str, answer: dict[str, Any], to: str = US, **fields: Any) -> None:
        """Tell of an event of a channel that was answered so; it bears the answer's words."""
        words = {
            name.replace("-", "_"): answer[name]
            for name in ("Account-ID", "Reseller-ID", "Account-Billing", "Reseller-Billing")
            if name in answer
        }
        more = fields.pop("variables", {})
        await self.ecallmgr.tell(
            name,
            answer["Call-ID"],
            Call_Direction=answer["Call-Direction"],
            Request=f"{to}@203.0.113.20",
            Timestamp=to_gregorian(int(time.time())),
            Custom_Channel_Vars=self.variables(to, **words, **more),
            **fields,
        )

    async def end(self, answer: dict[str, Any], seconds: int, to: str = US, **fields: Any) -> None:
        """Tell of a channel's end after so many seconds of talk, and wait until it is booked."""
        before = self.agent.settler.settled
        await self.tell("CHANNEL_DESTROY", answer, to, Billing_Seconds=seconds, **fields)
        await self.until(lambda: self.agent.settler.settled > before)

    async def charges(self, account: str) -> list[tuple[str, int, int]]:
        """Return (call id, seconds, micros) of every call in an account's ledger."""
        tag = await self.world.engine.context.directory.tag_of(account)
        entries = await self.world.client.execute("XRANGE", f"authz:{{{tag}}}:ledger", "-", "+")
        found = [unpack_ledger_entry(entry_id, fields[1]) for entry_id, fields in entries]
        return [
            (one.reference, one.seconds, -leg.amount)
            for one in found
            for leg in one.legs
            if one.kind == Kind.CALL and leg.account == account
        ]

    @property
    def known(self) -> set[str]:
        """The calls that the agent looks after."""
        return {call.call_id for call in self.agent.book}

    async def open_calls(self, account: str) -> int:
        """Return how many calls an account has in the store."""
        state = await self.world.state(account)
        return int(state.calls)

    async def close(self) -> None:
        """End the agent in good order."""
        await self.broker.drain(5)
        await self.agent.drain(5)
        await self.broker.close()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


@contextlib.asynccontextmanager
async def kazoo_stage(
    store_url: str,
    rabbit: RabbitServer,
    directory: Path,
    *,
    world: dict[str, Any] | None = None,
    **settings: Any,
) -> AsyncIterator[KazooStage]:
    """Yield a stage; the audit is its end."""
    business = await World.start(store_url, directory, **(world or {}))
    ecallmgr = await Ecallmgr.connect(rabbit.url)
    stage = KazooStage(business, ecallmgr, settings_for(rabbit.url, query_seconds=1, **settings))
    try:
        await stage.listen()
        await stage.until(lambda: stage.broker.is_up)
        yield stage
        await stage.close()
        await assert_clean_audit(business.client)
    finally:
        await stage.close()
        await stage.ecallmgr.close()
        await business.close()
