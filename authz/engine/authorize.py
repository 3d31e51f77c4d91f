"""Authorize: may this call start, for how long, and who pays?"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from authz.engine.answers import denial, grant, grant_legs
from authz.engine.calls import Call, plan_of
from authz.engine.clock import monotonic_us
from authz.engine.context import ATTEMPTS_MAX, Context
from authz.engine.plans import Plan, pack_tail, plan_from_record, request_digest
from authz.engine.terms import Step
from authz.errors import AccountsChanged, NotExecuted
from authz.model import Denial, Grant
from authz.reasons import BILLING_OF, BY_CODE, REASONS, Billing, Excuse, Outcome, Reason
from authz.store import keys
from authz.store.accounts import Chain
from authz.store.constants import Mark
from authz.store.layouts import ATTEMPT_BYTES, AUTHORIZE
from authz.store.records import unpack_call

_OK = REASONS["ok"].code
#: Denials from which the gate learns what the next calls may not do either.
_GATE_REASONS = frozenset(
    REASONS[name].code
    for name in ("call_rate_exceeded", "max_calls_exceeded", "max_class_calls_exceeded")
)


class _Offer:
    """One authorize with the terms on which it is offered to the store."""

    def __init__(self, context: Context, call: Call, chain: Chain) -> None:
        self.context = context
        self.call = call
        self.chain = chain
        self.now = context.clock.now()
        self.terms = context.terms.find(chain, call, self.now)
        self.hour_keys = chain.hour_keys(self.now)

    def ask(self, steps: list[Step] | None = None) -> Awaitable[list[Any]]:
        """Ask the store for the full chunk or, at the second try, for one of these steps."""
        context = self.context
        return context.run(
            "authorize",
            self.chain,
            self.call.request.call_id,
            self._arguments(steps),
            context.settings.store.decision_deadline_ms,
            self.hour_keys.filters,
        )

    def _arguments(self, steps: list[Step] | None) -> list[bytes]:
        call, chain, terms = self.call, self.chain, self.terms
        request = call.request
        if steps is None:
            numbers, legs = self._first_numbers(), terms.packed_first_legs
        else:
            numbers = self._pack_numbers(len(steps), second_try=True)
            legs = terms.packed_leg_requests + terms.pack_steps(steps)
        member = keys.call_member(chain.id, request.call_id)
        return [
            call.attempt.to_bytes(ATTEMPT_BYTES) + numbers,
            keys.member_digest(member),
            member,
            request_digest(request.to, request.direction, request.switch),
            pack_tail(call.number, request.to, request.switch or "", terms.packed_rates),
            legs,
            *chain.limits(call.call_class, self.now),
        ]

    def _first_numbers(self) -> bytes:
        """Return the numbers of the first try, which many calls have in common."""
        terms, context = self.terms, self.context
        made_for = (
            *self.chain.validity(self.now),
            self.hour_keys.hour,
            context.memory_full,
            self.call.request.dry_run,
        )
        if terms.packed_numbers_for != made_for:
            terms.packed_numbers = self._pack_numbers(1, second_try=False)
            terms.packed_numbers_for = made_for
        return terms.packed_numbers

    def _pack_numbers(self, steps: int, *, second_try: bool) -> bytes:
        """Return all the script's numbers but the attempt, which they begin with."""
        context, call, terms = self.context, self.call, self.terms
        calls = context.settings.calls
        valid_from, valid_until = self.chain.validity(self.now)
        cap = terms.duration_cap
        return AUTHORIZE.pack(
            valid_from=valid_from,
            valid_until=valid_until,
            call_class=call.call_class,
            direction=call.direction,
            legs=len(self.chain.accounts),
            exempt=call.is_exempt,
            dry_run=call.request.dry_run,
            second_try=second_try,
            steps=steps,
            final=terms.is_final,
            memory_full=context.memory_full,
            marks=Mark.NONE,
            used_seconds=terms.used_seconds,
            uncharged_seconds=-1 if cap is None else cap.seconds,
            ring_seconds=calls.ring_seconds,
            grace_seconds=calls.grace_seconds,
            life_seconds=calls.sign_of_life_seconds,
            closed_hours=context.closed_hours,
            hour=self.hour_keys.hour,
        )[ATTEMPT_BYTES:]

    def plan(self, billings: tuple[Billing, ...]) -> Plan:
        """Return what to remember of the call."""
        authorized_at = self.now - self.terms.used_seconds
        return plan_of(self.call, authorized_at, self.terms.rates, billings)


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
        sent_us = monotonic_us()
        reply = await offer.ask()
        if reply[0] == Outcome.SHORT:
            sent_us = monotonic_us()
            reply = await offer.ask(offer.terms.second_steps(reply))
        _tell_gate(context, offer, reply, sent_us)
        if not context.is_stale(reply, chain):
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
    if not offer.chain.has_call_limits:
        return None
    # A repeat of a call that this process has counted is for the store to answer.
    if call.is_emergency or context.gate.counts((call.request.account, call.request.call_id)):
        return None
    now_us = monotonic_us()
    for limits in offer.chain.call_limits(call.call_class):
        if call.excuses and call.excuses.get(limits.account) is Excuse.LIMITS:
            continue
        code = context.gate.refuses(*limits, call.direction, call.call_class, now_us)
        if code:
            return _deny(call, BY_CODE[code].name, limits.account)
    return None


def _tell_gate(context: Context, offer: _Offer, reply: list[Any], sent_us: int) -> None:
    outcome = reply[0]
    call = offer.call
    if call.is_emergency or call.request.dry_run or not offer.chain.has_call_limits:
        return
    if outcome == _OK and not reply[3]:
        for limits in offer.chain.call_limits(call.call_class):
            per_second = limits.calls_per_second
            is_counted = not call.excuses or call.excuses.get(limits.account) is not Excuse.LIMITS
            if per_second >= 0 and is_counted:
                context.gate.admitted(limits.account, limits.version, per_second, sent_us, reply[4])
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
    _, granted, final, _repeated, _now_us, *values = reply
    plan = pinned or offer.plan(tuple([BILLING_OF[billing] for billing in values[::3]]))
    seconds = None if granted < 0 else granted
    calls = context.settings.calls
    if not request.dry_run:
        context.memory.put(plan)
        _count(context, plan, chain, seconds, offer.terms.used_seconds)
    return grant(
        calls,
        request.call_id,
        call.call_class,
        call.number,
        seconds=seconds,
        used_seconds=offer.terms.used_seconds,
        final=bool(final),
        legs=grant_legs(chain.accounts, plan, values, offer.now),
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
    now_us = monotonic_us()
    until_us = now_us + (calls.ring_seconds + lasting + calls.grace_seconds) * 1_000_000
    context.gate.opened(
        (plan.account, plan.call_id),
        chain.ids,
        plan.direction,
        plan.call_class,
        until_us,
        now_us,
    )
