"""`authz config`: every setting with its value, where that comes from, and what it means."""

from __future__ import annotations

import click

from authz.cli.main import Invocation
from authz.cli.output import json_option, print_hint, print_json, print_table
from authz.config import docs as config_docs


@click.command("config")
@click.argument("words", nargs=-1, metavar="[WORD]...")
@click.option("--toml", "as_toml", is_flag=True, help="Print a settings file with every setting.")
@json_option
@click.pass_obj
def command(invocation: Invocation, words: tuple[str, ...], as_toml: bool, as_json: bool) -> None:
    """Show every setting: its value, where it comes from, its meaning.

    With words, only the settings whose name or meaning has all of them. Secrets are not shown.

    \b
    Examples:
      authz config
      authz config hook token
      authz config --toml > authz.toml
      authz --config authz.toml config --json
    """
    if as_toml and as_json:
        raise click.UsageError("--toml and --json exclude each other")
    loaded = invocation.load()
    if as_toml:
        click.echo(config_docs.toml(loaded), nl=False)
        return
    rows = [row for row in config_docs.rows(loaded) if row.has(words)]
    if as_json:
        print_json(rows)
        return
    print_table(
        ("setting", "value", "from", "meaning"),
        [(row.key, row.text, row.origin, row.meaning) for row in rows],
    )
    print_hint("Override one by its variable: hook.listen is AUTHZ_HOOK__LISTEN.")
