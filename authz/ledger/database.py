"""The database below the archive: opened by URL, brought to the present tables, closed.

SQLite keeps a file in the state directory, written ahead and synced at every commit; PostgreSQL is
named by `archive.url` and may be shared by any number of hosts.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import importlib
import importlib.util
import os
import secrets
import sqlite3
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

from sqlalchemy import Connection, event, insert, inspect, select, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DataError, IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from authz.errors import ArchiveRefused, ArchiveUnavailable, ConfigError
from authz.ledger.file_writer import INSERT, FileWriter
from authz.ledger.schema import archive, movements
from authz.ledger.streams import Move, move_cursors, seed_cursors

#: The newest migration; a test holds it to the scripts. Knowing it spares most starts Alembic.
HEAD: Final = "0002"
FILE_NAME: Final = "archive.sqlite"
_DRIVERS: Final = {
    "sqlite": "sqlite+aiosqlite",
    "sqlite+aiosqlite": "sqlite+aiosqlite",
    "postgresql": "postgresql+asyncpg",
    "postgresql+asyncpg": "postgresql+asyncpg",
}
_SCRIPTS: Final = "authz.ledger:migrations"
#: Of every connection to a SQLite file; a statement waits 5 s for another process's write lock.
_PRAGMAS: Final = (
    "busy_timeout = 5000",
    "journal_mode = WAL",
    "synchronous = FULL",
    "foreign_keys = ON",
)
_CONNECT_SECONDS: Final = 5
_CONNECTIONS_MAX: Final = 8
#: Names the one lock that offices take while they migrate a shared database.
_MIGRATION_LOCK: Final = 0x617574687A
_IMMEDIATE: Final = "authz_immediate"


class _Elsewhere(Exception):
    """A cursor is not where it was believed to be."""


class ArchiveRow(NamedTuple):
    """Whose archive a database is."""

    id: str
    store_identity: str
    created_at: int


class Database:
    """An open archive. Its errors are ArchiveUnavailable, with the cause in words."""

    def __init__(self, engine: AsyncEngine, writer: FileWriter | None) -> None:
        """Use `open` instead."""
        self._engine = engine
        self._writer = writer

    @classmethod
    async def open(cls, url: str | None, state_dir: Path, *, create: bool = True) -> Self:
        """Open the database at `url`, or the file in the state directory.

        A new or older one is brought to the present tables, unless not to `create`: then it is
        ArchiveUnavailable, as when it cannot be reached now. Raises ConfigError for a URL that is
        wrong or a database of a newer authz.
        """
        parsed = _parse(url, state_dir)
        if parsed.database and parsed.drivername.startswith("sqlite"):
            await asyncio.to_thread(_prepare_file, Path(parsed.database), create)
        database = cls(_create_engine(parsed), _create_writer(parsed))
        try:
            await database._migrate(create)
        except BaseException:
            await database.close()
            raise
        return database

    @property
    def address(self) -> str:
        """Where the archive is, for messages, without secrets."""
        return self._engine.url.render_as_string(hide_password=True)

    @property
    def is_sqlite(self) -> bool:
        """Whether it is a file of this host."""
        return self._engine.dialect.name == "sqlite"

    @contextlib.asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """Yield a connection whose statements all see the archive as of the first of them."""
        with _unavailable():
            async with self._engine.connect() as connection:
                if not self.is_sqlite:
                    await connection.execution_options(isolation_level="REPEATABLE READ")
                yield connection

    @contextlib.asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """Yield a connection in a transaction: committed at the end, undone by an exception."""
        with _unavailable():
            async with self._engine.connect() as connection:
                await connection.execution_options(**{_IMMEDIATE: True})
                async with connection.begin():
                    yield connection

    async def store_movements(self, moves: Sequence[Move], rows: Sequence[tuple[Any, ...]]) -> bool:
        """Insert movements and move cursors of ledgers, durably and both or neither.

        A row has its values in the order of the table's columns. False: a cursor was elsewhere,
        and nothing is changed. Raises ArchiveRefused or ArchiveUnavailable.
        """
        if self._writer is not None:
            return await self._writer.store(moves, rows)
        try:
            async with self.write() as connection:
                if not await move_cursors(connection, moves):
                    raise _Elsewhere
                if rows and self.is_sqlite:
                    await connection.exec_driver_sql(INSERT, list(rows))
                elif rows:
                    await _copy(connection, rows)
        except _Elsewhere:
            return False
        return True

    async def identify(self, store_identity: str) -> ArchiveRow:
        """Return whose archive this is; a new one becomes that of the store."""
        async with self.write() as connection:
            await self._lock(connection)
            await seed_cursors(connection)
            found = (await connection.execute(select(archive))).one_or_none()
            if found is not None:
                return ArchiveRow(*found)
            row = ArchiveRow(secrets.token_hex(16), store_identity, int(time.time()))
            await connection.execute(insert(archive).values(row._asdict()))
            return row

    async def identity(self) -> ArchiveRow | None:
        """Return whose archive this is; None of one that is nobody's yet."""
        async with self.read() as connection:
            found = (await connection.execute(select(archive))).one_or_none()
        return None if found is None else ArchiveRow(*found)

    async def close(self) -> None:
        """Close every connection."""
        if self._writer is not None:
            await self._writer.close()
        await self._engine.dispose()

    async def _migrate(self, create: bool) -> None:
        async with self.read() as connection:
            present = await connection.run_sync(_revision)
        if present == HEAD:
            return
        if not create:
            raise ArchiveUnavailable(f"{self.address} has tables of {present}, not of {HEAD}")
        async with self.write() as connection:
            await self._lock(connection)
            # Another process may have done it meanwhile.
            present = await connection.run_sync(_revision)
            if present != HEAD:
                await connection.run_sync(_upgrade, present, self.address)

    async def _lock(self, connection: AsyncConnection) -> None:
        """Keep other processes from doing the same until the transaction ends."""
        if not self.is_sqlite:
            lock = text("SELECT pg_advisory_xact_lock(:lock)")
            await connection.execute(lock, {"lock": _MIGRATION_LOCK})


@contextlib.contextmanager
def _unavailable() -> Any:
    """Turn what a database or its driver raises into ArchiveUnavailable."""
    try:
        yield
    except (IntegrityError, DataError) as error:
        raise ArchiveRefused(f"{type(error.orig).__name__}: {error.orig}") from error
    except (SQLAlchemyError, OSError, TimeoutError) as error:
        cause = getattr(error, "orig", None) or error
        raise ArchiveUnavailable(f"{type(cause).__name__}: {cause}") from error


def _parse(url: str | None, state_dir: Path) -> URL:
    if url is None:
        return URL.create("sqlite+aiosqlite", database=str(state_dir / FILE_NAME))
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise ConfigError("archive.url: is no URL of a database") from None
    if parsed.drivername not in _DRIVERS:
        raise ConfigError("archive.url: does not start with sqlite:/// or postgresql://")
    if parsed.drivername.startswith("postgresql") and importlib.util.find_spec("asyncpg") is None:
        raise ConfigError("archive.url: PostgreSQL needs a driver: pip install 'authz[postgresql]'")
    return parsed.set(drivername=_DRIVERS[parsed.drivername])


def _prepare_file(path: Path, create: bool) -> None:
    """Make sure that SQLite can open the file; a new one is for this user's eyes only.

    An existing file is not opened here: to close it would release the locks that other
    connections of this process have on it.
    """
    if create and not path.exists():
        _create_file(path)
    if not os.access(path, os.R_OK | os.W_OK):
        missing = errno.EACCES if path.exists() else errno.ENOENT
        raise ArchiveUnavailable(f"{path}: {os.strerror(missing)}")


def _create_file(path: Path) -> None:
    """Make an empty database under its name at once, already written ahead.

    SQLite does not wait for others when it changes that: of many that open a new file at once,
    some would fail.
    """
    new = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    try:
        os.close(os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        try:
            with contextlib.closing(sqlite3.connect(new)) as connection:
                connection.execute("PRAGMA journal_mode = WAL")
            with contextlib.suppress(FileExistsError):
                os.link(new, path)
        finally:
            new.unlink()
    except (OSError, sqlite3.Error) as error:
        cause = error.strerror if isinstance(error, OSError) else error
        raise ArchiveUnavailable(f"{path}: {cause}") from error


def _create_engine(url: URL) -> AsyncEngine:
    options: dict[str, Any] = {"pool_size": _CONNECTIONS_MAX, "max_overflow": 0}
    if url.drivername == "postgresql+asyncpg":
        return create_async_engine(
            url,
            pool_pre_ping=True,
            connect_args={
                "timeout": _CONNECT_SECONDS,
                # What is trimmed from the store must be on the disk, whatever the server prefers.
                "server_settings": {"synchronous_commit": "on", "application_name": "authz"},
            },
            **options,
        )
    # The driver begins no transaction by itself: it would do so only before the first write.
    engine = create_async_engine(url, connect_args={"isolation_level": None}, **options)
    event.listen(engine.sync_engine, "connect", _set_pragmas)
    event.listen(engine.sync_engine, "begin", _begin)
    return engine


def _create_writer(url: URL) -> FileWriter | None:
    """Return what writes into a plain file faster than the engine, or None."""
    is_plain = (
        bool(url.database) and not url.query and not str(url.database).startswith(("file:", ":"))
    )
    if not url.drivername.startswith("sqlite") or not is_plain:
        return None
    return FileWriter(Path(str(url.database)), _PRAGMAS)


async def _copy(connection: AsyncConnection, rows: Sequence[tuple[Any, ...]]) -> None:
    """Insert movements by PostgreSQL's COPY, which takes a third of what statements do."""
    # Only with PostgreSQL is it there.
    asyncpg: Any = importlib.import_module("asyncpg")

    names = [column.name for column in movements.columns]
    driver: Any = (await connection.get_raw_connection()).driver_connection
    try:
        await driver.copy_records_to_table(movements.name, records=rows, columns=names)
    except (asyncpg.IntegrityConstraintViolationError, asyncpg.DataError) as error:
        raise ArchiveRefused(f"{type(error).__name__}: {error}") from error
    except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise ArchiveUnavailable(f"{type(error).__name__}: {error}") from error


def _set_pragmas(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    for pragma in _PRAGMAS:
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin(connection: Connection) -> None:
    # Who means to write says so at once: a reader that becomes a writer is refused, not delayed.
    immediate = connection.get_execution_options().get(_IMMEDIATE, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    revision = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return None if revision is None else str(revision)


def _upgrade(connection: Connection, present: str | None, address: str) -> None:
    # Few starts need it, and importing it takes longer than opening the archive.
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", _SCRIPTS)
    config.attributes["connection"] = connection
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if present is not None and present not in known:
        raise ConfigError(f"the archive {address} belongs to a newer version of authz ({present})")
    command.upgrade(config, "head")
