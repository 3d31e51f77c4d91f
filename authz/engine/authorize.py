"""Authorize: may this call start, for how long, and who pays?"""

from __future__ import annotations

from typing import Any, NamedTuple

from authz.engine.answers import denial, extend_at, grant_legs
from authz.engine.clock import monotonic_us
from authz.engine.context import ATTEMPTS_MAX, Context
from authz.engine.plans import Plan, pack_tail, plan_from_record, request_digest
from authz.engine.policy import destination_denial
from authz.engine.quotes import LegQuote, quote_chain
from authz.engine.steps import (
    Cap,
    cost_cap,
    descending_seconds,
    duration_cap,
    pack_steps,
    shorter,
)
from authz.errors import NotExecuted
from authz.model import SECONDS_MAX, AuthorizeRequest, Denial, Grant
from authz.reasons import (
    BILLING_OF,
    BY_CODE,
    CLASS_OF,
    DIRECTIONS,
    REASONS,
    Billing,
    CallClass,
    Direction,
    Outcome,
    Reason,
)
from authz.store import keys
from authz.store.accounts import Account, Chain
from authz.store.constants import Mark
from authz.store.layouts import AUTHORIZE, LEG_REQUEST
from authz.store.records import unpack_call
from authz_ext.rating import Rate

#: Denials from which the gate learns what the next calls may not do either.
_GATE_REASONS = frozenset(
    REASONS[name].code
    for name in ("call_rate_exceeded", "max_calls_exceeded", "max_class_calls_exceeded")
)


class Call(NamedTuple):
    """An authorize as the engine works on it: numbers classed, words turned into constants."""

    request: AuthorizeRequest
    number: str
    rated_number: str
    call_class: CallClass
    direction: Direction
    attempt: int
    #: Seconds already used, for a call that a reserve adopts; None for a new one.
    adopted_seconds: int | None = None

    @property
    def is_emergency(self) -> bool:
        """Whether the call is always allowed."""
        return self.call_class == CallClass.EMERGENCY and self.direction == Direction.OUTBOUND

    @property
    def is_exempt(self) -> bool:
        """Whether the call needs no credit: outbound emergency or toll-free."""
        return self.direction == Direction.OUTBOUND and self.call_class in (
            CallClass.EMERGENCY,
            CallClass.TOLLFREE,
        )


def make_call(
    context: Context, request: AuthorizeRequest, adopted_seconds: int | None = None
) -> Call:
    """Return the request with its number normalised and classed."""
    number, call_class = context.rules.classify(request.to)
    rated = number
    if request.rate_number is not None:
        rated = context.rules.normalize(request.rate_number)
    return Call(
        request,
        number,
        rated,
        CLASS_OF[call_class],
        DIRECTIONS[request.direction],
        context.new_attempt(),
        adopted_seconds,
    )


def pinned_rate(call: Call, quote: LegQuote) -> Rate | None:
    """Return the rate to pin to a leg: on an exempt call only one whose row says its class."""
    if call.is_exempt and quote.row_class != call.call_class:
        return None
    return quote.rate


def is_trunk_covered(call: Call, account: Account, quote: LegQuote) -> bool:
    """Return whether the call may ride the account's trunks, free or not.

    Inbound toll-free never does: the account pays for it.
    """
    if call.direction == Direction.INBOUND and call.call_class == CallClass.TOLLFREE:
        return False
    return account.has_trunks and quote.leg_class(call.call_class) in account.trunk_classes


class _Offer:
    """What one authorize asks of the store: quotes, caps, holds, packed for the script."""

    def __init__(self, context: Context, call: Call, chain: Chain) -> None:
        self.context = context
        self.call = call
        self.chain = chain
        self.now = context.clock.now()
        self.used_seconds = call.adopted_seconds or 0
        self.answered_at = self.now - self.used_seconds
        self.quotes = quote_chain(context.decks, chain, call.rated_number, call.direction, self.now)
        self.rates = tuple(pinned_rate(call, quote) for quote in self.quotes)
        self.trunk_covered = tuple(
            is_trunk_covered(call, account, quote)
            for account, quote in zip(chain.accounts, self.quotes, strict=True)
        )
        self.cost_caps = tuple(
            None if rate is None or call.is_exempt else cost_cap(account, rate, self.answered_at)
            for account, rate in zip(chain.accounts, self.rates, strict=True)
        )
        self.duration_cap = None if call.is_emergency else duration_cap(chain.accounts)
        self.target, self.is_final = self._target_seconds()

    def cap(self) -> tuple[Cap | None, bool]:
        """Return the cap of this grant, and whether reaching it makes the grant final.

        A cost cap of a leg that may ride a trunk shortens the grant without ending it.
        """
        certain = self.duration_cap
        possible = certain
        for covered, leg_cap in zip(self.trunk_covered, self.cost_caps, strict=True):
            if leg_cap is None or leg_cap.seconds <= 0:
                continue
            possible = shorter(possible, leg_cap)
            if not covered:
                certain = shorter(certain, leg_cap)
        return possible, possible is not None and possible == certain

    def _target_seconds(self) -> tuple[int, bool]:
        """Return the seconds of the full chunk, capped, and whether that is all there is."""
        asked = self.call.request.seconds or self.context.settings.calls.chunk_seconds
        asked = max(asked, self.min_first_seconds())
        target = min(self.used_seconds + asked, SECONDS_MAX)
        cap, is_final = self.cap()
        if cap is None or target < cap.seconds:
            return target, False
        return cap.seconds, is_final

    def min_first_seconds(self) -> int:
        """Return the fewest seconds with which any account of the chain lets a call start."""
        return max(
            (account.config.min_first_seconds or 0 for account in self.chain.accounts), default=0
        )

    def hold(self, rate: Rate | None, seconds: int) -> int:
        """Return a leg's hold: never less than one priced increment of a rate that is not free."""
        if rate is None or rate.is_free or self.call.is_exempt:
            return 0
        ring_seconds = self.context.settings.calls.ring_seconds
        if self.call.adopted_seconds is not None:
            cost = rate.cost(seconds, self.answered_at)
        else:
            cost = rate.hold(seconds, self.now, ring_seconds)
        return max(cost, rate.first_priced(self.now)[1])

    def inverse(self, rate: Rate, amount: int, limit: int) -> int:
        """Return the most seconds, at most `limit`, whose hold is within an amount."""
        if self.call.adopted_seconds is not None:
            return rate.seconds_for(amount, self.answered_at, limit)
        ring_seconds = self.context.settings.calls.ring_seconds
        return rate.hold_seconds_for(amount, self.now, ring_seconds, limit)

    def step(self, seconds: int) -> tuple[int, tuple[int, ...]]:
        """Return one step: its seconds and every leg's hold."""
        return seconds, tuple(self.hold(rate, seconds) for rate in self.rates)

    def second_steps(self, reply: list[Any]) -> list[tuple[int, tuple[int, ...]]]:
        """Return the steps of the second try from the rooms that the first try has answered."""
        rooms: list[tuple[Rate, int]] = []
        increment = SECONDS_MAX
        for leg, rate in enumerate(self.rates):
            room, _credit, billing = reply[4 + 3 * leg : 7 + 3 * leg]
            if billing == Billing.PER_MINUTE and rate is not None and not rate.is_free:
                rooms.append((rate, room))
                increment = min(increment, rate.increment_at(self.used_seconds, self.answered_at))
        floor = min(self.used_seconds + max(increment, self.min_first_seconds()), self.target)
        durations = descending_seconds(rooms, self.target, floor, self.inverse)
        return [self.step(seconds) for seconds in (*durations, floor)]

    def arguments(
        self, steps: list[tuple[int, tuple[int, ...]]], *, second_try: bool
    ) -> list[bytes]:
        """Return the script's arguments."""
        context, call, chain = self.context, self.call, self.chain
        calls = context.settings.calls
        valid_from, valid_until = chain.validity(self.now)
        cap = self.duration_cap
        request = call.request
        head = AUTHORIZE.pack(
            attempt=call.attempt,
            valid_from=valid_from,
            valid_until=valid_until,
            call_class=call.call_class,
            direction=call.direction,
            legs=len(chain.accounts),
            exempt=call.is_exempt,
            dry_run=request.dry_run,
            second_try=second_try,
            steps=len(steps),
            final=self.is_final,
            memory_full=context.memory_full,
            marks=Mark.NONE,
            used_seconds=self.used_seconds,
            uncharged_seconds=-1 if cap is None else cap.seconds,
            ring_seconds=calls.ring_seconds,
            grace_seconds=calls.grace_seconds,
            life_seconds=calls.sign_of_life_seconds,
            closed_hours=context.closed_hours,
        )
        account = chain.accounts[0].id
        return [
            head,
            keys.call_digest(account, request.call_id),
            keys.call_member(account, request.call_id),
            request_digest(request.to, request.direction, request.switch),
            pack_tail(call.number, request.to, request.switch or "", self.rates),
            pack_steps(steps, len(chain.accounts)),
            *self._leg_requests(),
            *chain.limits(call.call_class, self.now),
        ]

    def _leg_requests(self) -> list[bytes]:
        call = self.call
        inbound_tollfree = (
            call.direction == Direction.INBOUND and call.call_class == CallClass.TOLLFREE
        )
        packed = []
        for leg, rate in enumerate(self.rates):
            charged = rate is not None and not rate.is_free
            cap = self.cost_caps[leg]
            too_dear = cap is not None and cap.seconds <= self.used_seconds
            used = 0
            if rate is not None and not call.is_exempt:
                used = rate.cost(self.used_seconds, self.answered_at)
            packed.append(
                LEG_REQUEST.pack(
                    has_rate=0 if rate is None else 2 if too_dear else 1,
                    limiting=charged,
                    needs_credit=charged or inbound_tollfree,
                    trunk_covered=self.trunk_covered[leg],
                    used=used,
                )
            )
        return packed

    def plan(self, billings: tuple[Billing, ...]) -> Plan:
        """Return what to remember of the call."""
        call, request = self.call, self.call.request
        return Plan(
            account=request.account,
            call_id=request.call_id,
            attempt=call.attempt,
            call_class=call.call_class,
            direction=call.direction,
            number=call.number,
            dialled=request.to,
            switch=request.switch or "",
            rates=self.rates,
            billings=billings,
            authorized_at=self.now - self.used_seconds,
            rate_number=request.rate_number,
        )


async def authorize(context: Context, call: Call) -> Grant | Denial:
    """Decide one call; raises StoreError when the store does not answer."""
    request = call.request
    deadline_ms = context.settings.store.decision_deadline_ms
    for _ in range(ATTEMPTS_MAX):
        chain = await context.directory.chain(request.account, deadline_ms)
        if chain is None:
            return _deny(call, "account_unknown", request.account)
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
        reply = await _ask(context, offer, [offer.step(offer.target)], second_try=False)
        if reply[0] == Outcome.SHORT:
            reply = await _ask(context, offer, offer.second_steps(reply), second_try=True)
        if not context.is_stale(reply, chain):
            return await _answer(context, offer, reply)
    raise NotExecuted("the account kept changing while the call was decided")


async def _ask(
    context: Context,
    offer: _Offer,
    steps: list[tuple[int, tuple[int, ...]]],
    *,
    second_try: bool,
) -> list[Any]:
    request = offer.call.request
    sent_us = monotonic_us()
    reply = await context.run(
        "authorize",
        offer.chain,
        request.call_id,
        offer.arguments(steps, second_try=second_try),
        context.settings.store.decision_deadline_ms,
    )
    _tell_gate(context, offer, reply, sent_us)
    return reply


def _deny(call: Call, reason: str, account: str, detail: str | None = None) -> Denial:
    return denial(
        call.request.call_id, REASONS[reason], account, call.call_class, call.direction, detail
    )


def _refused_here(context: Context, offer: _Offer) -> Denial | None:
    """Return a denial that needs no counter, only current knowledge of the accounts."""
    call, chain = offer.call, offer.chain
    if call.is_emergency:
        return None
    for account in chain.accounts:
        if not account.config.enabled:
            return _deny(call, "account_disabled", account.id)
    # A blocked deck row refuses also where no account has a policy of its own.
    is_restricted = chain.has_policy or any(quote.blocked for quote in offer.quotes)
    if is_restricted and call.direction == Direction.OUTBOUND:
        refused = destination_denial(chain, call.call_class, offer.quotes, call.number)
        if refused is not None:
            return _deny(call, refused.reason.name, refused.account, refused.detail)
    cap = offer.duration_cap
    if cap is not None and cap.seconds <= offer.used_seconds:
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
    for account in offer.chain.accounts:
        config = account.config
        class_limit = account.class_limit(call.call_class)
        code = context.gate.refuses(
            account.id,
            account.version,
            -1 if config.max_calls_per_second is None else config.max_calls_per_second,
            -1 if config.max_calls is None else config.max_calls,
            -1 if class_limit is None else class_limit,
            call.direction,
            call.call_class,
            now_us,
        )
        if code:
            return _deny(call, BY_CODE[code].name, account.id)
    return None


def _tell_gate(context: Context, offer: _Offer, reply: list[Any], sent_us: int) -> None:
    outcome = reply[0]
    call = offer.call
    if call.is_emergency or call.request.dry_run or not offer.chain.has_call_limits:
        return
    if outcome == REASONS["ok"].code and not reply[3]:
        for account in offer.chain.accounts:
            per_second = account.config.max_calls_per_second
            if per_second is not None:
                context.gate.admitted(account.id, account.version, per_second, sent_us, reply[4])
    elif outcome in _GATE_REASONS:
        account = offer.chain.accounts[reply[1] - 1]
        context.gate.denied(account.id, account.version, sent_us, reply[2], reply[3])


async def _answer(context: Context, offer: _Offer, reply: list[Any]) -> Grant | Denial:
    call, chain, request = offer.call, offer.chain, offer.call.request
    if reply[0] != REASONS["ok"].code:
        reason: Reason = BY_CODE[reply[0]]
        account = chain.accounts[reply[1] - 1]
        return _deny(call, reason.name, account.id, _shortage(reason))
    granted, final, repeated, _now_us, *values = reply[1:]
    billings = tuple([BILLING_OF[billing] for billing in values[::3]])
    plan = offer.plan(billings)
    if repeated and not request.dry_run:
        plan = await pinned_plan(context, chain, call) or plan
    seconds = None if granted < 0 else granted
    calls = context.settings.calls
    if not request.dry_run:
        context.memory.put(plan)
        _count(context, plan, chain, seconds, offer.used_seconds)
    return Grant(
        call_id=request.call_id,
        allowed=True,
        reason=REASONS["ok"].name,
        class_=call.call_class.label,
        number=call.number,
        seconds=seconds,
        final=bool(final),
        extend_at=extend_at(seconds, offer.used_seconds, calls.sign_of_life_seconds),
        ring_seconds=calls.ring_seconds,
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
        tuple(account.id for account in chain.accounts),
        plan.direction,
        plan.call_class,
        until_us,
        now_us,
    )
