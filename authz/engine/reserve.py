"""Reserve: may this running call go on, and until when?"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from authz.engine.answers import denial, grant, grant_legs
from authz.engine.authorize import authorize
from authz.engine.calls import make_call
from authz.engine.context import ATTEMPTS_MAX, Context
from authz.engine.excuses import ExcusedAuthorize, excuses_of
from authz.engine.plans import Plan, plan_from_record
from authz.engine.steps import Cap, cost_cap, descending_seconds, duration_cap, shorter
from authz.errors import NotExecuted
from authz.meters import now_us
from authz.model import SECONDS_MAX, Denial, Grant, ReserveRequest
from authz.reasons import BY_CODE, DIRECTIONS, REASONS, Billing, Outcome
from authz.store import keys
from authz.store.accounts import Chain
from authz.store.constants import State
from authz.store.records import unpack_call
from authz_ext.rating import Rate

#: Where the legs begin in the script's answer: billing, held and credit left of each.
_LEGS = 4


class _Extension:
    """What one reserve asks of the store: use so far, cap, and what is to be held for how long."""

    __slots__ = ("answered_at", "cap", "chain", "context", "is_final", "now", "plan", "request",
                 "target")  # fmt: skip

    def __init__(self, context: Context, request: ReserveRequest, plan: Plan, chain: Chain) -> None:
        self.context = context
        self.request = request
        self.plan = plan
        self.chain = chain
        self.now = context.clock.now()
        self.answered_at = max(plan.authorized_at, self.now - request.used_seconds)
        self.cap = None if plan.is_emergency else self._cap()
        asked = request.seconds or context.settings.calls.chunk_seconds
        target = min(request.used_seconds + asked, SECONDS_MAX)
        self.is_final = self.cap is not None and target >= self.cap.seconds
        self.target = target if self.cap is None else min(target, self.cap.seconds)

    def _cap(self) -> Cap | None:
        chain, plan = self.chain, self.plan
        cap = duration_cap(chain)
        if chain.has_cost_limits or plan.is_ended_by_rate:
            for leg, rate in plan.limiting_rates:
                if chain.accounts[leg].max_call_cost is None and not plan.is_ended_by_rate:
                    continue
                cap = shorter(cap, cost_cap(chain.accounts[leg], rate, self.answered_at))
        return cap

    def denial_code(self) -> int:
        """Return the reason to deny that needs no counter, or 0."""
        if self.plan.is_emergency:
            return 0
        if not self.chain.is_enabled:
            return REASONS["account_disabled"].code
        if self.cap is not None and self.request.used_seconds >= self.cap.seconds:
            return self.cap.reason.code
        return 0

    def ask_first(self) -> Awaitable[list[Any]]:
        """Ask the store for the full chunk, or for the end of a call that no leg limits."""
        if self.plan.is_limited:
            return self._ask(self.target)
        return self._ask(-1 if self.cap is None else self.cap.seconds)

    def ask_second(self, reply: list[Any]) -> Awaitable[list[Any]]:
        """Ask for the largest of some steps that fits; the last is what is granted already."""
        granted = max(reply[3], 0)
        rooms: list[tuple[Rate, int]] = []
        for leg, rate in self.plan.limiting_rates:
            room, _credit, billing = reply[4 + 3 * leg : 7 + 3 * leg]
            if billing == Billing.PER_MINUTE:
                rooms.append((rate, room))
        durations = descending_seconds(rooms, self.target, granted, self._inverse)
        return self._ask(*durations, granted, second_try=True)

    def _inverse(self, rate: Rate, amount: int, limit: int) -> int:
        return rate.seconds_for(amount, self.answered_at, limit)

    def _ask(self, *steps: int, second_try: bool = False) -> Awaitable[list[Any]]:
        context, plan, at = self.context, self.plan, self.answered_at
        packed = plan.pack_step(steps[0], at)
        if len(steps) > 1:
            packed = b"".join([plan.pack_step(seconds, at) for seconds in steps])
        arguments = context.briefing(self.chain, self.now).reserve(
            plan,
            self.request.used_seconds,
            at,
            self.is_final if plan.is_limited else self.cap is not None,
            self.denial_code(),
            packed,
            len(steps),
            second_try,
        )
        deadline_ms = context.settings.store.decision_deadline_ms
        return context.run("reserve", self.chain, plan.call_id, arguments, deadline_ms)


async def reserve(context: Context, request: ReserveRequest) -> Grant | Denial:
    """Extend one call; raises StoreError when the store does not answer."""
    deadline_ms = context.settings.store.decision_deadline_ms
    for _ in range(ATTEMPTS_MAX):
        chain = context.directory.cached(request.account)
        if chain is None:
            chain = await context.directory.chain(request.account, deadline_ms)
        if chain is None:
            return _unknown(request)
        plan = context.memory.get(request.account, request.call_id)
        if plan is None:
            plan = await find_plan(context, chain, request.call_id, deadline_ms)
        if plan is None or not plan.in_store:
            return await _adopt(context, request, plan)
        extension = _Extension(context, request, plan, chain)
        reply = await extension.ask_first()
        if reply[0] == Outcome.SHORT:
            reply = await extension.ask_second(reply)
        if reply[0] == Outcome.UNKNOWN_CALL:
            context.memory.forget(request.account, request.call_id)
            return await _adopt(context, request, plan)
        if reply[0] == Outcome.STALE_CALL:
            context.memory.put(
                plan_from_record(request.account, request.call_id, unpack_call(reply[1]))
            )
        elif reply[0] >= 0 or not context.is_stale(reply, chain):
            return _answer(context, extension, reply)
    raise NotExecuted("the call kept changing while it was extended")


async def find_plan(context: Context, chain: Chain, call_id: str, deadline_ms: int) -> Plan | None:
    """Return the plan of a call from its record; None if the store does not know it."""
    account = chain.id
    packed = await context.client.execute(
        "GET", keys.call(chain.tag, account, call_id), deadline_ms=deadline_ms
    )
    if packed is None:
        return None
    record = unpack_call(packed)
    if record.state == State.ENDED:
        return None
    plan = plan_from_record(account, call_id, record)
    context.memory.put(plan)
    return plan


async def _adopt(context: Context, request: ReserveRequest, plan: Plan | None) -> Grant | Denial:
    """Take over a call that the store does not know, if it is known whom it calls."""
    to, direction, switch = request.to, request.direction, request.switch
    rate_number = request.rate_number
    if to is None and plan is not None:
        to, direction = plan.dialled, plan.direction.label
        switch, rate_number = plan.switch or None, plan.rate_number
    if to is None:
        return _unknown(request)
    adopted = ExcusedAuthorize(
        call_id=request.call_id,
        account=request.account,
        to=to,
        direction=direction,
        switch=switch,
        seconds=request.seconds,
        rate_number=rate_number,
        excuses=dict(excuses_of(request)),
    )
    return await authorize(context, make_call(context, adopted, request.used_seconds))


def _unknown(request: ReserveRequest) -> Denial:
    return denial(
        request.call_id,
        REASONS["call_unknown"],
        request.account,
        None,
        DIRECTIONS[request.direction],
    )


def _answer(context: Context, extension: _Extension, reply: list[Any]) -> Grant | Denial:
    plan, chain, request = extension.plan, extension.chain, extension.request
    if reply[0] != REASONS["ok"].code:
        reason = BY_CODE[reply[0]]
        account = chain.accounts[reply[1] - 1].id
        if reason.name == "account_disabled":
            account = next(one.id for one in chain.accounts if not one.config.enabled)
        return denial(request.call_id, reason, account, plan.call_class, plan.direction)
    granted, final = reply[1], reply[2]
    seconds = None if granted < 0 else granted
    calls = context.settings.calls
    lasting = calls.sign_of_life_seconds if seconds is None else seconds - request.used_seconds
    until_us = now_us() + (lasting + calls.grace_seconds) * 1_000_000
    context.gate.renewed(plan.key, until_us)
    return grant(
        calls,
        request.call_id,
        plan.call_class,
        plan.number,
        seconds=seconds,
        used_seconds=request.used_seconds,
        final=bool(final),
        legs=grant_legs(chain, plan, reply, _LEGS, extension.now),
    )
