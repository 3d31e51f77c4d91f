"""Any order of authorize, reserve, settle, orphans, money and changes, beside a plain model.

Two daemons share one store, so that each learns of the other's doings only from there. Every
answer and, after every step, every number of every account must be the model's; each run ends
with the audit. `AUTHZ_TEST_SEED` (pytest prints it) repeats a session, and Hypothesis prints
the shortest sequence of steps that fails.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest
from audit_helper import assert_clean_audit
from call_model import (
    CallModel,
    Denied,
    Granted,
    ModelAccount,
    ModelCall,
    ModelDeck,
    Settled,
)
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from rate_twin import RateTwin, TierTwin, WindowTwin
from world import TOLLFREE, UK, US, PriceList, World

from authz.config.sections import StoreSettings
from authz.engine.orphans import claim
from authz.engine.postings import CreditRequest, DebitRequest, Posted, PostingRefused
from authz.errors import CallUnknown, Conflict, SettledDifferently
from authz.model import Denial, Grant, Settlement
from authz.money import format_amount, format_percent, parse_amount
from authz.reasons import CallClass
from authz.store import keys

EXAMPLES = 40
STEPS = 50
GERMANY = "+4930123456"
CLASSES = {
    US: CallClass.NATIONAL,
    UK: CallClass.INTERNATIONAL,
    GERMANY: CallClass.INTERNATIONAL,
    TOLLFREE: CallClass.TOLLFREE,
}
PATIENT = StoreSettings(decision_deadline_ms=10_000, settle_deadline_ms=10_000)


def twin(*tiers: tuple[int, str, int], connect_fee: str = "0", free_seconds: int = 0) -> RateTwin:
    """Return a rate of tiers (from second, price per minute, increment)."""
    return RateTwin(
        WindowTwin(
            tuple(TierTwin(start, parse_amount(price) * 1000, 60, step)
                  for start, price, step in tiers),
            parse_amount(connect_fee),
            free_seconds,
        )
    )  # fmt: skip


DECKS = {
    "retail": ModelDeck({"1": twin((0, "0.6", 60)), "44": twin((0, "0.137", 1))}),
    "wholesale": ModelDeck(
        {
            "1": twin((0, "0.31", 6)),
            "44": twin((0, "0.2", 30), (30, "0.1", 6), connect_fee="0.05"),
            "49": twin((0, "0.9", 1), free_seconds=5),
        }
    ),
    "flat": ModelDeck(
        {"1": twin((0, "0", 60)), "44": twin((0, "0.25", 1)), "49": twin((0, "1", 1))}
    ),
}
#: Name, parent, deck (None: the parent's), first credit: a chain of four, and one beside it.
TREE = (
    ("root", None, "wholesale", "9"),
    ("middle", "root", None, "6"),
    ("sub", "middle", "retail", "4"),
    ("leaf", "sub", "flat", "4"),
    ("beside", "root", "flat", "2"),
)
#: What an operator changes: the model's field, its values, and how the configuration says it.
CHANGES: dict[str, tuple[tuple[Any, ...], Any]] = {
    "enabled": ((True, True, True, False), lambda value: {"enabled": value}),
    "credit_limit": (
        (0, 500_000, 1_500_000, None),
        lambda value: {"credit_limit": "unlimited" if value is None else format_amount(value)},
    ),
    "per_minute": ((True, True, False), lambda value: {"per_minute": value}),
    "trunks": (
        ((0, 0, 0, 0), (1, 1, 0, 0), (0, 1, 0, 1), (0, 0, 2, 0), (1, 0, 0, -1)),
        lambda value: {
            "trunks": dict(zip(("inbound", "outbound", "twoway", "burst"), value, strict=True))
        },
    ),
    "max_calls": ((None, 1, 2, 3), lambda value: {"max_calls": value}),
    "max_international": (
        (None, 1),
        lambda value: {"max_calls_by_class": {} if value is None else {"international": value}},
    ),
    "daily_limit": (
        (None, 300_000, 1_000_000, 2_500_000),
        lambda value: {"daily_spend_limit": None if value is None else format_amount(value)},
    ),
    "max_call_seconds": ((None, 45, 100, 200), lambda value: {"max_call_seconds": value}),
    "max_call_cost": (
        (None, 250_000, 700_000),
        lambda value: {"max_call_cost": None if value is None else format_amount(value)},
    ),
    "min_first_seconds": ((0, 0, 90), lambda value: {"min_first_seconds": value or None}),
    "blocked_international": (
        (False, False, True),
        lambda value: {"blocked_classes": ["international"] if value else []},
    ),
    "discount_international": (
        (0, 0, 1_250, 3_333, 10_000),
        lambda value: {"discounts": {"international": format_percent(value)} if value else {}},
    ),
}

Result = TypeVar("Result")
daemons = st.integers(0, 1)
accounts = st.sampled_from([row[0] for row in TREE])
whichever = st.integers(0, 1_000)
#: What ends or exhausts things must not happen as often as what needs them.
seldom = st.integers(0, 3).map(lambda number: number == 3)
numbers = st.sampled_from([US, US, UK, UK, GERMANY, TOLLFREE])
directions = st.sampled_from(["outbound", "outbound", "inbound"])
asked = st.none() | st.sampled_from([1, 30, 61, 300])
durations = st.sampled_from([0, 1, 5, 6, 29, 30, 31, 59, 60, 61, 90, 119, 120, 121, 180, 300])
amounts = st.sampled_from([1, 10_000, 137_000, 500_000, 1_000_000])


def zone_at_noon() -> str:
    """Return a time zone in which the day does not end while the test runs."""
    hours = 12 - time.gmtime().tm_hour
    return f"Etc/GMT{-hours:+d}" if hours else "UTC"


class CallMachine(RuleBasedStateMachine):
    """The real thing and the model, driven alike."""

    url: str

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.directory = tempfile.TemporaryDirectory(prefix="authz-machine-")
        self.model = CallModel()
        self.ids = 0
        self.posted: list[tuple[str, str, str, str]] = []
        self.worlds = [self.run(self._start(number)) for number in range(2)]
        for name, parent, deck, credit in TREE:
            self.run(self._open(name, parent, deck, credit))

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Run one step to its end."""
        return self.runner.run(work)

    async def _start(self, number: int) -> World:
        policy = ("charge_reported", "charge_held")[number]
        path = Path(self.directory.name) / str(number)
        world = await World.start(self.url, path, store=PATIENT, orphan_policy=policy)
        if number == 0:
            await world.client.execute("FLUSHALL")
        world.decks |= {
            name: PriceList({prefix: rate.rate() for prefix, rate in deck.items()})
            for name, deck in DECKS.items()
        }
        return world

    async def _open(self, name: str, parent: str | None, deck: str | None, credit: str) -> None:
        zone = zone_at_noon()
        await self.worlds[0].account(name, credit, parent=parent, deck=deck, timezone=zone)
        above = None if parent is None else self.model.accounts[parent]
        prices = DECKS[deck] if deck is not None else above.deck
        self.model.accounts[name] = ModelAccount(name, above, prices)
        self.model.accounts[name].move(parse_amount(credit), is_spend=False)

    def check(self, answer: Grant | Denial, expected: Granted | Denied) -> None:
        """Compare an answer with the model's."""
        if isinstance(expected, Denied):
            assert isinstance(answer, Denial), (answer, expected)
            if answer.reason != expected.instead:
                account = expected.account or answer.account
                assert (answer.reason, answer.account) == (expected.reason, account)
        else:
            assert isinstance(answer, Grant), (answer, expected)
            legs = tuple((leg.account, leg.billing, leg.held, leg.available) for leg in answer.legs)
            assert Granted(answer.seconds, answer.final, legs) == expected
            assert answer.enforced
            assert not answer.degraded

    # A call's life: every rule about a call that is known takes whichever there is.

    def fresh_id(self) -> str:
        """Return the id of a call that nobody has heard of."""
        self.ids += 1
        return f"c{self.ids}"

    def pick(self, which: int, *states: str) -> tuple[str, str, ModelCall] | None:
        """Return one of the known calls in one of the states, or None."""
        found = [(*key, call) for key, call in self.model.calls.items() if call.state in states]
        return found[which % len(found)] if found else None

    def authorize(
        self, daemon: int, account: str, call_id: str, to: str, direction: str, seconds: int | None
    ) -> None:
        """Ask both for a call."""
        answer = self.run(
            self.worlds[daemon].authorize(
                call_id, to, account=account, direction=direction, seconds=seconds
            )
        )
        owner = self.model.accounts[account]
        self.check(
            answer, self.model.authorize(owner, call_id, to, CLASSES[to], direction, seconds)
        )

    def reserve(
        self, daemon: int, account: str, call_id: str, used: int, seconds: int | None,
        to: str | None = None, direction: str = "outbound",
    ) -> None:  # fmt: skip
        """Report use to both; with `to` an unknown call is adopted."""
        answer = self.run(
            self.worlds[daemon].reserve(
                call_id, used, account=account, seconds=seconds, to=to, direction=direction
            )
        )
        owner, call = self.model.accounts[account], self.model.calls.get((account, call_id))
        if call is not None and call.state in ("open", "orphan"):
            self.check(answer, self.model.reserve(owner, call_id, used, seconds))
        elif call is not None and call.state == "settled":
            # Which reason depends on what the daemon remembers of the call.
            assert isinstance(answer, Denial)
        elif to is None:
            self.check(answer, Denied("call_unknown", account))
        else:
            self.check(
                answer,
                self.model.authorize(owner, call_id, to, CLASSES[to], direction, seconds, used),
            )

    def settle(
        self, daemon: int, account: str, call_id: str, seconds: int,
        to: str | None = None, direction: str = "outbound",
    ) -> None:  # fmt: skip
        """Report the end of a call to both."""
        owner = self.model.accounts[account]
        expected: Settled | str = self.model.settle(owner, call_id, seconds)
        more: dict[str, Any] = {}
        if to is not None:
            more = {"to": to, "direction": direction, "ended_at": int(time.time())}
            if expected == "unknown":
                expected = self.model.book_unknown(
                    owner, call_id, seconds, to, CLASSES[to], direction
                )
        work = self.worlds[daemon].settle(call_id, seconds, account=account, **more)
        if expected == "unknown":
            with pytest.raises(CallUnknown):
                self.run(work)
        elif expected == "settled_differently":
            with pytest.raises(SettledDifferently):
                self.run(work)
        else:
            answer = self.run(work)
            assert isinstance(answer, Settlement)
            legs = tuple(
                (leg.account, leg.billing, leg.charged, leg.balance) for leg in answer.legs
            )
            assert Settled(answer.seconds, answer.duplicate, legs) == expected

    @initialize(
        questions=st.lists(
            st.tuples(daemons, accounts, numbers, directions, asked), min_size=4, max_size=4
        )
    )
    def start_some(self, questions: list[tuple[int, str, str, str, int | None]]) -> None:
        """Begin with calls to work on: Hypothesis leaves some rules out of each run."""
        for question in questions:
            self.start_one(*question)

    @rule(
        daemon=daemons, account=accounts, to=numbers, direction=directions, seconds=asked,
        more=st.booleans(),
    )  # fmt: skip
    def start(
        self, daemon: int, account: str, to: str, direction: str, seconds: int | None, more: bool
    ) -> None:
        """Ask for one new call, or for two alike."""
        for _ in range(1 + more):
            self.start_one(daemon, account, to, direction, seconds)

    def start_one(
        self, daemon: int, account: str, to: str, direction: str, seconds: int | None
    ) -> None:
        """Ask both for a new call."""
        self.authorize(daemon, account, self.fresh_id(), to, direction, seconds)

    @rule(daemon=daemons, which=whichever, to=st.none() | numbers, seconds=asked)
    def ask_again(self, daemon: int, which: int, to: str | None, seconds: int | None) -> None:
        """Ask for a call that is known, for the same number or for another."""
        if found := self.pick(which, "open", "orphan", "settled", "ended"):
            account, call_id, call = found
            same, direction = call.question or (US, "outbound")
            self.authorize(daemon, account, call_id, to or same, direction, seconds)

    @rule(daemon=daemons, account=accounts, to=numbers, direction=directions)
    def dry_run(self, daemon: int, account: str, to: str, direction: str) -> None:
        """Ask without meaning it: nothing may change."""
        self.run(
            self.worlds[daemon].authorize(
                self.fresh_id(), to, account=account, direction=direction, dry_run=True
            )
        )

    @rule(daemon=daemons, which=whichever, more=durations, seconds=asked)
    def go_on(self, daemon: int, which: int, more: int, seconds: int | None) -> None:
        """Report more use of a live call, as a switch usually does, at one daemon and another."""
        if found := self.pick(which, "open"):
            account, call_id, call = found
            for number in (daemon, 1 - daemon):
                self.reserve(number, account, call_id, call.used + more // 2, seconds)

    @rule(daemon=daemons, which=whichever, used=durations, seconds=asked)
    def go_on_late(self, daemon: int, which: int, used: int, seconds: int | None) -> None:
        """Report any use of any call: too late, too little, or not at all expected."""
        if found := self.pick(which, "open", "orphan", "orphan", "settled", "ended"):
            self.reserve(daemon, *found[:2], used, seconds)

    @rule(daemon=daemons, which=whichever, more=durations, seconds=asked)
    def come_back(self, daemon: int, which: int, more: int, seconds: int | None) -> None:
        """Report use of a call that was taken for lost."""
        if found := self.pick(which, "orphan"):
            account, call_id, call = found
            self.reserve(daemon, account, call_id, max(0, call.used + more // 2 - 20), seconds)

    @rule(
        daemon=daemons, account=accounts, used=durations, seconds=asked, to=st.none() | numbers,
        direction=directions, is_wanted=seldom,
    )  # fmt: skip
    def adopt(
        self, daemon: int, account: str, used: int, seconds: int | None, to: str | None,
        direction: str, is_wanted: bool,
    ) -> None:  # fmt: skip
        """Report use of a call that nobody has authorized."""
        if is_wanted:
            self.reserve(daemon, account, self.fresh_id(), used, seconds, to, direction)

    @rule(daemon=daemons, which=whichever, seconds=durations, is_wanted=seldom)
    def hang_up(self, daemon: int, which: int, seconds: int, is_wanted: bool) -> None:
        """End a live or lost call."""
        found = self.pick(which, "open", "orphan")
        if found and is_wanted:
            self.settle(daemon, *found[:2], seconds)

    @rule(
        daemon=daemons, which=whichever, other_seconds=st.none() | durations, to=st.none() | numbers
    )
    def hang_up_again(
        self, daemon: int, which: int, other_seconds: int | None, to: str | None
    ) -> None:
        """End a call that has ended, alike or otherwise, with numbers or without."""
        if found := self.pick(which, "settled", "ended"):
            account, call_id, call = found
            seconds = call.settled_seconds if other_seconds is None else other_seconds
            self.settle(daemon, account, call_id, seconds, to)

    @rule(
        daemon=daemons, account=accounts, seconds=durations, to=st.none() | numbers,
        direction=directions, is_wanted=seldom,
    )  # fmt: skip
    def hang_up_unknown(
        self, daemon: int, account: str, seconds: int, to: str | None, direction: str,
        is_wanted: bool,
    ) -> None:  # fmt: skip
        """End a call that nobody has heard of."""
        if is_wanted:
            self.settle(daemon, account, self.fresh_id(), seconds, to, direction)

    @rule(daemon=daemons, which=whichever, is_found=st.booleans(), more=durations, seconds=asked)
    def lose(self, daemon: int, which: int, is_found: bool, more: int, seconds: int | None) -> None:
        """Take a call for lost, by the daemon's policy; then the other one may hear of it."""
        if found := self.pick(which, "open", "orphan"):
            account, call_id, _ = found
            context = self.worlds[daemon].engine.context
            tag = self.run(context.directory.tag_of(account))
            member = keys.call_member(account, call_id)
            claimed = self.run(claim(context, tag, member, forced=True))
            policy = context.settings.calls.orphan_policy
            assert claimed == self.model.claim(self.model.accounts[account], call_id, policy)
            if is_found:
                self.reserve(1 - daemon, account, call_id, more, seconds)

    @rule(daemon=daemons, account=accounts, left=amounts)
    def drain(self, daemon: int, account: str, left: int) -> None:
        """Leave an account with so much to spend, if it has more."""
        owner = self.model.accounts[account]
        _, credit, _ = self.model.room(owner)
        if owner.credit_limit is not None and credit > left:
            self.debit(daemon, account, credit - left, "manual", "self", must_fit=True)

    @rule(daemon=daemons, account=accounts, amount=amounts)
    def credit(self, daemon: int, account: str, amount: int) -> None:
        """Give an account money."""
        reference = f"reference-{len(self.posted)}"
        text = format_amount(amount)
        self.posted.append((account, "payment", reference, text))
        posted = self.run(self._credit(daemon, account, "payment", reference, text))
        assert not posted.duplicate
        self.model.post(
            self.model.accounts[account], amount, scope="self", is_spend=False, must_fit=False
        )

    async def _credit(
        self, daemon: int, account: str, kind: Any, reference: str, amount: str
    ) -> Posted:
        request = CreditRequest(kind=kind, reference=reference, amount=amount)
        posted = await self.worlds[daemon].postings.credit(account, request)
        assert isinstance(posted, Posted)
        return posted

    @rule(daemon=daemons, which=whichever, is_same=st.booleans())
    def credit_again(self, daemon: int, which: int, is_same: bool) -> None:
        """Repeat a credit: nothing moves; with another amount it is refused."""
        if not self.posted:
            return
        account, kind, reference, amount = self.posted[which % len(self.posted)]
        if is_same:
            assert self.run(self._credit(daemon, account, kind, reference, amount)).duplicate
        else:
            with pytest.raises(Conflict):
                self.run(self._credit(daemon, account, kind, reference, "99"))

    @rule(
        daemon=daemons, account=accounts, amount=amounts, kind=st.sampled_from(["sms", "manual"]),
        scope=st.sampled_from(["tree", "self"]), must_fit=st.booleans(),
    )  # fmt: skip
    def charge(
        self, daemon: int, account: str, amount: int, kind: Any, scope: Any, must_fit: bool
    ) -> None:
        """Charge an account, with or without its ancestors."""
        self.debit(daemon, account, amount, kind, scope, must_fit=must_fit)

    def debit(
        self, daemon: int, account: str, amount: int, kind: Any, scope: Any, *, must_fit: bool
    ) -> None:
        """Debit both."""
        world = self.worlds[daemon]
        request = DebitRequest(
            amount=format_amount(amount),
            kind=kind,
            reference=self.fresh_id(),
            scope=scope,
            require_available=must_fit,
        )
        answer = self.run(world.postings.debit(account, request))
        refused = self.model.post(
            self.model.accounts[account],
            -amount,
            scope=scope,
            is_spend=kind == "sms",
            must_fit=must_fit,
        )
        if refused is None:
            assert isinstance(answer, Posted)
        else:
            assert isinstance(answer, PostingRefused)
            assert answer.reason == refused

    @rule(
        daemon=daemons, account=accounts,
        change=st.sampled_from(sorted(CHANGES)).flatmap(
            lambda name: st.tuples(st.just(name), st.sampled_from(CHANGES[name][0]))
        ),
    )  # fmt: skip
    def configure(self, daemon: int, account: str, change: tuple[str, Any]) -> None:
        """Change an account at one daemon; the other is not told."""
        name, value = change
        self.run(self.worlds[daemon].accounts.patch(account, CHANGES[name][1](value)))
        setattr(self.model.accounts[account], name, value)

    @invariant()
    def every_number_is_the_models(self) -> None:
        """Compare all accounts' running states."""
        self.run(self._compare())

    async def _compare(self) -> None:
        states = await asyncio.gather(*(self.worlds[0].state(name) for name in self.model.accounts))
        model = self.model
        for state, account in zip(states, model.accounts.values(), strict=True):
            found = {
                "balance": (state.balance, account.balance),
                "held": (state.held, model.held(account)),
                "used": (state.used, model.used(account)),
                "calls": (state.calls, model.calls_of(account)),
                "sequence": (state.sequence, account.entries),
                "month_spend": (state.month_spend, account.spent),
                "day_spend": (state.day_spend, account.spent),
            }
            for call_class in set(CLASSES.values()):
                name = f"calls_{call_class.label}"
                found[name] = (getattr(state, name), model.calls_of(account, call_class))
            for way in ("inbound", "outbound"):
                name = f"trunks_{way}"
                found[name] = (getattr(state, name), model.trunks_in_use(account, way))
            wrong = {name: pair for name, pair in found.items() if pair[0] != pair[1]}
            assert not wrong, f"{account.name} (found, expected): {wrong}"

    def teardown(self) -> None:
        """Audit, and end both daemons."""
        try:
            self.run(assert_clean_audit(self.worlds[0].client))
        finally:
            for world in self.worlds:
                self.run(world.close())
            self.runner.close()
            self.directory.cleanup()


def test_whatever_happens_the_answers_and_numbers_are_the_models(any_store_server, rng):
    class Machine(CallMachine):
        url = any_store_server.url

    run_state_machine_as_test(
        seed(rng.getrandbits(64))(Machine),
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
            report_multiple_bugs=False,
            phases=[Phase.generate, Phase.shrink],
            database=None,
        ),
    )
