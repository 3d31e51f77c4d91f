"""The hook API of one process: makes the protocol of each connection, ticks, drains."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from authz import log
from authz.hooks.access import Access
from authz.hooks.http import HookProtocol
from authz.hooks.messages import Limits
from authz.hooks.routing import RouteTable
from authz.hooks.site import Site

_TICK_SECONDS = 1.0


class HookServer:
    """Serves the hook API on connections of any kind of stream socket, until it is drained.

    Create it inside the running loop. Time limits are looked at, and so exact to, every
    `tick_seconds`.
    """

    def __init__(
        self,
        routes: RouteTable,
        *,
        access: Access,
        limits: Limits | None = None,
        tick_seconds: float = _TICK_SECONDS,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._site = Site(routes, access, limits or Limits())
        self._tick_seconds = tick_seconds
        self._timer = self._loop.call_later(tick_seconds, self._tick)

    @property
    def in_flight(self) -> int:
        """How many requests are in the engine."""
        return self._site.in_flight

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._site.connections)

    def protocol(self, on_closed: Callable[[], None] | None = None) -> HookProtocol:
        """Return the protocol of a new connection, which calls `on_closed` at its end."""
        return HookProtocol(self._site, on_closed)

    async def drain(self, seconds: float) -> int:
        """Answer what has come in, then close every connection; cut them off after `seconds`.

        Nobody accepts connections any more by then. Returns how many requests were still in
        the engine at the end; 0 is a clean one.
        """
        site = self._site
        site.draining = True
        for connection in tuple(site.connections):
            connection.drain()
        try:
            async with asyncio.timeout(seconds):
                await site.until_quiet()
        except TimeoutError:
            log.event(
                "hook_drain_timed_out",
                level="warning",
                connections=self.connections,
                in_flight=self.in_flight,
            )
        unfinished = self.in_flight
        self.close()
        return unfinished

    def close(self) -> None:
        """Cut every connection. Requests in the engine go on as long as the loop does."""
        self._timer.cancel()
        for connection in tuple(self._site.connections):
            connection.abort()

    def _tick(self) -> None:
        self._timer = self._loop.call_later(self._tick_seconds, self._tick)
        self._site.tick()
