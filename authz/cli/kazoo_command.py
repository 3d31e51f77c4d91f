"""`authz kazoo`: what an operator of Kazoo brings along, limits and rates."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import click
import msgspec
from msgspec import Struct

from authz.admin.decks import DeckImport
from authz.admin.messages import DeckImportQuery
from authz.admin.services import Services
from authz.cli.changing import run_change
from authz.cli.main import EXIT_FAILURE, Invocation
from authz.cli.output import json_option, print_error, print_hint, print_json, print_table
from authz.cli.progress import progress_bar
from authz.cli.session import run
from authz.hooks.kazoo.imports.accounts import Reading, Remark, read_accounts
from authz.hooks.kazoo.imports.apply import AccountChange, Plan, apply_plan, plan_accounts
from authz.hooks.kazoo.imports.documents import Document, read_documents
from authz.hooks.kazoo.imports.rates import RateOptions, RateReading, read_rates
from authz.rating.report import DeckRefused
from authz.validation import invalid_input

#: Lines that a table shows; --json has them all.
_SHOWN_MAX: Final = 40
_FILE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)


class LimitsImport(Struct, frozen=True, kw_only=True):
    """What an import of limits did, or with `dry_run` would do."""

    dry_run: bool
    written: int
    unchanged: int
    other_documents: int
    changes: tuple[AccountChange, ...]
    remarks: tuple[Remark, ...]


class RatesImport(Struct, frozen=True, kw_only=True):
    """What an import of rates did, or with `dry_run` would do; `deck` is None where refused."""

    dry_run: bool
    rates: int
    rows: int
    blocked: int
    remarks: tuple[Remark, ...]
    remarks_total: int
    deck: DeckImport | None


@click.group("kazoo")
def command() -> None:
    """Take over limits and rates from Kazoo (docs/kazoo.md).

    \b
    Examples:
      authz kazoo import-limits limits.json --dry-run
      authz kazoo import-rates retail rates.csv
      authz kazoo import-rates wholesale rates.csv --internal
    """


@command.command("import-limits")
@click.argument("files", nargs=-1, required=True, type=_FILE, metavar="FILE...")
@click.option("--account", metavar="ID", help="Whose limits are meant where a file names nobody.")
@click.option("--reseller", metavar="ID", help="Parent of accounts of which no document says it.")
@click.option("--currency", metavar="CODE", help="Currency of new accounts (default: the decks').")
@click.option("--skip-bad", is_flag=True, help="Import the others where a document is bad.")
@click.option("--dry-run", is_flag=True, help="Only say what would change.")
@json_option
@click.pass_obj
def import_limits(
    invocation: Invocation, /, files: tuple[Path, ...], as_json: bool, **words: Any
) -> int:
    """Take over Kazoo's limits (and, if the files have them, account documents).

    FILE holds JSON: one document, a list, lines, an answer of Kazoo's API, or rows of its
    database. Accounts that are missing are created below their reseller; those that are there
    get the limits and keep the rest. Balances stay as they are. The same import again changes
    nothing.

    \b
    Examples:
      authz kazoo import-limits limits.json --dry-run
      authz kazoo import-limits accounts.json limits.json
      authz kazoo import-limits one.json --account 4f1c0de2a9b84d7e9a5b6c7d8e9f0a1b
    """
    documents: list[Document] = []
    for path in files:
        documents += read_documents(path.name, path.read_bytes())
    reading = read_accounts(documents, words["account"], words["reseller"])
    currency = words["currency"] or invocation.settings.decks.currency
    dry_run, skip_bad = words["dry_run"], words["skip_bad"]

    async def work(services: Services) -> LimitsImport:
        plan = await plan_accounts(services.accounts, reading.accounts, currency)
        refused = reading.refused + len(plan.remarks)
        written = 0
        if not dry_run and (skip_bad or not refused):
            with progress_bar("accounts") as progress:
                written = await apply_plan(services.accounts, plan, currency, progress)
        return _limits_import(reading, plan, written=written, dry_run=dry_run)

    if dry_run:
        done = run(invocation, work)
    else:
        detail = {"files": [path.name for path in files], "skip_bad": skip_bad}
        done = run_change(invocation, "kazoo import-limits", None, work, detail)
    bad = sum(remark.refuses for remark in done.remarks)
    if as_json:
        print_json(done)
    else:
        _print_limits(done)
    if not bad or skip_bad:
        return 0
    print_error(f"{bad} documents are bad; nothing was imported (see --skip-bad)")
    return EXIT_FAILURE


def _limits_import(reading: Reading, plan: Plan, *, written: int, dry_run: bool) -> LimitsImport:
    return LimitsImport(
        dry_run=dry_run,
        written=written,
        unchanged=plan.unchanged,
        other_documents=reading.others,
        changes=plan.changes,
        remarks=(*reading.remarks, *plan.remarks),
    )


@command.command("import-rates")
@click.argument("deck_id", metavar="DECK")
@click.argument("file", type=_FILE)
@click.option("--ratedeck", metavar="ID", help="Only the rates of this ratedeck of Kazoo's.")
@click.option("--internal", is_flag=True, help="Take what the carrier charges: a wholesale deck.")
@click.option("--currency", metavar="CODE", help="Currency of the prices.")
@click.option("--timezone", metavar="ZONE", help="Zone of the deck.")
@click.option("--skip-bad", is_flag=True, help="Import without bad rates, blocking their prefix.")
@click.option("--dry-run", is_flag=True, help="Only report, and compare with the deck in force.")
@json_option
@click.pass_obj
def import_rates(
    invocation: Invocation, /, deck_id: str, file: Path, as_json: bool, **words: Any
) -> int:
    """Make a deck of Kazoo's rates: FILE is JSON documents or the CSV of its export task.

    Of several rates of one prefix the one is taken that Kazoo would take. With kazoo.costs =
    "kazoo" prices are rounded and costs cut to 1/10000, as on Kazoo's invoices.

    \b
    Examples:
      authz kazoo import-rates retail rates.csv --dry-run
      authz kazoo import-rates retail rates.json --ratedeck ratedeck
      authz kazoo import-rates wholesale rates.json --internal --skip-bad
    """
    try:
        known = {name: words[name] for name in ("currency", "timezone", "dry_run")}
        query = msgspec.convert({"id": deck_id, **known}, DeckImportQuery)
    except msgspec.ValidationError as error:
        raise invalid_input(error) from None
    options = RateOptions(
        ratedeck_id=words["ratedeck"],
        is_internal=words["internal"],
        cuts_units=invocation.settings.kazoo.costs == "kazoo",
    )
    reading = read_rates(file.name, file.read_bytes(), options)
    if reading.refused and not words["skip_bad"]:
        return _refuse_rates(_rates_import(reading, None, query.dry_run), as_json)

    async def work(services: Services) -> DeckImport:
        with progress_bar("rows") as progress:
            return await services.decks.import_file(query, reading.deck_csv(), progress)

    try:
        if query.dry_run:
            deck = run(invocation, work)
        else:
            deck = run_change(invocation, "kazoo import-rates", deck_id, work, {"query": query})
    except DeckRefused as error:
        return _refuse_rates(_rates_import(reading, None, query.dry_run, error), as_json)
    done = _rates_import(reading, deck, query.dry_run)
    if as_json:
        print_json(done)
    else:
        _print_rates(done)
    return 0


def _rates_import(
    reading: RateReading,
    deck: DeckImport | None,
    dry_run: bool,
    refused: DeckRefused | None = None,
) -> RatesImport:
    remarks = reading.remarks
    if refused is not None:
        places = reading.places
        # The deck file that we have written has a header and then a line for each place.
        remarks += tuple(
            Remark(places[one.line - 2], "", one.column, one.value, one.reason, refuses=True)
            for one in refused.report.issues
        )
    return RatesImport(
        dry_run=dry_run,
        rates=reading.rates,
        rows=len(reading.rows),
        blocked=len(reading.blocked),
        remarks=remarks,
        remarks_total=reading.remarks_total + len(remarks) - len(reading.remarks),
        deck=deck,
    )


def _refuse_rates(done: RatesImport, as_json: bool) -> int:
    if as_json:
        print_json(done)
    else:
        _print_remarks(done.remarks, done.remarks_total)
    bad = sum(remark.refuses for remark in done.remarks)
    print_error(f"{bad} rates are bad; nothing was imported (see --skip-bad)")
    return EXIT_FAILURE


def _print_limits(done: LimitsImport) -> None:
    _print_remarks(done.remarks, len(done.remarks))
    rows = [
        (
            change.account,
            "new" if change.is_new else "changed",
            field.field,
            _cell(field.before),
            _cell(field.after),
        )
        for change in done.changes
        for field in change.fields
    ]
    if rows:
        print_table(("account", "what", "field", "before", "after"), rows[:_SHOWN_MAX])
    if len(rows) > _SHOWN_MAX:
        print_hint(f"... and {len(rows) - _SHOWN_MAX} more changes; --json has them.")
    new = sum(change.is_new for change in done.changes)
    click.echo(
        f"{new} new accounts, {len(done.changes) - new} changed, {done.unchanged} unchanged; "
        f"{done.other_documents} documents are about something else"
    )
    if done.dry_run:
        print_hint("Nothing was changed. Leave out --dry-run to write it.")
    else:
        print_hint(f"{done.written} accounts were written.")


def _print_rates(done: RatesImport) -> None:
    _print_remarks(done.remarks, done.remarks_total)
    click.echo(f"{done.rates} rates, {done.rows} rows, {done.blocked} prefixes blocked")
    deck = done.deck
    if deck is None or done.dry_run:
        print_hint("Nothing was changed. Leave out --dry-run to put it in force.")
    elif deck.published:
        print_hint(f"Deck {deck.deck} ({deck.currency}, {deck.timezone}) is in force.")
    else:
        print_hint(f"Deck {deck.deck} says the same already; nothing was changed.")


def _print_remarks(remarks: tuple[Remark, ...], total: int) -> None:
    if not remarks:
        return
    # What refuses is what somebody must see.
    ordered = sorted(remarks, key=lambda remark: not remark.refuses)
    print_table(
        ("where", "account or prefix", "field", "value", "reason", "outcome"),
        [
            (
                one.place,
                one.account or None,
                one.field or None,
                one.value or None,
                one.reason,
                "refused" if one.refuses else "note",
            )
            for one in ordered[:_SHOWN_MAX]
        ],
    )
    if total > _SHOWN_MAX:
        print_hint(f"... and {total - _SHOWN_MAX} more remarks; --json has them.")


def _cell(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return msgspec.json.encode(value).decode()
