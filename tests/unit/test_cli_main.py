"""The command line as such: help, errors, exit statuses, what is imported for it."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import click
import pytest

from authz.cli import main
from authz.cli.output import print_facts, print_json, print_table
from authz.errors import NotFound


def authz(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = main.run(list(arguments))
    output = capsys.readouterr()
    return status, output.out, output.err


def test_help_lists_every_command_and_imports_none(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = authz(capsys, "--help")
    assert status == 0
    for name, one in main.SUBCOMMANDS.items():
        assert name in out
        assert one.help in out


def test_help_imports_only_what_it_needs() -> None:
    code = (
        "import sys\nfrom authz.cli.main import run\nrun(['--help'])\n"
        "heavy = {'rich', 'asyncio', 'uvloop', 'aiohttp', 'redis'} & set(sys.modules)\n"
        "sys.exit(repr(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", list(main.SUBCOMMANDS))
def test_every_command_teaches(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = importlib.import_module(main.SUBCOMMANDS[name].module).command
    assert isinstance(command, click.Command)
    status, out, _ = authz(capsys, name, "--help")
    assert status == 0
    assert f"authz {name}" in out
    assert "Example" in out


def test_a_wrong_command_is_answered_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = authz(capsys, "serv")
    assert (status, out) == (2, "")
    assert "there is no command serv; did you mean serve?" in err


def test_a_wrong_option_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert authz(capsys, "config", "--tomll")[0] == 2
    assert authz(capsys, "config", "--toml", "--json")[0] == 2
    assert authz(capsys, "serve", "--workers", "0")[0] == 2


def test_a_wrong_setting_is_told_with_status_2(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "authz.toml"
    path.write_text("[hook]\nworkrs = 1\n")
    for name in ("config", "serve"):
        status, out, err = authz(capsys, "--config", str(path), name)
        assert (status, out) == (2, "")
        assert "did you mean hook.workers?" in err


def test_other_errors_have_status_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: object) -> None:
        raise NotFound("there is no account acme")

    monkeypatch.setattr(main.Invocation, "load", fail)
    status, out, err = authz(capsys, "config")
    assert (status, out, err) == (1, "", "Error: there is no account acme\n")


def test_an_interrupt_has_status_130(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(self: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(main.Invocation, "load", interrupt)
    assert authz(capsys, "config")[0] == 130


def test_a_closed_pipe_is_no_error_message() -> None:
    command = [sys.executable, "-m", "authz", "config", "--toml"]
    reading = subprocess.Popen(["true"], stdin=subprocess.PIPE)
    reading.wait()
    assert reading.stdin is not None
    done = subprocess.run(command, stdout=reading.stdin, stderr=subprocess.PIPE, check=False)
    reading.stdin.close()
    assert done.stderr == b""


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = authz(capsys, "--version")
    assert status == 0
    assert out.startswith("authz 0.")


def test_a_table_in_a_pipe_is_plain_columns(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("account", "balance"), [("[bold]a", "1.5"), (None, "x" * 200)], right=("balance",))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines] == [
        ["account", "balance"], ["[bold]a", "1.5"], ["-", "x" * 200],
    ]  # fmt: skip


def test_facts_and_documents(capsys: pytest.CaptureFixture[str]) -> None:
    print_facts({"account": "a", "deck": None})
    assert capsys.readouterr().out == "account  a\ndeck     -\n"
    print_json({"path": Path("/x"), "seconds": 1})
    assert json.loads(capsys.readouterr().out) == {"path": "/x", "seconds": 1}
