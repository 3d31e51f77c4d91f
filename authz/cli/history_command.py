"""`authz account transactions`, `usage` and `statement`: what was booked, from the archive."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar, get_args

import click
import msgspec

from authz.admin.services import Services
from authz.cli.lazy_archive import LazyArchive
from authz.cli.main import Invocation
from authz.cli.output import json_option, print_facts, print_hint, print_json, print_table
from authz.cli.session import run
from authz.errors import InvariantError
from authz.ledger.messages import (
    KindName,
    MovementQuery,
    SortName,
    Statement,
    StatementQuery,
    TransactionPage,
    TransactionQuery,
    UsageAnswer,
    UsageSums,
)
from authz.model import ClassName, DirectionName
from authz.validation import invalid_input

if TYPE_CHECKING:
    from authz.ledger.history import History

Command = TypeVar("Command", bound=Callable[..., Any])
Query = TypeVar("Query", bound=msgspec.Struct)
T = TypeVar("T")

_SUMS = ("entries", "calls", "seconds", "amount")


def movement_options(command: Command) -> Command:
    """Give a command the options that say which movements it is about."""
    options = (
        click.option("--start", metavar="TIME", help="First day, as 2026-11-01, or moment."),
        click.option("--end", metavar="TIME", help="Last day, or the moment before which it ends."),
        click.option("--kind", type=click.Choice(get_args(KindName)), help="Only this kind."),
        click.option("--direction", type=click.Choice(get_args(DirectionName)), help="Of calls."),
        click.option("--class", "class", type=click.Choice(get_args(ClassName)), help="Of calls."),
        click.option("--destination", metavar="PREFIX", help="How the called number begins."),
        click.option("--origin", metavar="ID", help="Only what came from this account."),
        click.option("--under", metavar="ID", help="Only what came from this account or below it."),
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.command("transactions")
@click.argument("id", metavar="ID")
@movement_options
@click.option(
    "--sort",
    type=click.Choice(get_args(SortName)),
    help="Order; a minus is the descending one (default -booked).",
)
@click.option("--limit", type=int, metavar="COUNT", help="Rows of a page (default 100).")
@click.option("--cursor", metavar="TEXT", help="Goes on after an earlier page.")
@click.option("--csv", "as_csv", is_flag=True, help="Write all of them as CSV.")
@click.option(
    "-o", "--output", type=click.File("wb", lazy=True), default="-", help="File for the CSV."
)
@json_option
@click.pass_obj
def transactions(
    invocation: Invocation, /, as_json: bool, as_csv: bool, output: BinaryIO, **words: Any
) -> None:
    """List what moved an account's balance, its own doings and those of accounts below it.

    Days are those of the account's time zone.

    \b
    Examples:
      authz account transactions acme --start 2026-11-01 --end 2026-11-30
      authz account transactions acme --kind call --origin acme-sales --destination +44
      authz account transactions acme --start 2026-11-01 --csv -o november.csv
    """
    if as_csv and as_json:
        raise click.UsageError("choose --csv or --json, one of the two")
    query = _query(words, TransactionQuery)

    async def read(history: History) -> TransactionPage | None:
        if not as_csv:
            return await history.transactions(query)
        file = await history.transactions_csv(query)
        async for chunk in file.chunks:
            output.write(chunk)
        return None

    page = _ask(invocation, read)
    if page is None:
        return
    if as_json:
        print_json(page)
    else:
        _print_transactions(page)


@click.command("usage")
@click.argument("id", metavar="ID")
@movement_options
@json_option
@click.pass_obj
def usage(invocation: Invocation, /, as_json: bool, **words: Any) -> None:
    """Sum up what an account used, by kind, class of number, billing and origin.

    \b
    Examples:
      authz account usage acme --start 2026-11-01 --end 2026-11-30
      authz account usage acme --start 2026-11-22 --under acme-sales
    """
    query = _query(words, MovementQuery)

    async def read(history: History) -> UsageAnswer:
        return await history.usage(query)

    answer = _ask(invocation, read)
    if as_json:
        print_json(answer)
        return
    _print_sums("kind", ((one.kind, one) for one in answer.by_kind))
    _print_sums("class", ((one.class_, one) for one in answer.by_class))
    _print_sums("billing", ((one.billing, one) for one in answer.by_billing))
    _print_sums("origin", ((one.origin, one) for one in answer.by_origin))
    click.echo(f"{answer.total.amount} {answer.currency} in {answer.total.entries} entries")
    if answer.more_origins:
        print_hint("Only the accounts that were charged most are shown; use --under.")


@click.command("statement")
@click.argument("id", metavar="ID")
@click.argument("month", required=False)
@json_option
@click.pass_obj
def statement(invocation: Invocation, /, as_json: bool, **words: Any) -> None:
    """Show the statement of an account for MONTH, as 2026-11 (default: the running one).

    What rolled over, what was booked in the days of the account's time zone, what is left.

    \b
    Examples:
      authz account statement acme 2026-11
      authz account statement acme
    """
    query = _query(words, StatementQuery)

    async def read(history: History) -> Statement:
        return await history.statement(query)

    sheet = _ask(invocation, read)
    if as_json:
        print_json(sheet)
        return
    print_facts(
        {
            "month": sheet.month,
            "from": sheet.start,
            "until": sheet.end,
            "opening balance": f"{sheet.opening_balance} {sheet.currency}",
            "closing balance": f"{sheet.closing_balance} {sheet.currency}",
        },
        title=sheet.account,
    )
    click.echo()
    _print_sums("kind", ((one.kind, one) for one in sheet.totals))
    if not sheet.complete:
        print_hint("The month is not over.")


def _ask(invocation: Invocation, read: Callable[[History], Awaitable[T]]) -> T:
    """Return what a question is answered; raises ArchiveUnavailable where no archive is."""

    async def work(services: Services) -> T:
        # Its database's library takes longer to import than most commands to run.
        from authz.ledger.history import History

        if not isinstance(services.archive, LazyArchive):
            raise InvariantError("the session of a command opens its archive when it is asked")
        archive = await services.archive.opened()
        context = services.context
        return await read(History(context.client, context.directory, archive))

    return run(invocation, work)


def _query(words: dict[str, Any], kind: type[Query]) -> Query:
    try:
        given = {name: word for name, word in words.items() if word is not None}
        return msgspec.convert(given, kind)
    except msgspec.ValidationError as error:
        raise invalid_input(error) from None


def _print_transactions(page: TransactionPage) -> None:
    print_table(
        ("booked at", "kind", "origin", "number", "seconds", "billing", "amount", "balance",
         "reference", "description", "marks"),
        [
            (
                one.booked_at, one.kind, one.origin, one.number, one.seconds, one.billing,
                one.amount, one.balance, one.reference or one.call_id, one.description,
                " ".join(one.marks),
            )
            for one in page.transactions
        ],
        right=("seconds", "amount", "balance"),
    )  # fmt: skip
    if page.cursor is not None:
        print_hint(f"There are more: --cursor {page.cursor}")


def _print_sums(word: str, lines: Iterable[tuple[str, UsageSums]]) -> None:
    rows = [(name, one.entries, one.calls, one.seconds, one.amount) for name, one in lines]
    if rows:
        print_table((word, *_SUMS), rows, right=_SUMS)
        click.echo()
