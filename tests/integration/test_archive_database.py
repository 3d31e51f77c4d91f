"""The archive's database: opened, migrated and told apart, on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from postgres import PostgresServer
from sqlalchemy import Connection, insert, select, text

from authz.errors import ArchiveUnavailable, ConfigError
from authz.ledger.database import FILE_NAME, HEAD, Database
from authz.ledger.schema import archive, metadata


async def test_the_migrated_tables_are_those_of_the_schema(
    archive_url: str, tmp_path: Path
) -> None:
    database = await Database.open(archive_url, tmp_path)

    def differences(connection: Connection) -> list[object]:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return list(compare_metadata(context, metadata))

    async with database.read() as connection:
        assert await connection.run_sync(differences) == []
    await database.close()


def test_the_newest_migration_is_known_without_alembic() -> None:
    config = Config()
    config.set_main_option("script_location", "authz.ledger:migrations")
    assert ScriptDirectory.from_config(config).get_heads() == [HEAD]


async def test_opening_twice_changes_nothing(archive_url: str, tmp_path: Path) -> None:
    first = await Database.open(archive_url, tmp_path)
    row = await first.identify("store-1")
    await first.close()
    second = await Database.open(archive_url, tmp_path)
    assert await second.identify("store-2") == row
    await second.close()


async def test_many_open_a_new_archive_at_once(archive_url: str, tmp_path: Path) -> None:
    async def identify() -> object:
        database = await Database.open(archive_url, tmp_path)
        try:
            return await database.identify("store")
        finally:
            await database.close()

    rows = await asyncio.gather(*(identify() for _ in range(8)))
    assert len(set(rows)) == 1


async def test_an_error_undoes_the_transaction(archive_url: str, tmp_path: Path) -> None:
    database = await Database.open(archive_url, tmp_path)

    async def fail() -> None:
        async with database.write() as connection:
            await connection.execute(
                insert(archive).values(id="a", store_identity="b", created_at=1)
            )
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    async with database.read() as connection:
        assert (await connection.execute(select(archive))).all() == []
    await database.close()


async def test_an_archive_of_a_newer_version_is_refused(archive_url: str, tmp_path: Path) -> None:
    database = await Database.open(archive_url, tmp_path)
    async with database.write() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    await database.close()
    with pytest.raises(ConfigError, match="newer version"):
        await Database.open(archive_url, tmp_path)


async def test_the_file_lies_in_the_state_directory(tmp_path: Path) -> None:
    database = await Database.open(None, tmp_path)
    assert database.address.endswith(FILE_NAME)
    assert (tmp_path / FILE_NAME).is_file()
    async with database.write() as connection:
        for pragma, value in (("journal_mode", "wal"), ("synchronous", 2), ("foreign_keys", 1)):
            found = (await connection.execute(text(f"PRAGMA {pragma}"))).scalar_one()
            assert found == value
    await database.close()
    assert (tmp_path / FILE_NAME).stat().st_mode & 0o777 == 0o600


async def test_who_only_looks_makes_no_archive(archive_url: str, tmp_path: Path) -> None:
    with pytest.raises(ArchiveUnavailable):
        await Database.open(archive_url, tmp_path, create=False)
    await (await Database.open(archive_url, tmp_path)).close()
    await (await Database.open(archive_url, tmp_path, create=False)).close()


async def test_what_is_no_database_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"no database at all" * 100)
    with pytest.raises(ArchiveUnavailable, match="not a database"):
        await Database.open(None, tmp_path)


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("mysql://somewhere/archive", "does not start with"),
        ("nothing at all", "no URL"),
    ],
)
async def test_a_wrong_url_is_named(url: str, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"archive.url: .*{complaint}"):
        await Database.open(url, tmp_path)


async def test_a_database_that_is_away_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(ArchiveUnavailable):
        await Database.open(f"postgresql://test@/none?host={tmp_path}", tmp_path)
    with pytest.raises(ArchiveUnavailable):
        await Database.open(None, tmp_path / "missing")


async def test_a_password_is_not_shown(postgres_server: PostgresServer, tmp_path: Path) -> None:
    url = postgres_server.new_database().replace("test@", "test:geheim@")
    database = await Database.open(url, tmp_path)
    assert "geheim" not in database.address
    await database.close()
