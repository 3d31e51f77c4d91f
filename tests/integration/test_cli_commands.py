"""The commands that keep accounts, money, decks and calls, on a real store."""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from audit_helper import assert_clean_audit
from command_line import CommandLine
from world import World

from authz.store import keys
from authz.store.client import StoreClient
from authz.store.embedded import EmbeddedStore

DECK = "prefix,description,price,increment\n1,North America,0.01,6\n44,United Kingdom,0.0137,1\n"
BAD_DECK = DECK + "49,Germany,none,6\n"


@pytest.fixture
def unaudited_cli(
    store_url: str,
    plain_logging: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> CommandLine:
    """For tests that damage the store on purpose."""
    monkeypatch.setenv("AUTHZ_STORE__URL", store_url)
    return CommandLine(capsys)


@pytest.fixture
def cli(unaudited_cli: CommandLine, store_url: str) -> Iterator[CommandLine]:
    yield unaudited_cli
    on_store(store_url, assert_clean_audit)


@pytest.fixture
def deck_file(tmp_path: Path) -> Path:
    path = tmp_path / "deck.csv"
    path.write_text(DECK)
    return path


def on_store(url: str, work: Callable[[StoreClient], Awaitable[object]]) -> None:
    """Do something with a client of the store."""

    async def run() -> None:
        client = await StoreClient.connect(url)
        try:
            await work(client)
        finally:
            await client.close()

    asyncio.run(run())


def pair(cli: CommandLine, deck_file: Path) -> None:
    """Create `acme` with 10 and `acme-sales` below it with 5, both with the test's deck."""
    cli.ok("deck", "import", "retail", str(deck_file))
    cli.ok("account", "create", "acme", "deck=retail")
    cli.ok("account", "create", "acme-sales", "parent=acme")
    cli.ok("credit", "acme", "10", "--reference", "first")
    cli.ok("credit", "acme-sales", "5", "--reference", "first")


def test_an_account_is_created_changed_shown_and_closed(cli: CommandLine) -> None:
    view = cli.json(
        "account", "create", "acme", "credit_limit=20", "trunks.outbound=2",
        "blocked_classes=premium,satellite", "max_calls_by_class.international=3",
        "low_balance.threshold=5", "metadata.crm=42", "enforce=false",
    )  # fmt: skip
    assert view["trunks"] == {"inbound": 0, "outbound": 2, "twoway": 0, "burst": 0}
    assert view["blocked_classes"] == ["premium", "satellite"]
    assert view["max_calls_by_class"] == {"international": 3}
    assert (view["metadata"], view["enforce"]) == ({"crm": "42"}, False)
    view = cli.json("account", "set", "acme", "max_calls=7", "low_balance=null", "enforce=true")
    assert (view["max_calls"], view["low_balance"], view["enforce"]) == (7, None, True)
    assert cli.json("account", "show", "acme") == view
    # What is shown is what is set.
    shown = dict(line.split(maxsplit=1) for line in cli.ok("account", "show", "acme").splitlines()
                 if len(line.split()) == 2)  # fmt: skip
    assert (shown["trunks.outbound"], shown["blocked_classes"]) == ("2", "premium,satellite")
    assert "closed" in cli.ok("account", "delete", "acme", "--yes")
    assert "no account acme" in cli.error("account", "show", "acme")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["max_cals=1"], "did you mean max_calls?"),
        (["max_calls=many"], "max_calls: 'many' is no whole number"),
        (["enabled=perhaps"], "enabled: 'perhaps' is neither true nor false"),
        (["trunks=2"], "write trunks.NAME=VALUE"),
        (["credit_limit"], "write FIELD=VALUE"),
        (["credit_limit=1", "credit_limit=2"], "is there twice"),
        (["credit_limit=-1"], "credit_limit: must not be negative"),
        (["trunks.burst=-2"], "trunks.burst"),
        (["blocked_classes=premum"], "blocked_classes"),
        (["parent=nobody"], "parent: no account nobody"),
    ],
)
def test_a_wrong_field_is_named(cli: CommandLine, words: list[str], message: str) -> None:
    assert message in cli.error("account", "create", "acme", *words)
    assert cli.json("account", "list") == []


def test_an_existing_account_is_not_created_again(cli: CommandLine) -> None:
    cli.ok("account", "create", "acme")
    assert "authz account set acme" in cli.error("account", "create", "acme")


def test_accounts_are_listed_with_balances(cli: CommandLine, deck_file: Path) -> None:
    pair(cli, deck_file)
    lines = cli.ok("account", "list").splitlines()
    assert lines[0].split() == [
        "account", "parent", "currency", "balance", "held", "available", "calls",
    ]  # fmt: skip
    assert lines[1].split() == ["acme", "-", "USD", "10", "0", "10", "0"]
    assert lines[2].split() == ["acme-sales", "acme", "USD", "5", "0", "5", "0"]
    assert [one["account"] for one in cli.json("account", "list", "--parent", "acme")] == [
        "acme-sales"
    ]
    assert len(cli.json("account", "list", "--limit", "1")) == 1
    lines = cli.ok("account", "balance", "acme-sales").splitlines()
    assert lines[0].split() == ["acme-sales", "acme"]
    assert lines[2].split() == ["balance", "5", "10"]
    assert cli.json("account", "balance", "acme-sales")["chain"][0]["account"] == "acme"


def test_money_is_booked_once_for_each_reference(
    cli: CommandLine, deck_file: Path, store_url: str
) -> None:
    pair(cli, deck_file)
    booked = cli.json("debit", "acme-sales", "0.35", "--kind", "sms", "--reference", "s1")
    assert [leg["balance"] for leg in booked["legs"]] == ["4.65", "9.65"]
    assert cli.json("debit", "acme-sales", "0.35", "--kind", "sms", "--reference", "s1")[
        "duplicate"
    ]
    status, _, err = cli.run("debit", "acme-sales", "0.35", "--kind", "sms", "--reference", "s1")
    assert (status, "nothing was booked now" in err) == (0, True)
    assert "is used with another amount" in cli.error(
        "debit", "acme-sales", "1", "--kind", "sms", "--reference", "s1"
    )
    refused = cli.error("debit", "acme-sales", "5", "--require-available")
    assert "nothing was booked" in refused
    assert "insufficient_credit" in refused
    only_self = cli.json("debit", "acme-sales", "1", "--self")
    assert [leg["account"] for leg in only_self["legs"]] == ["acme-sales"]
    assert only_self["reference"].startswith("cli-")
    assert "decimal amount" in cli.error("credit", "acme", "ten")
    assert "AMOUNT is missing" in cli.error("credit", "acme", status=2)
    on_store(store_url, assert_clean_audit)


def test_a_deck_goes_in_and_out_unchanged(
    cli: CommandLine, deck_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dry = cli.json("deck", "import", "retail", str(deck_file), "--dry-run", "--currency", "EUR")
    assert (dry["published"], dry["difference"]["counts"]) == (False, {"added": 2})
    assert cli.json("deck", "list") == []
    out = cli.ok("deck", "import", "retail", str(deck_file), "--currency", "EUR")
    assert "2 added, 0 unchanged" in out
    exported = cli.ok("deck", "export", "retail")
    cli.ok("deck", "export", "retail", "-o", str(tmp_path / "retail.csv"))
    assert (tmp_path / "retail.csv").read_text() == exported
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(exported.encode())))
    again = cli.json("deck", "import", "retail", "-")
    # Currency and zone are those of the deck in force, whatever the settings say.
    assert (again["published"], again["currency"]) == (False, "EUR")
    assert cli.json("deck", "show", "retail")["prefixes"] == 2
    assert "retail" in cli.ok("deck", "list")
    assert "no deck wholesale" in cli.error("deck", "show", "wholesale")
    assert "no deck wholesale" in cli.error("deck", "lookup", "wholesale", "1")
    assert "no time zone" in cli.error("deck", "import", "x", str(deck_file), "--timezone", "Mars")


def test_bad_lines_are_reported_and_refuse_the_deck(cli: CommandLine, deck_file: Path) -> None:
    deck_file.write_text(BAD_DECK)
    status, out, err = cli.run("deck", "import", "retail", str(deck_file))
    assert status == 1
    assert out.splitlines()[1].split()[0] == "4"
    assert "1 bad line; nothing was imported" in err
    status, out, _ = cli.run("deck", "import", "retail", str(deck_file), "--json")
    assert (status, json.loads(out)["report"]["bad_lines"]) == (1, 1)
    done = cli.json("deck", "import", "retail", str(deck_file), "--skip-bad")
    assert (done["published"], done["report"]["blocked"]) == (True, 1)
    row = cli.json("deck", "lookup", "retail", "+4930123456")
    assert (row["prefix"], row["blocked"]) == ("49", True)


def test_a_price_is_exact(cli: CommandLine, deck_file: Path) -> None:
    pair(cli, deck_file)
    number = "+442071838750"
    price = cli.json("price", number, "--account", "acme-sales", "--seconds", "61")
    assert (price["cost"], len(price["legs"])) == ("0.013928", 2)
    bought = cli.json("price", number, "--deck", "retail", "--amount", "0.013928")
    assert bought["seconds"] == 61
    table = cli.ok("price", number, "--account", "acme-sales", "--seconds", "61")
    assert "0.013928" in table
    cli.ok("account", "set", "acme-sales", "discounts.international=12.5")
    table = cli.ok("price", number, "--account", "acme-sales", "--seconds", "61")
    assert "0.012187" in table
    assert "less 12.5 %" in table
    assert "no rate" in cli.ok("price", "+8613800138000", "--deck", "retail")
    assert "name an account or a deck" in cli.error("price", number)
    assert "no deck none" in cli.error("price", number, "--deck", "none")
    assert "no account none" in cli.error("price", number, "--account", "none")
    assert "at:" in cli.error("price", number, "--deck", "retail", "--at", "noon")
    assert "seconds" in cli.error("price", number, "--deck", "retail", "--seconds", "-1")


def test_calls_that_nobody_can_end_become_orphans(
    cli: CommandLine, store_url: str, tmp_path: Path
) -> None:
    async def place_calls() -> None:
        world = await World.start(store_url, tmp_path)
        await world.pair()
        await world.granted("c1", switch="fs1")
        await world.granted("c2")
        await world.close()

    asyncio.run(place_calls())
    ended = cli.json("call", "hangup", "sub", "c1")
    assert (ended["switch"], ended["asked"]) == ("fs1", False)
    assert cli.json("call", "show", "sub", "c1")["lease_until"] == ended["orphan_at"]
    assert cli.json("call", "hangup", "master", "--all") == {"calls": 2, "not_asked": 2}
    assert "no open call c9" in cli.error("call", "hangup", "sub", "c9")


def test_calls_and_records_are_shown(cli: CommandLine, store_url: str, tmp_path: Path) -> None:
    async def place_calls() -> None:
        world = await World.start(store_url, tmp_path)
        await world.pair(discounts={"national": Decimal("0.5")})
        await world.granted("c1", switch="fs1")
        await world.granted("c2")
        await world.settle("c2", 61)
        await world.close()

    asyncio.run(place_calls())
    (listed,) = cli.json("call", "list", "--account", "master")
    assert (listed["call_id"], listed["state"], listed["switch"]) == ("c1", "open", "fs1")
    assert "c1" in cli.ok("call", "list")
    assert cli.json("call", "show", "sub", "c2")["state"] == "settled"
    assert "0.01 less 0.5 %" in cli.ok("call", "show", "sub", "c1")
    assert "no call c9" in cli.error("call", "show", "sub", "c9")

    call = cli.json("show", "call", "sub", "c1")
    assert (call["value"]["state"], call["value"]["switch"]) == ("open", "fs1")
    assert call["value"]["legs"][0]["rate"] == "0.01 a minute, less 0.5 %"
    account = cli.json("show", "account", "sub")
    assert account["value"]["s"]["balance"] == 10_000_000 - 19_900
    assert account["value"]["c"]["parent"] == "master"
    bucket = account["key"].removesuffix("account:sub")
    ledger = cli.json("show", f"{bucket}ledger")
    assert [one["kind"] for one in ledger["value"].values()] == ["call", "payment", "payment"]
    assert cli.json("show", f"{bucket}leases")["members"] == 1
    assert cli.json("show", f"{bucket}bucket")["value"]["sequence"] == "3"
    assert cli.json("show", f"{bucket}events")["type"] == "stream"
    assert cli.json("show", "authz:root:sub")["value"] == "master"
    assert "s.balance" in cli.ok("show", "account", "sub")
    assert "no key" in cli.error("show", "authz:nothing")
    assert "no account x" in cli.error("show", "account", "x")
    assert "write KEY" in cli.error("show", "account", "x", "y", status=2)


def test_closed_hashes_and_references_are_shown(
    cli: CommandLine, store_url: str, tmp_path: Path
) -> None:
    names: list[str] = []

    async def settle_and_list() -> None:
        world = await World.start(store_url, tmp_path)
        await world.pair()
        await world.granted("c1")
        await world.settle("c1", 61)
        names.extend(name.decode() for name in await world.client.execute("KEYS", "authz:*"))
        await world.close()

    asyncio.run(settle_and_list())
    (closed,) = (name for name in names if re.search(r":closed:\d+$", name))
    (tombstone,) = cli.json("show", closed)["value"].values()
    assert (tombstone["seconds"], tombstone["legs"][0]["cost"]) == (61, 20_000)
    reference = next(name for name in names if ":reference:sub:" in name)
    assert cli.json("show", reference)["value"]["kind"] == "payment"
    for name in names:
        cli.ok("show", name)


def test_a_damaged_record_is_shown_as_it_is(unaudited_cli: CommandLine, store_url: str) -> None:
    unaudited_cli.ok("account", "create", "acme")
    key = keys.account(keys.tag_of_root("acme"), "acme")
    on_store(store_url, lambda client: client.execute("HSET", key, "s", b"\x00\x01"))
    state = unaudited_cli.json("show", key.decode())["value"]["s"]
    assert state["hex"] == "0001"
    assert "2 bytes" in state["unreadable"]


def test_the_audit_finds_what_is_wrong(
    unaudited_cli: CommandLine, deck_file: Path, store_url: str
) -> None:
    pair(unaudited_cli, deck_file)
    assert unaudited_cli.json("audit")["findings"] == []
    assert "0 findings in 64 buckets: 2 accounts" in unaudited_cli.ok("audit")
    tag = keys.tag_of_root("acme")
    bucket = keys.TAGS.index(tag)
    assert unaudited_cli.json("audit", "--bucket", str(bucket))["accounts"] == 2
    on_store(store_url, lambda client: client.execute("DEL", keys.ledger(tag)))
    status, out, err = unaudited_cli.run("audit")
    assert status == 1
    assert "acme-sales" in out
    assert "Amounts are micros" in err
    status, out, _ = unaudited_cli.run("audit", "--bucket", str(bucket), "--json")
    assert (status, bool(json.loads(out)["findings"])) == (1, True)


def test_a_command_uses_the_own_store_that_runs(tmp_path: Path) -> None:
    state_dir = tmp_path / "state"
    environ = {**os.environ, "AUTHZ_STATE_DIR": str(state_dir)}
    environ.pop("AUTHZ_STORE__URL", None)

    def authz(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "authz", *arguments],
            env=environ,
            capture_output=True,
            text=True,
            check=False,
        )

    none = authz("account", "list")
    assert none.returncode == 1
    assert "start the daemon with `authz serve`" in none.stderr
    with EmbeddedStore(state_dir):
        created = authz("account", "create", "acme", "--json")
        assert (created.returncode, created.stderr) == (0, "")
        assert json.loads(created.stdout)["id"] == "acme"
    gone = authz("account", "list")
    assert gone.returncode == 1
    assert "Error:" in gone.stderr


def test_an_unreachable_store_is_named(
    plain_logging: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AUTHZ_STORE__URL", "redis://:secret@127.0.0.1:1/0")
    error = CommandLine(capsys).error("account", "list")
    assert "127.0.0.1:1" in error
    assert "secret" not in error
