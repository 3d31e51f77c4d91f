"""Everything about events in one office: routing, delivery, and what only waits for time."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from authz.engine.context import Context
from authz.engine.recharges import RechargeSweeper
from authz.events.endpoints import WebhookDirectory
from authz.events.outbox import Outbox
from authz.events.outlets import Outlet
from authz.events.routing import EventRow, Router
from authz.events.service import EventService
from authz.events.worker import DeliveryWorker
from authz.ledger.database import Database


class EventDesk:
    """`service` answers operators; `outbox` knows the backlog; `work` is for the background."""

    def __init__(
        self,
        context: Context,
        database: Callable[[], Database],
        outlets: Sequence[Outlet] = (),
    ) -> None:
        """`database` returns the archive's when it is open, and raises ArchiveUnavailable else."""
        self._outlets = outlets
        settings = context.settings
        webhooks = WebhookDirectory(context.client, settings.webhooks)
        self.outbox = Outbox(database, settings.events)
        self.service = EventService(database, webhooks)
        directory = context.directory
        self._worker = DeliveryWorker(self.outbox, webhooks, directory, settings, outlets)
        self._router = Router(directory, webhooks, settings.email, self._worker.wake, outlets)
        self._sweeper = RechargeSweeper(context.client, context.directory, context.clock)

    async def on_events(self, connection: AsyncConnection, rows: Sequence[EventRow]) -> None:
        """Take new events, in the transaction that archives them."""
        await self._router.on_events(connection, rows)

    def work(self) -> tuple[Coroutine[Any, Any, None], ...]:
        """Return what runs until it is cancelled: delivery, and the look after recharges."""
        return self._worker.run(), self._sweeper.run(), *(one.run() for one in self._outlets)
