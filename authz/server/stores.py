"""The store of `authz serve`: the server that the settings name, or an own one kept running."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from typing import Final

from authz import log, meters
from authz.config import Settings
from authz.errors import StoreError
from authz.server.supervisor import StoreRunner
from authz.store.embedded import EmbeddedStore
from authz.store.retired_logs import RetiredLogs

#: Restarts in a row, each of which ended within the quiet time, after which to give up.
_RESTARTS_MAX: Final = 5
_QUIET_SECONDS: Final = 10
_BACKOFF_SECONDS: Final = 0.2
#: The log is rewritten once in a while: no file of it is retired so soon after it came to be.
_TIDY_SECONDS: Final = 1
_PIECE_SECONDS: Final = 0.05
_RETRY_SECONDS: Final = 60
_RESTARTS: Final = meters.counter("authz_store_restarts_total")


class NamedStore:
    """A server that somebody else runs."""

    def __init__(self, url: str) -> None:
        """Use the server at this URL."""
        self._url = url

    async def start(self) -> str:
        """Return the URL."""
        return self._url

    async def keep(self) -> None:
        """Leave it to whoever runs it."""

    async def stop(self) -> None:
        """Leave it to whoever runs it."""


class OwnStore:
    """The embedded server in the state directory."""

    def __init__(self, settings: Settings) -> None:
        """Keep its data in the state directory."""
        self._store = EmbeddedStore(settings.state_dir, appendfsync=settings.store.appendfsync)
        self._retired = RetiredLogs(self._store.data_dir)
        self._starting: asyncio.Future[str] | None = None

    async def start(self) -> str:
        """Start it and return its URL once it has read its data; that may take minutes."""
        self._starting = asyncio.ensure_future(asyncio.to_thread(self._store.start))
        # A stop wanted meanwhile must not leave the thread to a store that nobody ends.
        return await asyncio.shield(self._starting)

    async def keep(self) -> None:
        """Start it anew whenever it ends; raise StoreError when it ends again and again.

        Meanwhile remove what it retires.
        """
        tidying = asyncio.create_task(self._tidy())
        try:
            await self._restart()
        finally:
            tidying.cancel()

    async def _restart(self) -> None:
        loop = asyncio.get_running_loop()
        restarts = 0
        while True:
            started_seconds = loop.time()
            status = await self._store.wait_exit()
            log.event("store_ended", level="error", status=status)
            _RESTARTS.add()
            if loop.time() - started_seconds > _QUIET_SECONDS:
                restarts = 0
            restarts += 1
            if restarts > _RESTARTS_MAX:
                raise StoreError(
                    f"the store ended {restarts} times in a row right after its start; see "
                    f"{self._store.state_dir / 'store.log'}"
                )
            await asyncio.sleep(_BACKOFF_SECONDS * (restarts - 1))
            try:
                await self.start()
            except StoreError as error:
                # Counts as one more end: there is no process to wait for.
                log.event("store_start_failed", level="error", error=error)

    async def stop(self) -> None:
        """Stop it, also one that is still reading its data."""
        if self._starting is not None and not self._starting.done():
            pid = self._store.pid
            if pid is not None and self._store.owned:
                os.kill(pid, signal.SIGTERM)
            with contextlib.suppress(StoreError):
                await self._starting
        is_owned = self._store.owned
        await asyncio.to_thread(self._store.stop)
        if is_owned:
            with contextlib.suppress(OSError):
                await asyncio.to_thread(self._retired.clear)

    async def _tidy(self) -> None:
        """Remove the files of its log that are no longer needed slowly; see `retired_logs`."""
        has_more = is_refused = False
        while True:
            await asyncio.sleep(_PIECE_SECONDS if has_more else _TIDY_SECONDS)
            if not self._store.owned:
                continue
            try:
                has_more = await asyncio.to_thread(self._retired.release_piece)
                await asyncio.to_thread(self._retired.hold)
                is_refused = False
            except OSError as error:
                # What has no second name is removed by the store itself, all at once.
                if not is_refused:
                    log.event("store_logs_not_retired", level="warning", error=error)
                is_refused = True
                await asyncio.sleep(_RETRY_SECONDS)


def open_store(settings: Settings) -> StoreRunner:
    """Return the store that the settings ask for, not yet started."""
    if settings.store.url is not None:
        return NamedStore(settings.store.url)
    return OwnStore(settings)
