"""Settle: the call has ended; book its exact cost on every leg, once."""

from __future__ import annotations

from functools import partial
from typing import Any, Final, NamedTuple

import msgspec

from authz import log
from authz.causes import shorten_cause
from authz.engine.answers import settlement
from authz.engine.calls import is_trunk_covered, make_call, pinned_rate, plan_of
from authz.engine.clock import parse_moment
from authz.engine.context import ATTEMPTS_MAX, Context
from authz.engine.excuses import excuses_of
from authz.engine.plans import Plan, plan_from_record
from authz.engine.quotes import quote_chain
from authz.engine.steps import pack_costs
from authz.errors import CallTooOld, CallUnknown, NotExecuted, SettledDifferently
from authz.model import AuthorizeRequest, Settlement, SettleRequest
from authz.money import BOUND_MICROS
from authz.reasons import Billing, CallClass, Direction, Outcome
from authz.store import keys
from authz.store.accounts import Account, Chain
from authz.store.layouts import SETTLE
from authz.store.records import ledger_strings, unpack_call

_NO_ATTEMPT = -1
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
        elif not context.is_stale(reply, chain):
            answer = _answer(context, chain, request, reply)
            if not answer.duplicate:
                context.resend.observe(chain.tag, reply[3])
            # A duplicate too: whoever booked it may have died, or never got the answer.
            # Of a late one the store also keeps that it is late: both are lost, or neither.
            if not is_repeat and past is None:
                _keep(context, request, plan)
            return answer
    raise NotExecuted("the call kept changing while it was settled")


def _keep(context: Context, request: SettleRequest, plan: Plan | None) -> None:
    """Remember the settle with its end and its rates, whatever the store may forget."""
    context.resend.remember(partial(_settle_again, context, request, plan, context.clock.now()))


async def _settle_again(
    context: Context, request: SettleRequest, plan: Plan | None, settled_at: int
) -> None:
    ended_at = settled_at
    if request.ended_at is not None:
        ended_at = min(ended_at, parse_moment(request.ended_at, "ended_at"))
    request = msgspec.structs.replace(request, ended_at=ended_at)
    if plan is not None:
        context.memory.put(plan)
    await settle(context, request, is_repeat=True)


def _times(context: Context, request: SettleRequest, authorized_at: int) -> int:
    """Return when the call was answered, clamped between its authorize and now."""
    now = context.clock.now()
    ended_at = now
    if request.ended_at is not None:
        ended_at = max(authorized_at, min(now, parse_moment(request.ended_at, "ended_at")))
    answered_at = ended_at - request.seconds
    if request.answered_at is not None:
        answered_at = parse_moment(request.answered_at, "answered_at")
    return max(authorized_at, min(now, answered_at))


def _numbers(
    context: Context,
    chain: Chain,
    request: SettleRequest,
    plan: Plan | None,
    started_at: int,
    hour: int = 0,
    force: bool = False,
) -> bytes:
    valid_from, valid_until = chain.validity(context.clock.now())
    calls = context.settings.calls
    return SETTLE.pack(
        attempt=_NO_ATTEMPT if plan is None else plan.attempt,
        valid_from=valid_from,
        valid_until=valid_until,
        legs=len(chain.accounts),
        seconds=request.seconds,
        started_at=started_at,
        hour=hour,
        closed_hours=context.closed_hours,
        ring_seconds=calls.ring_seconds + calls.chunk_seconds + calls.grace_seconds,
        call_class=0 if plan is None else plan.call_class,
        direction=0 if plan is None else plan.direction,
        force=force,
    )


def _limits(context: Context, chain: Chain, plan: Plan | None) -> tuple[bytes, ...]:
    # Only thresholds count when a call is booked, and they are the same for every class.
    call_class = CallClass.UNKNOWN if plan is None else plan.call_class
    return chain.limits(call_class, context.clock.now())


async def _settle(
    context: Context, chain: Chain, request: SettleRequest, plan: Plan | None
) -> list[Any]:
    member = keys.call_member(request.account, request.call_id)
    costs: tuple[int, ...] = (0,) * len(chain.ids)
    started_at, number = 0, ""
    if plan is not None:
        started_at = _times(context, request, plan.authorized_at)
        costs = plan.costs(request.seconds, started_at)
        number = plan.number
    hour_keys = chain.hour_keys(context.clock.now())
    return await context.run(
        "settle",
        chain,
        request.call_id,
        [
            _numbers(context, chain, request, plan, started_at, hour_keys.hour) + pack_costs(costs),
            keys.member_digest(member),
            member,
            _strings(chain, request, number),
            *_limits(context, chain, plan),
        ],
        context.settings.store.settle_deadline_ms,
        hour_keys.tombstones,
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
    answered_at = _times(context, request, 0)
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
    answered_at = _times(context, request, known.authorized_at)
    costs = pack_costs(known.costs(request.seconds, answered_at))
    is_correction = past is not None and past.charged is not None
    if past is not None and past.charged is not None:
        costs += pack_costs(past.charged)
    return await context.run(
        "book",
        chain,
        request.call_id,
        [
            _numbers(context, chain, request, known, answered_at, force=is_correction),
            keys.call_digest(request.account, request.call_id),
            bytes(known.billings),
            costs,
            _strings(chain, request, known.number),
            *_limits(context, chain, known),
        ],
        context.settings.store.settle_deadline_ms,
    )


def _strings(chain: Chain, request: SettleRequest, number: str) -> bytes:
    cause = shorten_cause(request.hangup_cause or "")
    return ledger_strings(chain.ids, request.call_id, number, cause)


def _answer(context: Context, chain: Chain, request: SettleRequest, reply: list[Any]) -> Settlement:
    outcome = reply[0]
    context.memory.forget(request.account, request.call_id)
    context.gate.closed((request.account, request.call_id))
    if outcome == Outcome.SETTLED_DIFFERENTLY:
        raise SettledDifferently(reply[1])
    if outcome == Outcome.DUPLICATE:
        return settlement(request.call_id, chain, reply[1], reply[2:], duplicate=True)
    values = reply[4:]
    for account, balance in zip(chain.ids, values[2::3], strict=False):
        if not -BOUND_MICROS <= balance <= BOUND_MICROS:
            log.event(
                "balance_out_of_range", level="error", account=account, balance_micros=balance
            )
    return settlement(request.call_id, chain, reply[1], values, duplicate=False)
