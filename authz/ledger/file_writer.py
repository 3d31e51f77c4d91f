"""Movements into a SQLite file: a connection of its own, in a thread of its own.

One transaction is one errand for that thread. Through the engine it would be a dozen, each of which
wakes a thread up twice, and that takes more of the processor than to insert a hundred rows.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from authz.errors import ArchiveRefused, ArchiveUnavailable
from authz.ledger.schema import movements
from authz.ledger.streams import Move

#: Inserts a movement whose values are in the order of the table's columns.
INSERT: Final = (
    f"INSERT INTO movements ({', '.join(column.name for column in movements.columns)}) "
    f"VALUES ({', '.join('?' for _ in movements.columns)})"
)
_MOVE: Final = (
    "UPDATE cursors SET entry_id = ?, sequence = ? "
    "WHERE stream = ? AND bucket = ? AND entry_id = ? AND sequence = ?"
)


class FileWriter:
    """Writes into one file; what is cancelled is done or undone as a whole."""

    def __init__(self, path: Path, pragmas: Sequence[str]) -> None:
        """The file is there, with its tables; it is opened with the first transaction."""
        self._path = path
        self._pragmas = pragmas
        self._connection: sqlite3.Connection | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="archive")

    async def store(self, moves: Sequence[Move], rows: Sequence[tuple[Any, ...]]) -> bool:
        """Move the cursors and insert the rows, durably; or do nothing, if a cursor is elsewhere.

        Raises ArchiveRefused for rows that cannot be stored and ArchiveUnavailable for all else.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._store, moves, rows)

    async def close(self) -> None:
        """Let what runs end, and close the file."""
        self._thread.submit(self._disconnect)
        await asyncio.to_thread(self._thread.shutdown)

    def _store(self, moves: Sequence[Move], rows: Sequence[tuple[Any, ...]]) -> bool:
        try:
            connection = self._connected()
            with _transaction(connection):
                if _moved(connection, moves) == len(moves):
                    connection.executemany(INSERT, rows)
                    return True
                raise _Elsewhere
        except _Elsewhere:
            return False
        except (sqlite3.IntegrityError, sqlite3.DataError) as error:
            raise ArchiveRefused(f"{type(error).__name__}: {error}") from error
        except (sqlite3.Error, OSError) as error:
            self._disconnect()
            raise ArchiveUnavailable(f"{type(error).__name__}: {error}") from error

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            connection = sqlite3.connect(self._path, isolation_level=None)
            try:
                for pragma in self._pragmas:
                    connection.execute(f"PRAGMA {pragma}")
            except sqlite3.Error:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class _Elsewhere(Exception):
    """A cursor is not where it was believed to be."""


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Any:
    """Commit at the end, undo by an exception; nobody else writes meanwhile."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # Some errors have ended it already.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _moved(connection: sqlite3.Connection, moves: Sequence[Move]) -> int:
    """Move the cursors that are where they are believed to be, and return how many those are."""
    return connection.executemany(
        _MOVE,
        [(*move.after, move.stream.name, move.stream.bucket, *move.before) for move in moves],
    ).rowcount
