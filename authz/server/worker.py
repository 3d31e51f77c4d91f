"""A hook worker: serves switches on connections that the supervisor passes, or its own.

With several workers the supervisor accepts and hands each connection to the one that has the
fewest; a single worker listens itself.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from authz import log, meters
from authz.hooks.access import Access
from authz.hooks.freeswitch.web import add_freeswitch_routes
from authz.hooks.messages import Limits
from authz.hooks.routes import hook_routes
from authz.hooks.server import HookServer
from authz.server import child
from authz.server.collector import settle_memory
from authz.server.engine_host import EngineHost

_CONNECTIONS: Final = meters.gauge("authz_hook_open_connections")
_IN_FLIGHT: Final = meters.gauge("authz_hook_in_flight")


class Backend(Protocol):
    """What answers on the connections of a worker."""

    def protocol(self, on_closed: Callable[[], None]) -> asyncio.Protocol:
        """Return the protocol of one new connection, which calls `on_closed` at its end."""

    async def drain(self, limit_seconds: int) -> None:
        """Answer what has been asked, then close every connection; cut them off at the limit."""

    async def close(self) -> None:
        """Close what is left, and the engine below."""


class EngineBackend:
    """The hook API on an engine."""

    def __init__(self, host: EngineHost) -> None:
        """Serve with the host's engine; its settings bound every request."""
        hook = host.settings.hook
        self._host = host
        routes = hook_routes(host.engine, host.readiness)
        add_freeswitch_routes(routes, host.engine, host.settings)
        self._server = HookServer(
            routes,
            access=Access((hook.token,) if hook.token else (), hook.allow),
            limits=Limits(
                header_bytes_max=hook.header_bytes_max,
                body_bytes_max=hook.body_bytes_max,
                idle_seconds=hook.idle_seconds,
                in_flight_max=hook.in_flight_max,
                connections_max=hook.connections_max,
            ),
        )

    def protocol(self, on_closed: Callable[[], None]) -> asyncio.Protocol:
        """Return the protocol of one new connection."""
        return self._server.protocol(on_closed)

    def publish(self) -> None:
        """Set the gauges of the listener."""
        _CONNECTIONS.set(self._server.connections)
        _IN_FLIGHT.set(self._server.in_flight)

    async def drain(self, limit_seconds: int) -> None:
        """Answer what has come in, then close every connection."""
        await self._server.drain(limit_seconds)

    async def close(self) -> None:
        """Cut what is left and close the engine."""
        self._server.close()
        await self._host.close()


class HookService:
    """The `Service` of a worker around a backend."""

    def __init__(self, backend: Backend, order: child.Order) -> None:
        """Serve with `backend`; ended connections are reported to the order's supervisor."""
        self._backend = backend
        self._order = order
        self._servers: list[asyncio.Server] = []
        self._adoptions: set[asyncio.Task[None]] = set()

    async def serve(self, listeners: Mapping[str, socket.socket]) -> None:
        """Listen on the given sockets, if any."""
        settle_memory()
        loop = asyncio.get_running_loop()
        for listener in listeners.values():
            is_unix = listener.family == socket.AF_UNIX
            create = loop.create_unix_server if is_unix else loop.create_server
            self._servers.append(await create(self._protocol, sock=listener))

    def adopt(self, connection: socket.socket) -> None:
        """Serve an accepted connection."""
        task = asyncio.get_running_loop().create_task(self._adopt(connection))
        self._adoptions.add(task)
        task.add_done_callback(self._adoptions.discard)

    async def drain(self, limit_seconds: int) -> None:
        """Stop listening, take what was accepted, and drain the backend."""
        for server in self._servers:
            server.close()
        if self._adoptions:
            await asyncio.wait(self._adoptions)
        await self._backend.drain(limit_seconds)

    async def close(self) -> None:
        """Close the backend."""
        await self._backend.close()

    async def _adopt(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: self._backend.protocol(self._report_closed), connection
            )
        except OSError as error:
            connection.close()
            self._report_closed()
            log.event("connection_lost_early", level="warning", error=error)

    def _protocol(self) -> asyncio.Protocol:
        return self._backend.protocol(_count_nothing)

    def _report_closed(self) -> None:
        self._order.connections_closed(1)


def _count_nothing() -> None:
    """Stand in where the worker listens itself and nobody spreads connections."""


if __name__ == "__main__":
    # The wiring knows every part; this module is one of them.
    from authz.server.wiring import build_worker

    sys.exit(child.main(build_worker))
