"""`authz debit`: charge an account and its ancestors for what is no call."""

from __future__ import annotations

import click

from authz.cli.main import Invocation
from authz.cli.output import json_option
from authz.cli.posting import description_option, post, reference_option


@click.command("debit")
@click.argument("account_id", metavar="ID")
@click.argument("amount")
@click.option(
    "--kind",
    type=click.Choice(["manual", "sms", "asr", "mobile_data", "recurring", "adjustment"]),
    default="manual",
    show_default=True,
    help="What it is booked as; sms, asr and mobile_data count as spend.",
)
@click.option(
    "--self", "only_self", is_flag=True, help="Charge this account only, not its ancestors."
)
@click.option(
    "--require-available", is_flag=True, help="Refuse unless every account has the money."
)
@reference_option
@description_option
@json_option
@click.pass_obj
def command(
    invocation: Invocation,
    account_id: str,
    amount: str,
    kind: str,
    only_self: bool,
    require_available: bool,
    reference: str | None,
    description: str,
    as_json: bool,
) -> None:
    """Debit AMOUNT from an account and all its ancestors, even into the negative.

    The same reference books only once, so that a command may be repeated.

    \b
    Examples:
      authz debit acme-sales 0.35 --kind sms --reference sms-batch-71
      authz debit acme-sales 9.90 --kind recurring --reference 2026-11 --require-available
      authz debit acme 12 --self --description "wrong credit of yesterday"
    """
    from authz.engine.postings import DebitRequest

    body = {
        "kind": kind,
        "amount": amount,
        "scope": "self" if only_self else "tree",
        "require_available": require_available,
        "description": description,
    }
    post(invocation, account_id, DebitRequest, body, reference, as_json=as_json)
