"""What all connections of one process share: routes, rules, limits and a coarse clock."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from authz.hooks.access import Access
from authz.hooks.messages import Heads, Limits
from authz.hooks.routing import RouteTable
from authz_ext.plain import PlainReader

if TYPE_CHECKING:
    from authz.hooks.http import HookProtocol
    from authz.hooks.pipeline import Exchange


class Site:
    """The shared state of the hook listeners of one process."""

    def __init__(self, routes: RouteTable, access: Access, limits: Limits) -> None:
        self.routes = routes
        self.access = access
        self.limits = limits
        self.heads = Heads()
        self.plain = PlainReader(
            url_bytes_max=limits.url_bytes_max,
            header_bytes_max=limits.header_bytes_max,
            headers_max=limits.headers_max,
            body_bytes_max=limits.body_bytes_max,
        )
        self.connections: set[HookProtocol] = set()
        #: Requests in the engine.
        self.running: set[Exchange] = set()
        self.draining = False
        #: Monotonic seconds as of the last tick: close enough for time limits, free to read.
        self.now = time.monotonic()
        self._quiet = asyncio.Event()

    def tick(self) -> None:
        """Advance the clock and enforce the time limits of every connection."""
        self.now = time.monotonic()
        self.heads.refresh_date()
        for connection in tuple(self.connections):
            connection.check_time_limits()

    def leave(self, exchange: Exchange) -> None:
        """A request has left the engine."""
        self.running.discard(exchange)
        self._note_quiet()

    def disconnect(self, connection: HookProtocol) -> None:
        """A connection has ended."""
        self.connections.discard(connection)
        self._note_quiet()

    async def until_quiet(self) -> None:
        """Wait until a draining site has no connection and no request left."""
        self._note_quiet()
        await self._quiet.wait()

    def _note_quiet(self) -> None:
        if self.draining and not self.running and not self.connections:
            self._quiet.set()
