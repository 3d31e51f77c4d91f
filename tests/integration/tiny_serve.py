"""A supervisor with processes that need no engine, for the tests of the supervisor.

Run as `tiny_serve.py serve`. Its workers answer lines: `who` with their process id, `sleep N`
with it after N seconds, `hang` never again, `chunk` with the setting calls.chunk_seconds.
`FAULT` in the environment makes a process fail at its start: `crash:<name>` or
`setting:<name>`; a file of that name in the state directory does so while it exists.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import uvloop

from authz.config import load_settings
from authz.errors import AuthzError, ConfigError
from authz.server import child
from authz.server.crew import Programs
from authz.server.stores import open_store
from authz.server.supervisor import Supervisor
from authz.server.worker import HookService


class LineProtocol(asyncio.Protocol):
    """One connection: answers each line, in order."""

    def __init__(self, backend: LineBackend, on_closed: Callable[[], None]) -> None:
        self._backend = backend
        self._on_closed = on_closed

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._backend.connections.add(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._backend.connections.discard(self._transport)
        self._on_closed()

    def data_received(self, data: bytes) -> None:
        for line in data.decode().splitlines():
            task = asyncio.get_running_loop().create_task(self._answer(line.split()))
            self._backend.running.add(task)
            task.add_done_callback(self._backend.running.discard)

    async def _answer(self, words: list[str]) -> None:
        answer = str(os.getpid())
        if words[0] == "sleep":
            await asyncio.sleep(float(words[1]))
        elif words[0] == "hang":
            time.sleep(3600)  # noqa: ASYNC251  # that is what it is for
        elif words[0] == "chunk":
            answer = str(self._backend.chunk_seconds)
        self._transport.write(f"{answer}\n".encode())


class LineBackend:
    """What the hook server is in the real worker."""

    def __init__(self, chunk_seconds: int) -> None:
        self.chunk_seconds = chunk_seconds
        self.connections: set[asyncio.BaseTransport] = set()
        self.running: set[asyncio.Task[None]] = set()

    def protocol(self, on_closed: Callable[[], None]) -> LineProtocol:
        return LineProtocol(self, on_closed)

    async def drain(self, limit_seconds: int) -> None:
        if self.running:
            await asyncio.wait(self.running, timeout=limit_seconds)
        for one in tuple(self.connections):
            one.close()

    async def close(self) -> None:
        for one in tuple(self.connections):
            one.close()


class IdleService:
    """An office that does nothing."""

    async def serve(self, listeners: Mapping[str, socket.socket]) -> None: ...

    def adopt(self, connection: socket.socket) -> None: ...

    async def drain(self, limit_seconds: int) -> None: ...

    async def close(self) -> None: ...


def _fail_if_asked(order: child.Order) -> None:
    faults = {os.environ.get("FAULT", "")} | set(os.listdir(order.settings.state_dir))
    if f"crash:{order.name}" in faults:
        os._exit(7)
    if f"setting:{order.name}" in faults:
        raise ConfigError("hook.token: as the test wants it")


async def build_worker(order: child.Order) -> HookService:
    _fail_if_asked(order)
    return HookService(LineBackend(order.settings.calls.chunk_seconds), order)


async def build_office(order: child.Order) -> IdleService:
    _fail_if_asked(order)
    return IdleService()


def serve() -> int:
    itself = (sys.executable, str(Path(__file__).resolve()))
    supervisor = Supervisor(
        lambda: load_settings(Path(os.environ["CONFIG"]), os.environ),
        programs=Programs(
            worker=(*itself, "worker"), office=(*itself, "office"), agents=(*itself, "agents")
        ),
        open_store=open_store,
    )
    try:
        uvloop.run(supervisor.run())
    except AuthzError as error:
        sys.stderr.write(f"Error: {error}\n")
        return 2 if isinstance(error, ConfigError) else 1
    return 0


if __name__ == "__main__":
    role = sys.argv.pop(1)
    if role == "serve":
        sys.exit(serve())
    sys.exit(child.main(build_worker if role == "worker" else build_office))
