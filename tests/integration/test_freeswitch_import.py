"""`authz freeswitch import-cdrs`: files that FreeSWITCH could not deliver, on a real store."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from freeswitch.doors import CDR, CDR_BUSY, CDR_CALLED_LEG, CDR_UUID, cdr, recorded

from authz.cli import main
from authz.errors import CallUnknown, InvalidInput, NotExecuted
from authz.hooks.freeswitch.cdr_files import DONE_DIRECTORY, REMARKABLE_MAX, import_records
from authz.hooks.freeswitch.cdr_settle import CdrRules
from authz.hooks.freeswitch.lookup import Payer
from authz.model import Settlement, SettleRequest

DECK = "prefix,price,increment\n1312,0.06,1\n"
SETTINGS = """
[freeswitch]
contexts = ["public"]
rules = [{ account = "acme", from_user = "15550005" }]
"""


def national(record: bytes) -> bytes:
    """Return a record with a number that a deck can price in place of the lab's."""
    return re.sub(rb'("destination_number": ?)"30[0-9]{2}"', rb'\1"13125550100"', record)


@pytest.fixture
def failed(tmp_path: Path) -> Path:
    """An err-log-dir as mod_json_cdr leaves it."""
    directory = tmp_path / "failed"
    directory.mkdir()
    for name, request in (("a_" + CDR_UUID, CDR), ("b-leg", CDR_CALLED_LEG), ("busy", CDR_BUSY)):
        (directory / f"{name}.cdr.json").write_bytes(national(recorded(request).body))
    (directory / "torn.cdr.json").write_bytes(recorded(CDR).body[:5_000])
    (directory / "nobody.cdr.json").write_bytes(cdr(uuid="n", sip_from_user="x"))
    (directory / "nowhere.cdr.json").write_bytes(cdr(uuid="w", authz_account="nowhere"))
    (directory / "old.cdr.json").write_bytes(cdr(uuid="old", end_uepoch="1000000000000000"))
    (directory / "notes.txt").write_text("not a record")
    (directory / "link.cdr.json").symlink_to("/etc/passwd")
    return directory


class Books:
    """An account with credit, and the command line that imports into it."""

    def __init__(self, config_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._config = str(config_path)
        self._capsys = capsys

    def run(self, *words: str, status: int = 0) -> str:
        """Return what a command prints; it must end with this status."""
        found = main.run(["--config", self._config, *words])
        output = self._capsys.readouterr()
        assert found == status, output.err
        return output.out

    def imported(self, directory: Path, *options: str, status: int = 0) -> Any:
        """Return the report of an import."""
        words = ("freeswitch", "import-cdrs", str(directory), *options, "--json")
        return json.loads(self.run(*words, status=status))

    def balance(self) -> str:
        """Return what the account has left."""
        balance: str = json.loads(self.run("account", "balance", "acme", "--json"))["balance"]
        return balance


@pytest.fixture
def books(
    store_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[Books]:
    """An account that has 1 and pays 0.001 a second; its books are audited in the end."""
    monkeypatch.setenv("AUTHZ_STORE__URL", store_url)
    monkeypatch.setattr("authz.log.configure", lambda **_: None)
    (tmp_path / "deck.csv").write_text(DECK)
    (tmp_path / "authz.toml").write_text(SETTINGS)
    books = Books(tmp_path / "authz.toml", capsys)
    books.run("deck", "import", "retail", str(tmp_path / "deck.csv"))
    books.run("account", "create", "acme", "deck=retail")
    books.run("credit", "acme", "1", "--reference", "first")
    yield books
    assert books.run("audit").startswith("0 findings")


def names(directory: Path) -> set[str]:
    """Return the names of the files of a directory."""
    return {path.name for path in directory.iterdir() if path.is_file()}


def test_a_directory_is_booked_once(books: Books, failed: Path) -> None:
    report = books.imported(failed, status=1)

    assert report["counts"] == {
        "booked": 2,
        "booked before": 0,
        "booked before with other seconds": 0,
        "left to the archive": 1,
        "not charged": 1,
        "cannot be booked": 3,
    }
    assert {one["file"] for one in report["remarkable"]} == {
        "torn.cdr.json", "nobody.cdr.json", "nowhere.cdr.json",
    }  # fmt: skip
    assert all(one["detail"] for one in report["remarkable"])
    assert (report["left"], report["stopped"]) == (3, None)
    done = names(failed / DONE_DIRECTORY)
    assert done == {
        f"a_{CDR_UUID}.cdr.json", "b-leg.cdr.json", "busy.cdr.json", "old.cdr.json",
    }  # fmt: skip
    assert {"torn.cdr.json", "notes.txt", "link.cdr.json"} <= names(failed)
    assert books.balance() == "0.994"

    # As if the run had ended between booking and putting away.
    for name in done:
        (failed / DONE_DIRECTORY / name).rename(failed / name)
    again = books.imported(failed, status=1)
    assert again["counts"]["booked before"] == 2
    assert books.balance() == "0.994"


def test_booked_files_can_be_deleted(books: Books, tmp_path: Path) -> None:
    directory = tmp_path / "failed"
    directory.mkdir()
    (directory / "one.cdr.json").write_bytes(national(recorded(CDR).body))
    assert books.imported(directory, "--delete")["counts"]["booked"] == 1
    assert list(directory.iterdir()) == []
    table = books.run("freeswitch", "import-cdrs", str(directory))
    assert "booked before with other seconds  0" in table


def test_other_seconds_are_told_and_put_away(books: Books, tmp_path: Path) -> None:
    directory = tmp_path / "failed"
    directory.mkdir()
    (directory / "one.cdr.json").write_bytes(national(cdr()))
    books.imported(directory)
    (directory / "two.cdr.json").write_bytes(national(cdr(billmsec="9000")))
    [told] = books.imported(directory)["remarkable"]
    assert told["fate"] == "booked before with other seconds"
    assert told["detail"] == "the call is already settled with 6 seconds"
    assert names(directory) == set()
    assert books.balance() == "0.994"


async def no_settle(request: SettleRequest) -> Settlement:
    """Stand in where nothing is to be settled."""
    raise AssertionError(request)


RULES = CdrRules(("public",), lambda _event: Payer("acme", "outbound"), "up")


def _ignore(done: int, total: int) -> None:
    """Show no progress."""


async def test_a_store_that_goes_away_ends_the_run(failed: Path) -> None:
    asked: list[str] = []

    async def settle(request: SettleRequest) -> Settlement:
        asked.append(request.call_id)
        if len(asked) > 1:
            raise NotExecuted("the store is away")
        return Settlement(request.call_id, True, False, request.seconds, ())

    report = await import_records(failed, RULES, settle, _ignore)
    assert (report.stopped, report.counts["booked"]) == ("the store is away", 1)
    assert report.left == len([name for name in names(failed) if name != "notes.txt"]) - 1


async def test_what_cannot_be_read_is_dead(tmp_path: Path) -> None:
    (tmp_path / "huge.cdr.json").write_bytes(b" " * 16_777_217)
    (tmp_path / "empty.cdr.json").touch()
    report = await import_records(tmp_path, RULES, no_settle, _ignore)
    assert report.counts["cannot be booked"] == 2
    for error in (CallUnknown("never heard of it"), InvalidInput("to", "is no number")):
        (tmp_path / "call.cdr.json").write_bytes(cdr())

        async def settle(request: SettleRequest, error: Exception = error) -> Settlement:
            raise error

        report = await import_records(tmp_path, RULES, settle, _ignore)
        assert [one.detail for one in report.remarkable if one.seconds] == [str(error)]


async def test_not_every_dead_file_is_told_of(tmp_path: Path) -> None:
    for number in range(REMARKABLE_MAX + 1):
        (tmp_path / f"{number}.cdr.json").touch()
    report = await import_records(tmp_path, RULES, no_settle, _ignore)
    assert len(report.remarkable) == REMARKABLE_MAX
    assert report.left == report.counts["cannot be booked"] == REMARKABLE_MAX + 1


async def test_a_directory_must_be_usable(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="cannot be read"):
        await import_records(tmp_path / "none", RULES, no_settle, _ignore)
    (tmp_path / "one.cdr.json").write_bytes(cdr())
    (tmp_path / DONE_DIRECTORY).touch()
    with pytest.raises(InvalidInput, match="cannot hold imported"):
        await import_records(tmp_path, RULES, no_settle, _ignore)
    assert names(tmp_path) == {"one.cdr.json", DONE_DIRECTORY}
