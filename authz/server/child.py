"""What every process under the supervisor does: start when told, answer pings, drain, exit.

A child takes its settings and its listening sockets from the supervisor over the control
channel. When that channel ends the supervisor is dead, and the child drains and exits too, so
that a new supervisor finds nothing in its way.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, Protocol

import uvloop

from authz import log, meters
from authz.config import Settings, decode_settings
from authz.errors import AuthzError, ConfigError, ProtocolError
from authz.meters.shared import SharedMeters
from authz.server.control import (
    Channel,
    Closed,
    Connection,
    Drain,
    Failed,
    Leaving,
    Message,
    Ping,
    Pong,
    Ready,
    Start,
    adopt_end,
)

EXIT_FAILURE: Final = 1
EXIT_SETTING: Final = 2
_STARTS: Final = meters.counter("authz_process_starts_total")


class Service(Protocol):
    """The work of one process."""

    async def serve(self, listeners: Mapping[str, socket.socket]) -> None:
        """Answer on these listening sockets from now on."""

    def adopt(self, connection: socket.socket) -> None:
        """Serve a connection that the supervisor has accepted."""

    async def drain(self, limit_seconds: int) -> None:
        """Begin nothing new; return when everything begun is done, at the latest by the limit."""

    async def close(self) -> None:
        """Let go of everything, whatever is unfinished."""


class Order(Protocol):
    """What a service is built from."""

    name: str
    settings: Settings
    store_url: str
    #: Where the processes of the daemon count; None where each counts for itself.
    meters: SharedMeters | None

    def connections_closed(self, connections: int) -> None:
        """Tell the supervisor that so many adopted connections have ended."""


Builder = Callable[[Order], Awaitable[Service]]


class _Child:
    """One run of a child process. It is also the `Order` that its service is built from."""

    name: str
    settings: Settings
    store_url: str

    def __init__(
        self, end: socket.socket, build: Builder, shared_meters: SharedMeters | None
    ) -> None:
        self.meters = shared_meters
        self._build = build
        self._service: Service | None = None
        self._started: asyncio.Future[tuple[Start, list[socket.socket]]] = (
            asyncio.get_running_loop().create_future()
        )
        self._ending = asyncio.Event()
        self._closed_connections = 0
        self._channel = Channel(end, on_message=self._receive, on_end=self._lose_supervisor)

    async def run(self) -> int:
        """Serve until told to drain; return the exit status."""
        loop = asyncio.get_running_loop()
        # An interrupt from the terminal reaches every process; the supervisor decides on it.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        loop.add_signal_handler(signal.SIGTERM, self._leave)
        try:
            status = await self._serve()
        finally:
            self._channel.close()
        return status

    def connections_closed(self, connections: int) -> None:
        """Report ended connections, all those of one turn of the loop together."""
        if not self._closed_connections:
            asyncio.get_running_loop().call_soon(self._report_closed)
        self._closed_connections += connections

    async def _serve(self) -> int:
        start, sockets = await self._started
        self.name, self.store_url = start.name, start.store_url
        self.settings = decode_settings(start.settings.encode())
        configure_log(self.settings, start.name)
        if self.meters is not None:
            self.meters.count_here(start.name)
        _STARTS.add()
        try:
            self._service = await self._build(self)
            await self._service.serve(dict(zip(start.listeners, sockets, strict=True)))
        except AuthzError as error:
            return self._fail(error)
        self._channel.send(Ready())
        await self._ending.wait()
        return await self._finish(self._service)

    async def _finish(self, service: Service) -> int:
        await service.drain(self.settings.server.drain_seconds)
        await service.close()
        return 0

    def _fail(self, error: AuthzError) -> int:
        is_setting = isinstance(error, ConfigError)
        log.event("start_failed", level="error", error=error)
        self._channel.send(Failed(detail=str(error), is_setting=is_setting))
        return EXIT_SETTING if is_setting else EXIT_FAILURE

    def _receive(self, message: Message, sockets: list[socket.socket]) -> None:
        match message:
            case Connection():
                if self._service is None:
                    raise RuntimeError("a connection came before the worker was ready")
                for one in sockets:
                    self._service.adopt(one)
            case Ping():
                self._channel.send(Pong())
            case Drain():
                self._ending.set()
            case Start():
                self._started.set_result((message, sockets))

    def _leave(self) -> None:
        self._channel.send(Leaving())
        self._ending.set()

    def _report_closed(self) -> None:
        self._channel.send(Closed(self._closed_connections))
        self._closed_connections = 0

    def _lose_supervisor(self) -> None:
        if not self._started.done():
            self._started.set_exception(ProtocolError("the supervisor ended before it began"))
        elif not self._ending.is_set():
            log.event("supervisor_lost", level="warning")
        self._ending.set()


def configure_log(settings: Settings, process: str) -> None:
    """Write this process's events as the settings say."""
    log.configure(
        level=settings.log.level,
        format=settings.log.format,
        mask_numbers=settings.log.mask_numbers,
        process=process,
    )


def _adopt_meters(descriptor: int | None) -> SharedMeters | None:
    try:
        return None if descriptor is None else SharedMeters.adopt(descriptor)
    except ProtocolError as error:
        # Calls must be decided, counted or not.
        log.event("meters_not_shared", level="warning", error=error)
        return None


def main(build: Builder) -> int:
    """Run a child whose service `build` makes; the control channel is named on the command line."""
    parser = argparse.ArgumentParser(description="A process of `authz serve`, which starts it.")
    parser.add_argument("--control", type=int, required=True, help="descriptor of the channel")
    parser.add_argument("--meters", type=int, help="descriptor of the shared meters")
    arguments = parser.parse_args()
    end = adopt_end(arguments.control)

    async def run() -> int:
        return await _Child(end, build, _adopt_meters(arguments.meters)).run()

    try:
        return uvloop.run(run())
    except Exception as error:
        log.event("process_failed", level="error", error=error)
        return EXIT_FAILURE
