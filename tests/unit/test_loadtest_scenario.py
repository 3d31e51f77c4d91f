"""Scenarios: what ships is right, and what is wrong is refused by name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from authz.money import parse_amount
from authz.rating.importer import ImportOptions, import_deck
from loadtest.daemon import parse_target
from loadtest.errors import LoadTestError
from loadtest.plan import Target
from loadtest.scenario import DeckPlan, Scenario, load, shipped
from loadtest.world import call_kinds, deck_csv

MINIMAL = """
title = "T"
description = "D"
[[phases]]
name = "only"
seconds = 10
requests_per_second = 100
[[decks]]
name = "retail"
rows = { "1" = "0.01" }
[[accounts]]
name = "customer"
count = 3
credit = "10"
deck = "retail"
[[calls]]
accounts = "customer"
to = ["+1415555xxxx"]
"""


def read(tmp_path: Path, text: str) -> Scenario:
    path = tmp_path / "Mine_1.toml"
    path.write_text(text)
    return load(str(path))


@pytest.mark.parametrize("name", shipped())
def test_shipped_scenarios_are_right(name: str) -> None:
    scenario = load(name)

    assert scenario.name == name
    assert sum(phase.seconds for phase in scenario.phases) + scenario.warmup_seconds <= 60
    assert call_kinds(scenario)


def test_a_scenario_is_named_by_its_file(tmp_path: Path) -> None:
    scenario = read(tmp_path, MINIMAL)

    assert scenario.name == "mine-1"
    assert scenario.group("customer").account_ids("mine-1")[0] == "load-mine-1-customer-000000"


@pytest.mark.parametrize(
    ("before", "after", "complaint"),
    [
        ("seconds = 10", "second = 10", "unknown field `second`"),
        ("requests_per_second = 100", "", "give requests_per_second or load"),
        ("requests_per_second = 100", "requests_per_second = 1\nload = 2.0", "one of them"),
        ("seconds = 10", "seconds = 10000", "`$.phases[0].seconds`"),
        ("requests_per_second = 100", "requests_per_second = 0", "requests_per_second"),
        ('deck = "retail"', 'deck = "other"', "there is no deck other"),
        ('deck = "retail"', 'parent = "boss"', "its parent boss must be a group above it"),
        ('deck = "retail"', 'config = { deck = "x" }', "deck stands beside config"),
        ('deck = "retail"', "config = { max_calls = -1 }", "account group customer: config"),
        ('credit = "10"', 'credit = "1.23.4"', "credit"),
        ('credit = "10"', 'credit = "0"', "credit must be above 0"),
        ('accounts = "customer"', 'accounts = "nobody"', "nobody, which is no account group"),
        ('to = ["+1415555xxxx"]', 'to = ["hello"]', "`$.calls[0].to[0]`"),
        (
            "[[decks]]",
            '[[decks]]\nname = "retail"\nrows = {}\n[[decks]]',
            "two decks called retail",
        ),
        ('title = "T"', 'title = "T', "(at line 2,"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, before: str, after: str, complaint: str) -> None:
    assert before in MINIMAL

    with pytest.raises(LoadTestError, match=re.escape(complaint)):
        read(tmp_path, MINIMAL.replace(before, after))


def test_the_number_of_requests_is_bounded(tmp_path: Path) -> None:
    text = MINIMAL.replace("= 100", "= 100000").replace("seconds = 10", "seconds = 600")

    with pytest.raises(LoadTestError, match="plan 60000000 requests, more than 5000000"):
        read(tmp_path, text)


def test_an_unknown_scenario_names_the_known_ones() -> None:
    with pytest.raises(LoadTestError, match=r"no scenario stedy: give a file or one of .*steady"):
        load("stedy")


def test_rate_and_duration_can_be_changed_where_there_is_one_phase(tmp_path: Path) -> None:
    changed = read(tmp_path, MINIMAL).with_rate(500, 3)

    assert (changed.phases[0].requests_per_second, changed.phases[0].seconds) == (500, 3)
    with pytest.raises(LoadTestError, match="several phases"):
        load("overload").with_rate(500, None)
    with pytest.raises(LoadTestError, match="more than"):
        changed.with_rate(200_000, 600)


@pytest.mark.parametrize(
    ("call", "requests"),
    [
        ({"talk_seconds": (30,)}, 2),
        # extend_at is 45 s into each chunk of 60 s.
        ({"talk_seconds": (45,)}, 2),
        ({"talk_seconds": (46,)}, 3),
        ({"talk_seconds": (91,)}, 4),
        ({"talk_seconds": (30, 91)}, 3),
        ({"talk_seconds": (91,), "unanswered": 0.5}, 3),
        ({"talk_seconds": (600,), "ask_seconds": 7200}, 2),
        ({"talk_seconds": (240,), "reserves": 0.5}, 2.5),
        ({"refused": True}, 1),
    ],
)
def test_requests_of_a_call_are_planned(
    tmp_path: Path, call: dict[str, Any], requests: float
) -> None:
    plan = msgspec.structs.replace(read(tmp_path, MINIMAL).calls[0], **call)

    assert plan.requests == requests


def test_generated_prefixes_are_distinct_and_priced_near_their_parent() -> None:
    deck = DeckPlan(name="world", rows={"1": "0.005", "44": "0.01"}, prefixes=5_000)

    imported = import_deck(deck_csv(deck), ImportOptions())

    prefixes = {row.prefix for row in imported.rows}
    assert len(prefixes) == 5_002
    assert all(re.fullmatch(r"(1|44)(\d{6})?", prefix) for prefix in prefixes)
    assert parse_amount("0.01") in [
        row.terms.tiers[0].price_nanos // 1000 for row in imported.rows if row.terms is not None
    ]


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("http://127.0.0.1:8700", Target("127.0.0.1", 8700)),
        ("http://127.9.9.9:1/", Target("127.9.9.9", 1)),
        ("http://localhost:8700", Target("localhost", 8700)),
        ("http://[::1]:8700", Target("::1", 8700)),
        ("unix:///run/authz/hook.sock", Target(unix_path="/run/authz/hook.sock")),
    ],
)
def test_targets_on_this_host_are_taken(url: str, target: Target) -> None:
    assert parse_target(url, allow_remote=False) == target


@pytest.mark.parametrize("host", ["10.0.0.5", "example.net", "0.0.0.0", "127.0.0.1.example.net"])
def test_other_hosts_must_be_meant(host: str) -> None:
    with pytest.raises(LoadTestError, match="--allow-remote"):
        parse_target(f"http://{host}:8700", allow_remote=False)

    assert parse_target(f"http://{host}:8700", allow_remote=True) == Target(host, 8700)


@pytest.mark.parametrize(
    "url",
    ["127.0.0.1:8700", "http://127.0.0.1", "https://127.0.0.1:1", "http://127.0.0.1:1/v1",
     "http://127.0.0.1:port", "unix://host/path", ""],
)  # fmt: skip
def test_what_is_no_target_is_refused(url: str) -> None:
    with pytest.raises(LoadTestError, match="write http://HOST:PORT"):
        parse_target(url, allow_remote=True)
