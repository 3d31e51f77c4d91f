"""An archive beside a small telephone business, for tests of what drains and asks it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import func, select
from world import World

from authz.config import Settings
from authz.config.archive import ArchiveSettings
from authz.ledger.archive import Archive
from authz.ledger.drain import Drain, OnEvents
from authz.ledger.schema import movements
from authz.store import keys
from authz.store.client import StoreClient
from authz.store.records import LedgerEntry, unpack_ledger_entry


def archive_settings(directory: Path, url: str | None, **options: Any) -> Settings:
    """Return settings whose archive takes entries at once and trims at once, unless told."""
    options = {"delay_seconds": 0, "keep_seconds": 0, **options}
    return Settings(state_dir=directory, archive=ArchiveSettings(url=url, **options))


@contextlib.asynccontextmanager
async def open_archive(
    client: StoreClient,
    directory: Path,
    url: str | None,
    on_events: OnEvents | None = None,
    **options: Any,
) -> AsyncIterator[Archive]:
    """Open an archive of the store, as an office does that has not begun to drain."""
    archive = Archive(client, archive_settings(directory, url, **options), on_events)
    await archive.open(create=True)
    try:
        yield archive
    finally:
        await archive.close()


def drain_of(archive: Archive) -> Drain:
    """Return what drains into the archive."""
    drain = archive._drain
    assert drain is not None
    return drain


async def drain_all(archive: Archive) -> None:
    """Archive all that there is."""
    while await drain_of(archive).turn():
        pass


async def lead_calls(world: World, calls: int, prefix: str = "call") -> None:
    """Lead calls of a minute from authorize to settle."""
    for number in range(calls):
        await world.granted(f"{prefix}-{number}")
        await world.settle(f"{prefix}-{number}", 60)


async def ledger_of(client: StoreClient, account: str) -> list[LedgerEntry]:
    """Return the whole ledger in the store of an account's bucket."""
    root = await client.execute("GET", keys.root(account))
    stream = keys.ledger(keys.tag_of_root(root.decode()))
    entries = await client.execute("XRANGE", stream, "-", "+")
    return [unpack_ledger_entry(entry_id, fields[1]) for entry_id, fields in entries]


async def archived_rows(archive: Archive) -> list[Any]:
    """Return every archived movement in order."""
    order = (movements.c.bucket, movements.c.sequence, movements.c.leg)
    async with archive.database.read() as connection:
        return list((await connection.execute(select(movements).order_by(*order))).all())


async def balances_of(archive: Archive) -> dict[str, int]:
    """Return the sum of every account's archived movements."""
    statement = select(movements.c.account, func.sum(movements.c.amount_micros)).group_by(
        movements.c.account
    )
    async with archive.database.read() as connection:
        return {row[0]: int(row[1]) for row in await connection.execute(statement)}


def replaced(settings: Settings, **options: Any) -> Settings:
    """Return settings with other options of the archive."""
    archive = msgspec.structs.replace(settings.archive, **options)
    return msgspec.structs.replace(settings, archive=archive)
