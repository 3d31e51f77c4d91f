"""The whole admin API on a real store with a real archive, for tests of it from outside."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

from aiohttp import web

from authz.admin.app import create_app
from authz.admin.services import Services
from authz.admin.tokens import TokenRequest
from authz.config import Settings
from authz.config.archive import ArchiveSettings
from authz.config.sections import AdminSettings, CallSettings
from authz.engine.engine import Engine
from authz.engine.spool import Spool
from authz.events.endpoints import WebhookDirectory
from authz.events.service import EventService
from authz.ledger.archive import Archive
from authz.ledger.changes import ChangeHistory
from authz.ledger.history import History
from authz.numbers import default_rules
from authz.rating.registry import DeckRegistry
from authz.store.client import StoreClient
from authz.store.scripts import load_scripts

T = TypeVar("T")


class AdminSite:
    """One served admin API with what is behind it."""

    def __init__(self, engine: Engine, decks: DeckRegistry, archive: Archive) -> None:
        self.engine = engine
        self.decks = decks
        self.archive = archive
        context = engine.context
        self.services = Services(
            context,
            History(context.client, context.directory, archive),
            EventService(
                lambda: archive.database,
                WebhookDirectory(context.client, context.settings.webhooks),
            ),
            archive=archive,
            change_history=ChangeHistory(archive),
        )
        self.url = ""

    @property
    def client(self) -> StoreClient:
        """The store."""
        return self.engine.context.client

    async def token(self, name: str, role: str, account: str | None = None) -> str:
        """Make a token and return it."""
        request = TokenRequest(name=name, role=role, account=account)
        return (await self.services.tokens.create(request)).token


@contextlib.asynccontextmanager
async def open_site(url: str, directory: Path, admin: AdminSettings) -> AsyncIterator[AdminSite]:
    """Serve the API on a free port of this host; `url` is the store's."""
    settings = Settings(
        state_dir=directory,
        admin=admin,
        calls=CallSettings(default_deck="default"),
        archive=ArchiveSettings(delay_seconds=0, keep_seconds=0),
    )
    client = await StoreClient.connect(url, scripts=load_scripts().values())
    decks = DeckRegistry(client, directory / "decks")
    await decks.start()
    spool = Spool.open(directory / "spool", settings.spool.bytes_max)
    engine = Engine(client, decks, default_rules(), settings, spool)
    archive = Archive(client, settings)
    await archive.open(create=True)
    site = AdminSite(engine, decks, archive)
    runner = web.AppRunner(create_app(site.services, lambda: None), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    site.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield site
    finally:
        await runner.cleanup()
        await archive.close()
        await engine.close()
        await decks.stop()
        await client.close()


class SiteThread:
    """A site on an event loop of its own, for callers that block."""

    def __init__(self, site: AdminSite, loop: asyncio.AbstractEventLoop) -> None:
        self.site = site
        self._loop = loop

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Do some work on the site's loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


@contextlib.contextmanager
def site_thread(url: str, directory: Path, admin: AdminSettings) -> Iterator[SiteThread]:
    """Serve the API in a thread for as long as the context lasts."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def run(work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, loop).result()

    try:
        opened = open_site(url, directory, admin)
        site = run(opened.__aenter__())
        try:
            yield SiteThread(site, loop)
        finally:
            run(opened.__aexit__(None, None, None))
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
