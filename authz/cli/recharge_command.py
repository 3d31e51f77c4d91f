"""`authz recharge`: recharges that accounts ask for, answered by hand."""

from __future__ import annotations

from typing import get_args

import click

from authz.admin.services import Services
from authz.cli.changing import run_change
from authz.cli.event_service import checked
from authz.cli.main import Invocation
from authz.cli.output import json_option, print_hint, print_json, print_table
from authz.cli.posting import description_option
from authz.cli.session import run
from authz.engine.postings import Posted, PostingRefused
from authz.engine.recharges import (
    RechargeAnswer,
    RechargeFailed,
    RechargeSucceeded,
    RechargeView,
    StateName,
)
from authz.errors import Conflict


@click.group("recharge")
def command() -> None:
    """Answer recharges that accounts ask for, as a payment system does over the API.

    \b
    Examples:
      authz recharge list --state pending
      authz recharge succeeded acme-3
      authz recharge failed acme-3 --detail "card declined"
    """


@command.command("list")
@click.option("--account", metavar="ID", help="Only of this account.")
@click.option("--state", type=click.Choice(get_args(StateName)), help="Only in this state.")
@click.option(
    "--limit", type=click.IntRange(1), default=1_000, show_default=True, help="Most to print."
)
@json_option
@click.pass_obj
def list_recharges(
    invocation: Invocation, account: str | None, state: StateName | None, limit: int, as_json: bool
) -> None:
    """List recharges that were asked for and are not credited, by id.

    \b
    Example:
      authz recharge list --state failed
    """

    async def work(services: Services) -> list[RechargeView]:
        found: dict[str, RechargeView] = {}
        cursor: str | None = None
        while len(found) < limit:
            page = await services.recharges.page(account, state, cursor, min(500, limit))
            found |= {one.id: one for one in page.recharges}
            cursor = page.cursor
            if cursor is None:
                break
        return sorted(found.values(), key=lambda one: one.id)

    recharges = run(invocation, work)
    more = len(recharges) > limit
    recharges = recharges[:limit]
    if as_json:
        print_json(recharges)
        return
    print_table(
        ("id", "account", "state", "amount", "requested at", "changed at"),
        [
            (one.id, one.account, one.state, one.amount, one.requested_at, one.changed_at)
            for one in recharges
        ],
        right=("amount",),
    )
    if more:
        print_hint(f"There are more than {limit}; see --limit.")


@command.command("succeeded")
@click.argument("recharge_id", metavar="ID")
@click.option("--amount", metavar="AMOUNT", help="Refuse it unless this was asked for.")
@description_option
@json_option
@click.pass_obj
def succeeded(
    invocation: Invocation, recharge_id: str, amount: str | None, description: str, as_json: bool
) -> None:
    """Credit a recharge, once, however often this is said.

    \b
    Example:
      authz recharge succeeded acme-3 --amount 20.00
    """
    body = checked({"amount": amount, "description": description}, RechargeSucceeded)

    async def work(services: Services) -> Posted:
        answer = await services.recharges.succeeded(recharge_id, body)
        if isinstance(answer, PostingRefused):
            raise Conflict(f"nothing was booked: {answer.detail} ({answer.reason})")
        return answer

    posted = run_change(invocation, "recharge succeeded", recharge_id, work, {"body": body})
    if as_json:
        print_json(posted)
        return
    print_table(
        ("account", "amount", "balance"),
        [(leg.account, leg.amount, leg.balance) for leg in posted.legs],
        right=("amount", "balance"),
    )
    if posted.duplicate:
        print_hint("It was credited before; nothing was booked now.")


@command.command("failed")
@click.argument("recharge_id", metavar="ID")
@click.option("--detail", default="", metavar="TEXT", help="Why; it is passed on in the event.")
@json_option
@click.pass_obj
def failed(invocation: Invocation, recharge_id: str, detail: str, as_json: bool) -> None:
    """Note that a recharge failed: it is asked for again after a while.

    \b
    Example:
      authz recharge failed acme-3 --detail "card declined"
    """
    body = checked({"detail": detail}, RechargeFailed)

    async def work(services: Services) -> RechargeAnswer:
        return await services.recharges.failed(recharge_id, body)

    answer = run_change(invocation, "recharge failed", recharge_id, work, {"body": body})
    if as_json:
        print_json(answer)
        return
    click.echo(f"{answer.recharge} has failed{' already' if answer.duplicate else ''}.")
