"""The shortcut of a script against the script's own rules, on random states of everything it reads.

Three forms of a script run on equal states with the same clock: its rules alone, the script as it
is loaded, and its shortcut alone. All must answer and leave the same, but for a shortcut that
leaves the case to the rules: it must leave everything as it was.
"""

from __future__ import annotations

import random
import re
from importlib.resources import files
from typing import Any

import pytest

from authz.engine.steps import pack_costs, pack_steps
from authz.money import BOUND_MICROS
from authz.reasons import REASONS, Billing, CallClass, Direction, Excuse
from authz.store import keys
from authz.store.client import StoreClient
from authz.store.constants import State
from authz.store.layouts import (
    ACCOUNT_STATE,
    AUTHORIZE,
    CALL_HEAD,
    CALL_LAYOUT_NUMBER,
    CALL_LEG,
    LEG_REQUEST,
    LIMITS,
    NONE,
    RESERVE,
    SETTLE,
    TOMBSTONE,
)
from authz.store.records import ledger_strings
from authz.store.replies import read_answer
from authz.store.scripts import flatten

NOW = 1_790_000_000
NOW_US = NOW * 1_000_000 + 123_456
DAY_US = NOW_US - NOW_US % (86_400 * 1_000_000)
HOUR, DAY, MONTH = NOW // 3600, NOW // 86_400, 24_320
CASES = 300
DIGEST = b"sixteen bytes id"
TAGS = ("1", "2", "3")
ACCOUNTS = ("leaf", "team", "division", "root")
LEFT_TO_THE_RULES = [b"left to the rules"]


def forms(verb: str, legs: int) -> list[str]:
    """Return the rules alone, the whole script, and the shortcut alone; all with one time."""
    (file,) = (one for one in files("authz_lua").iterdir() if one.name.startswith(f"{verb}-"))
    text = file.read_text(encoding="utf-8")
    clock = f'{{"{NOW}", "123456"}}'
    rules, whole = (
        flatten(text, verb, count).replace('redis.call("TIME")', clock) for count in (None, legs)
    )
    end = re.search(r"^until true\n", whole, re.MULTILINE)
    assert end is not None
    assert "until true" not in rules
    return [rules, whole, f'{whole[: end.end()]}return {{"left to the rules"}}\n']


class Case:
    """One random state of the store and one random request."""

    def __init__(self, rng: random.Random, verb: str, legs: int) -> None:
        self.rng = rng
        self.legs = legs
        self.call_class = self.usually(
            rng.choice([CallClass.NATIONAL, CallClass.INTERNATIONAL, CallClass.TOLLFREE]),
            rng.choice(list(CallClass)),
        )
        self.direction = rng.choice(list(Direction))
        self.limits = [self._limits() for _ in range(legs)]
        self.states = [self._state(LIMITS.unpack(one)) for one in self.limits]
        self.record = self._record() if verb != "authorize" or rng.random() < 0.05 else None
        self.filtered = self.usually(0, rng.choice([1, 2]))
        self.has_tombstone = bool(self.filtered) and rng.random() < 0.5
        self.is_first_of_hour = rng.random() < 0.1
        self.verb = verb
        self.arguments: list[bytes] = getattr(self, f"_{verb}")()

    def usually(self, common: Any, seldom: Any) -> Any:
        """Return mostly the common value, the seldom one less often the more legs there are."""
        return common if self.rng.random() < 1 - 0.1 / self.legs else seldom

    def amount(self) -> int:
        """Return an amount of one of the sizes that matter."""
        rng = self.rng
        return rng.choice([0, rng.randrange(100), rng.randrange(10**6), rng.randrange(10**12)])

    def maybe(self, value: int) -> int:
        """Return a limit, or that there is none."""
        return self.rng.choice([-1, value])

    def _limits(self) -> bytes:
        rng = self.rng
        unlimited = rng.random() < 0.2
        credit_limit = 0 if unlimited else self.amount()
        low_threshold = rng.choice([NONE, 10**6])
        recharge_mode = self.usually(0, 1)
        recharge_threshold = rng.choice([10**5, 10**7])
        # As the daemon works it out: below it at least one threshold may be crossed.
        quiet_above = max(
            NONE if unlimited else max(low_threshold, -credit_limit),
            recharge_threshold if recharge_mode else NONE,
        )
        return LIMITS.pack(
            version=5,
            day=DAY,
            month=MONTH,
            daily_limit=self.maybe(self.usually(10**12, rng.choice([0, 10**6]))),
            monthly_limit=self.maybe(self.usually(10**12, 10**6)),
            quiet_above=quiet_above,
            credit_limit=credit_limit,
            unlimited=unlimited,
            per_minute=self.usually(1, 0),
            trunks_inbound=rng.randrange(3),
            trunks_outbound=rng.randrange(3),
            trunks_twoway=rng.randrange(2),
            trunks_burst=rng.choice([0, 0, self.usually(1, -1)]),
            calls_max=self.maybe(self.usually(100, 2)),
            class_calls_max=self.maybe(self.usually(100, 2)),
            arrival_interval_us=self.usually(rng.choice([0, 1000, 500_000]), -1),
            arrival_burst_us=rng.choice([0, 999_000]),
            low_threshold=low_threshold,
            recharge_mode=recharge_mode,
            recharge_threshold=recharge_threshold,
            recharge_amount=10**6,
            recharge_monthly_cap=-1,
        )

    def _state(self, limits: Any) -> bytes:
        rng = self.rng
        spends = [limit for limit in (limits.daily_limit, limits.monthly_limit) if limit > 0]
        spend = self.usually(
            rng.randrange(10**5),
            rng.choice([self.amount(), *spends, *(one * 85 // 100 for one in spends)]),
        )
        used = rng.randrange(10**5)
        at_the_edge = max(limits.quiet_above, -(10**6)) + used
        values = {name: rng.randrange(5) for name in ACCOUNT_STATE.names}
        values |= {
            "layout": 1,
            "version": self.usually(5, 4),
            "sequence": rng.randrange(10**9),
            "balance": self.usually(
                self.amount() + 10**6, rng.choice([-self.amount(), at_the_edge, at_the_edge])
            ),
            "held": rng.randrange(10**6),
            "used": used,
            "arrival_us": self.usually(
                rng.choice([0, NOW_US - 10**6]),
                NOW_US + rng.choice([400, limits.arrival_burst_us, limits.arrival_burst_us + 1]),
            ),
            "day": self.usually(DAY, DAY - 1),
            "day_spend": spend,
            "month": self.usually(MONTH, MONTH - 1),
            "month_spend": spend + rng.choice([0, 1]),
            "day_mark": rng.randrange(3),
            "month_mark": rng.randrange(3),
            "trunks_event_at": self.usually(NOW - 59, rng.choice([0, NOW - 60])),
            "low_at": rng.choice([0, NOW - 10]),
            "exhausted_at": rng.choice([0, NOW - 10]),
            "recharge_month": MONTH,
        }
        return ACCOUNT_STATE.pack(**values)

    def _record(self) -> bytes:
        rng = self.rng
        state = self.usually(State.OPEN, rng.choice([State.ORPHAN, State.ENDED]))
        granted = self.usually(60, -1)
        head = CALL_HEAD.pack(
            layout=self.usually(CALL_LAYOUT_NUMBER, CALL_LAYOUT_NUMBER - 1),
            state=state,
            call_class=self.call_class,
            direction=self.direction,
            legs=0 if state == State.ENDED else self.legs,
            final=rng.randrange(2),
            reported=rng.randrange(2),
            marks=rng.randrange(2),
            attempt=self.usually(7, 8),
            request=self.usually(b"question", b"another!"),
            authorized_us=self.usually(
                rng.choice([DAY_US, NOW_US - 45_000_000, NOW_US]),
                rng.choice([DAY_US - 1, NOW_US + 1]),
            ),
            lease_ms=NOW * 1000 + 100_000,
            ring_seconds=180,
            granted_seconds=granted,
            used_seconds=self.usually(0, 45),
        )
        if state == State.ENDED:
            return head
        legs = [
            CALL_LEG.pack(
                billing=self.usually(Billing.PER_MINUTE, rng.choice(list(Billing))),
                held=rng.randrange(20_000),
                used=rng.choice([0, rng.randrange(10_000)]),
                charged=rng.randrange(3) if state == State.ORPHAN else 0,
                room=rng.randrange(10**6),
            )
            for _ in range(self.legs)
        ]
        return head + b"".join(legs) + b"the tail of a call"

    def _steps(self) -> bytes:
        rng = self.rng
        seconds = self.usually(rng.choice([60, 105, 120]), rng.choice([-1, 0, 30]))
        holds = [
            rng.choice([0, rng.randrange(30_000), self.usually(0, BOUND_MICROS)])
            for _ in range(self.legs)
        ]
        return pack_steps([(seconds, holds)], self.legs)

    def _validity(self) -> dict[str, int]:
        return {
            "valid_from": self.usually(NOW, NOW + 1),
            "valid_until": self.usually(NOW + 1, NOW),
        }

    def _costs(self) -> bytes:
        return pack_costs(
            [self.rng.choice([0, self.rng.randrange(20_000)]) for _ in range(self.legs)]
        )

    def _strings(self) -> bytes:
        return ledger_strings(ACCOUNTS[: self.legs], "call")

    def _authorize(self) -> list[bytes]:
        rng = self.rng
        is_exempt = self.direction == Direction.OUTBOUND and self.call_class in (
            CallClass.EMERGENCY,
            CallClass.TOLLFREE,
        )
        head = AUTHORIZE.pack(
            attempt=9,
            call_class=self.call_class,
            direction=self.direction,
            legs=self.legs,
            exempt=is_exempt,
            dry_run=self.usually(0, 1),
            second_try=self.usually(0, 1),
            steps=1,
            final=rng.randrange(2),
            memory_full=self.usually(0, 1),
            marks=rng.randrange(2),
            used_seconds=self.usually(0, 45),
            uncharged_seconds=self.maybe(3600),
            ring_seconds=180,
            grace_seconds=30,
            life_seconds=300,
            closed_hours=rng.choice([1, 24, 30, 72]),
            hour=self.usually(HOUR, HOUR - 1),
            **self._validity(),
        )
        wanted = b"".join(self._leg_request() for _ in range(self.legs)) + self._steps()
        return [head, DIGEST, b"leaf:call", b"question", b"a tail", wanted]

    def _leg_request(self) -> bytes:
        rng = self.rng
        excuse = self.usually(None, rng.choice(list(Excuse)))
        if excuse is not None:
            return LEG_REQUEST.pack(has_rate=excuse)
        return LEG_REQUEST.pack(
            has_rate=self.usually(1, rng.choice([0, 2])),
            limiting=rng.randrange(2),
            needs_credit=rng.randrange(2),
            trunk_covered=rng.randrange(2),
            used=0,
        )

    def _reserve(self) -> list[bytes]:
        head = RESERVE.pack(
            attempt=7,
            legs=self.legs,
            second_try=self.usually(0, 1),
            steps=1,
            final=self.rng.randrange(2),
            denial=self.usually(0, REASONS["account_disabled"].code),
            used_seconds=self.usually(45, self.rng.choice([0, 60, 100])),
            uncharged_seconds=-1,
            grace_seconds=30,
            life_seconds=300,
            **self._validity(),
        )
        return [head, self._costs(), b"leaf:call", self._steps(), self._strings()]

    def _settle(self) -> list[bytes]:
        head = SETTLE.pack(
            attempt=7,
            legs=self.legs,
            seconds=self.usually(self.rng.choice([0, 60]), 61),
            started_at=NOW - 60,
            closed_hours=24,
            hour=self.usually(HOUR, HOUR - 1),
            ring_seconds=180,
            **self._validity(),
        )
        return [head + self._costs(), DIGEST, b"leaf:call", self._strings()]

    def _filter_days(self) -> set[int]:
        days = {DAY - self.filtered + 1} if self.filtered else set()
        if self.verb == "settle" and self.record is not None:
            head = CALL_HEAD.unpack(self.record)
            if head.layout == CALL_LAYOUT_NUMBER:
                # What the authorize of such a call has done.
                days.add(head.authorized_us // (86_400 * 1_000_000))
        return days

    async def arrange(self, store: StoreClient, tag: str) -> None:
        """Put the state into the store under this tag."""
        for name, state in zip(ACCOUNTS, self.states, strict=False):
            await store.execute("HSET", keys.account(tag, name), "s", state)
        if self.record is not None:
            await store.execute("SET", keys.call(tag, "leaf", "call"), self.record)
        await store.execute("ZADD", keys.leases(tag), 1, b"leaf:call", 2, b"leaf:other")
        for day in self._filter_days():
            key = keys.closed_filter(tag, day)
            await store.execute("SETBIT", key, int.from_bytes(DIGEST[:4], "big") % 2_097_152, 1)
        closed = keys.closed(tag, HOUR)
        if self.has_tombstone or not self.is_first_of_hour:
            await store.execute("HSET", closed, b"another", b"tombstone")
        if self.has_tombstone:
            tombstone = TOMBSTONE.pack(layout=1, legs=0, seconds=60)
            await store.execute("HSET", closed, DIGEST, tombstone)

    async def run(self, store: StoreClient, tag: str, source: str) -> Any:
        """Run a script on the state under this tag."""
        today, before = (keys.closed_filter(tag, day) for day in (DAY, DAY - 1))
        of_the_hour = {
            "authorize": [today, before],
            "reserve": [],
            "settle": [keys.closed(tag, HOUR)],
        }
        script_keys = [
            keys.call(tag, "leaf", "call"), keys.leases(tag), keys.closed_prefix(tag),
            *([] if self.verb == "authorize" else [keys.bucket(tag), keys.ledger(tag)]),
            keys.events(tag), *of_the_hour[self.verb],
            *(keys.account(tag, name) for name in ACCOUNTS[: self.legs]),
        ]  # fmt: skip
        answer = await store.execute(
            "EVAL", source, len(script_keys), *script_keys, *self.arguments, *self.limits,
            deadline_ms=5_000,
        )  # fmt: skip
        return read_answer(answer)

    async def left(self, store: StoreClient, tag: str) -> list[Any]:
        """Return everything that is in the store under this tag."""
        call = keys.call(tag, "leaf", "call")
        closed = keys.closed(tag, HOUR)
        bit = int.from_bytes(DIGEST[:4], "big") % 2_097_152
        streams = [
            [fields for _, fields in await store.execute("XRANGE", stream, "-", "+")]
            for stream in (keys.ledger(tag), keys.events(tag))
        ]
        return [
            await store.execute("GET", call),
            await store.execute("TTL", call),
            await store.execute("ZRANGE", keys.leases(tag), 0, -1, "WITHSCORES"),
            await store.execute("HGETALL", keys.bucket(tag)),
            sorted(await store.execute("HGETALL", closed)),
            await store.execute("TTL", closed),
            [
                await store.execute("GETBIT", keys.closed_filter(tag, day), bit)
                for day in (DAY - 1, DAY)
            ],
            streams,
            [
                await store.execute("HGETALL", keys.account(tag, name))
                for name in ACCOUNTS[: self.legs]
            ],
        ]


@pytest.mark.parametrize("legs", [1, 2, 4])
@pytest.mark.parametrize("verb", ["authorize", "reserve", "settle"])
async def test_a_shortcut_does_what_the_rules_do(
    store: StoreClient, rng: random.Random, verb: str, legs: int
) -> None:
    sources = forms(verb, legs)
    taken = 0
    for _ in range(CASES):
        case = Case(rng, verb, legs)
        await store.execute("FLUSHALL")
        for tag in TAGS:
            await case.arrange(store, tag)
        before = await case.left(store, TAGS[2])
        answers = [
            await case.run(store, tag, source) for tag, source in zip(TAGS, sources, strict=True)
        ]
        left = [await case.left(store, tag) for tag in TAGS]
        assert answers[1] == answers[0]
        assert left[1] == left[0]
        if answers[2] == LEFT_TO_THE_RULES:
            assert left[2] == before
        else:
            assert answers[2] == answers[0]
            assert left[2] == left[0]
            taken += 1
    # Both ways must have been tried often.
    assert CASES // 15 < taken < CASES * 14 // 15
