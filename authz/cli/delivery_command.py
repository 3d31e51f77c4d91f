"""`authz delivery`: what became of telling events, and dead letters sent again."""

from __future__ import annotations

from typing import Any, get_args

import click

from authz.admin.services import Services
from authz.cli.changing import run_change
from authz.cli.event_service import checked, event_service
from authz.cli.main import Invocation
from authz.cli.output import json_option, print_hint, print_json, print_table
from authz.cli.session import run
from authz.events.messages import DeliveryPage, DeliveryQuery, DeliveryView, StateName


@click.group("delivery")
def command() -> None:
    """Look at deliveries: each is one event on its way to one webhook or e-mail address.

    \b
    Examples:
      authz delivery list --state dead
      authz delivery list --target crm
      authz delivery retry dlv_17_1795390000000_0_0a1b2c3d4e5f
    """


@command.command("list")
@click.option("--state", type=click.Choice(get_args(StateName)), help="Only in this state.")
@click.option(
    "--channel", type=click.Choice(("webhook", "email", "kazoo")), help="Only by this channel."
)
@click.option("--target", metavar="ID", help="Only to this webhook or address.")
@click.option("--event", "event_id", metavar="EVENT_ID", help="Only of this event.")
@click.option("--limit", type=int, metavar="COUNT", help="Most deliveries (default 100).")
@click.option("--cursor", metavar="TEXT", help="Goes on after an earlier page.")
@json_option
@click.pass_obj
def list_deliveries(invocation: Invocation, /, as_json: bool, **words: Any) -> None:
    """List deliveries, the newest first.

    \b
    Example:
      authz delivery list --state dead --target crm
    """
    query = checked(words, DeliveryQuery)

    async def work(services: Services) -> DeliveryPage:
        return await (await event_service(services)).deliveries(query)

    page = run(invocation, work)
    if as_json:
        print_json(page)
        return
    print_table(
        ("id", "event", "account", "target", "state", "attempts", "next attempt", "last error"),
        [
            (
                one.id,
                one.event,
                one.account,
                one.target,
                one.state,
                one.attempts,
                one.next_attempt_at,
                one.last_error,
            )
            for one in page.deliveries
        ],
        right=("attempts",),
    )
    if page.cursor is not None:
        print_hint(f"There are more: --cursor {page.cursor}")


@command.command("retry")
@click.argument("delivery_id", metavar="ID")
@json_option
@click.pass_obj
def retry(invocation: Invocation, delivery_id: str, as_json: bool) -> None:
    """Send a dead letter again, or one that waits at once.

    \b
    Example:
      authz delivery retry dlv_17_1795390000000_0_0a1b2c3d4e5f
    """

    async def work(services: Services) -> DeliveryView:
        return await (await event_service(services)).retry(delivery_id)

    view = run_change(invocation, "delivery retry", delivery_id, work, {})
    if as_json:
        print_json(view)
        return
    click.echo(f"{view.id} to {view.target} is sent again.")
