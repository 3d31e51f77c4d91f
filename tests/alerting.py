"""The part of an office that tells events, on a world with an archive, for tests."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, Final

from archives import drain_all, open_archive
from audit_helper import assert_clean_audit
from processes import WAIT_SECONDS
from sqlalchemy import select
from world import World

from authz.config import Settings
from authz.config.alerts import EmailSettings, EventSettings, WebhookSettings
from authz.errors import ArchiveUnavailable
from authz.events.endpoints import WebhookBody, WebhookDirectory
from authz.events.outbox import Outbox
from authz.events.outlets import Outlet
from authz.events.routing import Router
from authz.events.service import EventService
from authz.events.worker import DeliveryWorker
from authz.ledger.archive import Archive
from authz.ledger.schema import deliveries
from authz.model import LowBalance

_POLL_SECONDS: Final = 0.02
#: As an office does at its next turn. Where disks are slow a writer may wait for seconds.
_DRAIN_ATTEMPTS_MAX: Final = 18


class Office:
    """One office's receivers, outbox and worker; start it, stop it, look into its tables."""

    def __init__(self, world: World, settings: Settings, outlets: Sequence[Outlet] = ()) -> None:
        self.world = world
        self.webhooks = WebhookDirectory(world.client, settings.webhooks)
        self.outbox = Outbox(lambda: self.archive.database, settings.events)
        directory = world.engine.context.directory
        self.worker = DeliveryWorker(self.outbox, self.webhooks, directory, settings, outlets)
        self.router = Router(directory, self.webhooks, settings.email, self.worker.wake, outlets)
        self.service = EventService(lambda: self.archive.database, self.webhooks)
        self.archive: Archive
        self._task: asyncio.Task[None] | None = None

    async def webhook(self, name: str, url: str, **fields: Any) -> str:
        """Name a receiver; return its secret."""
        stored = await self.webhooks.put(name, WebhookBody(url=url, **fields))
        return stored.view.secret or ""

    async def fall_low(self, account: str = "acme", **config: Any) -> None:
        """Let an account's balance fall to 4, through its threshold of 5, and archive that."""
        await self.world.account(account, "10", low_balance=LowBalance("5"), **config)
        await self.world.debit(account, "6")
        await self.drain()

    async def drain(self) -> None:
        """Archive what happened; a database that others hold for long is tried again."""
        for _ in range(_DRAIN_ATTEMPTS_MAX):
            with contextlib.suppress(ArchiveUnavailable):
                return await drain_all(self.archive)
        raise AssertionError("the archive is always locked")

    def start(self) -> None:
        """Deliver in the background, unless that is done already."""
        if self._task is not None:
            return
        self._task = asyncio.create_task(self.worker.run())

    async def stop(self) -> None:
        """Cut everything off, as a kill does, but for the process."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def rows(self) -> list[Any]:
        """Return all deliveries in the order of their targets."""
        async with self.archive.database.read() as connection:
            found = await connection.execute(select(deliveries).order_by(deliveries.c.target))
            return list(found.all())

    async def settled(self, *states: str) -> list[Any]:
        """Wait until the deliveries have these states, in any order; return them."""
        return await self._wait(lambda rows: sorted(row.state for row in rows) == sorted(states))

    async def failed(self) -> list[Any]:
        """Wait until every delivery has failed once; return them."""
        return await self._wait(lambda rows: bool(rows) and all(row.last_error for row in rows))

    async def _wait(self, is_so: Callable[[list[Any]], bool]) -> list[Any]:
        for _ in range(round(WAIT_SECONDS / _POLL_SECONDS)):
            rows = await self.rows()
            if is_so(rows):
                return rows
            await asyncio.sleep(_POLL_SECONDS)
        raise TimeoutError


@contextlib.asynccontextmanager
async def open_office(
    world: World,
    directory: Path,
    archive_url: str | None,
    *,
    events: EventSettings | None = None,
    webhooks: WebhookSettings | None = None,
    email: EmailSettings | None = None,
    outlets: Sequence[Outlet] = (),
) -> AsyncIterator[Office]:
    """Open an office with an archive, audited at its end; receivers may be on this host."""
    settings = Settings(
        state_dir=directory,
        events=events or EventSettings(retry_seconds=1),
        webhooks=webhooks or WebhookSettings(allow_private=True, timeout_seconds=2),
        email=email or EmailSettings(),
    )
    office = Office(world, settings, outlets)
    async with open_archive(
        world.client, directory, archive_url, office.router.on_events
    ) as archive:
        office.archive = archive
        try:
            yield office
            await assert_clean_audit(world.client, archive)
        finally:
            await office.stop()
