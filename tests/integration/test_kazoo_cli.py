"""`authz kazoo import-limits` and `import-rates` on a real store."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import CommandLine

CUSTOMER = "4f1c0de2a9b84d7e9a5b6c7d8e9f0a1b"
RESELLER = "9a8b7c6d5e4f43210fedcba987654321"
RATES = (
    "prefix,rate_cost,rate_minimum,rate_increment,internal_rate_cost,description\n"
    "1,0.02,60,60,0.011,North America\n"
    "4420,0.0185,30,6,0.0092,London\n"
)


@pytest.fixture
def cli(
    store_url: str,
    plain_logging: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[CommandLine]:
    """Commands on one store; its books are audited in the end."""
    monkeypatch.setenv("AUTHZ_STORE__URL", store_url)
    cli = CommandLine(capsys)
    yield cli
    assert cli.ok("audit").startswith("0 findings")


@pytest.fixture
def dump(tmp_path: Path) -> Path:
    """Return a file with the documents of a reseller and its customer."""
    path = tmp_path / "dump.json"
    write_dump(path, twoway_trunks=2)
    return path


def write_dump(path: Path, **limits: Any) -> None:
    documents = [
        {"_id": CUSTOMER, "pvt_type": "account", "pvt_reseller_id": RESELLER, "name": "Acme"},
        {"_id": RESELLER, "pvt_type": "account", "name": "Reseller"},
        {"_id": "limits", "pvt_type": "limits", "pvt_account_id": CUSTOMER, **limits},
    ]
    path.write_text(json.dumps({"rows": [{"doc": one} for one in documents]}))


def test_limits_create_accounts_below_their_reseller_and_change_nothing_twice(
    cli: CommandLine, dump: Path
) -> None:
    planned = cli.json("kazoo", "import-limits", str(dump), "--dry-run")
    assert (planned["written"], len(planned["changes"])) == (0, 2)
    assert "no account" in cli.error("account", "show", CUSTOMER)

    done = cli.json("kazoo", "import-limits", str(dump))
    assert [(one["account"], one["is_new"]) for one in done["changes"]] == [
        (RESELLER, True), (CUSTOMER, True),
    ]  # fmt: skip
    account = cli.json("account", "show", CUSTOMER)
    assert (account["parent"], account["trunks"]["twoway"]) == (RESELLER, 2)

    again = cli.json("kazoo", "import-limits", str(dump))
    assert (again["written"], again["unchanged"], again["changes"]) == (0, 2, [])


def test_limits_change_what_they_say_and_keep_the_rest(cli: CommandLine, dump: Path) -> None:
    cli.ok("kazoo", "import-limits", str(dump))
    cli.ok("account", "set", CUSTOMER, "deck=retail", "max_call_seconds=600")
    cli.ok("account", "set", CUSTOMER, "discounts.national=12.5", "discounts.premium=7")
    assert "100.5" in cli.error("account", "set", CUSTOMER, "discounts.national=100.5")
    cli.ok("credit", CUSTOMER, "5", "--reference", "first")
    discounts = {"toll_us": {"percentage": 10}}
    write_dump(dump, twoway_trunks=3, pvt_soft_limit_outbound=True, pvt_discounts=discounts)
    shown = cli.ok("kazoo", "import-limits", str(dump))
    assert "0 new accounts, 1 changed, 1 unchanged" in shown
    account = cli.json("account", "show", CUSTOMER)
    assert (account["deck"], account["max_call_seconds"]) == ("retail", 600)
    assert account["trunks"]["twoway"] == 3
    # As for all that limits documents say, they have the last word.
    assert account["discounts"] == {"premium": "10"}
    assert account["metadata"] == {"name": "Acme", "kazoo.soft_limit_outbound": "true"}
    assert cli.json("account", "balance", CUSTOMER)["balance"] == "5"


def test_one_bad_document_keeps_all_from_being_written(cli: CommandLine, dump: Path) -> None:
    write_dump(dump, twoway_trunks="many")
    status, out, err = cli.run("kazoo", "import-limits", str(dump))
    assert status == 1
    assert "dump.json, document 3" in out
    assert "nothing was imported" in err
    assert "no account" in cli.error("account", "show", RESELLER)
    done = cli.json("kazoo", "import-limits", str(dump), "--skip-bad")
    assert [one["account"] for one in done["changes"]] == [RESELLER]


def test_what_the_store_has_otherwise_is_refused(
    cli: CommandLine, dump: Path, tmp_path: Path
) -> None:
    cli.ok("account", "create", CUSTOMER)
    status, out, _ = cli.run("kazoo", "import-limits", str(dump))
    assert status == 1
    assert "its parent is nobody" in out
    orphan = tmp_path / "one.json"
    orphan.write_text('{"data": {"twoway_trunks": 1}}')
    words = ("kazoo", "import-limits", str(orphan), "--account", "acme")
    status, out, _ = cli.run(*words, "--reseller", "nowhere")
    assert status == 1
    assert "in neither the store nor these documents" in out
    cli.ok(*words, "--reseller", CUSTOMER)
    assert cli.json("account", "show", "acme")["parent"] == CUSTOMER


def test_rates_make_a_retail_and_a_wholesale_deck(cli: CommandLine, tmp_path: Path) -> None:
    path = tmp_path / "rates.csv"
    path.write_text(RATES)
    planned = cli.json("kazoo", "import-rates", "retail", str(path), "--dry-run")
    assert (planned["rows"], planned["deck"]["published"]) == (2, False)
    assert "is in force" in cli.run("kazoo", "import-rates", "retail", str(path))[2]
    cli.ok("kazoo", "import-rates", "wholesale", str(path), "--internal")
    rates = [
        cli.json("deck", "lookup", deck, "+442071838750")["rate"]
        for deck in ("retail", "wholesale")
    ]
    assert rates == ["0.0185", "0.0092"]


def test_bad_rates_refuse_the_file_or_are_blocked(cli: CommandLine, tmp_path: Path) -> None:
    path = tmp_path / "rates.csv"
    path.write_text(RATES + "49,none,60,60,,Germany\n")
    status, out, err = cli.run("kazoo", "import-rates", "retail", str(path))
    assert status == 1
    assert "rates.csv, line 4" in out
    assert "nothing was imported" in err
    done = cli.json("kazoo", "import-rates", "retail", str(path), "--skip-bad")
    assert (done["rows"], done["blocked"]) == (2, 1)
    assert cli.json("deck", "lookup", "retail", "+4930123456")["blocked"] is True


def test_what_only_the_deck_finds_wrong_is_told_by_the_place_in_the_file(
    cli: CommandLine, tmp_path: Path
) -> None:
    path = tmp_path / "rates.csv"
    path.write_text(RATES + "0044,0.02,60,60,,London\n")
    status, out, _ = cli.run("kazoo", "import-rates", "retail", str(path))
    assert status == 1
    assert "rates.csv, line 4" in out
    assert "begins with 00" in out


def test_kazoos_rounding_is_a_setting(
    cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "rates.csv"
    path.write_text("prefix,rate_cost,rate_minimum,rate_increment\n1,0.0101,1,1\n")
    monkeypatch.setenv("AUTHZ_KAZOO__COSTS", "kazoo")
    cli.ok("kazoo", "import-rates", "retail", str(path))
    words = ("price", "+14155550100", "--deck", "retail", "--seconds", "61")
    assert cli.json(*words)["cost"] == "0.0102"
    monkeypatch.setenv("AUTHZ_KAZOO__COSTS", "exact")
    cli.ok("kazoo", "import-rates", "retail", str(path))
    assert cli.json(*words)["cost"] == "0.010268"


def test_a_chain_that_is_too_long_is_refused_before_anything_is_written(
    cli: CommandLine, tmp_path: Path
) -> None:
    path = tmp_path / "deep.json"
    chain = [
        {"_id": f"level-{depth}", "pvt_type": "account", "pvt_reseller_id": f"level-{depth - 1}"}
        for depth in range(1, 5)
    ]
    top = {"_id": "level-0", "pvt_type": "account"}
    path.write_text(json.dumps([*reversed(chain), top]))
    status, out, _ = cli.run("kazoo", "import-limits", str(path))
    assert status == 1
    assert "more than 3 resellers" in out
    assert "no account" in cli.error("account", "show", "level-0")
    done = cli.json("kazoo", "import-limits", str(path), "--skip-bad")
    assert [one["account"] for one in done["changes"]] == [f"level-{depth}" for depth in range(4)]
