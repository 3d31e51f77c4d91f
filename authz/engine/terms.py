"""What a chain and a destination mean for a call: rates, caps and holds, packed for the script.

They are the same for every new call alike, so that a process keeps those it has worked out.
"""

from __future__ import annotations

from typing import Any, Final

from authz.config.sections import CallSettings
from authz.engine.calls import Call, is_trunk_covered, pinned_rate
from authz.engine.plans import pack_rates
from authz.engine.policy import PolicyDenial, depends_on_number, destination_denial
from authz.engine.quotes import Decks, OfferedRows, excuse_rows, find_rows, quote_row
from authz.engine.steps import (
    Cap,
    cost_cap,
    descending_seconds,
    duration_cap,
    pack_steps,
    shorter,
)
from authz.model import SECONDS_MAX
from authz.reasons import Billing, CallClass, Direction
from authz.store.accounts import Chain
from authz.store.constants import Mark
from authz.store.layouts import AUTHORIZE, LEG_REQUEST
from authz_ext.briefing import Briefing, Template
from authz_ext.collector import spare
from authz_ext.rating import Rate
from authz_ext.tables import Latest

#: Terms that a process keeps, at about 1.5 kB each; beyond, the oldest go.
TERMS_MAX: Final = 32_768

#: Seconds, and what every leg must hold for them.
Step = tuple[int, tuple[int, ...]]


class Terms:
    """The terms of a call at store second `now`; see `is_timeless` for others."""

    def __init__(
        self, settings: CallSettings, chain: Chain, rows: OfferedRows, call: Call, now: int
    ) -> None:
        #: The chain and the rows themselves: as long as they are kept, their ids stand for them.
        self.chain = chain
        self.rows = rows
        self.used_seconds = call.adopted_seconds or 0
        self._settings = settings
        self._accounts = chain.accounts
        self._call_class = call.call_class
        self._direction = call.direction
        self._is_adopted = call.adopted_seconds is not None
        self._is_exempt = call.is_exempt
        self._asked_seconds = call.request.seconds or settings.chunk_seconds
        self._ring_seconds = settings.ring_seconds
        self._now = now
        self._answered_at = now - self.used_seconds
        self.quotes = tuple(quote_row(row) for row in rows)
        self.rates = tuple(
            pinned_rate(call, account, quote)
            for account, quote in zip(chain.accounts, self.quotes, strict=True)
        )
        self._trunk_covered = tuple(
            is_trunk_covered(call, account, quote)
            for account, quote in zip(chain.accounts, self.quotes, strict=True)
        )
        self._cost_caps = tuple(
            None if rate is None or call.is_exempt else cost_cap(account, rate, self._answered_at)
            for account, rate in zip(chain.accounts, self.rates, strict=True)
        )
        self.duration_cap = None if call.is_emergency else duration_cap(chain)
        self.target, self.is_final = self._target_seconds()
        #: The step of the first try: the full chunk.
        self.full_step = self.step(self.target)
        is_outbound = call.direction == Direction.OUTBOUND
        self._policy_depends_on_number = is_outbound and depends_on_number(chain)
        self._policy_denial: PolicyDenial | None = None
        if is_outbound and not self._policy_depends_on_number:
            self._policy_denial = self._judge(call)
        #: Whether they hold at any moment: no rate has windows.
        self.is_timeless = not any(rate is not None and rate.windows for rate in self.rates)
        self.packed_rates = pack_rates(self.rates)
        self._packed_leg_requests = self._pack_leg_requests(call)
        #: What the script is told of the legs at the first try.
        self.packed_first_legs = self.pack_legs([self.full_step])
        self._numbers: Template | None = None
        self._briefing: Briefing | None = None

    def numbers(self, briefing: Briefing) -> Template:
        """Return the script's numbers but for what a briefing's `authorize` fills in."""
        numbers = self._numbers
        if numbers is None or self._briefing is not briefing:
            numbers = self._numbers = self._make_numbers(briefing)
            self._briefing = briefing
        return numbers

    def _make_numbers(self, briefing: Briefing) -> Template:
        cap, calls = self.duration_cap, self._settings
        return AUTHORIZE.template(
            "attempt", "dry_run", "second_try", "steps", "memory_full",
            valid_from=briefing.valid_from,
            valid_until=briefing.valid_until,
            call_class=self._call_class,
            direction=self._direction,
            legs=len(self._accounts),
            exempt=self._is_exempt,
            final=self.is_final,
            marks=Mark.NONE,
            used_seconds=self.used_seconds,
            uncharged_seconds=-1 if cap is None else cap.seconds,
            ring_seconds=calls.ring_seconds,
            grace_seconds=calls.grace_seconds,
            life_seconds=calls.sign_of_life_seconds,
            closed_hours=briefing.closed_hours,
            hour=briefing.hour,
        )  # fmt: skip

    def pack_legs(self, steps: list[Step]) -> bytes:
        """Return what the script is told of the legs: besides their holds, then these by step."""
        return self._packed_leg_requests + pack_steps(steps, len(self._accounts))

    def policy_denial(self, call: Call) -> PolicyDenial | None:
        """Return what the policy of any account of the chain has against the destination."""
        return self._judge(call) if self._policy_depends_on_number else self._policy_denial

    def _judge(self, call: Call) -> PolicyDenial | None:
        return destination_denial(self.chain, call.call_class, self.quotes, call.number)

    def step(self, seconds: int) -> Step:
        """Return one step: its seconds and every leg's hold."""
        return seconds, tuple(self._hold(rate, seconds) for rate in self.rates)

    def second_steps(self, reply: list[Any]) -> list[Step]:
        """Return the steps of the second try from the rooms that the first try has answered."""
        rooms: list[tuple[Rate, int]] = []
        increment = SECONDS_MAX
        for leg, rate in enumerate(self.rates):
            room, _credit, billing = reply[4 + 3 * leg : 7 + 3 * leg]
            if billing == Billing.PER_MINUTE and rate is not None and not rate.is_free:
                rooms.append((rate, room))
                increment = min(increment, rate.increment_at(self.used_seconds, self._answered_at))
        floor = min(self.used_seconds + max(increment, self._min_first_seconds()), self.target)
        durations = descending_seconds(rooms, self.target, floor, self._inverse)
        return [self.step(seconds) for seconds in (*durations, floor)]

    def _cap(self) -> tuple[Cap | None, bool]:
        """Return the cap of this grant, and whether reaching it makes the grant final.

        A cost cap of a leg that may ride a trunk shortens the grant without ending it.
        """
        certain = self.duration_cap
        possible = certain
        for covered, leg_cap in zip(self._trunk_covered, self._cost_caps, strict=True):
            if leg_cap is None or leg_cap.seconds <= 0:
                continue
            possible = shorter(possible, leg_cap)
            if not covered:
                certain = shorter(certain, leg_cap)
        return possible, possible is not None and possible == certain

    def _target_seconds(self) -> tuple[int, bool]:
        """Return the seconds of the full chunk, capped, and whether that is all there is."""
        asked = max(self._asked_seconds, self._min_first_seconds())
        target = min(self.used_seconds + asked, SECONDS_MAX)
        cap, is_final = self._cap()
        if cap is None or target < cap.seconds:
            return target, False
        return cap.seconds, is_final

    def _min_first_seconds(self) -> int:
        """Return the fewest seconds with which any account of the chain lets a call start."""
        return max((account.config.min_first_seconds or 0 for account in self._accounts), default=0)

    def _hold(self, rate: Rate | None, seconds: int) -> int:
        """Return a leg's hold: never less than one priced increment of a rate that is not free."""
        if rate is None or rate.is_free or self._is_exempt:
            return 0
        if self._is_adopted:
            cost = rate.cost(seconds, self._answered_at)
        else:
            cost = rate.hold(seconds, self._now, self._ring_seconds)
        return max(cost, rate.first_priced(self._now)[1])

    def _inverse(self, rate: Rate, amount: int, limit: int) -> int:
        """Return the most seconds, at most `limit`, whose hold is within an amount."""
        if self._is_adopted:
            return rate.seconds_for(amount, self._answered_at, limit)
        return rate.hold_seconds_for(amount, self._now, self._ring_seconds, limit)

    def _pack_leg_requests(self, call: Call) -> bytes:
        """Return what the script is told of each leg besides its holds."""
        inbound_tollfree = (
            call.direction == Direction.INBOUND and call.call_class == CallClass.TOLLFREE
        )
        packed = []
        for leg, (rate, quote) in enumerate(zip(self.rates, self.quotes, strict=True)):
            if quote.excuse is not None:
                packed.append(LEG_REQUEST.pack(has_rate=quote.excuse))
                continue
            charged = rate is not None and not rate.is_free
            cap = self._cost_caps[leg]
            too_dear = cap is not None and cap.seconds <= self.used_seconds
            used = 0
            if rate is not None and not call.is_exempt:
                used = rate.cost(self.used_seconds, self._answered_at)
            packed.append(
                LEG_REQUEST.pack(
                    has_rate=0 if rate is None else 2 if too_dear else 1,
                    limiting=charged,
                    needs_credit=charged or inbound_tollfree,
                    trunk_covered=self._trunk_covered[leg],
                    used=used,
                )
            )
        return b"".join(packed)


class TermsBook:
    """The terms that this process has worked out.

    Another version of an account or of a deck comes as other objects, and so finds other terms.
    """

    def __init__(self, decks: Decks, settings: CallSettings, terms_max: int = TERMS_MAX) -> None:
        self._decks = decks
        self._settings = settings
        self._terms: Latest[tuple[int | None, ...], Terms] = Latest(terms_max)

    def find(self, chain: Chain, call: Call, now: int) -> Terms:
        """Return the terms of a call at store second `now`."""
        found = find_rows(self._decks, chain, call.rated_number, call.direction, now)
        rows = excuse_rows(chain, found, call.excuses) if call.excuses else found
        if call.adopted_seconds is not None:
            return Terms(self._settings, chain, rows, call, now)
        # A plain number of both: members of enumerations are objects that the collector follows.
        kind = call.call_class << 1 | call.direction
        key = (id(chain), kind, call.request.seconds, *map(id, rows))
        terms = self._terms.get(key)
        if terms is None:
            terms = Terms(self._settings, chain, rows, call, now)
            if terms.is_timeless:
                # Numbers all over a large deck leave thousands, and none of them is in a cycle.
                spare(terms)
                self._terms.put(key, terms)
        return terms
