"""How commands reach the store: straight, through the same services as the admin API."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

from authz import log
from authz.admin.services import Services
from authz.cli.lazy_archive import LazyArchive
from authz.cli.main import Invocation
from authz.config import Settings
from authz.engine.context import Context
from authz.errors import InvariantError, NotExecuted, NotFound
from authz.numbers import rules_from_settings
from authz.rating.deck import Deck
from authz.server.courtesy import give_way
from authz.store.client import StoreClient
from authz.store.embedded_files import socket_path_in
from authz.store.identity import check_store_identity
from authz.store.scripts import load_scripts
from authz.store.url import unix_url

T = TypeVar("T")


class LoadedDecks:
    """The decks that a command has loaded: a registry would fetch them all."""

    def __init__(self) -> None:
        self._decks: dict[str, Deck] = {}

    def get(self, deck_id: str) -> Deck | None:
        """Return a loaded deck, or None."""
        return self._decks.get(deck_id)

    def add(self, deck: Deck) -> None:
        """Let `get` return this deck."""
        self._decks[deck.id] = deck


def run(invocation: Invocation, work: Callable[[Services], Awaitable[T]]) -> T:
    """Do `work` with services on the store that the settings name; return what it returns."""
    settings = invocation.settings
    if invocation.has_process:
        # Calls are decided on the same host while an import or an audit takes a core.
        give_way()
    # Only what an operator must see: the command says the rest itself.
    log.configure(
        level="error",
        format=settings.log.format,
        mask_numbers=settings.log.mask_numbers,
        process="cli",
    )

    async def main() -> T:
        async with open_session(settings) as services:
            return await work(services)

    return asyncio.run(main())


@contextlib.asynccontextmanager
async def open_session(settings: Settings) -> AsyncIterator[Services]:
    """Connect to the store and yield the services on it.

    Raises NotExecuted when no store runs, ConfigError when it is not one for this version.
    """
    client = await StoreClient.connect(
        store_url(settings), scripts=load_scripts().values(), client_name="authz-cli"
    )
    archive = LazyArchive(client, settings)
    try:
        await check_store_identity(client)
        rules = rules_from_settings(settings.numbers)
        yield Services(Context(client, LoadedDecks(), rules, settings), archive=archive)
    finally:
        await archive.close()
        await client.close()


def store_url(settings: Settings) -> str:
    """Return the URL of the named store, or of the own one that runs in the state directory."""
    if settings.store.url is not None:
        return settings.store.url
    advice = (
        "start the daemon with `authz serve`, or name a running store in store.url "
        "(AUTHZ_STORE__URL)"
    )
    try:
        path = socket_path_in(settings.state_dir, create=False)
        is_there = path is not None and path.exists()
    except PermissionError:
        raise NotExecuted(
            f"{settings.state_dir} belongs to another user: run this command as the user of the "
            "daemon, or name a running store in store.url (AUTHZ_STORE__URL)"
        ) from None
    if path is None or not is_there:
        raise NotExecuted(f"no store runs in {settings.state_dir}: {advice}")
    return unix_url(path)


async def load_decks(services: Services, *deck_ids: str) -> None:
    """Load these decks, as far as they exist, so that the services find them."""
    loaded = services.context.decks
    if not isinstance(loaded, LoadedDecks):
        raise InvariantError("a session of a command has loaded decks")
    for deck_id in dict.fromkeys(deck_ids):
        with contextlib.suppress(NotFound):
            loaded.add(await services.decks.find(deck_id))
