"""The Kazoo part of an agents process: a broker for each zone, and who lives on them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from authz.config.kazoo import KazooSettings
from authz.engine.engine import Engine
from authz.hooks.kazoo.agent import KazooAgent
from authz.hooks.kazoo.broker import BrokerUser, KazooBroker
from authz.hooks.kazoo.shadow import Shadow


def broker_users(engine: Engine, settings: KazooSettings, owner: str) -> list[BrokerUser]:
    """Return the parts of the agent that the settings ask for; `owner` names this process."""
    users: list[BrokerUser] = []
    if settings.mode == "active":
        users.append(KazooAgent(engine, settings, owner))
    else:
        users.append(Shadow(engine, settings))
    return users


class KazooServer:
    """Serves all zones of the settings."""

    def __init__(self, settings: KazooSettings, users: Sequence[BrokerUser]) -> None:
        """Have every one of `users` live on every broker; see `broker_users`."""
        self._users = users
        self.brokers = [KazooBroker(zone, urls, settings) for zone, urls in settings.zones.items()]
        for broker in self.brokers:
            for user in users:
                broker.use(user)

    async def run(self) -> None:
        """Keep the brokers connected until cancelled."""
        async with asyncio.TaskGroup() as group:
            for broker in self.brokers:
                group.create_task(broker.run())

    async def drain(self, limit_seconds: float) -> None:
        """Take nothing more, finish what is under way, leave the calls to the next process."""
        await asyncio.gather(*(broker.drain(limit_seconds) for broker in self.brokers))
        await asyncio.gather(*(user.drain(limit_seconds) for user in self._users))

    async def close(self) -> None:
        """Let go of the brokers."""
        await asyncio.gather(*(broker.close() for broker in self.brokers))
