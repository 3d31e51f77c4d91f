"""`authz price`: what a call would cost."""

from __future__ import annotations

from typing import Any

import click
import msgspec

from authz.admin.messages import PriceAnswer, PriceQuery
from authz.admin.prices import current_chain, price
from authz.admin.services import Services
from authz.cli.main import Invocation
from authz.cli.output import json_option, print_facts, print_json, print_table
from authz.cli.session import load_decks, run
from authz.validation import invalid_input


@click.command("price")
@click.argument("to", metavar="NUMBER")
@click.option("--account", metavar="ID", help="By the decks of this account and its ancestors.")
@click.option("--deck", metavar="ID", help="By this deck alone.")
@click.option("--seconds", type=int, help="What so many seconds cost (default 60).")
@click.option("--amount", metavar="AMOUNT", help="How many seconds this amount buys.")
@click.option(
    "--direction",
    type=click.Choice(["outbound", "inbound"]),
    default="outbound",
    show_default=True,
    help="Whether the account's user places or gets the call.",
)
@click.option("--at", metavar="TIME", help="When, as 2026-11-30T18:00:00Z (default now).")
@json_option
@click.pass_obj
def command(invocation: Invocation, /, as_json: bool, **words: Any) -> None:
    """Price a call to NUMBER exactly, or say what an amount buys. Nothing is booked.

    NUMBER is read as it is dialled: 442071838750, 00442…, 011442… and +442… are the same.

    \b
    Examples:
      authz price +442071838750 --account acme-sales --seconds 61
      authz price 011442071838750 --deck retail --amount 10
      authz price 4155550100 --account acme-sales --at 2026-12-24T20:00:00Z
    """
    try:
        query = msgspec.convert(words, PriceQuery)
    except msgspec.ValidationError as error:
        raise invalid_input(error) from None

    async def work(services: Services) -> PriceAnswer:
        if query.account is not None:
            chain = await current_chain(services.context, query.account)
            await load_decks(services, *filter(None, chain.deck_ids))
        elif query.deck is not None:
            await load_decks(services, query.deck)
        return await price(services.context, query)

    answer = run(invocation, work)
    if as_json:
        print_json(answer)
        return
    print_facts(
        {
            "number": answer.number,
            "class": answer.class_,
            "direction": answer.direction,
            "at": answer.at,
        }
    )
    click.echo()
    _print_legs(answer, asked_amount=query.amount)


def _print_legs(answer: PriceAnswer, asked_amount: str | None) -> None:
    right = ("per minute", "seconds", "cost")
    rows = []
    for leg in answer.legs:
        note = "blocked" if leg.blocked else "no rate" if leg.cost is leg.rate is None else ""
        if leg.trunk:
            note = f"{note or 'or'} a free trunk: 0".strip()
        if leg.discount is not None:
            note = f"less {leg.discount} % {note}".strip()
        seconds: object = leg.seconds
        if asked_amount is not None and leg.rate is not None and seconds is None:
            seconds = "no end"
        rows.append(
            (
                leg.account,
                leg.deck,
                leg.prefix,
                leg.description,
                leg.currency,
                leg.rate,
                seconds,
                leg.cost,
                note,
            )
        )
    print_table(
        ("account", "deck", "prefix", "destination", "currency", *right, "note"),
        rows,
        right=right,
    )
