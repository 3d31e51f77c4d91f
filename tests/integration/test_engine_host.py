"""An engine as a process hosts it: fit stores only, and emergency calls without any store."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from processes import until
from servers import Server

from authz.config import Settings
from authz.config.sections import ServerSettings
from authz.errors import ConfigError
from authz.rating.deck import Deck
from authz.server.engine_host import EngineHost
from authz.server.worker import EngineBackend, HookService
from authz.store.client import StoreClient

EMERGENCY = {"call_id": "c1", "account": "nobody", "to": "911"}


class NoDecks:
    """Decks of a store that has none."""

    is_following = False

    def get(self, deck_id: str) -> Deck | None:
        return None

    async def start(self) -> None:
        self.is_following = True

    async def stop(self) -> None:
        self.is_following = False


class Reporter:
    """The order that a worker is built from, in a test."""

    name = "worker-1"

    def __init__(self, settings: Settings, store_url: str) -> None:
        self.settings = settings
        self.store_url = store_url
        self.closed = 0

    def connections_closed(self, connections: int) -> None:
        self.closed += connections


OpenHost = Callable[[str], Awaitable[EngineHost]]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(state_dir=tmp_path, server=ServerSettings(drain_seconds=2))


@pytest.fixture
async def open_host(settings: Settings) -> AsyncIterator[OpenHost]:
    hosts: list[EngineHost] = []

    async def opened(url: str) -> EngineHost:
        host = await EngineHost.open("worker-1", settings, url, lambda *_: NoDecks())
        hosts.append(host)
        return host

    yield opened
    for host in hosts:
        await host.close()


async def ask(path: Path, method: str, target: str, body: bytes = b"") -> tuple[int, Any]:
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(
        b"%b %b HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (method.encode(), target.encode(), len(body), body)
    )
    head, _, answer = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    await writer.wait_closed()
    return int(head.split()[1]), msgspec.json.decode(answer)


async def test_a_worker_answers_with_the_engine(
    tmp_path: Path, settings: Settings, store_url: str
) -> None:
    order = Reporter(settings, store_url)
    host = await EngineHost.open("worker-1", settings, store_url, lambda *_: NoDecks())
    service = HookService(EngineBackend(host), order)
    path = tmp_path / "hook.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        await service.serve({"hook_unix": listener})
        assert await ask(path, "GET", "/readyz") == (200, {"status": "ready"})
        body = msgspec.json.encode(EMERGENCY)
        status, answer = await ask(path, "POST", "/v1/authorize", body)
        assert (status, answer["allowed"], answer["class"]) == (200, True, "emergency")
        body = msgspec.json.encode({**EMERGENCY, "call_id": "c2", "to": "+14155550100"})
        status, answer = await ask(path, "POST", "/v1/authorize", body)
        assert (status, answer["reason"]) == (200, "account_unknown")
        await service.drain(2)
        await service.close()


async def test_passed_connections_are_served_and_their_end_reported(
    settings: Settings, store_url: str
) -> None:
    order = Reporter(settings, store_url)
    host = await EngineHost.open("worker-1", settings, store_url, lambda *_: NoDecks())
    service = HookService(EngineBackend(host), order)
    await service.serve({})
    theirs, ours = socket.socketpair()
    service.adopt(ours)
    reader, writer = await asyncio.open_connection(sock=theirs)
    writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b"200 OK" in await reader.readuntil(b"\r\n\r\n")
    assert order.closed == 0
    writer.close()
    await writer.wait_closed()
    await until(lambda: order.closed == 1)
    await service.drain(2)
    await service.close()


async def test_a_request_under_way_is_answered_in_a_drain(
    settings: Settings, store_url: str
) -> None:
    order = Reporter(settings, store_url)
    host = await EngineHost.open("worker-1", settings, store_url, lambda *_: NoDecks())
    service = HookService(EngineBackend(host), order)
    theirs, ours = socket.socketpair()
    service.adopt(ours)
    reader, writer = await asyncio.open_connection(sock=theirs)
    body = msgspec.json.encode({**EMERGENCY, "to": "+14155550100"})
    writer.write(
        b"POST /v1/authorize HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    )
    await service.drain(2)
    assert b"account_unknown" in await reader.read()
    writer.close()
    await writer.wait_closed()
    await service.close()


async def test_emergency_calls_pass_while_the_store_is_away_from_the_start(
    open_host: OpenHost, tmp_path: Path
) -> None:
    host = await open_host(f"unix://{tmp_path}/none.sock")
    obstacle = host.readiness()
    assert obstacle is not None
    assert "does not answer" in obstacle
    service = HookService(EngineBackend(host), Reporter(host.settings, ""))
    path = tmp_path / "hook.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        await service.serve({"hook_unix": listener})
        status, answer = await ask(path, "POST", "/v1/authorize", msgspec.json.encode(EMERGENCY))
        assert (status, answer["allowed"]) == (200, True)
        assert (await ask(path, "GET", "/readyz"))[0] == 503
        await service.drain(2)


async def test_a_store_that_evicts_is_refused(open_host: OpenHost, store_server: Server) -> None:
    client = await StoreClient.connect(store_server.url)
    await client.execute("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    try:
        with pytest.raises(ConfigError, match="noeviction"):
            await open_host(store_server.url)
    finally:
        await client.execute("CONFIG", "SET", "maxmemory-policy", "noeviction")
        await client.close()


async def test_nearly_full_memory_is_noticed(open_host: OpenHost, store_server: Server) -> None:
    host = await open_host(store_server.url)
    assert host.engine.context.memory_full is False
    await host.client.execute("CONFIG", "SET", "maxmemory", 1_000)
    await until(lambda: host.engine.context.memory_full)
    await host.client.execute("CONFIG", "SET", "maxmemory", 0)
    await until(lambda: not host.engine.context.memory_full)


async def test_a_restarted_store_is_checked_again(
    open_host: OpenHost, store_server: Server
) -> None:
    host = await open_host(store_server.url)
    assert host.readiness() is None
    await asyncio.to_thread(store_server.store.stop)
    await until(lambda: host.readiness() is not None)
    await asyncio.to_thread(store_server.store.start)
    await until(lambda: host.readiness() is None)


async def test_a_spool_that_cannot_be_written_is_told(
    open_host: OpenHost, store_url: str, tmp_path: Path
) -> None:
    (tmp_path / "spool").touch()
    with pytest.raises(ConfigError, match="settles could not be kept"):
        await open_host(store_url)


async def test_what_background_work_raises_does_not_end_it(
    open_host: OpenHost, store_url: str
) -> None:
    host = await open_host(store_url)
    turns = 0

    async def fail() -> None:
        nonlocal turns
        turns += 1
        raise ValueError("odd")

    host.repeat(0.01, fail)
    await until(lambda: turns >= 3)
