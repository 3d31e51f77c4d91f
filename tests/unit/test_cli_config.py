"""`authz config`: what it shows and what it hides."""

from __future__ import annotations

import json
import tomllib

import pytest

from authz.cli import main
from authz.config import all_settings

TOKEN = "correct-horse-battery"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTHZ_STATE_DIR", "/srv/authz")
    monkeypatch.setenv("AUTHZ_HOOK__TOKEN", TOKEN)
    monkeypatch.setenv("AUTHZ_HOOK__WORKERS", "3")
    monkeypatch.setenv("AUTHZ_STORE__URL", "redis://me:geheim@10.0.0.5/0")


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main.run(["config", *arguments]) == 0
    out = capsys.readouterr().out
    assert TOKEN not in out
    assert "geheim" not in out
    return out


def test_json_has_every_setting_with_its_value_and_origin(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = {row["key"]: row for row in json.loads(run(capsys, "--json"))}
    assert list(rows) == list(all_settings())
    assert rows["hook.workers"]["value"] == 3
    assert rows["hook.workers"]["origin"] == "AUTHZ_HOOK__WORKERS"
    assert rows["calls.chunk_seconds"]["origin"] == "default"
    assert rows["store.url"]["value"] == "redis://***@10.0.0.5/0"
    assert rows["hook.token"]["value"] == "(set, not shown)"
    assert rows["admin.token"]["value"] is None


def test_the_table_has_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    out = run(capsys)
    for key in all_settings():
        assert key in out
    assert "5 tables" in out


def test_words_choose_settings(capsys: pytest.CaptureFixture[str]) -> None:
    rows = json.loads(run(capsys, "hook", "TOKEN", "--json"))
    assert [row["key"] for row in rows] == ["hook.token", "hook.allow"]


def test_the_file_has_no_secrets_and_only_what_is_set(capsys: pytest.CaptureFixture[str]) -> None:
    document = tomllib.loads(run(capsys, "--toml"))
    assert document["state_dir"] == "/srv/authz"
    assert document["hook"] == {"workers": 3}
    assert document["store"] == {}
