"""`python -m benchmarks.archive_drain`: how fast the archive takes a store's ledgers in.

The ledgers are filled with entries of two legs over all buckets, as a busy minute leaves them,
then drained into SQLite or, by `--url`, into PostgreSQL. Beside it, in the same run: the plain
`executemany` of the same rows in the same tables, and the store's own rate of appending.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
from sqlalchemy import delete, insert

from authz.config import Settings
from authz.config.archive import ArchiveSettings
from authz.ledger.archive import Archive
from authz.ledger.database import Database
from authz.ledger.drain import Drain
from authz.ledger.rows import movement_rows
from authz.ledger.schema import movements
from authz.reasons import Billing, CallClass
from authz.store import keys
from authz.store.client import StoreClient
from authz.store.connection import pack_command
from authz.store.constants import Kind
from authz.store.embedded import EmbeddedStore
from authz.store.layouts import LAYOUT_NUMBER, LEDGER_HEAD, LEDGER_LEG
from authz.store.records import ledger_strings, unpack_ledger_entry
from benchmarks.pipeline import Pipeline

_BATCH: Final = 2_000
_GOAL_PER_SECOND: Final = 20_000


class Rate(NamedTuple):
    """Movements (rows) a second, and this process's CPU for one of them."""

    what: str
    per_second: int
    cpu_us: int


def entry_of(bucket: int, sequence: int) -> bytes:
    """Return a ledger entry as the settle of a call of a pair of accounts packs it."""
    head = LEDGER_HEAD.pack(
        layout=LAYOUT_NUMBER,
        kind=Kind.CALL,
        call_class=CallClass.NATIONAL,
        legs=2,
        seconds=60,
        sequence=sequence,
        started_at=1_790_000_000,
    )
    legs = b"".join(
        LEDGER_LEG.pack(
            billing=Billing.PER_MINUTE,
            sequence=sequence,
            amount=-10_000,
            balance=-10_000 * sequence,
        )
        for _ in range(2)
    )
    accounts = (f"reseller-{bucket}-sub", f"reseller-{bucket}")
    return head + legs + ledger_strings(accounts, f"call-{sequence:032x}", "+14155550100")


def fill(url: str, entries: int) -> Rate:
    """Append `entries` entries to each bucket's ledger."""
    with Pipeline(url) as store:
        began, cpu = time.perf_counter(), time.process_time()
        for bucket, tag in enumerate(keys.TAGS):
            commands = [
                pack_command(("XADD", keys.ledger(tag), "*", "e", entry_of(bucket, sequence)))
                for sequence in range(1, entries + 1)
            ]
            commands.append(pack_command(("HSET", keys.bucket(tag), "sequence", entries)))
            store.run(commands)
        return _rate("appending them to the store", 2 * entries * keys.BUCKETS, began, cpu)


async def measure(
    store_url: str, archive_url: str | None, directory: Path, entries: int
) -> list[Rate]:
    """Fill the store, drain it, and insert as many rows plainly."""
    appended = fill(store_url, entries)
    client = await StoreClient.connect(store_url)
    settings = Settings(
        state_dir=directory,
        archive=ArchiveSettings(url=archive_url, delay_seconds=0, keep_seconds=0),
    )
    archive = Archive(client, settings)
    await archive.open(create=True)
    try:
        drain = Drain(client, archive.database, delay_seconds=0, keep_seconds=0)
        began, cpu = time.perf_counter(), time.process_time()
        while await drain.turn():
            pass
        drained = _rate("draining them into the archive", drain.rows_total, began, cpu)
        if drain.rows_total != 2 * entries * keys.BUCKETS:
            raise RuntimeError(f"{drain.rows_total} rows were archived")
        return [appended, drained, await _plain(archive.database, drain.rows_total)]
    finally:
        await archive.close()
        await client.close()


async def _plain(database: Database, count: int) -> Rate:
    """Insert rows as the plainest program does, and take them away again."""
    rows: list[dict[str, Any]] = []
    for number in range(1, count // 2 + 1):
        entry = unpack_ledger_entry(b"1790000000000-0", entry_of(number % keys.BUCKETS, number))
        rows += movement_rows(keys.BUCKETS + number % keys.BUCKETS, entry)
    began, cpu = time.perf_counter(), time.process_time()
    for start in range(0, len(rows), _BATCH):
        async with database.write() as connection:
            await connection.execute(insert(movements), rows[start : start + _BATCH])
    rate = _rate("a plain executemany of the same rows", len(rows), began, cpu)
    async with database.write() as connection:
        await connection.execute(delete(movements).where(movements.c.bucket >= keys.BUCKETS))
    return rate


def _rate(what: str, count: int, began: float, cpu: float) -> Rate:
    seconds = time.perf_counter() - began
    spent = time.process_time() - cpu
    return Rate(what, round(count / seconds), round(spent / count * 1_000_000))


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the rates and what they are of each other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=1_500, help="in each of 64 buckets")
    parser.add_argument("--url", help="an empty PostgreSQL database instead of SQLite")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    with (
        tempfile.TemporaryDirectory(prefix="authz-bench-") as directory,
        EmbeddedStore(Path(directory) / "state") as store,
    ):
        rates = asyncio.run(measure(store.url, options.url, Path(directory), options.entries))
    if options.json:
        lines = [msgspec.json.encode(rates).decode()]
    else:
        lines = [
            f"{rate.what:<40} {rate.per_second:>9,} movements/s {rate.cpu_us:>5} µs of CPU each"
            for rate in rates
        ]
        _, drained, plain = rates
        lines.append(
            f"draining is {drained.per_second / plain.per_second:.2f} of the plain insert, and "
            f"{drained.per_second / _GOAL_PER_SECOND:.1f} times the goal of 20,000 movements/s"
        )
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
