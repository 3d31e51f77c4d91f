"""An engine with everything below it, as one process runs it: opened, watched, closed.

The store may be away when a process starts: emergency calls must be let through then as well.
So the process starts, says in `/readyz` what it waits for, and checks the store as soon as it
answers, and again whenever another server answers in its place.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Final, Protocol, Self

from authz import log
from authz.config import Settings
from authz.engine.engine import Engine
from authz.engine.metered import MeteredEngine
from authz.engine.quotes import Decks
from authz.engine.spool import Spool
from authz.errors import AuthzError, ConfigError, StoreError
from authz.numbers import rules_from_settings
from authz.rating.deck import Deck
from authz.store.checks import check_server, memory_ratio
from authz.store.client import StoreClient
from authz.store.identity import check_store_identity
from authz.store.scripts import load_scripts

#: From this share of the store's memory on, new paid calls wait (`store_full`).
_MEMORY_RATIO_FULL: Final = 0.8
_MEMORY_SECONDS: Final = 2
_REPLAY_SECONDS: Final = 1
_DENIALS_SECONDS: Final = 5
_STORE_CHECK_SECONDS: Final = 5
SPOOL_DIRECTORY: Final = "spool"


class LiveDecks(Decks, Protocol):
    """Decks that follow what is published; `digest` is the same wherever the same ones are."""

    digest: int

    def all(self) -> Sequence[Deck]:
        """Return the decks in force, by id."""

    async def start(self) -> None:
        """Read the decks in force and follow the store from now on."""

    async def stop(self) -> None:
        """Follow no more."""


class EngineHost:
    """One process's engine. `client`, `decks` and `engine` are for whoever serves with it."""

    def __init__(
        self, client: StoreClient, decks: LiveDecks, engine: Engine, settings: Settings
    ) -> None:
        """Use `open` instead."""
        self.client = client
        self.decks = decks
        self.engine = engine
        self.settings = settings
        self._obstacle: str | None = "the store has not been checked yet"
        self._tasks: set[asyncio.Task[None]] = set()

    @classmethod
    async def open(
        cls,
        name: str,
        settings: Settings,
        store_url: str,
        open_decks: Callable[[StoreClient, Settings], LiveDecks],
    ) -> Self:
        """Open all; raise ConfigError if settings or store are not fit to hold money."""
        rules = rules_from_settings(settings.numbers)
        spool = _open_spool(settings)
        client = await StoreClient.connect(
            store_url,
            scripts=load_scripts().values(),
            client_name=f"authz-{name}",
            must_answer=False,
        )
        decks = open_decks(client, settings)
        host = cls(client, decks, MeteredEngine(client, decks, rules, settings, spool), settings)
        try:
            if client.connected:
                await host._check_store()
            client.on_run_id_change(host._note_other_server)
            await decks.start()
        except BaseException:
            await host.close()
            raise
        host.repeat(_STORE_CHECK_SECONDS, host._check_store_again)
        host.repeat(_REPLAY_SECONDS, host.engine.replay_spool)
        host.repeat(_DENIALS_SECONDS, host.engine.denials.flush)
        host.repeat(_MEMORY_SECONDS, host._watch_memory)
        return host

    def readiness(self) -> str | None:
        """Return what calls wait for, or None."""
        if not self.client.connected:
            return f"the store at {self.client.address} does not answer"
        return self._obstacle

    def repeat(self, pause_seconds: float, work: Callable[[], Awaitable[object]]) -> None:
        """Do `work` again and again in the background; what it raises is logged."""

        async def loop() -> None:
            while True:
                await asyncio.sleep(pause_seconds)
                try:
                    await work()
                except StoreError:
                    # The client has told of it; a later turn will find the store back.
                    continue
                except Exception as error:
                    log.event("background_work_failed", level="error", error=error)

        self.run(loop())

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Do `work` in the background, until it ends or the host is closed."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """End the background work, then the engine, then what it stands on."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.decks.stop()
        await self.engine.close()
        await self.client.close()

    async def _check_store(self) -> None:
        """Let calls pass if the store is fit to hold money; else raise ConfigError."""
        try:
            for warning in await check_server(self.client):
                log.event("store_warning", level="warning", detail=warning)
            identity = await check_store_identity(self.client)
        except ConfigError as error:
            self._obstacle = str(error)
            raise
        log.event("store_checked", level="debug", store=identity)
        self._obstacle = None

    async def _check_store_again(self) -> None:
        if self._obstacle is not None and self.client.connected:
            await self._check_store()

    def _note_other_server(self, previous: str, present: str) -> None:
        log.event("store_replaced", level="warning", previous=previous, present=present)
        self._obstacle = "another server answers in the store's place and is being checked"
        self.run(self._check_now())

    async def _check_now(self) -> None:
        try:
            await self._check_store()
        except AuthzError as error:
            # Tried again in a few seconds; until then /readyz tells.
            log.event("store_check_failed", level="error", error=error)

    async def _watch_memory(self) -> None:
        if self.client.connected:
            ratio = await memory_ratio(self.client)
            is_full = ratio >= _MEMORY_RATIO_FULL
            if is_full != self.engine.context.memory_full:
                log.event("store_memory", level="warning", is_full=is_full, ratio=round(ratio, 3))
            self.engine.context.memory_full = is_full


def _open_spool(settings: Settings) -> Spool:
    directory = settings.state_dir / SPOOL_DIRECTORY
    try:
        return Spool.open(directory, settings.spool.bytes_max)
    except OSError as error:
        raise ConfigError(
            f"state_dir: {directory} cannot be written ({error.strerror}); settles could not be "
            "kept while the store is away"
        ) from error
