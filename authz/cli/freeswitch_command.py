"""`authz freeswitch`: what an operator of FreeSWITCH needs beside the daemon."""

from __future__ import annotations

from pathlib import Path

import click

from authz.admin.prices import current_chain
from authz.admin.services import Services
from authz.cli.changing import run_change
from authz.cli.main import EXIT_FAILURE, Invocation
from authz.cli.output import json_option, print_error, print_facts, print_json, print_table
from authz.cli.progress import progress_bar
from authz.cli.session import load_decks
from authz.engine.late import hand_over
from authz.engine.settle import settle
from authz.errors import CallTooOld
from authz.hooks.freeswitch.cdr_files import ImportReport, Settle, import_records
from authz.hooks.freeswitch.web import rules_of
from authz.model import Settlement, SettleRequest, Spooled


@click.group("freeswitch")
def command() -> None:
    """Book what a FreeSWITCH could not deliver.

    \b
    Example:
      authz freeswitch import-cdrs /var/log/freeswitch/json_cdr_failed
    """


@command.command("import-cdrs")
@click.argument(
    "directory", type=click.Path(exists=True, file_okay=False, path_type=Path), metavar="DIR"
)
@click.option("--delete", is_flag=True, help="Delete booked files instead of moving them.")
@json_option
@click.pass_obj
def import_cdrs(invocation: Invocation, directory: Path, delete: bool, as_json: bool) -> int:
    """Book the CDRs that mod_json_cdr left in DIR, its err-log-dir.

    Files of booked calls move to DIR/imported. A call that is booked already is left as it is, so
    the command may be repeated at any time. One that ended longer ago than the store remembers is
    left to the daemon, which looks into the archive first. What cannot be booked is listed and
    stays; the exit status is 1 then.

    \b
    Examples:
      authz freeswitch import-cdrs /var/log/freeswitch/json_cdr_failed
      authz freeswitch import-cdrs /var/log/freeswitch/json_cdr_failed --delete --json
    """
    rules = rules_of(invocation.settings)

    async def work(services: Services) -> ImportReport:
        with progress_bar("CDRs") as progress:
            return await import_records(
                directory, rules, _booking(services), progress, delete=delete
            )

    detail = {"delete": delete}
    report = run_change(invocation, "freeswitch import-cdrs", str(directory), work, detail)
    if as_json:
        print_json(report)
    else:
        _print(report)
    if report.stopped is not None:
        print_error(f"{report.left} files are left: {report.stopped}")
    return EXIT_FAILURE if report.left else 0


def _booking(services: Services) -> Settle:
    """Return a settle that has the decks of a call's accounts, by which it may have to be rated."""
    prepared: set[str] = set()

    async def book(request: SettleRequest) -> Settlement | Spooled:
        if request.account not in prepared:
            chain = await current_chain(services.context, request.account)
            await load_decks(services, *filter(None, chain.deck_ids))
            prepared.add(request.account)
        try:
            return await settle(services.context, request, is_repeat=True)
        except CallTooOld:
            # The office process looks into the archive whether it is booked, and books it.
            await hand_over(services.context.client, request, services.context.clock.now())
            return Spooled(request.call_id)

    return book


def _print(report: ImportReport) -> None:
    print_facts(report.counts)
    if not report.remarkable:
        return
    click.echo()
    print_table(
        ("file", "what", "account", "seconds", "why"),
        [
            (one.file, one.fate.value, one.account, one.seconds, one.detail)
            for one in report.remarkable
        ],
        right=("seconds",),
    )
