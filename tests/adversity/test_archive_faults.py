"""The archive under kills, locks, full disks and outages: nothing lost, nothing doubled."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from archives import (
    archive_settings,
    archived_rows,
    balances_of,
    drain_all,
    drain_of,
    open_archive,
)
from audit_helper import assert_clean_audit
from postgres import PostgresServer
from processes import until
from servers import Server
from world import World

import authz.ledger.database as database_module
from authz.errors import ArchiveUnavailable
from authz.ledger.archive import Archive
from authz.ledger.database import FILE_NAME

ROOTS = tuple(f"root-{number}" for number in range(12))
KILLS = 12
_PROCESS = Path(__file__).resolve().parents[1] / "archive_process.py"


class Traffic:
    """Debits that flow on twelve accounts in about as many buckets; it knows each of them."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._ending = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.booked = 0

    async def prepare(self) -> None:
        """Make the accounts."""
        for root in ROOTS:
            await self._world.account(root, "1000", deck="retail")

    async def book(self, debits: int) -> None:
        """Debit every account so many times."""
        for _ in range(debits):
            await asyncio.gather(*(self._world.debit(root, "0.01") for root in ROOTS))
            self.booked += 1

    def start(self) -> None:
        """Debit every account again and again."""

        async def flow() -> None:
            while not self._ending.is_set():
                await self.book(1)
                await asyncio.sleep(0.005)

        self._task = asyncio.create_task(flow())

    async def end(self) -> None:
        """Debit no more."""
        self._ending.set()
        if self._task is not None:
            await self._task

    async def prove(self, archive: Archive) -> None:
        """Fail unless each movement is archived once, and balances are their sums."""
        await drain_all(archive)
        rows = await archived_rows(archive)
        for root in ROOTS:
            own = [row for row in rows if row.account == root]
            assert [row.account_sequence for row in own] == [*range(1, self.booked + 2)], root
            assert len({row.reference for row in own}) == len(own)
        assert await balances_of(archive) == {
            root: await self._world.balance(root) for root in ROOTS
        }
        await assert_clean_audit(self._world.client, archive)


@pytest.fixture
async def world(store_url: str, tmp_path: Path) -> AsyncIterator[World]:
    """A business on a store whose streams are trimmed in small steps."""
    world = await World.start(store_url, tmp_path)
    await world.client.execute("CONFIG", "SET", "stream-node-max-entries", 2)
    yield world
    await world.close()


@pytest.fixture
async def traffic(world: World) -> AsyncIterator[Traffic]:
    """Twelve accounts; what flows ends with the test."""
    traffic = Traffic(world)
    await traffic.prepare()
    yield traffic
    await traffic.end()


async def run_office(
    store_url: str, archive_url: str, directory: Path
) -> asyncio.subprocess.Process:
    """Start a process that archives."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, str(_PROCESS), store_url, archive_url, str(directory)),
        stdin=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )


@pytest.mark.parametrize("offices", [1, 2])
async def test_offices_killed_at_random_moments(
    world: World,
    traffic: Traffic,
    store_url: str,
    archive_url: str,
    tmp_path: Path,
    rng: random.Random,
    offices: int,
) -> None:
    async with open_archive(world.client, tmp_path, archive_url) as archive:
        traffic.start()
        archived = 0
        for _ in range(KILLS // offices):
            running = [await run_office(store_url, archive_url, tmp_path) for _ in range(offices)]
            # The blow falls while it archives, not while it starts.
            for _ in range(500):
                now = len(await archived_rows(archive))
                if now > archived:
                    break
                await asyncio.sleep(0.02)
            assert now > archived, "the offices archive nothing"
            archived = now
            await asyncio.sleep(rng.random() * 0.2)
            for office in running:
                os.kill(office.pid, signal.SIGKILL)
                await office.wait()
        await traffic.end()
        await traffic.prove(archive)


async def test_a_turn_cancelled_at_any_step(
    world: World, traffic: Traffic, archive_url: str, tmp_path: Path, rng: random.Random
) -> None:
    async with open_archive(world.client, tmp_path, archive_url) as archive:
        for _ in range(25):
            await traffic.book(2)
            turn = asyncio.create_task(drain_of(archive).turn())
            await asyncio.sleep(rng.random() * 0.03)
            turn.cancel()
            await asyncio.gather(turn, return_exceptions=True)
        await traffic.prove(archive)


# --- SQLite ------------------------------------------------------------------------------------


async def test_a_locked_database_is_waited_for(
    world: World, traffic: Traffic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pragmas = ("busy_timeout = 50", *database_module._PRAGMAS[1:])
    monkeypatch.setattr(database_module, "_PRAGMAS", pragmas)
    async with open_archive(world.client, tmp_path, None) as archive:
        await drain_all(archive)
        await traffic.book(5)
        other = sqlite3.connect(tmp_path / FILE_NAME, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(ArchiveUnavailable, match="locked"):
            await drain_of(archive).turn()
        # Who only reads is not kept waiting.
        assert len(await archived_rows(archive)) == len(ROOTS)
        other.execute("ROLLBACK")
        other.close()
        await traffic.prove(archive)


async def test_a_full_disk_loses_nothing(
    world: World, traffic: Traffic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_archive(world.client, tmp_path, None) as archive:
        await drain_all(archive)
    with sqlite3.connect(tmp_path / FILE_NAME) as connection:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.close()
    full = (*database_module._PRAGMAS, f"max_page_count = {pages + 2}")
    with monkeypatch.context() as patch:
        patch.setattr(database_module, "_PRAGMAS", full)
        async with open_archive(world.client, tmp_path, None) as archive:
            await traffic.book(40)
            with pytest.raises(ArchiveUnavailable, match="full"):
                await drain_all(archive)
            await traffic.book(1)
            with pytest.raises(ArchiveUnavailable, match="full"):
                await drain_all(archive)
    async with open_archive(world.client, tmp_path, None) as archive:
        await traffic.prove(archive)


# --- What the archive stands on goes away --------------------------------------------------------


def named(caplog: pytest.LogCaptureFixture, name: str) -> list[str]:
    """Return the records of an event."""
    return [record.message for record in caplog.records if record.message == name]


async def test_a_postgresql_that_crashes_is_waited_for(
    world: World, traffic: Traffic, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="authz")
    server = await asyncio.to_thread(PostgresServer)
    archive = Archive(world.client, archive_settings(tmp_path, server.new_database()))
    archive.start()
    try:
        traffic.start()
        await until(lambda: archive.rows_total > 0)
        server.kill()
        await until(lambda: bool(named(caplog, "archive_stopped")))
        await asyncio.to_thread(server.start)
        await until(lambda: bool(named(caplog, "archive_resumed")))
        await traffic.end()
        await archive.stop()
        await traffic.prove(archive)
        assert len(named(caplog, "archive_stopped")) == 1
    finally:
        await archive.close()
        server.close()


async def test_a_store_that_goes_away_is_waited_for(
    world: World,
    traffic: Traffic,
    store_server: Server,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", logger="authz")
    archive = Archive(world.client, archive_settings(tmp_path, None))
    archive.start()
    try:
        await traffic.book(5)
        await until(lambda: archive.rows_total > 0)
        store_server.store.stop()
        await until(lambda: bool(named(caplog, "archive_stopped")))
        assert archive.obstacle is None
        await asyncio.to_thread(store_server.store.start)
        await until(lambda: bool(named(caplog, "archive_resumed")))
        await traffic.book(5)
        await archive.stop()
        await traffic.prove(archive)
    finally:
        await archive.close()


async def test_an_office_may_start_before_its_database(
    world: World, traffic: Traffic, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = tmp_path / "later"
    archive = Archive(world.client, archive_settings(directory, None))
    archive.start()
    try:
        await traffic.book(3)
        await until(lambda: bool(named(caplog, "archive_stopped")))
        with pytest.raises(ArchiveUnavailable, match="No such file"):
            await archive.posting("root-1", "r1")
        with pytest.raises(ArchiveUnavailable, match="No such file"):
            await archive.catch_up("root-1")
        directory.mkdir()
        await until(lambda: archive.rows_total > 0)
        await archive.stop()
        await traffic.prove(archive)
    finally:
        await archive.close()
