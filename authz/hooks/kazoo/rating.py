"""rate_req → rate_resp: a deck's row in Kazoo's units, 1/10000 of the currency and integer.

What a call costs is decided by the rate pinned to it when it was authorized, in full precision;
this answer is what Kazoo shows and writes into its records (sections 2.3 and 3 of the contract).
"""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from authz.engine.context import Context
from authz.engine.quotes import find_rows
from authz.hooks.kazoo.messages import RateAnswer, RateRequest
from authz.money import format_percent
from authz.rating.deck import DeckRow
from authz.reasons import CLASS_OF, DIRECTIONS, Direction
from authz.store.accounts import Chain
from authz_ext.rating import Rate

_MICROS_PER_UNIT: Final = 100
_NANOS_PER_UNIT: Final = 100_000
_BASIS_POINTS_PER_PERCENT: Final = 100


async def find_rate(context: Context, request: RateRequest) -> RateAnswer | None:
    """Return the rate of a call, None if there is none. Raises StoreError."""
    number, call_class = context.rules.classify(request.to_did)
    direction = DIRECTIONS.get(request.direction, Direction.OUTBOUND)
    now = context.clock.now()
    if request.account_id:
        chain = await context.directory.chain(request.account_id)
        if chain is None:
            return None
        answer = _rate_of_chain(context, chain, number, direction, now, request)
        discount = chain.accounts[0].discount(CLASS_OF[call_class])
        if answer is not None and discount:
            answer.discount_percentage = _percentage(discount)
        return answer
    deck_id = request.ratedeck_id or context.settings.calls.default_deck
    deck = None if deck_id is None else context.decks.get(deck_id)
    row = None if deck is None else deck.lookup(number, direction, now)
    if row is None or row.blocked or deck_id is None:
        return None
    return _answer(request, deck_id, row, now, None)


def _rate_of_chain(
    context: Context,
    chain: Chain,
    number: str,
    direction: Direction,
    now: int,
    request: RateRequest,
) -> RateAnswer | None:
    rows = find_rows(context.decks, chain, number, direction, now)
    row, deck_id = rows[0], chain.deck_ids[0]
    if row is None or row.blocked or deck_id is None:
        return None
    # What the call costs whoever sells to the account.
    above = rows[1] if len(rows) > 1 else None
    cost = None if above is None or above.blocked else above.rate
    return _answer(request, deck_id, row, now, cost)


def _answer(
    request: RateRequest, deck_id: str, row: DeckRow, now: int, cost: Rate | None
) -> RateAnswer:
    rate = row.rate
    minimum = rate.increment_at(0, now)
    return RateAnswer(
        call_id=request.call_id,
        rate=str(_per_minute_units(rate, now)),
        rate_increment=rate.increment_at(minimum, now),
        rate_minimum=str(minimum),
        rate_nocharge_time=rate.free_seconds,
        surcharge=str(_units(rate.connect_fee)),
        # Of what is charged at least, before the discount as all prices here: Kazoo's own is 0 for
        # a minimum below a minute.
        base_cost=str(_units(rate.cost(max(minimum, rate.free_seconds + 1), now))),
        pvt_cost="" if cost is None else str(_per_minute_units(cost, now)),
        prefix=row.prefix,
        rate_id=f"{deck_id}-{row.prefix}",
        rate_name=row.description or f"{deck_id}-{row.prefix}",
        rate_description=row.description,
        ratedeck_id=deck_id,
        update_callee_id=False,
    )


def _percentage(basis_points: int) -> int | Decimal:
    """Return percent: a number where it is whole, else a decimal, which is written as text."""
    whole, rest = divmod(basis_points, _BASIS_POINTS_PER_PERCENT)
    return Decimal(format_percent(basis_points)) if rest else whole


def _per_minute_units(rate: Rate, now: int) -> int:
    """Return the price of a minute as Kazoo rounds it: half up."""
    whole, _, decimals = rate.per_minute_text(now).partition(".")
    nanos = int(whole) * 1_000_000_000 + int(decimals.ljust(9, "0"))
    return (nanos + _NANOS_PER_UNIT // 2) // _NANOS_PER_UNIT


def _units(micros: int) -> int:
    return (micros + _MICROS_PER_UNIT // 2) // _MICROS_PER_UNIT
