"""Fixtures of whole daemons under traffic."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from daemons import Daemon
from traffic import Api, Start, prepare


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """Connections without bound: calls wait for the daemon, never for each other here."""
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        yield session


@pytest.fixture
async def start(tmp_path: Path, http: aiohttp.ClientSession) -> AsyncIterator[Start]:
    """Start a daemon with accounts, credit and decks; it ends with the test."""
    started: list[Daemon] = []

    async def start(*options: str, **environ: str) -> tuple[Daemon, Api]:
        daemon = Daemon(tmp_path / "state", *options, **environ)
        started.append(daemon)
        await daemon.start()
        api = Api(daemon, http)
        await prepare(api)
        return daemon, api

    yield start
    for daemon in started:
        await daemon.stop()
