"""`authz account transactions`, `usage` and `statement` on a real store and its archive."""

from __future__ import annotations

import asyncio
import csv
import io
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from audit_helper import assert_clean_audit
from command_line import CommandLine

from authz.config import Settings
from authz.ledger.archive import Archive
from authz.ledger.csv_file import COLUMNS
from authz.store.client import StoreClient


class Cli(CommandLine):
    """The command line with a store and a state directory of its own."""

    def __init__(self, capsys: pytest.CaptureFixture[str], url: str, directory: Path) -> None:
        super().__init__(capsys)
        self._url = url
        self.directory = directory

    def with_archive(self, work: Callable[[StoreClient, Archive], Awaitable[object]]) -> None:
        """Do something as the office would, which makes the archive."""

        async def run() -> None:
            client = await StoreClient.connect(self._url)
            archive = Archive(client, Settings(state_dir=self.directory))
            try:
                await archive.open(create=True)
                await work(client, archive)
            finally:
                await archive.close()
                await client.close()

        asyncio.run(run())

    def make_archive(self) -> None:
        """Make the archive, as the daemon's first start does."""

        async def nothing(_client: StoreClient, _archive: Archive) -> None:
            """Opening it is enough."""

        self.with_archive(nothing)


@pytest.fixture
def cli(
    store_url: str,
    plain_logging: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> Iterator[Cli]:
    monkeypatch.setenv("AUTHZ_STORE__URL", store_url)
    monkeypatch.setenv("AUTHZ_STATE_DIR", str(tmp_path))
    cli = Cli(capsys, store_url, tmp_path)
    yield cli
    cli.with_archive(assert_clean_audit)


def business(cli: Cli) -> None:
    """Create `acme` and `acme-sales` below it, with some postings."""
    cli.make_archive()
    cli.ok("account", "create", "acme", "timezone=America/New_York")
    cli.ok("account", "create", "acme-sales", "parent=acme")
    cli.ok("credit", "acme", "10", "--reference", "first")
    cli.ok("debit", "acme-sales", "0.5", "--kind", "sms", "--description", "=two messages")
    cli.ok("debit", "acme-sales", "0.25", "--kind", "asr")


def test_transactions_are_listed(cli: Cli) -> None:
    business(cli)
    lines = cli.ok("account", "transactions", "acme").splitlines()
    assert lines[0].split()[:4] == ["booked", "at", "kind", "origin"]
    assert [line.split()[1:3] for line in lines[1:]] == [
        ["asr", "acme-sales"], ["sms", "acme-sales"], ["payment", "acme"],
    ]  # fmt: skip
    page = cli.json("account", "transactions", "acme", "--origin", "acme-sales", "--limit", "1")
    (newest,) = page["transactions"]
    assert (newest["kind"], newest["amount"], newest["balance"]) == ("asr", "-0.25", "9.25")
    page = cli.json(
        "account", "transactions", "acme", "--origin", "acme-sales", "--cursor", page["cursor"]
    )
    assert [one["kind"] for one in page["transactions"]] == ["sms"]
    assert page["cursor"] is None
    _, _, hint = cli.run("account", "transactions", "acme", "--limit", "2")
    assert "--cursor" in hint


def test_transactions_are_downloaded(cli: Cli, tmp_path: Path) -> None:
    business(cli)
    text = cli.ok("account", "transactions", "acme", "--csv", "--sort", "booked")
    rows = list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
    assert [row["amount"] for row in rows] == ["10", "-0.5", "-0.25"]
    assert rows[1]["description"] == "'=two messages"
    path = tmp_path / "sms.csv"
    assert not cli.ok("account", "transactions", "acme", "--kind", "sms", "--csv", "-o", str(path))
    assert path.read_text().splitlines()[0] == ",".join(COLUMNS)
    assert len(path.read_text().splitlines()) == 2


def test_usage_is_summed_up(cli: Cli) -> None:
    business(cli)
    answer = cli.json("account", "usage", "acme", "--under", "acme-sales")
    assert answer["total"]["amount"] == "-0.75"
    text = cli.ok("account", "usage", "acme")
    assert "9.25 USD in 3 entries" in text
    assert ["sms", "1", "0", "0", "-0.5"] in [line.split() for line in text.splitlines()]


def test_a_statement_is_shown(cli: Cli) -> None:
    business(cli)
    status, text, hint = cli.run("account", "statement", "acme")
    assert status == 0
    assert "not over" in hint
    assert ["closing", "balance", "9.25", "USD"] in [line.split() for line in text.splitlines()]
    sheet = cli.json("account", "statement", "acme", "2020-01")
    assert (sheet["complete"], sheet["start"]) == (True, "2020-01-01T05:00:00Z")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("transactions", "nobody"), "no account nobody"),
        (("transactions", "acme", "--start", "soon"), "start: 'soon' is not a date"),
        (("transactions", "acme", "--limit", "0"), "limit"),
        (("transactions", "acme", "--csv", "--limit", "5"), "limit: a file has no pages"),
        (("transactions", "acme", "--cursor", "x"), "cursor"),
        (("transactions", "acme", "--sort", "amount"), "31 days"),
        (("usage", "acme", "--kind", "sms", "--class", "national"), "only calls"),
        (("statement", "acme", "2026-13"), "month"),
        (("statement", "acme", "2999-01"), "has not begun"),
    ],
)
def test_a_wrong_question_is_answered_in_words(
    cli: Cli, words: tuple[str, ...], message: str
) -> None:
    business(cli)
    assert message in cli.error("account", *words)


def test_a_wrong_option_is_a_usage_error(cli: Cli) -> None:
    business(cli)
    assert "--kind" in cli.error("account", "transactions", "acme", "--kind", "calls", status=2)
    assert "one of the two" in cli.error(
        "account", "transactions", "acme", "--csv", "--json", status=2
    )


def test_without_an_archive_it_says_so(cli: Cli) -> None:
    cli.ok("account", "create", "acme")
    assert "archive" in cli.error("account", "transactions", "acme")
    assert not list(cli.directory.glob("archive.sqlite*"))
