"""What a call would cost: the deck rows that an authorize would use, priced exactly."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from authz.admin.messages import LookupAnswer, LookupQuery, PriceAnswer, PriceLeg, PriceQuery
from authz.engine.calls import Call, is_trunk_covered, make_call, pinned_rate
from authz.engine.clock import format_moment, parse_moment
from authz.engine.context import Context
from authz.engine.quotes import discount_text, quote_row
from authz.errors import InvalidInput, NotFound
from authz.model import SECONDS_MAX, AuthorizeRequest
from authz.money import format_amount, parse_amount
from authz.reasons import DIRECTIONS, CallClass

if TYPE_CHECKING:
    from authz.rating.deck import Deck
    from authz.store.accounts import Account, Chain

SECONDS_DEFAULT = 60


class _Asked(NamedTuple):
    """A price enquiry in the engine's words: exactly one of seconds and amount."""

    call: Call
    at: int
    seconds: int | None
    amount: int | None


async def price(context: Context, query: PriceQuery) -> PriceAnswer:
    """Return what a call costs, or what an amount buys, on every leg or by one deck.

    Raises InvalidInput for contradicting words and NotFound for an unknown account or deck.
    """
    asked = _asked(context, query)
    if query.account is not None:
        legs = await _chain_legs(context, query.account, asked)
    else:
        deck = find_deck(context, query.deck or "")
        legs = (_leg(None, deck, deck.currency, asked),)
    first = legs[0]
    return PriceAnswer(
        number=asked.call.number,
        class_=asked.call.call_class.label,
        direction=query.direction,
        at=format_moment(asked.at),
        currency=first.currency,
        seconds=first.seconds,
        cost=first.cost,
        rate=first.rate,
        prefix=first.prefix,
        legs=legs,
    )


def look_up(context: Context, query: LookupQuery) -> LookupAnswer:
    """Return the row of a deck that is in force for a number; raises NotFound."""
    deck = find_deck(context, query.id)
    number, call_class = context.rules.classify(query.number)
    at = _moment(context, query.at)
    row = deck.lookup(number, DIRECTIONS[query.direction], at)
    if row is None:
        raise NotFound(f"deck {query.id} has no row in force for {query.direction} {number}")
    return LookupAnswer(
        deck=deck.id,
        version=deck.version,
        currency=deck.currency,
        number=number,
        class_=CallClass(call_class).label,
        prefix=row.prefix,
        description=row.description,
        row_class=None if row.call_class is None else CallClass(row.call_class).label,
        blocked=row.blocked,
        rate=row.rate.per_minute_text(at),
        connect_fee=format_amount(row.rate.connect_fee),
        free_seconds=row.rate.free_seconds,
    )


def find_deck(context: Context, deck_id: str) -> Deck:
    """Return the deck in force under an id; raises NotFound."""
    deck = context.decks.get(deck_id)
    if deck is None:
        raise NotFound(f"no deck {deck_id}")
    return deck


async def current_chain(context: Context, account_id: str) -> Chain:
    """Return an account's chain as it is now, whatever was cached; raises NotFound."""
    chain = await context.directory.chain(account_id)
    if chain is not None and not await context.directory.is_current(chain):
        context.directory.forget(account_id)
        chain = await context.directory.chain(account_id)
    if chain is None:
        raise NotFound(f"no account {account_id}")
    return chain


def _moment(context: Context, text: str | None) -> int:
    if text is None:
        return context.clock.now()
    return parse_moment(int(text) if text.isdecimal() else text, "at")


def _asked(context: Context, query: PriceQuery) -> _Asked:
    if (query.account is None) == (query.deck is None):
        raise InvalidInput("account", "name an account or a deck, one of the two")
    if query.seconds is not None and query.amount is not None:
        raise InvalidInput("amount", "ask for the price of seconds or of an amount, not of both")
    request = AuthorizeRequest(
        call_id="price", account=query.account or "", to=query.to, direction=query.direction
    )
    amount = None if query.amount is None else parse_amount(query.amount)
    if amount is not None and amount < 0:
        raise InvalidInput("amount", "must not be negative")
    seconds = query.seconds
    if seconds is None and amount is None:
        seconds = SECONDS_DEFAULT
    return _Asked(make_call(context, request), _moment(context, query.at), seconds, amount)


async def _chain_legs(context: Context, account_id: str, asked: _Asked) -> tuple[PriceLeg, ...]:
    chain = await current_chain(context, account_id)
    legs = []
    for account, deck_id in zip(chain.accounts, chain.deck_ids, strict=True):
        deck = None if deck_id is None else context.decks.get(deck_id)
        if deck is not None and deck.currency != account.config.currency:
            deck = None
        legs.append(_leg(account, deck, account.config.currency, asked))
    return tuple(legs)


def _leg(account: Account | None, deck: Deck | None, currency: str, asked: _Asked) -> PriceLeg:
    call = asked.call
    row = None if deck is None else deck.lookup(call.rated_number, call.direction, asked.at)
    quote = quote_row(row)
    rate = None if quote.blocked else pinned_rate(call, account, quote)
    seconds, cost = asked.seconds, None
    if rate is not None:
        if asked.amount is not None:
            bought = rate.seconds_for(asked.amount, asked.at)
            # All the time there is: this amount never runs out.
            seconds = None if bought == SECONDS_MAX else bought
        cost = None if seconds is None else rate.cost(seconds, asked.at)
    elif call.is_exempt and not quote.blocked:
        cost = 0
    return PriceLeg(
        account=None if account is None else account.id,
        deck=None if deck is None else deck.id,
        currency=currency,
        prefix=None if row is None else row.prefix,
        description=None if row is None else row.description,
        blocked=quote.blocked,
        trunk=account is not None and is_trunk_covered(call, account, quote),
        rate=None if rate is None else rate.per_minute_text(asked.at),
        cost=None if cost is None else format_amount(cost),
        seconds=seconds,
        discount=None if rate is None else discount_text(rate),
    )
