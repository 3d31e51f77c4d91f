"""`authz deck`: import, export and look into rate tables."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, BinaryIO

import click
import msgspec

from authz.admin.decks import DeckImport, DeckList, DeckView
from authz.admin.messages import DeckImportQuery, LookupAnswer, LookupQuery
from authz.admin.prices import look_up
from authz.admin.services import Services
from authz.cli.changing import run_change
from authz.cli.main import EXIT_FAILURE, Invocation
from authz.cli.output import (
    json_option,
    print_error,
    print_facts,
    print_hint,
    print_json,
    print_table,
)
from authz.cli.progress import progress_bar
from authz.cli.session import load_decks, run
from authz.errors import NotFound
from authz.rating.diff import DeckDifference
from authz.rating.report import DeckRefused, ImportReport
from authz.validation import invalid_input

#: Issues and changes that a table shows; --json has them all.
_SHOWN_MAX = 40


@click.group("deck")
def command() -> None:
    """Keep decks: rate tables by number prefix, imported from carriers' CSV files.

    \b
    Examples:
      authz deck import retail prices.csv --dry-run
      authz deck import retail prices.csv --skip-bad
      authz deck list
      authz deck lookup retail +442071838750
      authz deck export retail > retail.csv
    """


@command.command("import")
@click.argument("deck_id", metavar="ID")
@click.argument("file", type=click.File("rb"))
@click.option("--currency", metavar="CODE", help="Currency of the prices.")
@click.option("--timezone", metavar="ZONE", help="Zone of its windows and dates.")
@click.option(
    "--direction",
    type=click.Choice(["outbound", "inbound"]),
    help="Direction of lines that name none (default both).",
)
@click.option("--skip-bad", is_flag=True, help="Import without bad lines, blocking their prefix.")
@click.option("--dry-run", is_flag=True, help="Only report, and compare with the deck in force.")
@json_option
@click.pass_obj
def import_deck(
    invocation: Invocation, /, deck_id: str, file: BinaryIO, as_json: bool, **words: Any
) -> int:
    """Import FILE (- for standard input) and put it in force everywhere within a second.

    Any bad line refuses the file, unless --skip-bad is given. Running calls keep their rate.
    Currency and zone are, by default, those of the deck in force, else the settings'.

    \b
    Examples:
      authz deck import retail prices.csv --dry-run
      authz deck import retail prices.csv --currency EUR --timezone Europe/Paris
      authz deck export retail | authz deck import copy -
    """
    try:
        query = msgspec.convert({"id": deck_id, **words}, DeckImportQuery)
    except msgspec.ValidationError as error:
        raise invalid_input(error) from None
    data = file.read()

    async def work(services: Services) -> DeckImport:
        with progress_bar("lines") as progress:
            return await services.decks.import_file(query, data, progress)

    try:
        if query.dry_run:
            done = run(invocation, work)
        else:
            done = run_change(invocation, "deck import", deck_id, work, {"query": query})
    except DeckRefused as error:
        if as_json:
            print_json({"deck": deck_id, "published": False, "report": error.report})
        else:
            _print_report(error.report)
        print_error(str(error))
        return EXIT_FAILURE
    if as_json:
        print_json(done)
    else:
        _print_import(done)
    return 0


@command.command("export")
@click.argument("deck_id", metavar="ID")
@click.option("-o", "--output", type=click.File("wb"), default="-", help="File to write.")
@click.pass_obj
def export(invocation: Invocation, deck_id: str, output: BinaryIO) -> None:
    """Write a deck as canonical CSV, which import reads back unchanged.

    \b
    Examples:
      authz deck export retail > retail.csv
      authz deck export retail -o retail.csv
    """

    async def work(services: Services) -> None:
        for chunk in await services.decks.export(deck_id):
            output.write(chunk)

    run(invocation, work)


@command.command("list")
@json_option
@click.pass_obj
def list_decks(invocation: Invocation, as_json: bool) -> None:
    """List the decks in force.

    \b
    Example:
      authz deck list
    """

    async def work(services: Services) -> DeckList:
        return await services.decks.all()

    decks = run(invocation, work).decks
    if as_json:
        print_json(decks)
        return
    print_table(
        ("deck", "currency", "zone", "rows", "prefixes", "published at", "version"),
        [
            (
                one.id,
                one.currency,
                one.timezone,
                one.rows,
                one.prefixes,
                one.published_at,
                one.version[:12],
            )
            for one in decks
        ],
        right=("rows", "prefixes"),
    )


@command.command("show")
@click.argument("deck_id", metavar="ID")
@json_option
@click.pass_obj
def show(invocation: Invocation, deck_id: str, as_json: bool) -> None:
    """Show what is known of a deck besides its rows.

    \b
    Example:
      authz deck show retail
    """

    async def work(services: Services) -> DeckView:
        view = await services.decks.view(deck_id)
        if view is None:
            raise NotFound(f"no deck {deck_id}; `authz deck list` names those in force")
        return view

    view = run(invocation, work)
    if as_json:
        print_json(view)
    else:
        print_facts(msgspec.structs.asdict(view))


@command.command("lookup")
@click.argument("deck_id", metavar="ID")
@click.argument("number")
@click.option(
    "--direction",
    type=click.Choice(["outbound", "inbound"]),
    default="outbound",
    show_default=True,
    help="Direction of the call.",
)
@click.option("--at", metavar="TIME", help="When, as 2026-11-30T18:00:00Z (default now).")
@json_option
@click.pass_obj
def lookup(invocation: Invocation, /, deck_id: str, as_json: bool, **words: Any) -> None:
    """Show the row of a deck that is in force for a number.

    \b
    Examples:
      authz deck lookup retail +442071838750
      authz deck lookup retail 4155550100 --direction inbound
    """
    try:
        query = msgspec.convert({"id": deck_id, **words}, LookupQuery)
    except msgspec.ValidationError as error:
        raise invalid_input(error) from None

    async def work(services: Services) -> LookupAnswer:
        await load_decks(services, deck_id)
        return look_up(services.context, query)

    answer = run(invocation, work)
    if as_json:
        print_json(answer)
        return
    facts = msgspec.to_builtins(answer)
    facts["blocked"] = "yes" if answer.blocked else "no"
    facts["per minute"] = f"{facts.pop('rate')} {facts.pop('currency')}"
    print_facts({name.replace("_", " "): value for name, value in facts.items()})


def _print_import(done: DeckImport) -> None:
    _print_report(done.report)
    _print_difference(done.difference)
    report = done.report
    summary = (
        f"{report.rows} rows for {report.prefixes} prefixes from {report.lines} lines, "
        f"{report.blocked} blocked, {report.bad_lines} bad lines; version {done.version[:12]}"
    )
    click.echo(summary)
    if done.dry_run:
        print_hint("Nothing was changed. Leave out --dry-run to put it in force.")
    elif done.published:
        print_hint(f"Deck {done.deck} ({done.currency}, {done.timezone}) is in force.")
    else:
        print_hint(f"Deck {done.deck} says the same already; nothing was changed.")


def _print_report(report: ImportReport) -> None:
    if report.issues:
        print_table(
            ("line", "column", "value", "reason", "outcome"),
            [
                (issue.line, issue.column or None, issue.value or None, issue.reason, issue.outcome)
                for issue in _first(report.issues)
            ],
            right=("line",),
        )
        _say_rest(report.issues_total, "issues")
    for ignored in report.ignored_columns:
        values = ", ".join(ignored.values)
        print_hint(f"Column {ignored.column!r} is ignored ({values}): {ignored.reason}.")


def _print_difference(difference: DeckDifference) -> None:
    if not difference.changes:
        return
    print_table(
        ("change", "prefix", "destination", "direction", "window", "old", "new", "effective"),
        [
            (
                change.kind,
                change.prefix,
                change.description,
                change.direction or "both",
                change.window or None,
                change.old_price,
                change.new_price,
                change.effective,
            )
            for change in _first(difference.changes)
        ],
        right=("old", "new"),
    )
    _say_rest(difference.total, "changes")
    counts = ", ".join(f"{count} {kind}" for kind, count in difference.counts.items())
    click.echo(f"{counts}, {difference.unchanged} unchanged")


def _first(items: tuple[Any, ...]) -> Iterable[Any]:
    return items[:_SHOWN_MAX]


def _say_rest(total: int, what: str) -> None:
    if total > _SHOWN_MAX:
        print_hint(f"... and {total - _SHOWN_MAX} more {what}; --json has them.")
