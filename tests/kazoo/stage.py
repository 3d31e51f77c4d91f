"""Brokers of the agent on a real RabbitMQ, and a handler that does as told."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from processes import until

from authz.config.kazoo import BrokerSettings, KazooSettings
from authz.hooks.kazoo.broker import KazooBroker
from authz.hooks.kazoo.deliveries import Delivery


def settings_for(*urls: str, **changes: Any) -> KazooSettings:
    """Return settings of one zone in active mode, with what is changed."""
    brokers = tuple(BrokerSettings(url=url) for url in urls)
    return KazooSettings(brokers=brokers, **{"mode": "active", **changes})


@contextlib.asynccontextmanager
async def running(broker: KazooBroker, *, is_awaited: bool = True) -> AsyncIterator[KazooBroker]:
    """Run a broker; `is_awaited`: until it is up."""
    task = asyncio.create_task(broker.run())
    try:
        if is_awaited:
            await until(lambda: broker.is_up)
        yield broker
    finally:
        await broker.close()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class Recorder:
    """A handler that keeps what it gets, and may be told to wait or to fail."""

    def __init__(self) -> None:
        self.deliveries: list[Delivery[Any]] = []
        #: What the next calls raise.
        self.errors: list[Exception] = []
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.finished = 0

    async def __call__(self, delivery: Delivery[Any]) -> None:
        """Take a delivery."""
        self.deliveries.append(delivery)
        await self.go_on.wait()
        if self.errors:
            raise self.errors.pop(0)
        self.finished += 1

    @property
    def call_ids(self) -> list[str]:
        """The calls of the deliveries, in their order."""
        return [delivery.message.call_id for delivery in self.deliveries]


class User:
    """A part of the agent that only counts."""

    def __init__(self) -> None:
        self.ups = 0
        self.downs = 0
        self.is_broken = False

    def attach(self, broker: KazooBroker) -> None:
        """Want nothing."""

    async def on_up(self, broker: KazooBroker) -> None:
        """Count, or fail."""
        self.ups += 1
        if self.is_broken:
            raise ValueError("not today")

    def on_down(self, broker: KazooBroker) -> None:
        """Count."""
        self.downs += 1

    async def drain(self, limit_seconds: float) -> None:
        """Have nothing to do."""
