"""An account's history: transactions, usage and statements from the archive.

Each question first lets the archive take in what the account's ledger has, so that whoever has
booked something sees it. What it then asks of the database is read from one moment.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
from collections.abc import AsyncIterator
from functools import partial
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

from sqlalchemy.ext.asyncio import AsyncConnection

from authz.errors import ArchiveUnavailable, InvalidInput, NotFound
from authz.ledger.archive import Archive
from authz.ledger.csv_file import csv_chunks
from authz.ledger.messages import (
    MovementQuery,
    Statement,
    StatementQuery,
    TransactionPage,
    TransactionQuery,
    UsageAnswer,
)
from authz.ledger.selections import Selection
from authz.ledger.statements import read_sheet
from authz.ledger.time_limit import time_limit
from authz.ledger.transactions import read_page, stream_rows
from authz.ledger.usage import read_usage
from authz.ledger.windows import (
    MICROS_PER_SECOND,
    Window,
    moment_text,
    month_at,
    parse_month,
)
from authz.model import AccountConfig
from authz.money import format_amount
from authz.store.accounts import AccountDirectory
from authz.store.client import StoreClient

#: Questions that one process asks the database at a time: the archive needs connections too.
_READS_MAX: Final = 4
_WAIT_SECONDS: Final = 10
_PAGE_LENGTH: Final = 100
#: How long one question may keep the database, in milliseconds.
_READ_MS_MAX: Final = 60_000


class TransactionFile(NamedTuple):
    """All transactions of a selection as CSV, to be taken chunk by chunk."""

    name: str
    chunks: AsyncIterator[bytes]


class _Asked(NamedTuple):
    """An account as its history is told: in its currency and its days."""

    currency: str
    timezone: str
    zone: ZoneInfo


class History:
    """Answers questions about what was booked; any number of processes may.

    Every method raises NotFound for an account that never was, InvalidInput naming the field,
    StoreError when the store does not answer, ArchiveUnavailable or ArchiveElsewhere when the
    archive does not, HistoryTooLong when there is too much to look through.
    """

    def __init__(
        self,
        client: StoreClient,
        directory: AccountDirectory,
        archive: Archive,
        *,
        read_ms_max: int = _READ_MS_MAX,
    ) -> None:
        self._client = client
        self._directory = directory
        self._archive = archive
        self._read_ms_max = read_ms_max
        self._reads = asyncio.Semaphore(_READS_MAX)

    async def transactions(self, query: TransactionQuery) -> TransactionPage:
        """Return one page of an account's transactions."""
        asked = await self._asked(query.id)
        selection = Selection.of(query, asked.zone)
        await self._archive.catch_up(query.id)
        async with self._read() as connection:
            limit = query.limit or _PAGE_LENGTH
            page = await read_page(connection, selection, query.sort, query.cursor, limit)
        start, end = _shown(selection.window)
        return TransactionPage(
            account=query.id,
            currency=asked.currency,
            timezone=asked.timezone,
            start=start,
            end=end,
            transactions=page.transactions,
            cursor=page.cursor,
        )

    async def transactions_csv(self, query: TransactionQuery) -> TransactionFile:
        """Return all of an account's transactions as a file, with times of the account's zone."""
        for name, value in (("cursor", query.cursor), ("limit", query.limit)):
            if value is not None:
                raise InvalidInput(name, "a file has no pages: leave it out")
        asked = await self._asked(query.id)
        selection = Selection.of(query, asked.zone)
        await self._archive.catch_up(query.id)
        # A file that is half sent waits its turn, however long the questions before it take.
        parts = stream_rows(partial(self._read, wait_seconds=None), selection, query.sort)
        words = ("transactions", query.id, *_days(selection.window, asked.zone))
        return TransactionFile(
            f"{'-'.join(words)}.csv", csv_chunks(parts, asked.zone, asked.currency)
        )

    async def usage(self, query: MovementQuery) -> UsageAnswer:
        """Return the sums of an account's movements."""
        asked = await self._asked(query.id)
        selection = Selection.of(query, asked.zone)
        await self._archive.catch_up(query.id)
        async with self._read() as connection:
            usage = await read_usage(connection, selection)
        start, end = _shown(selection.window)
        return UsageAnswer(
            account=query.id,
            currency=asked.currency,
            timezone=asked.timezone,
            start=start,
            end=end,
            **usage._asdict(),
        )

    async def statement(self, query: StatementQuery) -> Statement:
        """Return an account's statement of a month that has begun."""
        asked = await self._asked(query.id)
        # The store's time, before the archive takes in what was booked until then: a month that
        # is over by it can get no more entries that are not archived.
        seconds, micros = await self._client.execute("TIME")
        now_us = int(seconds) * MICROS_PER_SECOND + int(micros)
        present = month_at(now_us, asked.zone)
        month = present if query.month is None else parse_month(query.month)
        if month > present:
            raise InvalidInput("month", f"{month} has not begun")
        await self._archive.catch_up(query.id)
        start_us, end_us = month.window(asked.zone)
        async with self._read() as connection:
            sheet = await read_sheet(connection, query.id, start_us, end_us)
        return Statement(
            account=query.id,
            currency=asked.currency,
            timezone=asked.timezone,
            month=str(month),
            start=moment_text(start_us),
            end=moment_text(end_us),
            complete=now_us >= end_us,
            opening_balance=format_amount(sheet.opening_micros),
            totals=sheet.totals,
            closing_balance=format_amount(sheet.closing_micros),
        )

    async def _asked(self, account_id: str) -> _Asked:
        config: AccountConfig | None = await self._directory.last_config(account_id)
        if config is None:
            raise NotFound(f"no account {account_id}")
        return _Asked(config.currency, config.timezone, ZoneInfo(config.timezone))

    @contextlib.asynccontextmanager
    async def _read(
        self, wait_seconds: int | None = _WAIT_SECONDS
    ) -> AsyncIterator[AsyncConnection]:
        try:
            async with asyncio.timeout(wait_seconds):
                await self._reads.acquire()
        except TimeoutError:
            raise ArchiveUnavailable("too many questions are being answered") from None
        try:
            async with (
                self._archive.database.read() as connection,
                time_limit(connection, self._read_ms_max),
            ):
                yield connection
        finally:
            self._reads.release()


def _shown(window: Window) -> list[str | None]:
    return [None if side is None else moment_text(side) for side in window]


def _days(window: Window, zone: dt.tzinfo) -> list[str]:
    """Return the dates that name a file: the first and the last day of a window."""
    last_us = None if window.end_us is None else window.end_us - 1
    return [moment_text(side, zone)[:10] for side in (window.start_us, last_us) if side is not None]
