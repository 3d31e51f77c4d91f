"""`authz call`: the calls that the store knows."""

from __future__ import annotations

import click

from authz.admin.calls import open_calls
from authz.admin.hangups import Hangup, Hangups, hang_up, hang_up_tree
from authz.admin.services import Services
from authz.cli.changing import run_change
from authz.cli.main import Invocation
from authz.cli.output import json_option, print_facts, print_hint, print_json, print_table
from authz.cli.session import run
from authz.engine.inspect import call_state
from authz.errors import NotFound
from authz.model import CallLeg, CallState

_PAGE = 200


@click.group("call")
def command() -> None:
    """Look at calls, and end them: who talks, for how long, with what held.

    \b
    Examples:
      authz call list
      authz call list --account acme
      authz call show acme-sales c1
      authz call hangup acme-sales c1
    """


@command.command("list")
@click.option("--account", metavar="ID", help="Only calls of this account and those below it.")
@click.option(
    "--limit", type=click.IntRange(1), default=500, show_default=True, help="Most calls to print."
)
@json_option
@click.pass_obj
def list_calls(invocation: Invocation, account: str | None, limit: int, as_json: bool) -> None:
    """List open calls, in no order.

    \b
    Examples:
      authz call list
      authz call list --account acme --json
    """

    async def work(services: Services) -> tuple[list[CallState], bool]:
        found: dict[tuple[str, str], CallState] = {}
        cursor: str | None = None
        while True:
            page = await open_calls(services.context, account, cursor, min(_PAGE, limit))
            found |= {(one.account, one.call_id): one for one in page.calls}
            cursor = page.cursor
            if cursor is None or len(found) >= limit:
                calls = list(found.values())
                return calls[:limit], cursor is not None or len(calls) > limit

    calls, more = run(invocation, work)
    if as_json:
        print_json(calls)
        return
    right = ("used", "granted")
    print_table(
        ("account", "call", "number", "direction", "billing", "held", *right, "switch", "since"),
        [
            (
                one.account,
                one.call_id,
                one.number,
                one.direction,
                one.legs[0].billing,
                one.legs[0].held,
                one.used_seconds,
                "no end" if one.seconds is None else one.seconds,
                one.switch,
                one.authorized_at,
            )
            for one in calls
        ],
        right=("held", *right),
    )
    if more:
        print_hint(f"There are more than {limit}; see --limit.")


@command.command("show")
@click.argument("account_id", metavar="ACCOUNT")
@click.argument("call_id", metavar="CALL_ID")
@json_option
@click.pass_obj
def show(invocation: Invocation, account_id: str, call_id: str, as_json: bool) -> None:
    """Show one call, open, orphaned or settled, with all its legs.

    \b
    Example:
      authz call show acme-sales c1
    """

    async def work(services: Services) -> CallState:
        state = await call_state(services.context, account_id, call_id)
        if state is None:
            raise NotFound(f"account {account_id} has no call {call_id} that is still remembered")
        return state

    state = run(invocation, work)
    if as_json:
        print_json(state)
        return
    print_facts(
        {
            "state": state.state,
            "number": state.number,
            "class": state.class_,
            "direction": state.direction,
            "switch": state.switch,
            "authorized at": state.authorized_at,
            "used seconds": state.used_seconds,
            "granted seconds": state.seconds,
            "final": "yes" if state.final else "no",
            "lease until": state.lease_until,
        },
        title=f"{state.account} {state.call_id}",
    )
    click.echo()
    right = ("per minute", "held", "used")
    print_table(
        ("account", "billing", *right),
        [(leg.account, leg.billing, _rate(leg), leg.held, leg.used) for leg in state.legs],
        right=right,
    )


def _rate(leg: CallLeg) -> str:
    return leg.rate if leg.discount is None else f"{leg.rate} less {leg.discount} %"


@command.command("hangup")
@click.argument("account_id", metavar="ACCOUNT")
@click.argument("call_id", metavar="[CALL_ID]", required=False)
@click.option("--all", "every", is_flag=True, help="End all calls of the account and those below.")
@json_option
@click.pass_obj
def hangup(
    invocation: Invocation, account_id: str, call_id: str | None, every: bool, as_json: bool
) -> None:
    """Ask the switch to end a call, or all calls of an account's tree.

    A call that is not settled 10 seconds later becomes an orphan. Switches that ask by HTTP
    cannot be told: end the call there.

    \b
    Examples:
      authz call hangup acme-sales c1
      authz call hangup acme --all
    """
    if (call_id is None) != every:
        raise click.UsageError("name one call, or give --all")

    async def work(services: Services) -> Hangup | Hangups:
        if call_id is None:
            return await hang_up_tree(services.context, account_id)
        return await hang_up(services.context, account_id, call_id)

    target = account_id if call_id is None else f"{account_id} {call_id}"
    answer = run_change(invocation, "call hangup", target, work)
    if as_json:
        print_json(answer)
    elif isinstance(answer, Hangups):
        click.echo(f"asked {answer.calls - answer.not_asked} of {answer.calls} calls to end")
        if answer.not_asked:
            print_hint("The rest become orphans in 10 s: no agent serves their switch.")
    elif answer.asked:
        click.echo(f"asked {answer.switch} to end the call")
    else:
        print_hint(f"No agent serves its switch; it becomes an orphan at {answer.orphan_at}.")
