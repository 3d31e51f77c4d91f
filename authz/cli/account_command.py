"""`authz account`: create, change, show, list and close accounts."""

from __future__ import annotations

from collections.abc import Callable

import click
import msgspec

from authz.admin.handlers import account_view
from authz.admin.messages import AccountView
from authz.admin.services import Services
from authz.cli import history_command
from authz.cli.assignments import changes_of, field_names, fields_of
from authz.cli.changing import run_change
from authz.cli.main import Invocation
from authz.cli.output import json_option, print_facts, print_hint, print_json, print_table
from authz.cli.session import run
from authz.engine.accounts import patched
from authz.engine.balances import AccountBalance, BalanceView, read_balance
from authz.errors import Conflict
from authz.model import AccountConfig

_FIELDS_HELP = "Fields: " + ", ".join(field_names()) + "."


@click.group("account")
def command() -> None:
    """Keep accounts: who pays for calls, and within which limits.

    A master's balance is money; a sub-account's (one with a parent) is a spending limit below it.

    \b
    Examples:
      authz account create acme currency=USD deck=wholesale
      authz account create acme-sales parent=acme deck=retail credit_limit=20
      authz account set acme-sales trunks.outbound=2 blocked_classes=premium,satellite
      authz account balance acme-sales
      authz account list --parent acme
      authz account transactions acme --start 2026-11-01 --end 2026-11-30
    """


for one in (history_command.transactions, history_command.usage, history_command.statement):
    command.add_command(one)


@command.command("create", epilog=_FIELDS_HELP)
@click.argument("account_id", metavar="ID")
@click.argument("assignments", nargs=-1, metavar="[FIELD=VALUE]...")
@json_option
@click.pass_obj
def create(
    invocation: Invocation, account_id: str, assignments: tuple[str, ...], as_json: bool
) -> None:
    """Create an account with these fields; all others have their defaults.

    \b
    Examples:
      authz account create acme currency=USD deck=wholesale
      authz account create acme-sales parent=acme deck=retail max_calls=10
      authz account create trial credit_limit=0 max_call_seconds=600 allowed_prefixes=1,44
    """
    config = patched(AccountConfig(), changes_of(assignments))

    async def work(services: Services) -> AccountView:
        if await services.context.directory.read(account_id) is not None:
            raise Conflict(
                f"account {account_id} exists; change it with "
                f"`authz account set {account_id} FIELD=VALUE`"
            )
        return account_view((await services.accounts.put(account_id, config)).record)

    view = run_change(
        invocation, "account create", account_id, work, {"fields": changes_of(assignments)}
    )
    _print_account(view, as_json)
    if not as_json:
        print_hint(f"Give it credit: authz credit {account_id} 10.00 --reference FIRST-PAYMENT")


@command.command("set", epilog=_FIELDS_HELP)
@click.argument("account_id", metavar="ID")
@click.argument("assignments", nargs=-1, required=True, metavar="FIELD=VALUE...")
@json_option
@click.pass_obj
def change(
    invocation: Invocation, account_id: str, assignments: tuple[str, ...], as_json: bool
) -> None:
    """Change fields of an account; null takes a field's default.

    Parent and currency never change. A running call keeps the rate it was authorized at.

    \b
    Examples:
      authz account set acme-sales enabled=false
      authz account set acme-sales trunks.outbound=2 trunks.burst=1
      authz account set acme-sales daily_spend_limit=25 max_rate=0.50
      authz account set acme-sales low_balance.threshold=5 low_balance.repeat_hours=24
      authz account set acme-sales max_calls=null
    """
    changes = changes_of(assignments)

    async def work(services: Services) -> AccountView:
        return account_view((await services.accounts.patch(account_id, changes)).record)

    view = run_change(invocation, "account set", account_id, work, {"fields": changes})
    _print_account(view, as_json)


@command.command("show")
@click.argument("account_id", metavar="ID")
@json_option
@click.pass_obj
def show(invocation: Invocation, account_id: str, as_json: bool) -> None:
    """Show an account's configuration, each field as `authz account set` takes it.

    \b
    Example:
      authz account show acme-sales
    """

    async def work(services: Services) -> AccountView:
        return account_view(await services.accounts.read(account_id))

    _print_account(run(invocation, work), as_json)


@command.command("list")
@click.option("--parent", metavar="ID", help="Only the direct children of this account.")
@click.option("-q", "--query", metavar="TEXT", help="Only ids with this text in them.")
@click.option(
    "--limit",
    type=click.IntRange(1),
    default=1_000,
    show_default=True,
    help="Most accounts to print.",
)
@json_option
@click.pass_obj
def list_accounts(
    invocation: Invocation, parent: str | None, query: str | None, limit: int, as_json: bool
) -> None:
    """List accounts by id with their parent and balance.

    \b
    Examples:
      authz account list
      authz account list --parent acme
      authz account list -q sales --json
    """

    async def work(services: Services) -> list[BalanceView]:
        context = services.context
        balances: list[BalanceView] = []
        cursor: str | None = None
        while len(balances) < limit:
            page = await services.accounts.page(
                parent=parent, q=query, cursor=cursor, limit=min(500, limit - len(balances))
            )
            for record in page.records:
                balances.append(await read_balance(context.client, context.directory, record.id))
            cursor = page.cursor
            if cursor is None:
                break
        return balances

    balances = run(invocation, work)
    if as_json:
        print_json(balances)
        return
    print_table(
        ("account", "parent", "currency", "balance", "held", "available", "calls"),
        [
            (
                one.account,
                one.chain[0].account if one.chain else None,
                one.currency,
                one.balance,
                one.held,
                _available(one),
                one.calls,
            )
            for one in balances
        ],
        right=("balance", "held", "available", "calls"),
    )
    if len(balances) == limit:
        print_hint(f"There may be more than {limit}; see --limit.")


@command.command("balance")
@click.argument("account_id", metavar="ID")
@json_option
@click.pass_obj
def balance(invocation: Invocation, account_id: str, as_json: bool) -> None:
    """Show what an account and its ancestors have, hold for calls, and have spent.

    available = balance − held + credit limit.

    \b
    Example:
      authz account balance acme-sales
    """

    async def work(services: Services) -> BalanceView:
        context = services.context
        return await read_balance(context.client, context.directory, account_id)

    view = run(invocation, work)
    if as_json:
        print_json(view)
        return
    accounts = (view, *view.chain)
    lines: dict[str, Callable[[AccountBalance], object]] = {
        "currency": lambda one: one.currency,
        "balance": lambda one: one.balance,
        "held": lambda one: one.held,
        "used": lambda one: one.used,
        "available": _available,
        "credit limit": lambda one: one.credit_limit,
        "calls": lambda one: one.calls,
        "trunks inbound": lambda one: one.trunks.inbound,
        "trunks outbound": lambda one: one.trunks.outbound,
        "spend today": lambda one: one.spend_today,
        "spend this month": lambda one: one.spend_month,
    }
    names = [one.account for one in accounts]
    print_table(
        ("", *names),
        [(name, *map(field, accounts)) for name, field in lines.items()],
        right=names,
    )


@command.command("delete")
@click.argument("account_id", metavar="ID")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def delete(invocation: Invocation, account_id: str, yes: bool) -> None:
    """Close an account for ever: its id is never used again.

    It must have no open calls, no children, and a balance of 0.

    \b
    Example:
      authz account delete trial --yes
    """
    if not yes:
        click.confirm(f"Close {account_id} for ever?", abort=True)

    async def work(services: Services) -> None:
        await services.accounts.close(account_id)

    run_change(invocation, "account delete", account_id, work)
    click.echo(f"{account_id} is closed.")


def _available(one: AccountBalance) -> str:
    return "unlimited" if one.available is None else one.available


def _print_account(view: AccountView, as_json: bool) -> None:
    if as_json:
        print_json(view)
        return
    fields = msgspec.structs.asdict(view)
    account_id = fields.pop("id")
    print_facts(dict(fields_of(AccountConfig(**fields))), title=account_id)
