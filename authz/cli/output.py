"""How every command prints: tables for people, one JSON document for programs, errors apart.

On a terminal a table has lines and is folded to its width; into a pipe it is bare columns, one
row a line. With `--json` standard output carries exactly one document. Hints and errors go to
standard error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

import click
import msgspec

_PIPE_COLUMNS: Final = 10_000

Command = TypeVar("Command", bound=Callable[..., Any])


def json_option(command: Command) -> Command:
    """Give a command the option `--json`, which it gets as `as_json`."""
    option = click.option(
        "--json", "as_json", is_flag=True, help="Print one JSON document instead of a table."
    )
    return option(command)


def print_json(document: Any) -> None:
    """Print a document; Structs and paths are understood."""
    data = msgspec.json.encode(document, enc_hook=str)
    click.echo(msgspec.json.format(data, indent=2))


def print_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    right: Sequence[str] = (),
    title: str | None = None,
) -> None:
    """Print rows under these column names; those in `right` hold numbers. None is shown as `-`."""
    # Rich takes longer to import than most commands to run.
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_PIPE_COLUMNS)
    table = Table(
        title=title,
        title_justify="left",
        box=box.SIMPLE_HEAD if console.is_terminal else None,
        pad_edge=False,
        show_header=True,
    )
    for column in columns:
        table.add_column(
            column,
            justify="right" if column in right else "left",
            overflow="fold",
            no_wrap=not console.is_terminal,
        )
    for row in rows:
        # Text, not markup: an account may well be called [bold].
        table.add_row(*(Text("-" if cell is None else str(cell)) for cell in row))
    console.print(table)


def print_facts(facts: Mapping[str, object], *, title: str | None = None) -> None:
    """Print the fields of one thing, a line each."""
    if title is not None:
        click.secho(title, bold=True)
    width = max(map(len, facts), default=0)
    for name, value in facts.items():
        click.echo(f"{name:<{width}}  {'-' if value is None else value}")


def print_hint(text: str) -> None:
    """Print a remark to standard error, where it disturbs no program that reads the output."""
    click.secho(text, err=True, dim=True)


def print_error(text: str) -> None:
    """Print why a command failed to standard error."""
    click.secho("Error: ", err=True, fg="red", bold=True, nl=False)
    click.echo(text, err=True)
