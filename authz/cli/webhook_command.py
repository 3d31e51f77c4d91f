"""`authz webhook`: the programs that are told of events."""

from __future__ import annotations

import click

from authz.admin.services import Services
from authz.cli.changing import run_change
from authz.cli.event_service import checked, event_service
from authz.cli.main import Invocation
from authz.cli.output import json_option, print_facts, print_hint, print_json, print_table
from authz.cli.session import run
from authz.errors import Conflict
from authz.events.endpoints import StoredWebhook, WebhookBody, WebhookList, WebhookView
from authz.events.messages import Retried, WebhookTest


@click.group("webhook")
def command() -> None:
    """Keep the receivers of events: URLs that get a signed message for each.

    Messages follow the Standard Webhooks specification; docs/alerts.md shows how to verify them.

    \b
    Examples:
      authz webhook add crm https://crm.example.net/authz --event 'balance.*' --event 'recharge.*'
      authz webhook test crm
      authz webhook rotate crm
      authz webhook list
    """


@command.command("add")
@click.argument("webhook_id", metavar="ID")
@click.argument("url")
@click.option(
    "--event", "events", multiple=True, metavar="NAME",
    help="Only this event, or such as 'balance.*'; may be repeated (default: all).",
)  # fmt: skip
@click.option("--account", metavar="ID", help="Only events of this account and those below it.")
@click.option("--secret", metavar="WHSEC", help="Its secret; without, one is made.")
@click.option("--description", default="", metavar="TEXT", help="What it is for.")
@click.option("--disabled", is_flag=True, help="Add it switched off.")
@json_option
@click.pass_obj
def add(
    invocation: Invocation,
    webhook_id: str,
    url: str,
    events: tuple[str, ...],
    account: str | None,
    secret: str | None,
    description: str,
    disabled: bool,
    as_json: bool,
) -> None:
    """Add a receiver, or replace one: it keeps its secret unless you give another.

    \b
    Examples:
      authz webhook add crm https://crm.example.net/authz
      authz webhook add acme https://acme.example.org/hook --account acme
    """
    body = checked(
        {
            "url": url,
            "events": events,
            "account": account,
            "secret": secret,
            "description": description,
            "enabled": not disabled,
            "id": webhook_id,
        },
        WebhookBody,
    )

    async def work(services: Services) -> StoredWebhook:
        return await services.webhooks.put(webhook_id, body)

    stored = run_change(invocation, "webhook add", webhook_id, work, {"body": body})
    _print(stored.view, as_json=as_json)


@command.command("list")
@json_option
@click.pass_obj
def list_webhooks(invocation: Invocation, as_json: bool) -> None:
    """List all receivers, without their secrets.

    \b
    Example:
      authz webhook list
    """

    async def work(services: Services) -> WebhookList:
        return await services.webhooks.all()

    webhooks = run(invocation, work).webhooks
    if as_json:
        print_json(webhooks)
        return
    print_table(
        ("id", "url", "events", "account", "enabled", "secret", "note"),
        [
            (
                one.id,
                one.url,
                " ".join(one.events) or "all",
                one.account,
                "yes" if one.enabled else "no",
                one.secret_hint,
                one.disabled_reason or one.description,
            )
            for one in webhooks
        ],
    )


@command.command("rotate")
@click.argument("webhook_id", metavar="ID")
@json_option
@click.pass_obj
def rotate(invocation: Invocation, webhook_id: str, as_json: bool) -> None:
    """Make a new secret; for `webhooks.rotation_hours` the one before signs as well.

    \b
    Example:
      authz webhook rotate crm
    """

    async def work(services: Services) -> WebhookView:
        return await services.webhooks.rotate(webhook_id)

    _print(run_change(invocation, "webhook rotate", webhook_id, work, {}), as_json=as_json)


@command.command("remove")
@click.argument("webhook_id", metavar="ID")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def remove(invocation: Invocation, webhook_id: str, yes: bool) -> None:
    """Forget a receiver; what still waits for it is not sent.

    \b
    Example:
      authz webhook remove crm --yes
    """
    if not yes:
        click.confirm(f"Forget the webhook {webhook_id}?", abort=True)

    async def work(services: Services) -> None:
        await services.webhooks.remove(webhook_id)

    run_change(invocation, "webhook remove", webhook_id, work, {})
    click.echo(f"{webhook_id} is removed.")


@command.command("test")
@click.argument("webhook_id", metavar="ID")
@json_option
@click.pass_obj
def send_test(invocation: Invocation, webhook_id: str, as_json: bool) -> None:
    """Send a signed test message now, from this host, and say what came back.

    \b
    Example:
      authz webhook test crm
    """

    async def work(services: Services) -> WebhookTest:
        from authz.events.webhooks import send_test as send

        endpoint = await services.webhooks.find(webhook_id)
        return await send(services.context.settings.webhooks, endpoint)

    result = run(invocation, work)
    if as_json:
        print_json(result)
    if not result.delivered:
        raise Conflict(f"{webhook_id} did not take it: {result.error}")
    if not as_json:
        click.echo(f"{webhook_id} took it after {result.milliseconds} ms.")


@command.command("retry")
@click.argument("webhook_id", metavar="ID")
@json_option
@click.pass_obj
def retry(invocation: Invocation, webhook_id: str, as_json: bool) -> None:
    """Send all dead letters of a receiver again.

    \b
    Example:
      authz webhook retry crm
    """

    async def work(services: Services) -> Retried:
        return await (await event_service(services)).retry_webhook(webhook_id)

    answer = run_change(invocation, "webhook retry", webhook_id, work, {})
    if as_json:
        print_json(answer)
        return
    click.echo(f"{answer.deliveries} deliveries are sent again.")


def _print(view: WebhookView, *, as_json: bool) -> None:
    if as_json:
        print_json(view)
        return
    print_facts(
        {
            "url": view.url,
            "events": " ".join(view.events) or "all",
            "account": view.account,
            "enabled": "yes" if view.enabled else "no",
            "secret": view.secret or view.secret_hint,
            "secret before signs until": view.previous_secret_until,
        },
        title=view.id,
    )
    if view.secret is not None:
        print_hint("The secret is not shown again.")
