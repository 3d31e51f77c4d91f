"""`authz archive` on a real store and archive: what it shows, repairs and hands over."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from archives import archive_settings, drain_all, lead_calls, open_archive
from audit_helper import assert_clean_audit
from command_line import CommandLine
from world import World

from authz.ledger.archive import Archive
from authz.ledger.database import FILE_NAME
from authz.store import keys
from authz.store.client import StoreClient

BUCKET = keys.TAGS.index(keys.tag_of_root("master"))


class Cli(CommandLine):
    """The command line beside a business that `arrange` works on."""

    def __init__(self, store_url: str, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        super().__init__(capsys)
        self._store_url = store_url
        self._directory = directory

    def arrange(self, work: Callable[[World, Archive], Awaitable[None]], **options: Any) -> None:
        """Do something with the business and its archive."""

        async def run() -> None:
            world = await World.start(self._store_url, self._directory)
            try:
                async with open_archive(world.client, self._directory, None, **options) as archive:
                    await work(world, archive)
            finally:
                await world.close()

        asyncio.run(run())

    def on_store(self, work: Callable[[StoreClient], Awaitable[Any]]) -> None:
        """Do something with a client of the store."""

        async def run() -> None:
            client = await StoreClient.connect(self._store_url)
            await work(client)
            await client.close()

        asyncio.run(run())


@pytest.fixture
def cli(
    store_url: str,
    plain_logging: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Cli:
    """The command line with a store and a state directory."""
    monkeypatch.setenv("AUTHZ_STORE__URL", store_url)
    monkeypatch.setenv("AUTHZ_STATE_DIR", str(tmp_path))
    return Cli(store_url, tmp_path, capsys)


async def _archived_calls(world: World, archive: Archive) -> None:
    await world.client.execute("CONFIG", "SET", "stream-node-max-entries", 3)
    await world.pair()
    await lead_calls(world, 10)
    await drain_all(archive)
    await lead_calls(world, 2, "later")


def test_status_shows_how_far_it_is(cli: Cli) -> None:
    cli.arrange(_archived_calls)
    found = cli.json("archive", "status")
    assert found["archive"] == found["claimed"]
    (ledger,) = [
        one for one in found["streams"] if (one["stream"], one["bucket"]) == ("ledger", BUCKET)
    ]
    assert (ledger["sequence"], ledger["entries_behind"], ledger["fork"]) == (12, 2, None)
    status, out, _ = cli.run("archive", "status")
    assert status == 0
    assert ["ledger", "12", "2"] in [line.split()[:3] for line in out.splitlines()]


def test_status_says_what_is_missing(cli: Cli, tmp_path: Path) -> None:
    status, _, err = cli.run("archive", "status")
    assert status == 1
    assert "No such file" in err
    cli.arrange(_archived_calls)
    cli.on_store(lambda client: client.execute("SET", keys.archive(), "another"))
    assert cli.json("archive", "status", status=1)["claimed"] == "another"
    status, out, err = cli.run("archive", "status")
    assert status == 1
    assert "another" in out
    assert "not the archive of the store" in err


def test_the_audit_asks_the_archive(cli: Cli, tmp_path: Path) -> None:
    cli.arrange(_archived_calls)
    assert cli.json("audit", "--bucket", str(BUCKET))["findings"] == []
    (tmp_path / FILE_NAME).rename(tmp_path / "elsewhere")
    (finding,) = [
        one
        for one in cli.json("audit", "--bucket", str(BUCKET), status=1)["findings"]
        if one["invariant"] == "the ledger is whole"
    ]
    assert "trimmed" in finding["found"]


def test_a_credit_asks_the_archive(cli: Cli) -> None:
    async def pay(world: World, archive: Archive) -> None:
        await world.pair()

    cli.arrange(pay)
    assert cli.run("credit", "master", "5", "--reference", "INV-1")[0] == 0
    cli.arrange(lambda _, archive: drain_all(archive))
    cli.on_store(
        lambda client: client.execute(
            "DEL", keys.reference(keys.tag_of_root("master"), "master", "INV-1")
        )
    )
    assert cli.json("credit", "master", "5", "--reference", "INV-1")["duplicate"]
    status, _, err = cli.run("credit", "master", "6", "--reference", "INV-1")
    assert status == 1
    assert "used with another amount" in err


def test_repair_shows_both_sides_and_brings_them_together(cli: Cli) -> None:
    async def fork(world: World, archive: Archive) -> None:
        await _archived_calls(world, archive)
        tag = keys.tag_of_root("master")
        ((entry_id, _),) = await world.client.execute(
            *("XREVRANGE", keys.ledger(tag), "+", "-", "COUNT", 1)
        )
        await world.client.execute("XDEL", keys.ledger(tag), entry_id)

    cli.arrange(fork, keep_seconds=60)
    cli.arrange(lambda _, archive: drain_all(archive))
    assert "missing" in json.dumps(cli.json("archive", "status", status=1))
    status, out, _ = cli.run("archive", "repair", str(BUCKET))
    assert status == 1
    assert "agree up to entry 13" in out
    assert "1 entries after it are neither in the store nor archived" in out
    status, _, err = cli.run("archive", "repair", str(BUCKET), "--accept-store")
    assert status == 0
    assert "the archive goes on from there" in err
    assert cli.run("archive", "repair", str(BUCKET))[0] == 0
    cli.arrange(lambda world, archive: assert_clean(world, archive))


async def assert_clean(world: World, archive: Archive) -> None:
    """Audit store and archive together."""
    await drain_all(archive)
    await assert_clean_audit(world.client, archive)


def test_repair_shows_what_only_one_side_has(cli: Cli) -> None:
    async def fork(world: World, archive: Archive) -> None:
        await world.pair()
        await drain_all(archive)
        bucket = keys.bucket(keys.tag_of_root("master"))
        stream = keys.ledger(keys.tag_of_root("master"))
        ((entry_id, _),) = await world.client.execute("XREVRANGE", stream, "+", "-", "COUNT", 1)
        await world.client.execute("XDEL", stream, entry_id)
        await world.client.execute("HINCRBY", bucket, "sequence", -1)
        await world.credit("master", "7")

    cli.arrange(fork, keep_seconds=60)
    status, out, _ = cli.run("archive", "repair", str(BUCKET))
    assert status == 1
    lines = [line.split() for line in out.splitlines()]
    assert [line[0] for line in lines if line[1] == "2"] == ["archive", "store"]


def test_a_lost_archive_is_replaced(cli: Cli, tmp_path: Path) -> None:
    cli.arrange(_archived_calls)
    (tmp_path / FILE_NAME).unlink()
    for rest in tmp_path.glob(f"{FILE_NAME}-*"):
        rest.unlink()

    async def refused(client: StoreClient) -> None:
        archive = Archive(client, archive_settings(tmp_path, None))
        with pytest.raises(Exception, match="the store's archive is"):
            await archive.open(create=True)
        await archive.close()

    cli.on_store(refused)
    lost = cli.json("archive", "status", status=1)["claimed"]
    status, _, err = cli.run("archive", "claim", "0" * 32)
    assert status == 1
    assert lost in err
    assert cli.run("archive", "claim", lost)[0] == 0
    assert cli.json("archive", "status", status=1)["claimed"] != lost
    found = cli.json("archive", "repair", str(BUCKET), status=1)
    assert found["common"] == 0
    cli.json("archive", "repair", str(BUCKET), "--accept-store")
    cli.arrange(assert_clean)
