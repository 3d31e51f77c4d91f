"""`authz token` and `authz changes`, and what other commands write into the log of changes."""

from __future__ import annotations

import asyncio
import getpass
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from audit_helper import assert_clean_audit
from command_line import CommandLine

from authz.config import Settings
from authz.ledger.archive import Archive
from authz.store.client import StoreClient

DECK = "prefix,description,price,increment\n1,North America,0.01,6\n"
USER = f"cli:{getpass.getuser()}"


@pytest.fixture
def cli(
    store_url: str,
    plain_logging: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[CommandLine]:
    """Commands on a store whose archive an office has made."""
    monkeypatch.setenv("AUTHZ_STORE__URL", store_url)
    monkeypatch.setenv("AUTHZ_STATE_DIR", str(tmp_path))

    async def with_archive(work: Callable[[StoreClient, Archive], Awaitable[object]]) -> None:
        client = await StoreClient.connect(store_url)
        archive = Archive(client, Settings(state_dir=tmp_path))
        try:
            await archive.open(create=True)
            await work(client, archive)
        finally:
            await archive.close()
            await client.close()

    async def nothing(_client: StoreClient, _archive: Archive) -> None:
        return

    asyncio.run(with_archive(nothing))
    yield CommandLine(capsys)
    asyncio.run(with_archive(assert_clean_audit))


def test_a_token_is_printed_once(cli: CommandLine) -> None:
    cli.ok("account", "create", "acme")
    token = cli.ok("token", "create", "portal", "--role", "operate", "--account", "acme").strip()
    assert token.startswith("authz_")
    (listed,) = cli.json("token", "list")
    assert (listed["name"], listed["role"], listed["account"]) == ("portal", "operate", "acme")
    assert listed["id"] == token.split("_")[1]
    secret = token.split("_", 2)[2]
    assert secret not in cli.ok("token", "list") + cli.ok("changes")
    end = "2100-01-01T00:00:00Z"
    made = cli.json("token", "create", "grafana", "--role", "read", "--expires", end)
    assert made["expires_at"] == end
    assert cli.ok("token", "revoke", "portal").startswith("portal (")
    cli.ok("token", "revoke", made["id"])
    assert cli.json("token", "list") == []


def test_wrong_tokens_are_refused_by_name(cli: CommandLine) -> None:
    assert "no account nobody" in cli.error(
        "token", "create", "x", "--role", "read", "--account", "nobody"
    )
    assert "has passed" in cli.error(
        "token", "create", "x", "--role", "read", "--expires", "2020-01-01T00:00:00Z"
    )
    assert "name" in cli.error("token", "create", "a b", "--role", "read")
    cli.error("token", "create", "x", status=2)
    assert "no token x" in cli.error("token", "revoke", "x")
    cli.ok("token", "create", "x", "--role", "read")
    assert "is called x" in cli.error("token", "create", "x", "--role", "read")


def test_commands_are_in_the_log_of_changes(cli: CommandLine, tmp_path: Path) -> None:
    deck = tmp_path / "deck.csv"
    deck.write_text(DECK)
    cli.ok("deck", "import", "retail", str(deck), "--dry-run")
    cli.ok("deck", "import", "retail", str(deck))
    cli.ok("account", "create", "acme", "deck=retail")
    cli.ok("account", "set", "acme", "max_calls=3")
    cli.ok("credit", "acme", "5", "--reference", "first")
    cli.error("debit", "acme", "9", "--kind", "sms", "--require-available")
    cli.error("account", "delete", "acme", "--yes")
    cli.ok("account", "show", "acme")
    entries = cli.json("changes")["changes"]
    assert {one["who"] for one in entries} == {USER}
    told = [(one["action"], one["target"], one["status"]) for one in reversed(entries)]
    assert told == [
        ("authz deck import", "retail", 200),
        ("authz account create", "acme", 200),
        ("authz account set", "acme", 200),
        ("authz credit", "acme", 200),
        ("authz debit", "acme", 409),
        ("authz account delete", "acme", 409),
    ]
    assert entries[-3]["detail"] == {"fields": {"max_calls": 3}}
    assert "balance" in entries[0]["detail"]["reason"]


def test_changes_are_filtered_and_paged(cli: CommandLine) -> None:
    for number in range(3):
        cli.ok("account", "create", f"acme-{number}")
    assert len(cli.json("changes", "--who", USER, "--target", "acme-1")["changes"]) == 1
    first = cli.json("changes", "--limit", "2")
    rest = cli.json("changes", "--limit", "2", "--cursor", first["cursor"])
    found = [one["target"] for one in (*first["changes"], *rest["changes"])]
    assert found == ["acme-2", "acme-1", "acme-0"]
    assert rest["cursor"] is None
    assert "cursor" in cli.error("changes", "--cursor", "x")
    assert "limit" in cli.error("changes", "--limit", "0")
    assert "acme-2" in cli.ok("changes", "--limit", "1")
