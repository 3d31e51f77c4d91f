"""A call as the engine works on it, and what its class means for trunks and rates."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from authz.engine.excuses import NO_EXCUSES, ExcusedAuthorize, Excuses
from authz.engine.plans import Plan
from authz.engine.quotes import LegQuote
from authz.model import AuthorizeRequest
from authz.reasons import CLASS_OF, DIRECTIONS, Billing, CallClass, Direction
from authz.store.accounts import Account, Chain
from authz_ext.rating import Rate

if TYPE_CHECKING:
    from authz.engine.context import Context


class Call(Struct, frozen=True, gc=False):
    """An authorize with its numbers classed and its words turned into constants."""

    request: AuthorizeRequest
    number: str
    rated_number: str
    call_class: CallClass
    direction: Direction
    attempt: int
    #: Outbound emergency: always allowed.
    is_emergency: bool
    #: Outbound emergency or toll-free: needs no credit.
    is_exempt: bool
    #: Seconds already used, for a call that a reserve adopts; None for a new one.
    adopted_seconds: int | None
    #: Accounts whose legs are free, and the chain on which that was found, if on any.
    excuses: Excuses = NO_EXCUSES
    judged_on: Chain | None = None


def make_call(
    context: Context, request: AuthorizeRequest, adopted_seconds: int | None = None
) -> Call:
    """Return the request with its number normalised and classed."""
    number, call_class = context.rules.classify(request.to)
    rated = number
    if request.rate_number is not None:
        rated = context.rules.normalize(request.rate_number)
    excuses, judged_on = NO_EXCUSES, None
    if isinstance(request, ExcusedAuthorize):
        excuses, judged_on = request.excuses, request.judged_on
    is_outbound = request.direction == "outbound"
    is_emergency = is_outbound and call_class == CallClass.EMERGENCY
    return Call(
        request,
        number,
        rated,
        CLASS_OF[call_class],
        DIRECTIONS[request.direction],
        context.new_attempt(),
        is_emergency,
        is_emergency or (is_outbound and call_class == CallClass.TOLLFREE),
        adopted_seconds,
        excuses,
        judged_on,
    )


def pinned_rate(call: Call, account: Account | None, quote: LegQuote) -> Rate | None:
    """Return the rate to pin to a leg: the deck's, with the account's discount on the call's class.

    On an exempt call only one whose row says its class. Without an account: the deck's own.
    """
    if call.is_exempt and quote.row_class != call.call_class:
        return None
    if account is None or quote.rate is None:
        return quote.rate
    return account.discounted(quote.rate, call.call_class)


def is_trunk_covered(call: Call, account: Account, quote: LegQuote) -> bool:
    """Return whether the call may ride the account's trunks, free or not.

    Inbound toll-free never does: the account pays for it. An excused leg needs none.
    """
    if quote.excuse is not None:
        return False
    if call.direction == Direction.INBOUND and call.call_class == CallClass.TOLLFREE:
        return False
    return account.has_trunks and quote.leg_class(call.call_class) in account.trunk_classes


def plan_of(
    call: Call,
    authorized_at: int,
    rates: tuple[Rate | None, ...] = (),
    billings: tuple[Billing, ...] = (),
    *,
    in_store: bool = True,
) -> Plan:
    """Return what to remember of a call; without billings it is priced when it is settled."""
    request = call.request
    return Plan(
        request.account,
        request.call_id,
        call.attempt,
        call.call_class,
        call.direction,
        call.number,
        request.to,
        request.switch or "",
        rates,
        billings,
        authorized_at,
        in_store,
        request.rate_number,
    )
