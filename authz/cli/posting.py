"""What `authz credit` and `authz debit` share."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import click

from authz.cli.main import Invocation
from authz.cli.output import print_hint, print_json, print_table
from authz.errors import Conflict

if TYPE_CHECKING:
    from authz.admin.services import Services
    from authz.engine.postings import CreditRequest, DebitRequest, Posted

Command = TypeVar("Command", bound=Callable[..., Any])

reference_option = click.option(
    "--reference",
    metavar="TEXT",
    help="Your name for this booking, unique per account; without it a new one is made up.",
)
description_option = click.option(
    "--description", default="", metavar="TEXT", help="What the statement says."
)


def post(
    invocation: Invocation,
    account_id: str,
    kind: type[CreditRequest] | type[DebitRequest],
    body: Mapping[str, object],
    reference: str | None,
    *,
    as_json: bool,
) -> None:
    """Book a posting and print it; raises Conflict when it is refused."""
    import msgspec

    from authz.cli.changing import run_change
    from authz.engine.postings import CreditRequest, PostingRefused
    from authz.validation import invalid_input

    reference = reference or f"cli-{secrets.token_hex(8)}"
    try:
        request = msgspec.convert({**body, "reference": reference}, kind)
    except msgspec.ValidationError as error:
        raise invalid_input(error) from None

    async def work(services: Services) -> Posted:
        if isinstance(request, CreditRequest):
            answer = await services.postings.credit(account_id, request)
        else:
            answer = await services.postings.debit(account_id, request)
        if isinstance(answer, PostingRefused):
            raise Conflict(f"nothing was booked: {answer.detail} ({answer.reason})")
        return answer

    action = "credit" if isinstance(request, CreditRequest) else "debit"
    answer = run_change(invocation, action, account_id, work, {"body": request})
    if as_json:
        print_json(answer)
        return
    _print(answer)


def _print(posted: Posted) -> None:
    print_table(
        ("account", "amount", "balance", "available"),
        [
            (
                leg.account,
                leg.amount,
                leg.balance,
                "unlimited" if leg.available is None else leg.available,
            )
            for leg in posted.legs
        ],
        right=("amount", "balance", "available"),
    )
    if posted.duplicate:
        print_hint(f"Reference {posted.reference} was booked before; nothing was booked now.")
    else:
        print_hint(f"Booked as {posted.kind}, reference {posted.reference}.")
