"""deploy/kazoo and docs/kazoo.md are of one mind with the code."""

from __future__ import annotations

import json
import re
from pathlib import Path

import click
import pytest

from authz.cli.main import cli
from authz.config import load_settings
from authz.config.kazoo import KazooSettings
from authz.hooks.kazoo import limits
from authz.hooks.kazoo.comparison import CAUSES

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy" / "kazoo"
GUIDE = (ROOT / "docs" / "kazoo.md").read_text(encoding="utf-8")
DEFECTS = 32


@pytest.mark.parametrize("mode", ["shadow", "active"])
def test_the_settings_are_valid_and_of_their_mode(mode: str) -> None:
    kazoo = load_settings(DEPLOY / f"{mode}.toml", {}).kazoo
    assert kazoo.mode == mode
    assert list(kazoo.zones) == ["local"]
    assert kazoo.costs == "kazoo"


def test_shadow_is_the_default_so_that_nobody_takes_over_by_accident() -> None:
    assert KazooSettings().mode == "shadow"


def test_ecallmgr_refuses_what_nobody_answers() -> None:
    settings = json.loads((DEPLOY / "ecallmgr.json").read_text())["default"]
    assert settings["authz_enabled"] is True
    assert (settings["authz_default_action"], settings["authz_dry_run"]) == ("deny", False)
    assert settings["balance_crawler_enabled"] is False


def test_the_guide_answers_for_every_defect_and_cause() -> None:
    rows = re.findall(r"^\| (B\d+) \| .+ \| .+ \|$", GUIDE, re.MULTILINE)
    assert rows == [f"B{number}" for number in range(1, DEFECTS + 1)]
    assert [cause for cause in CAUSES if f"| `{cause}` |" not in GUIDE] == []


def test_the_guide_names_settings_metadata_and_commands_that_exist() -> None:
    fields = set(KazooSettings.__struct_fields__)
    texts = {
        value.removeprefix("kazoo.")
        for name, value in vars(limits).items()
        if name.isupper() and isinstance(value, str) and value.startswith("kazoo.")
    }
    named = set(re.findall(r"`kazoo\.([a-z_]+)", GUIDE))
    assert named - fields - texts == set()
    group = cli.get_command(click.Context(cli), "kazoo")
    assert isinstance(group, click.Group)
    for name in re.findall(r"authz kazoo ([a-z-]+)", GUIDE):
        assert name in group.commands
