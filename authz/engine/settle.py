"""Settle: the call has ended; book its exact cost on every leg, once."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import Struct

from authz import log
from authz.causes import shorten_cause
from authz.engine.answers import settlement
from authz.engine.calls import is_trunk_covered, make_call, pinned_rate, plan_of
from authz.engine.clock import parse_moment
from authz.engine.context import ATTEMPTS_MAX, Context
from authz.engine.excuses import excuses_of
from authz.engine.plans import Plan, call_key, plan_from_record
from authz.engine.quotes import quote_chain
from authz.engine.steps import pack_costs
from authz.errors import CallTooOld, CallUnknown, NotExecuted, SettledDifferently
from authz.model import AuthorizeRequest, Settlement, SettleRequest
from authz.money import BOUND_MICROS
from authz.reasons import Billing, Direction, Outcome
from authz.store import keys
from authz.store.accounts import Account, Chain
from authz.store.layouts import SETTLE
from authz.store.records import ledger_strings, unpack_call

#: Where the legs begin in the script's answer: billing, charge and balance of each.
_LEGS = 4
#: How far a switch's clock may be ahead of the store's and its calls still count as just ended.
_CLOCK_SKEW_SECONDS: Final = 60


class Past(NamedTuple):
    """What the archive says of a call that the store does not know any more.

    `charged` is what an orphan's settlement has charged each leg, None if none was ever booked.
    """

    charged: tuple[int, ...] | None


async def settle(
    context: Context,
    request: SettleRequest,
    *,
    is_repeat: bool = False,
    past: Past | None = None,
) -> Settlement:
    """Book one call; raises StoreError, CallUnknown or SettledDifferently.

    One that ended longer ago than the store remembers, or has yet to end by the switch's clock,
    is CallTooOld, unless its `past` was looked up.

    A call that this process does not remember is settled by its record, which the script
    answers; one that the store does not know either, by the numbers that the request carries.
    Unless it `is_repeat`, it is kept to be said again should the store lose its last moments.
    """
    deadline_ms = context.settings.store.settle_deadline_ms
    for _ in range(ATTEMPTS_MAX):
        chain = context.directory.cached(request.account)
        if chain is None:
            chain = await context.directory.chain(request.account, deadline_ms)
        if chain is None:
            raise CallUnknown(f"account {request.account} is unknown")
        plan = context.memory.get(request.account, request.call_id)
        if plan is not None and not plan.in_store:
            reply = await _book(context, chain, request, plan, past)
        else:
            reply = await _settle(context, chain, request, plan)
            if reply[0] == Outcome.UNKNOWN_CALL:
                context.memory.forget(request.account, request.call_id)
                reply = await _book(context, chain, request, plan, past)
        if reply[0] == Outcome.STALE_CALL:
            record = unpack_call(reply[1])
            context.memory.put(plan_from_record(request.account, request.call_id, record))
        elif reply[0] >= 0 or not context.is_stale(reply, chain):
            answer = _answer(context, chain, request, reply)
            if not answer.duplicate:
                context.resend.observe(chain.tag, reply[3])
            # A duplicate too: whoever booked it may have died, or never got the answer.
            # Of a late one the store also keeps that it is late: both are lost, or neither.
            if not is_repeat and past is None:
                again = _SettleAgain(context, request, plan, context.clock.now())
                context.resend.remember(again)
            return answer
    raise NotExecuted("the call kept changing while it was settled")


class _SettleAgain(Struct, frozen=True, gc=False):
    """Says a settle again with its end and its rates, whatever the store may have forgotten.

    Thousands are kept, so that they are nothing that the cyclic garbage collector walks over.
    """

    context: Context
    request: SettleRequest
    plan: Plan | None
    settled_at: int

    async def __call__(self) -> None:
        ended_at = self.settled_at
        if self.request.ended_at is not None:
            ended_at = min(ended_at, parse_moment(self.request.ended_at, "ended_at"))
        request = msgspec.structs.replace(self.request, ended_at=ended_at)
        if self.plan is not None:
            self.context.memory.put(self.plan)
        await settle(self.context, request, is_repeat=True)


def _answered_at(request: SettleRequest, authorized_at: int, now: int) -> int:
    """Return when the call was answered, clamped between its authorize and now."""
    ended_at = now
    if request.ended_at is not None:
        ended_at = max(authorized_at, min(now, parse_moment(request.ended_at, "ended_at")))
    answered_at = ended_at - request.seconds
    if request.answered_at is not None:
        answered_at = parse_moment(request.answered_at, "answered_at")
    return max(authorized_at, min(now, answered_at))


def _settle(
    context: Context, chain: Chain, request: SettleRequest, plan: Plan | None
) -> Awaitable[list[Any]]:
    now = context.clock.now()
    briefing = context.briefing(chain, now)
    if plan is None:
        started_at, costs = 0, pack_costs((0,) * len(chain.ids))
    else:
        started_at = _answered_at(request, plan.authorized_at, now)
        costs = plan.pack_costs(request.seconds, started_at)
    cause = shorten_cause(request.hangup_cause or "")
    return context.run(
        "settle",
        chain,
        request.call_id,
        briefing.settle(plan, request.call_id, request.seconds, started_at, costs, cause),
        context.settings.store.settle_deadline_ms,
        briefing.tombstones,
    )


def _has_trunks_for(account: Account, direction: Direction) -> bool:
    """Return whether any of the account's trunks carries calls of that direction."""
    trunks = account.config.trunks
    own = trunks.inbound if direction == Direction.INBOUND else trunks.outbound
    return bool(own or trunks.twoway or trunks.burst)


def _plan_of_unknown(
    context: Context,
    chain: Chain,
    request: SettleRequest,
    plan: Plan | None,
    past: Past | None,
) -> Plan:
    """Return how a call that the store does not know is billed.

    As it was authorized, if this process remembers that; else as its numbers say. Raises
    CallUnknown without numbers, CallTooOld if its past must be looked up.
    """
    keep_seconds = context.settings.store.closed_keep_seconds
    if plan is not None and plan.billings:
        # An orphan this old is gone with what it was charged: booking it could charge twice.
        if past is None and context.clock.now() - plan.authorized_at > keep_seconds:
            raise CallTooOld("the call began too long ago to be booked without its record")
        return plan
    if plan is not None:
        to, direction = plan.dialled, plan.direction.label
        rate_number = plan.rate_number
    elif request.to is not None and request.direction is not None and request.ended_at is not None:
        to, direction, rate_number = request.to, request.direction, request.rate_number
    else:
        raise CallUnknown(
            f"no call {request.call_id} of account {request.account}; send `to`, `direction` "
            "and `ended_at` to have it booked from its settle"
        )
    if past is None and request.ended_at is not None:
        age = context.clock.now() - parse_moment(request.ended_at, "ended_at")
        # The store remembers a call from when it was booked on: by an end that is told too late
        # it would seem unknown, and be booked again, after that.
        if not -_CLOCK_SKEW_SECONDS <= age <= keep_seconds - _CLOCK_SKEW_SECONDS:
            raise CallTooOld("the call's end is too far from now to book it without its record")
    call = make_call(
        context,
        AuthorizeRequest(
            call_id=request.call_id,
            account=request.account,
            to=to,
            direction=direction,
            rate_number=rate_number,
        ),
    )
    answered_at = _answered_at(request, 0, context.clock.now())
    quotes = quote_chain(
        context.decks, chain, call.rated_number, call.direction, answered_at, excuses_of(request)
    )
    billings = tuple(
        Billing.FREE
        if call.is_exempt or quote.excuse is not None
        else Billing.TRUNK
        if is_trunk_covered(call, account, quote) and _has_trunks_for(account, call.direction)
        else Billing.PER_MINUTE
        for account, quote in zip(chain.accounts, quotes, strict=True)
    )
    rates = tuple(
        pinned_rate(call, account, quote)
        for account, quote in zip(chain.accounts, quotes, strict=True)
    )
    return plan_of(call, 0, rates, billings, in_store=False)


async def _book(
    context: Context,
    chain: Chain,
    request: SettleRequest,
    plan: Plan | None,
    past: Past | None,
) -> list[Any]:
    known = _plan_of_unknown(context, chain, request, plan, past)
    now = context.clock.now()
    answered_at = _answered_at(request, known.authorized_at, now)
    costs = known.pack_costs(request.seconds, answered_at)
    is_correction = past is not None and past.charged is not None
    if past is not None and past.charged is not None:
        costs += pack_costs(past.charged)
    valid_from, valid_until = chain.validity(now)
    numbers = SETTLE.pack(
        attempt=known.attempt,
        valid_from=valid_from,
        valid_until=valid_until,
        legs=len(chain.accounts),
        seconds=request.seconds,
        started_at=answered_at,
        closed_hours=context.closed_hours,
        call_class=known.call_class,
        direction=known.direction,
        force=is_correction,
    )
    cause = shorten_cause(request.hangup_cause or "")
    return await context.run(
        "book",
        chain,
        request.call_id,
        [
            numbers,
            keys.call_digest(request.account, request.call_id),
            bytes(known.billings),
            costs,
            ledger_strings(chain.ids, request.call_id, known.number, cause),
            *chain.limits(known.call_class, now),
        ],
        context.settings.store.settle_deadline_ms,
    )


def _answer(context: Context, chain: Chain, request: SettleRequest, reply: list[Any]) -> Settlement:
    outcome = reply[0]
    context.memory.forget(request.account, request.call_id)
    context.gate.closed(call_key(request.account, request.call_id))
    if outcome == Outcome.SETTLED_DIFFERENTLY:
        raise SettledDifferently(reply[1])
    if outcome == Outcome.DUPLICATE:
        return settlement(request.call_id, chain, reply[1], reply, 2, duplicate=True)
    for account, balance in zip(chain.ids, reply[_LEGS + 2 :: 3], strict=False):
        if not -BOUND_MICROS <= balance <= BOUND_MICROS:
            log.event(
                "balance_out_of_range", level="error", account=account, balance_micros=balance
            )
    return settlement(request.call_id, chain, reply[1], reply, _LEGS, duplicate=False)
