"""The office process: admin API, archive, telling of events, sweepers, spools of dead processes.

Any number of hosts may run one against the same store: the sweeper's claims and the replay of
a settle are each decided by one script.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Mapping
from typing import Final

from aiohttp import web

from authz.engine.late import LateBooker
from authz.engine.orphans import Sweeper
from authz.engine.spool_replay import replay_orphans
from authz.events.desk import EventDesk
from authz.ledger.archive import Archive
from authz.server import child
from authz.server.collector import settle_memory
from authz.server.courtesy import give_way
from authz.server.engine_host import SPOOL_DIRECTORY, EngineHost

_ADOPT_SECONDS: Final = 5
_LATE_SECONDS: Final = 5


class OfficeService:
    """The `Service` of the office process around the admin application."""

    def __init__(
        self, host: EngineHost, application: web.Application, archive: Archive, desk: EventDesk
    ) -> None:
        """Serve `application`, do the host's housekeeping, fill the archive and tell events."""
        self._host = host
        self._desk = desk
        self._archive = archive
        self._late = LateBooker(
            host.engine.context,
            archive,
            host.settings.state_dir / SPOOL_DIRECTORY,
            host.engine.bury_spooled,
        )
        self._runner = web.AppRunner(
            application,
            # Standard error is for events; the application audits what changes something.
            access_log=None,
            shutdown_timeout=host.settings.server.drain_seconds,
        )

    async def serve(self, listeners: Mapping[str, socket.socket]) -> None:
        """Answer operators on these sockets, and begin the housekeeping."""
        await self._runner.setup()
        for listener in listeners.values():
            await web.SockSite(self._runner, listener).start()
        self._host.run(Sweeper(self._host.engine.context).run())
        self._host.repeat(_ADOPT_SECONDS, self._replay_orphaned_spools)
        for work in self._desk.work():
            self._host.run(work)
        self._host.repeat(_LATE_SECONDS, self._late.book_all)
        self._archive.start()
        settle_memory()

    def adopt(self, connection: socket.socket) -> None:
        """Refuse: connections are only passed to workers."""
        connection.close()

    async def drain(self, limit_seconds: int) -> None:
        """Stop accepting; requests that run have until the limit."""
        await self._runner.cleanup()

    async def close(self) -> None:
        """End the housekeeping and close the engine, then the archive that both may ask."""
        await self._archive.stop()
        await self._host.close()
        await self._archive.close()

    async def _replay_orphaned_spools(self) -> None:
        engine = self._host.engine
        if self._host.client.connected:
            await replay_orphans(
                self._host.settings.state_dir / SPOOL_DIRECTORY,
                engine.book_spooled,
                engine.bury_spooled,
            )


if __name__ == "__main__":
    # The wiring knows every part; this module is one of them.
    from authz.server.wiring import build_office

    give_way()
    sys.exit(child.main(build_office))
