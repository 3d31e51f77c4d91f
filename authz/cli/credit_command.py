"""`authz credit`: give an account money, or a call's charge back."""

from __future__ import annotations

import click

from authz.cli.main import Invocation
from authz.cli.output import json_option
from authz.cli.posting import description_option, post, reference_option


@click.command("credit")
@click.argument("account_id", metavar="ID")
@click.argument("amount", required=False)
@click.option(
    "--kind",
    type=click.Choice(["payment", "recharge", "refund", "manual", "adjustment"]),
    default="payment",
    show_default=True,
    help="What it is booked as.",
)
@click.option(
    "--call", "call_id", metavar="CALL_ID", help="Give back this call's charge, on every leg."
)
@reference_option
@description_option
@json_option
@click.pass_obj
def command(
    invocation: Invocation,
    account_id: str,
    amount: str | None,
    kind: str,
    call_id: str | None,
    reference: str | None,
    description: str,
    as_json: bool,
) -> None:
    """Credit AMOUNT to an account, and to no other.

    A sub-account's balance is a spending limit below its master's: crediting it moves no money.
    The same reference books only once, so that a command may be repeated.

    \b
    Examples:
      authz credit acme 250 --reference INV-2026-117
      authz credit acme-sales 20 --kind manual --description "raise the limit"
      authz credit acme-sales 0.05 --kind refund --reference TICKET-8
      authz credit acme-sales --call c1 --reference TICKET-9     # all that c1 was charged
    """
    from authz.engine.postings import CreditRequest

    if call_id is None and amount is None:
        raise click.UsageError("AMOUNT is missing; only --call goes without")
    body = {
        "kind": "refund" if call_id is not None else kind,
        "amount": amount,
        "call_id": call_id,
        "description": description,
    }
    post(invocation, account_id, CreditRequest, body, reference, as_json=as_json)
