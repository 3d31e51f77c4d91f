"""An end to questions that take too long: a database would answer for hours if it is let."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any, Final

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from authz.errors import HistoryTooLong

#: Steps of SQLite's machine after which it looks at the clock: a few milliseconds.
_STEPS: Final = 100_000
#: What PostgreSQL calls a statement that has passed its time.
_QUERY_CANCELED: Final = "57014"


@contextlib.asynccontextmanager
async def time_limit(connection: AsyncConnection, limit_ms: int) -> AsyncIterator[None]:
    """End the statements of a connection that go on past the limit; then raise HistoryTooLong."""
    limit = _sqlite_limit if connection.dialect.name == "sqlite" else _postgresql_limit
    async with limit(connection, limit_ms):
        yield


@contextlib.asynccontextmanager
async def _sqlite_limit(connection: AsyncConnection, limit_ms: int) -> AsyncIterator[None]:
    driver: Any = (await connection.get_raw_connection()).driver_connection
    until_ns = time.monotonic_ns() + limit_ms * 1_000_000

    def is_over() -> bool:
        return time.monotonic_ns() > until_ns

    await driver.set_progress_handler(is_over, _STEPS)
    try:
        yield
    except DBAPIError as error:
        if is_over() and "interrupted" in str(error.orig):
            raise HistoryTooLong from error
        raise
    finally:
        await driver.set_progress_handler(None, _STEPS)


@contextlib.asynccontextmanager
async def _postgresql_limit(connection: AsyncConnection, limit_ms: int) -> AsyncIterator[None]:
    await connection.exec_driver_sql(f"SET LOCAL statement_timeout = {limit_ms}")
    try:
        yield
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) == _QUERY_CANCELED:
            raise HistoryTooLong from error
        raise
