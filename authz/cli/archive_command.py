"""`authz archive`: how far the ledger is archived, and what to do when the two differ."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from authz.cli.main import EXIT_FAILURE, Invocation
from authz.cli.output import json_option, print_facts, print_hint, print_json, print_table

if TYPE_CHECKING:
    from authz.admin.services import Services
    from authz.ledger.survey import ArchiveSurvey

_NAMES = ("ledger", "events", "changes")


@click.group("archive")
def command() -> None:
    """Look after the archive, where every movement of money is kept for ever.

    \b
    Examples:
      authz archive status
      authz archive repair 17                  # show where store and archive part
    """


@command.command("status")
@json_option
@click.pass_obj
def status(invocation: Invocation, as_json: bool) -> int:
    """Show how far the store's streams are archived.

    Exit status 1 when the archive is not the store's or a stream is forked.

    \b
    Examples:
      authz archive status
      authz archive status --json
    """
    from authz.cli.session import run

    async def work(services: Services) -> ArchiveSurvey:
        from authz.ledger.database import Database
        from authz.ledger.survey import survey

        settings = services.context.settings
        database = await Database.open(settings.archive.url, settings.state_dir, create=False)
        try:
            return await survey(services.context.client, database)
        finally:
            await database.close()

    found = run(invocation, work)
    if as_json:
        print_json(found)
    else:
        _print(found)
    return 0 if found.is_claimed and not found.forked else EXIT_FAILURE


def _print(found: ArchiveSurvey) -> None:
    print_facts({"archive": found.address, "id": found.archive, "store's archive": found.claimed})
    if not found.is_claimed:
        print_hint(
            "This is not the archive of the store: nothing is taken out of the store for it."
        )
        return
    click.echo()
    rows = []
    for name in _NAMES:
        streams = [one for one in found.streams if one.stream == name]
        rows.append(
            (
                name,
                sum(one.sequence for one in streams),
                sum(one.entries_behind for one in streams),
                max((one.seconds_behind for one in streams), default=0),
                sum(one.fork is not None for one in streams),
            )
        )
    columns = ("stream", "archived", "behind", "seconds", "forked")
    print_table(columns, rows, right=columns[1:])
    if found.forked:
        click.echo()
        print_table(
            ("stream", "bucket", "fork"),
            [(one.stream, one.bucket, one.fork) for one in found.forked],
            right=("bucket",),
        )
        print_hint("See `authz archive repair --help`.")
