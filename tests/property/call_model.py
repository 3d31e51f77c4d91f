"""Calls and money by the rules as they are written: one plain step after the other, in memory.

It knows nothing of scripts, records or caches. Whatever happens one at a time to the real thing
must have the same answers and leave the same numbers here.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from rate_twin import RateTwin

from authz.money import BOUND_MICROS, format_amount
from authz.reasons import CallClass

CHUNK_SECONDS = 60
#: Longer than any call here may last, so that the dearest inverse stays a short list.
HORIZON_SECONDS = 2_000


class ModelDeck(dict[str, RateTwin]):
    """Rates by prefix."""

    def rate(self, number: str) -> RateTwin | None:
        """Return the rate of the longest prefix, or None."""
        digits = number.lstrip("+")
        matching = [prefix for prefix in self if digits.startswith(prefix)]
        return self[max(matching, key=len)] if matching else None


@cache
def cost(rate: RateTwin, seconds: int) -> int:
    """Return what that many seconds cost."""
    return rate.cost(seconds)


@cache
def marks(rate: RateTwin) -> tuple[int, ...]:
    """Return the ends of the free seconds and of every increment, ascending."""
    ends = {start + tier.increment_seconds for start, tier in rate.increments(HORIZON_SECONDS, 0)}
    return tuple(sorted({0, rate.base.free_seconds} | ends))


def buys(rate: RateTwin, amount: int, limit: int) -> int:
    """Return the most seconds up to `limit` that an amount pays, in whole increments."""
    if amount <= 0:
        return 0
    if cost(rate, limit) <= amount:
        return limit
    return max(end for end in marks(rate) if end <= limit and cost(rate, end) <= amount)


def first_priced(rate: RateTwin) -> int:
    """Return the cost of the shortest call of whole increments that costs anything."""
    return next((cost(rate, end) for end in marks(rate) if cost(rate, end) > 0), 0)


def is_free(rate: RateTwin) -> bool:
    """Say whether nothing about a rate ever costs anything."""
    if rate.discount_basis_points == 10_000:
        return True
    return not rate.base.connect_fee and not any(tier.price_nanos for tier in rate.base.tiers)


def hold(rate: RateTwin, seconds: int) -> int:
    """Return what to set aside: never less than one priced increment."""
    return max(cost(rate, seconds), first_priced(rate))


def increment_at(rate: RateTwin, second: int) -> int:
    """Return the length of the increment at that second of a call."""
    return rate.base.tier_at(second).increment_seconds


@dataclass
class ModelAccount:
    """An account's configuration and state; None is no limit."""

    name: str
    parent: ModelAccount | None
    deck: ModelDeck
    enabled: bool = True
    credit_limit: int | None = 0  # None: unlimited
    per_minute: bool = True
    trunks: tuple[int, int, int, int] = (0, 0, 0, 0)  # inbound, outbound, two-way, burst
    max_calls: int | None = None
    max_international: int | None = None
    daily_limit: int | None = None
    max_call_seconds: int | None = None
    max_call_cost: int | None = None
    min_first_seconds: int = 0
    blocked_international: bool = False
    discount_international: int = 0  # basis points
    balance: int = 0
    spent: int = 0
    entries: int = 0

    @property
    def chain(self) -> list[ModelAccount]:
        """Return this account and its ancestors."""
        return [self] + (self.parent.chain if self.parent else [])

    def rate(self, number: str, call_class: CallClass) -> RateTwin | None:
        """Return what a call is priced by: the deck's rate less the discount."""
        rate = self.deck.rate(number)
        if rate is None or call_class != CallClass.INTERNATIONAL:
            return rate
        return replace(rate, discount_basis_points=self.discount_international)

    def move(self, amount: int, *, is_spend: bool) -> None:
        """Book a movement."""
        self.balance += amount
        self.entries += 1
        self.spent -= amount if is_spend else 0


@dataclass
class ModelLeg:
    """One account's part in a call."""

    account: ModelAccount
    rate: RateTwin | None
    billing: str = "per_minute"
    held: int = 0
    used: int = 0
    charged: int = 0

    @property
    def is_priced(self) -> bool:
        """Whether time costs this leg anything."""
        return self.billing == "per_minute" and self.rate is not None and not is_free(self.rate)

    def cost(self, seconds: int) -> int:
        """Return what a call of that length costs this leg."""
        return cost(self.rate, seconds) if self.billing == "per_minute" and self.rate else 0


@dataclass
class ModelCall:
    """A call; `state` is open, orphan, settled, or ended when only its hang-up is known."""

    account: ModelAccount
    state: str = "ended"
    question: tuple[Any, ...] = ()
    call_class: CallClass = CallClass.UNKNOWN
    direction: str = "outbound"
    legs: list[ModelLeg] = field(default_factory=list)
    granted: int | None = None
    final: bool = False
    used: int = 0
    reported: bool = False
    settled_seconds: int = 0


@dataclass(frozen=True)
class Denied:
    """A refusal and whose rule it was (None: not compared).

    `instead` is what a daemon says that has not yet heard of a change: both are right.
    """

    reason: str
    account: str | None = None
    instead: str | None = None


@dataclass(frozen=True)
class Granted:
    """A grant: seconds (None: no end), and (account, billing, held, available) of each leg."""

    seconds: int | None
    final: bool
    legs: tuple[tuple[str, str, str, str | None], ...]


@dataclass(frozen=True)
class Settled:
    """A settlement: (account, billing, charged, balance) of each leg."""

    seconds: int
    duplicate: bool
    legs: tuple[tuple[str, str, str, str], ...]


class CallModel:
    """All accounts and calls."""

    def __init__(self) -> None:
        self.accounts: dict[str, ModelAccount] = {}
        self.calls: dict[tuple[str, str], ModelCall] = {}
        self.references: dict[tuple[str, str], int] = {}

    # What the open calls add up to.

    def legs_of(self, account: ModelAccount) -> list[tuple[ModelCall, ModelLeg]]:
        """Return this account's legs of all open calls."""
        return [
            (call, leg)
            for call in self.calls.values()
            if call.state == "open"
            for leg in call.legs
            if leg.account is account
        ]

    def held(self, account: ModelAccount, other_than: ModelCall | None = None) -> int:
        """Return what open calls hold of an account."""
        return sum(leg.held for call, leg in self.legs_of(account) if call is not other_than)

    def used(self, account: ModelAccount) -> int:
        """Return what open calls have reported as used."""
        return sum(leg.used for _, leg in self.legs_of(account))

    def calls_of(self, account: ModelAccount, call_class: CallClass | None = None) -> int:
        """Return the number of open calls, or of those of one class."""
        calls = [call for call, _ in self.legs_of(account)]
        return sum(call_class is None or call.call_class == call_class for call in calls)

    def trunks_in_use(self, account: ModelAccount, direction: str) -> int:
        """Return the number of open legs on a trunk in one direction."""
        return sum(
            leg.billing in ("trunk", "burst") and call.direction == direction
            for call, leg in self.legs_of(account)
        )

    def room(self, account: ModelAccount, own: ModelCall | None = None) -> tuple[int, int, str]:
        """Return what a call may hold of an account, by credit alone, and why it may lack."""
        held = self.held(account, own)
        room = BOUND_MICROS - held
        if account.credit_limit is not None:
            room = min(room, account.balance - held + account.credit_limit)
        credit, reason = room, "insufficient_credit"
        if account.daily_limit is not None and account.daily_limit - account.spent - held < room:
            room, reason = account.daily_limit - account.spent - held, "daily_spend_limit"
        return room, credit, reason

    # Authorize.

    def authorize(
        self,
        account: ModelAccount,
        call_id: str,
        to: str,
        call_class: CallClass,
        direction: str = "outbound",
        seconds: int | None = None,
        adopted: int | None = None,
    ) -> Granted | Denied:
        """Decide a new call, or one that a reserve adopts at `adopted` used seconds."""
        chain = account.chain
        used = adopted or 0
        known = self.calls.get((account.name, call_id))
        question = (to, direction)
        conflict = None
        if known is not None and known.state == "ended":
            conflict = "call_ended"
        elif known is not None and (known.state != "open" or known.question != question):
            conflict = "call_id_conflict"
        refused = self._policy(chain, call_class, direction, used)
        if refused is not None:
            return replace(refused, instead=conflict)
        if conflict is not None:
            return Denied(conflict, account.name)
        if known is not None:
            return self._grant(known)
        call = ModelCall(account, "open", question, call_class, direction, used=used)
        exempt = direction == "outbound" and call_class == CallClass.TOLLFREE
        call.legs = [ModelLeg(one, None if exempt else one.rate(to, call_class)) for one in chain]
        for one in chain:
            refused = self._limits(one, call_class)
            if refused is not None:
                return refused
        for leg in call.legs:
            refused = self._bill(leg, call, exempt)
            if refused is not None:
                return refused
        return self._start(call, call_id, seconds or CHUNK_SECONDS, adopted)

    def _policy(
        self, chain: list[ModelAccount], call_class: CallClass, direction: str, used: int
    ) -> Denied | None:
        for one in chain:
            if not one.enabled:
                return Denied("account_disabled", one.name)
        for one in chain:
            if (
                direction == "outbound"
                and one.blocked_international
                and call_class == CallClass.INTERNATIONAL
            ):
                return Denied("class_blocked", one.name)
        cap = _duration_cap(chain)
        if cap is not None and cap <= used:
            return Denied("max_call_seconds")
        return None

    def _limits(self, account: ModelAccount, call_class: CallClass) -> Denied | None:
        if account.max_calls is not None and self.calls_of(account) >= account.max_calls:
            return Denied("max_calls_exceeded", account.name)
        limit = account.max_international
        if (
            call_class == CallClass.INTERNATIONAL
            and limit is not None
            and self.calls_of(account, call_class) >= limit
        ):
            return Denied("max_class_calls_exceeded", account.name)
        return None

    def _bill(self, leg: ModelLeg, call: ModelCall, exempt: bool) -> Denied | None:
        """Choose how a leg pays."""
        account = leg.account
        if exempt:
            leg.billing = "free"
            return None
        if _is_covered(account, call.call_class, call.direction):
            billing = self._trunk(account, call.direction)
            if billing is not None:
                leg.billing = billing
                return None
        if not account.per_minute:
            return Denied("trunks_exhausted", account.name)
        if leg.rate is None:
            return Denied("no_rate", account.name)
        cap = _cost_cap(account, leg.rate)
        if cap is not None and cap <= call.used:
            return Denied("max_call_cost", account.name)
        return None

    def _trunk(self, account: ModelAccount, direction: str) -> str | None:
        inbound, outbound, twoway, burst = account.trunks
        calls = {
            way: self.trunks_in_use(account, way) + (way == direction)
            for way in ("inbound", "outbound")
        }
        over = max(0, calls["inbound"] - inbound) + max(0, calls["outbound"] - outbound)
        over = max(0, over - twoway)
        if over == 0:
            return "trunk"
        return "burst" if burst < 0 or over <= burst else None

    def _start(
        self, call: ModelCall, call_id: str, asked: int, adopted: int | None
    ) -> Granted | Denied:
        """Hold the money, or as much of it as there is, and remember the call."""
        charged = [leg for leg in call.legs if leg.billing == "per_minute"]
        inbound_tollfree = call.direction == "inbound" and call.call_class == CallClass.TOLLFREE
        for leg in charged:
            if (leg.is_priced or inbound_tollfree) and self.room(leg.account)[1] <= 0:
                return Denied("insufficient_credit", leg.account.name)
        chain = call.account.chain
        min_first = max(one.min_first_seconds for one in chain)
        target, final = self._first_target(call, call.used + max(asked, min_first))
        priced = [leg for leg in charged if leg.is_priced]
        rooms = {leg.account.name: self.room(leg.account)[0] for leg in priced}
        granted: int | None = target
        if not priced:
            granted = _duration_cap(chain)
            final = granted is not None
        elif any(hold(leg.rate, target) > rooms[leg.account.name] for leg in priced):
            increment = min(increment_at(leg.rate, call.used) for leg in priced)
            floor = min(call.used + max(increment, min_first), target)
            granted = max(
                floor,
                min(buys(leg.rate, rooms[leg.account.name], target) for leg in priced),
            )
            final = True
            for leg in priced:
                if hold(leg.rate, granted) > rooms[leg.account.name]:
                    return Denied(self.room(leg.account)[2], leg.account.name)
        call.granted, call.final = granted, final
        for leg in priced:
            leg.held = hold(leg.rate, granted)
        for leg in charged:
            leg.used = leg.cost(call.used)
        call.reported = call.used > 0
        self.calls[call.account.name, call_id] = call
        return self._grant(call)

    def _first_target(self, call: ModelCall, target: int) -> tuple[int, bool]:
        """Return the capped chunk; the cost of a leg that may ride a trunk ends no call."""
        certain = possible = _duration_cap(call.account.chain)
        for leg in call.legs:
            if leg.rate is None:
                continue
            cap = _cost_cap(leg.account, leg.rate)
            if cap is None or cap <= 0:
                continue
            possible = cap if possible is None else min(possible, cap)
            if not _is_covered(leg.account, call.call_class, call.direction):
                certain = cap if certain is None else min(certain, cap)
        if possible is None or target < possible:
            return target, False
        return possible, possible == certain

    def _grant(self, call: ModelCall) -> Granted:
        legs = []
        for leg in call.legs:
            account = leg.account
            available = None
            if account.credit_limit is not None:
                available = format_amount(
                    account.balance - self.held(account) + account.credit_limit
                )
            legs.append((account.name, leg.billing, format_amount(leg.held), available))
        return Granted(call.granted, call.final, tuple(legs))

    # Reserve.

    def reserve(
        self, account: ModelAccount, call_id: str, used: int, seconds: int | None
    ) -> Granted | Denied:
        """Decide whether an open or orphaned call may go on."""
        call = self.calls[account.name, call_id]
        cap, reason = self._running_cap(call)
        denial = None
        disabled = [one for one in account.chain if not one.enabled]
        if disabled:
            denial = Denied("account_disabled", disabled[0].name)
        elif cap is not None and used >= cap:
            ends = call.granted is None or used >= call.granted or call.state == "orphan"
            denial = Denied(reason) if ends else None
        if denial is not None:
            if call.state == "open" and used > call.used:
                self._record_use(call, used)
            return denial
        if call.state == "open" and used <= call.used:
            if call.granted is not None and call.used >= call.granted:
                return Denied(self._lacks(call))
            return self._grant(call)
        return self._extend(call, used, used + (seconds or CHUNK_SECONDS), cap)

    def _running_cap(self, call: ModelCall) -> tuple[int | None, str]:
        cap, reason = _duration_cap(call.account.chain), "max_call_seconds"
        for leg in call.legs:
            leg_cap = _cost_cap(leg.account, leg.rate) if leg.is_priced else None
            if leg_cap is not None and (cap is None or leg_cap < cap):
                cap, reason = leg_cap, "max_call_cost"
        return cap, reason

    def _record_use(self, call: ModelCall, used: int) -> None:
        call.reported = call.reported or used > 0
        if used > call.used:
            call.used = used
            for leg in call.legs:
                leg.used = leg.cost(used) if leg.billing == "per_minute" else 0

    def _lacks(self, call: ModelCall) -> str:
        """Return what the leg with the least room lacks."""
        charged = [leg for leg in call.legs if leg.billing == "per_minute"] or call.legs[:1]
        return min((self.room(leg.account, call) for leg in charged), key=lambda room: room[0])[2]

    def _extend(self, call: ModelCall, used: int, target: int, cap: int | None) -> Granted | Denied:
        was_orphan, old = call.state == "orphan", call.granted
        if was_orphan:
            self._reverse(call, 1)
        priced = [leg for leg in call.legs if leg.is_priced]
        rooms = [self.room(leg.account, call)[0] for leg in priced]
        longest, final = self._longest(priced, rooms, target, cap)
        grows = longest is None or old is None or longest > old
        is_spent = old is not None and used >= old
        if was_orphan and not grows and not is_spent:
            longest, final, grows = old, final or call.final, True
        takes = grows and all(
            hold(leg.rate, longest) <= room for leg, room in zip(priced, rooms, strict=True)
        )
        if was_orphan and not takes:
            denied = Denied(self._lacks(call))
            self._reverse(call, -1)
            return denied
        if was_orphan:
            call.state = "open"
            for leg in call.legs:
                leg.charged = 0
        self._record_use(call, used)
        if takes:
            call.granted, call.final = longest, final
            for leg in priced:
                leg.held = hold(leg.rate, longest)
        elif final:
            call.final = True
        if not takes and is_spent:
            return Denied(self._lacks(call))
        return self._grant(call)

    def _reverse(self, call: ModelCall, sign: int) -> None:
        """Take back the charges of an orphan, or (-1) take that back."""
        for leg in call.legs:
            leg.account.balance += sign * leg.charged
            leg.account.spent -= sign * leg.charged
            leg.account.entries += sign

    def _longest(
        self, priced: list[ModelLeg], rooms: list[int], target: int, cap: int | None
    ) -> tuple[int | None, bool]:
        """Return how long the call may last now, and whether that is all there is."""
        if not priced:
            return cap, cap is not None
        capped = target if cap is None else min(target, cap)
        longest = min(
            capped if hold(leg.rate, capped) <= room else buys(leg.rate, room, capped)
            for leg, room in zip(priced, rooms, strict=True)
        )
        return longest, longest < capped or (cap is not None and target >= cap)

    # The end of a call.

    def settle(self, account: ModelAccount, call_id: str, seconds: int) -> Settled | str:
        """Book the end of a call; a word when it is unknown or was settled otherwise."""
        call = self.calls.setdefault((account.name, call_id), ModelCall(account))
        if call.state == "ended":
            return "unknown"
        if call.state == "settled" and call.settled_seconds != seconds:
            return "settled_differently"
        duplicate = call.state == "settled"
        if not duplicate:
            self._book(call, seconds)
        return self._settled(call, duplicate)

    def book_unknown(
        self, account: ModelAccount, call_id: str, seconds: int, to: str,
        call_class: CallClass, direction: str,
    ) -> Settled:  # fmt: skip
        """Book a call from its settle alone."""
        call = self.calls[account.name, call_id]
        exempt = direction == "outbound" and call_class == CallClass.TOLLFREE
        for one in account.chain:
            leg = ModelLeg(one, None if exempt else one.rate(to, call_class))
            if exempt:
                leg.billing = "free"
            elif _is_covered(one, call_class, direction) and _has_trunks(one, direction):
                leg.billing = "trunk"
            call.legs.append(leg)
        self._book(call, seconds)
        return self._settled(call, duplicate=False)

    def _book(self, call: ModelCall, seconds: int) -> None:
        call.state, call.settled_seconds = "settled", seconds
        for leg in call.legs:
            leg.account.move(leg.charged - leg.cost(seconds), is_spend=True)
            leg.charged = leg.cost(seconds)

    def _settled(self, call: ModelCall, duplicate: bool) -> Settled:
        return Settled(
            call.settled_seconds,
            duplicate,
            tuple(
                (
                    leg.account.name,
                    leg.billing,
                    format_amount(leg.charged),
                    format_amount(leg.account.balance),
                )
                for leg in call.legs
            ),
        )

    def claim(self, account: ModelAccount, call_id: str, policy: str) -> bool:
        """Make an orphan of an open call."""
        call = self.calls.get((account.name, call_id))
        if call is None or call.state != "open":
            return False
        call.state = "orphan"
        for leg in call.legs:
            if call.reported and policy != "release":
                leg.charged = leg.used if policy == "charge_reported" else leg.held
            leg.account.move(0 - leg.charged, is_spend=True)
        return True

    # Credits and debits.

    def post(
        self, account: ModelAccount, amount: int, *, scope: str, is_spend: bool, must_fit: bool
    ) -> str | None:
        """Book a credit (above 0) or debit; return the reason for which it is refused."""
        legs = account.chain if scope == "tree" else [account]
        for one in legs if must_fit else []:
            room, credit, reason = self.room(one)
            if not is_spend:
                room, reason = credit, "insufficient_credit"
            if room + amount < 0:
                return reason
        for one in legs:
            one.move(amount, is_spend=is_spend)
        return None


def _duration_cap(chain: list[ModelAccount]) -> int | None:
    return min(
        (one.max_call_seconds for one in chain if one.max_call_seconds is not None), default=None
    )


def _cost_cap(account: ModelAccount, rate: RateTwin | None) -> int | None:
    if account.max_call_cost is None or rate is None or is_free(rate):
        return None
    return buys(rate, account.max_call_cost, HORIZON_SECONDS)


def _has_trunks(account: ModelAccount, direction: str) -> bool:
    inbound, outbound, twoway, burst = account.trunks
    return bool((inbound if direction == "inbound" else outbound) or twoway or burst)


def _is_covered(account: ModelAccount, call_class: CallClass, direction: str) -> bool:
    return any(account.trunks) and call_class == CallClass.NATIONAL
