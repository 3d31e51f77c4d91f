"""`authz archive`: how far the ledger is archived, and what to do when the two differ."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from authz.cli.main import EXIT_FAILURE, Invocation
from authz.cli.output import json_option, print_facts, print_hint, print_json, print_table
from authz.store import keys

if TYPE_CHECKING:
    from authz.admin.services import Services
    from authz.ledger.repair import Divergence, Verdict
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


@command.command("repair")
@click.argument("bucket", type=click.IntRange(0, keys.BUCKETS - 1))
@click.option(
    "--accept-store",
    "verdict",
    flag_value="store",
    help="What only the archive has was never booked: set it aside.",
)
@click.option(
    "--accept-archive",
    "verdict",
    flag_value="archive",
    help="What only the archive has was booked: book it in the store again.",
)
@json_option
@click.pass_obj
def repair(invocation: Invocation, bucket: int, verdict: Verdict | None, as_json: bool) -> int:
    """Show where a BUCKET's ledger and its archive part, and bring them together.

    They part when the store loses what was archived already (a power loss, a failover), or loses
    entries that were not. Without an option nothing is changed, and the exit status is 1 if they
    part. Either option archives the store's side from then on; what is set aside stays in the
    archive's table `disowned`, and one adjustment per account stands for what is lost on both
    sides. See docs/archive.md.

    \b
    Examples:
      authz archive repair 17
      authz archive repair 17 --accept-archive # the store lost it: book it again
      authz archive repair 17 --accept-store   # it was booked under other names, or never
    """
    from authz.cli.changing import run_change
    from authz.cli.session import run

    async def work(services: Services) -> Divergence:
        from authz.cli.archive_repair import repair
        from authz.ledger.archive import Archive

        context = services.context
        archive = Archive(context.client, context.settings)
        try:
            await archive.open(create=False)
            return await repair(services, archive, bucket, verdict)
        finally:
            await archive.close()

    if verdict is None:
        found = run(invocation, work)
    else:
        detail = {"accept": verdict}
        found = run_change(invocation, "archive repair", f"bucket {bucket}", work, detail)
    if as_json:
        print_json(found)
    else:
        from authz.cli.archive_repair import print_divergence

        print_divergence(found)
        if verdict is not None and found.is_parted:
            print_hint(f"The {verdict} was right: the archive goes on from there.")
    return EXIT_FAILURE if found.is_parted and verdict is None else 0


@command.command("claim")
@click.argument("lost_id", metavar="ID")
@click.pass_obj
def claim(invocation: Invocation, lost_id: str) -> None:
    """Make the archive that the settings name the store's, instead of the lost one with this ID.

    Only for an archive that is gone for good: what it had taken out of the store is not in this
    one, and every bucket needs `authz archive repair` then. Restore a backup if there is one.

    \b
    Examples:
      authz archive status                     # tells the store's archive
      authz archive claim 5f2a8c0e4b1d49738e66a0c1d2f3b495
    """
    from authz.cli.changing import run_change

    async def work(services: Services) -> str:
        from authz.ledger.archive import claim_store

        return await claim_store(services.context.client, services.context.settings, lost_id)

    claimed = run_change(invocation, "archive claim", None, work, {"instead_of": lost_id})
    print_hint(f"The store's archive is {claimed} now.")


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
