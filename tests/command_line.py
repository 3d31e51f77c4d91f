"""The command line as a user has it: arguments in; exit status, output and errors out."""

from __future__ import annotations

import json
from typing import Any

import pytest

from authz.cli import main


class CommandLine:
    """Runs commands in this process; the environment says which store they work on."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        """Take what commands print from `capsys`; use the fixture `plain_logging` beside it."""
        self._capsys = capsys

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """Return exit status, standard output and standard error of a command."""
        status = main.run(list(arguments))
        output = self._capsys.readouterr()
        return status, output.out, output.err

    def ok(self, *arguments: str, status: int = 0) -> str:
        """Return the output of a command that must succeed, or end with that status."""
        found, out, err = self.run(*arguments)
        assert found == status, err
        return out

    def json(self, *arguments: str, status: int = 0) -> Any:
        """Return the document that a command prints with --json."""
        return json.loads(self.ok(*arguments, "--json", status=status))

    def error(self, *arguments: str, status: int = 1) -> str:
        """Return what a command says that must fail."""
        found, _, err = self.run(*arguments)
        assert found == status, err
        return err
