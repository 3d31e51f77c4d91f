"""Authorize: may this call start, for how long, and who pays?"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Any

from authz.engine.answers import denial, grant, grant_legs
from authz.engine.calls import Call, plan_of
from authz.engine.context import ATTEMPTS_MAX, Context
from authz.engine.excuses import Excuses
from authz.engine.plans import Plan, call_key, plan_from_record
from authz.engine.terms import Step
from authz.errors import AccountsChanged, NotExecuted
from authz.meters import now_us
from authz.model import Denial, Grant
from authz.reasons import BY_CODE, REASONS, Excuse, Outcome, Reason, billings_of
from authz.store import keys
from authz.store.accounts import CallLimits, Chain
from authz.store.records import unpack_call

_OK = REASONS["ok"].code
#: Where the legs begin in the script's answer: billing, held and credit left of each.
_LEGS = 5
#: Denials from which the gate learns what the next calls may not do either.
_GATE_REASONS = frozenset(
    REASONS[name].code
    for name in ("call_rate_exceeded", "max_calls_exceeded", "max_class_calls_exceeded")
)


class _Offer:
    """One authorize with the terms on which it is offered to the store."""

    __slots__ = ("call", "chain", "context", "limits", "now", "terms")

    def __init__(self, context: Context, call: Call, chain: Chain) -> None:
        self.context = context
        self.call = call
        self.chain = chain
        self.now = context.clock.now()
        self.terms = context.terms.find(chain, call, self.now)
        #: On the number of calls, of every account that is not excused from them.
        self.limits: Sequence[CallLimits] = ()
        if chain.has_call_limits:
            limits = chain.call_limits(call.call_class)
            self.limits = _not_excused(limits, call.excuses) if call.excuses else limits

    def ask(self, steps: list[Step] | None = None) -> Awaitable[list[Any]]:
        """Ask the store for the full chunk or, at the second try, for one of these steps."""
        context, call, terms = self.context, self.call, self.terms
        request = call.request
        briefing = context.briefing(self.chain, self.now)
        arguments = briefing.authorize(
            terms.numbers(briefing),
            call.attempt,
            request.dry_run,
            steps is not None,
            1 if steps is None else len(steps),
            context.memory_full,
            call.call_class,
            request.call_id,
            call.number,
            request.to,
            request.direction,
            request.switch or "",
            terms.packed_rates,
            terms.packed_first_legs if steps is None else terms.pack_legs(steps),
        )
        return context.run(
            "authorize",
            self.chain,
            request.call_id,
            arguments,
            context.settings.store.decision_deadline_ms,
            briefing.filters,
        )


async def authorize(context: Context, call: Call) -> Grant | Denial:
    """Decide one call; raises StoreError when the store does not answer, and AccountsChanged
    when the chain on which its excuses were found is another one by now.
    """
    request = call.request
    deadline_ms = context.settings.store.decision_deadline_ms
    for _ in range(ATTEMPTS_MAX):
        chain = context.directory.cached(request.account)
        if chain is None:
            chain = await context.directory.chain(request.account, deadline_ms)
        if chain is None:
            return _deny(call, "account_unknown", request.account)
        if call.judged_on is not None and chain is not call.judged_on:
            raise AccountsChanged(request.account)
        offer = _Offer(context, call, chain)
        refused = _refused_here(context, offer)
        if refused is not None:
            if await context.directory.is_current(chain, deadline_ms):
                return refused
            context.directory.forget(request.account)
            continue
        refused = _gate_refusal(context, offer)
        if refused is not None:
            return refused
        sent_us = now_us()
        reply = await offer.ask()
        if reply[0] == Outcome.SHORT:
            sent_us = now_us()
            reply = await offer.ask(offer.terms.second_steps(reply))
        _tell_gate(context, offer, reply, sent_us)
        if reply[0] >= 0 or not context.is_stale(reply, chain):
            plan = None
            if reply[0] == _OK and reply[3] and not request.dry_run:
                plan = await pinned_plan(context, chain, call)
            return _answer(context, offer, reply, plan)
    raise NotExecuted("the account kept changing while the call was decided")


def _deny(call: Call, reason: str, account: str, detail: str | None = None) -> Denial:
    return denial(
        call.request.call_id, REASONS[reason], account, call.call_class, call.direction, detail
    )


def _refused_here(context: Context, offer: _Offer) -> Denial | None:
    """Return a denial that needs no counter, only current knowledge of the accounts."""
    call, chain = offer.call, offer.chain
    if call.is_emergency:
        return None
    if not chain.is_enabled:
        disabled = next(account.id for account in chain.accounts if not account.config.enabled)
        return _deny(call, "account_disabled", disabled)
    refused = offer.terms.policy_denial(call)
    if refused is not None:
        return _deny(call, refused.reason.name, refused.account, refused.detail)
    cap = offer.terms.duration_cap
    if cap is not None and cap.seconds <= offer.terms.used_seconds:
        return _deny(call, cap.reason.name, chain.accounts[0].id)
    return None


def _gate_refusal(context: Context, offer: _Offer) -> Denial | None:
    """Return a denial that this process's own counts already prove."""
    call = offer.call
    if call.is_emergency or not offer.limits:
        return None
    found = context.gate.first_refusal(
        call_key(call.request.account, call.request.call_id),
        offer.limits,
        call.direction,
        call.call_class,
        now_us(),
    )
    return None if found is None else _deny(call, BY_CODE[found[0]].name, found[1])


def _not_excused(limits: Sequence[CallLimits], excuses: Excuses) -> Sequence[CallLimits]:
    return [one for one in limits if excuses.get(one.account) is not Excuse.LIMITS]


def _tell_gate(context: Context, offer: _Offer, reply: list[Any], sent_us: int) -> None:
    outcome = reply[0]
    call = offer.call
    if call.is_emergency or call.request.dry_run or not offer.chain.has_call_limits:
        return
    if outcome == _OK and not reply[3]:
        context.gate.admitted_by_all(offer.limits, sent_us, reply[4])
    elif outcome in _GATE_REASONS:
        account = offer.chain.accounts[reply[1] - 1]
        context.gate.denied(account.id, account.version, sent_us, reply[2], reply[3])


def _answer(
    context: Context, offer: _Offer, reply: list[Any], pinned: Plan | None
) -> Grant | Denial:
    """Return what the caller sees; `pinned` is the plan of a call authorized before."""
    call, chain, request = offer.call, offer.chain, offer.call.request
    if reply[0] != _OK:
        reason: Reason = BY_CODE[reply[0]]
        account = chain.accounts[reply[1] - 1]
        return _deny(call, reason.name, account.id, _shortage(reason))
    granted, final, used_seconds = reply[1], reply[2], offer.terms.used_seconds
    plan = pinned
    if plan is None:
        billings = billings_of(*reply[_LEGS::3])
        plan = plan_of(call, offer.now - used_seconds, offer.terms.rates, billings)
    seconds = None if granted < 0 else granted
    calls = context.settings.calls
    if not request.dry_run:
        context.memory.put(plan)
        _count(context, plan, chain, seconds, used_seconds)
    return grant(
        calls,
        request.call_id,
        call.call_class,
        call.number,
        seconds=seconds,
        used_seconds=used_seconds,
        final=bool(final),
        legs=grant_legs(chain, plan, reply, _LEGS, offer.now),
        dry_run=request.dry_run,
    )


async def pinned_plan(context: Context, chain: Chain, call: Call) -> Plan | None:
    """Return the plan of a call authorized before: it keeps the rates it was pinned to."""
    account, call_id = call.request.account, call.request.call_id
    record = await context.client.execute(
        "GET",
        keys.call(chain.tag, account, call_id),
        deadline_ms=context.settings.store.decision_deadline_ms,
    )
    return None if record is None else plan_from_record(account, call_id, unpack_call(record))


def _shortage(reason: Reason) -> str | None:
    return None if reason.name != "insufficient_credit" else "not enough credit for one increment"


def _count(
    context: Context, plan: Plan, chain: Chain, seconds: int | None, used_seconds: int
) -> None:
    calls = context.settings.calls
    lasting = calls.sign_of_life_seconds if seconds is None else seconds - used_seconds
    moment_us = now_us()
    context.gate.opened(
        plan.key,
        chain.ids,
        plan.direction,
        plan.call_class,
        moment_us + (calls.ring_seconds + lasting + calls.grace_seconds) * 1_000_000,
        moment_us,
    )
