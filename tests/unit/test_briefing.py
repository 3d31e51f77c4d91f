"""What the scripts are told of calls, held to the layouts and records that say what it means."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.config import Settings
from authz.engine.briefings import closed_hours, make_briefing
from authz.engine.plans import Plan, pack_rates
from authz.model import AccountConfig
from authz.reasons import Billing, CallClass, Direction
from authz.store import keys
from authz.store.accounts import Account, Chain
from authz.store.constants import Mark
from authz.store.layouts import AUTHORIZE, RESERVE, SETTLE
from authz.store.records import CallTail, ledger_strings, unpack_strings
from authz_ext.briefing import Briefing, Template, digest_of_request, pack_tail
from authz_ext.rating import Rate, Tier

RATE = Rate(tiers=[Tier(0, 10_000_000, 60, 60)])
HOUR = 500_000
NOW = HOUR * 3_600 + 60
SETTINGS = Settings(state_dir=Path("state"))
#: Without lone surrogates: they have no UTF-8.
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
SMALL = st.integers(0, 255)
SECONDS = st.integers(0, 2_678_400)
ATTEMPTS = st.integers(0, 2**52)
CLASSES = st.sampled_from(CallClass)


def make_chain(timezone: str = "UTC") -> Chain:
    """Return a sub-account with limits of its own for international calls, and its master."""
    config = AccountConfig(
        parent="master", max_calls_by_class={"international": 3}, timezone=timezone
    )
    accounts = (Account("sub", 5, config), Account("master", 1, AccountConfig()))
    return Chain("17", accounts, None)


CHAIN = make_chain()
BRIEFING = make_briefing(SETTINGS, CHAIN, NOW)
CALLS = SETTINGS.calls


def make_plan(**changed: Any) -> Plan:
    """Return the plan of a call of the chain."""
    values: dict[str, Any] = {
        "account": "sub",
        "call_id": "c1",
        "attempt": 7,
        "call_class": CallClass.NATIONAL,
        "direction": Direction.INBOUND,
        "number": "+14155550100",
        "dialled": "4155550100",
        "switch": "fs1",
        "rates": (RATE, None),
        "billings": (Billing.PER_MINUTE, Billing.FREE),
        "authorized_at": NOW - 100,
        **changed,
    }
    return Plan(**values)


@given(attempt=ATTEMPTS, used=SECONDS, denial=SMALL, steps=SMALL, final=st.booleans(),
       second_try=st.booleans(), call_class=CLASSES)  # fmt: skip
def test_a_reserve_is_told_in_its_layout(
    attempt: int, used: int, denial: int, steps: int, final: bool, second_try: bool,
    call_class: CallClass,
) -> None:  # fmt: skip
    plan = make_plan(attempt=attempt, call_class=call_class)
    told = BRIEFING.reserve(plan, used, NOW, final, denial, b"steps", steps, second_try)
    valid_from, valid_until = CHAIN.validity(NOW)
    assert told == [
        RESERVE.pack(
            attempt=attempt,
            valid_from=valid_from,
            valid_until=valid_until,
            legs=2,
            second_try=second_try,
            steps=steps,
            final=final,
            denial=denial,
            marks=Mark.NONE,
            used_seconds=used,
            uncharged_seconds=-1,
            grace_seconds=CALLS.grace_seconds,
            life_seconds=CALLS.sign_of_life_seconds,
        ),
        plan.pack_costs(used, NOW),
        keys.call_member("sub", "c1"),
        b"steps",
        ledger_strings(CHAIN.ids, "c1", "+14155550100"),
        *CHAIN.limits(call_class, NOW),
    ]


@given(seconds=SECONDS, call_id=TEXTS, cause=TEXTS, number=TEXTS, is_known=st.booleans())
def test_a_settle_is_told_in_its_layout(
    seconds: int, call_id: str, cause: str, number: str, is_known: bool
) -> None:
    plan = make_plan(call_id=call_id, number=number) if is_known else None
    told = BRIEFING.settle(plan, call_id, seconds, NOW - 90, b"costs", cause)
    valid_from, valid_until = CHAIN.validity(NOW)
    numbers = SETTLE.pack(
        attempt=7 if is_known else -1,
        valid_from=valid_from,
        valid_until=valid_until,
        legs=2,
        seconds=seconds,
        started_at=NOW - 90,
        hour=HOUR,
        closed_hours=closed_hours(SETTINGS),
        ring_seconds=CALLS.ring_seconds + CALLS.chunk_seconds + CALLS.grace_seconds,
        call_class=CallClass.NATIONAL if is_known else 0,
        direction=Direction.INBOUND if is_known else 0,
    )
    assert told == [
        numbers + b"costs",
        keys.call_digest("sub", call_id),
        keys.call_member("sub", call_id),
        ledger_strings(CHAIN.ids, call_id, number if is_known else "", cause),
        *CHAIN.limits(CallClass.NATIONAL if is_known else CallClass.UNKNOWN, NOW),
    ]


@given(attempt=ATTEMPTS, dry_run=st.booleans(), second_try=st.booleans(), steps=SMALL,
       memory_full=st.booleans(), call_class=CLASSES, number=TEXTS, dialled=TEXTS)  # fmt: skip
def test_an_authorize_is_told_in_its_layout(
    attempt: int, dry_run: bool, second_try: bool, steps: int, memory_full: bool,
    call_class: CallClass, number: str, dialled: str,
) -> None:  # fmt: skip
    places = ("attempt", "dry_run", "second_try", "steps", "memory_full")
    same: dict[str, int] = {"valid_from": 1, "legs": 2, "uncharged_seconds": -1, "hour": HOUR}
    told = BRIEFING.authorize(
        AUTHORIZE.template(*places, **same), attempt, dry_run, second_try, steps, memory_full,
        call_class, "c1", number, dialled, "outbound", "fs1", b"rates", b"legs",
    )  # fmt: skip
    values = dict(zip(places, (attempt, dry_run, second_try, steps, memory_full), strict=True))
    assert told == [
        AUTHORIZE.pack(**same, **values),
        keys.call_digest("sub", "c1"),
        keys.call_member("sub", "c1"),
        digest_of_request(dialled, "outbound", "fs1"),
        pack_tail(number, dialled, "fs1", b"rates"),
        b"legs",
        *CHAIN.limits(call_class, NOW),
    ]


@given(number=TEXTS, dialled=TEXTS, switch=TEXTS)
def test_a_tail_is_read_as_it_was_written(number: str, dialled: str, switch: str) -> None:
    tail = CallTail.unpack(pack_tail(number, dialled, switch, pack_rates((RATE, None))), 2)
    words = unpack_strings(pack_tail(number, dialled, switch, b""))
    assert tail == (words[0], words[1] or words[0], words[2], (RATE.pack(), b""))
    for kept, text in zip(words, (number, "" if dialled == number else dialled, switch),
                          strict=True):  # fmt: skip
        assert text.startswith(kept)
        assert kept == text or 252 <= len(kept.encode()) <= 255


def test_a_lone_surrogate_is_refused() -> None:
    with pytest.raises(UnicodeEncodeError):
        pack_tail("\ud800", "", "", b"")


def test_digests_are_blake2b() -> None:
    name = keys.call_member("sub", "c1")
    assert keys.call_digest("sub", "c1") == hashlib.blake2b(name, digest_size=16).digest()
    said = b"+1\0outbound\0fs1"
    assert (
        digest_of_request("+1", "outbound", "fs1") == hashlib.blake2b(said, digest_size=8).digest()
    )


@pytest.mark.parametrize(
    ("timezone", "at", "holds_for_seconds"),
    [
        ("UTC", HOUR * 3_600, 3_600),
        ("UTC", HOUR * 3_600 + 3_599, 3_600),
        # Midnight there is half past six in the evening of UTC.
        ("Asia/Kolkata", 499_986 * 3_600 + 1_000, 1_800),
    ],
)
def test_a_briefing_holds_within_its_hour_and_the_days_of_its_accounts(
    timezone: str, at: int, holds_for_seconds: int
) -> None:
    briefing = make_briefing(SETTINGS, make_chain(timezone), at)
    held = [moment for moment in range(at - 7_200, at + 7_200) if briefing.holds(moment)]
    assert len(held) == holds_for_seconds
    assert at in held
    assert held[-1] - held[0] == holds_for_seconds - 1
    assert briefing.hour == at // 3_600


class TestTemplate:
    def test_fills_its_places_in_their_order(self) -> None:
        template = Template(bytes(12), [(10, 2, False), (0, 8, True), (8, 1, True)])
        assert template.fill(258, -2, -3) == bytes.fromhex("fffffffffffffffe fd 00 0102")

    @pytest.mark.parametrize("values", [(), (1,), (1, 2, 3)])
    def test_wants_one_value_a_place(self, values: tuple[int, ...]) -> None:
        with pytest.raises(ValueError, match=f"2 places, {len(values)} values"):
            Template(bytes(2), [(0, 1, False), (1, 1, False)]).fill(*values)

    @pytest.mark.parametrize(
        ("place", "value"),
        [
            ((0, 1, False), 256),
            ((0, 1, False), -1),
            ((0, 4, True), 2**31),
            ((0, 4, True), -(2**31) - 1),
            ((0, 8, False), -1),
            ((0, 8, True), 2**63),
        ],
    )
    def test_refuses_what_does_not_fit(self, place: tuple[int, int, bool], value: int) -> None:
        with pytest.raises(OverflowError):
            Template(bytes(8), [place]).fill(value)

    @pytest.mark.parametrize("place", [(-1, 1, False), (1, 8, True), (0, 0, False), (0, 9, False)])
    def test_refuses_places_outside(self, place: tuple[int, int, bool]) -> None:
        with pytest.raises(ValueError, match="no place of"):
            Template(bytes(8), [place])

    def test_has_a_bound_of_places(self) -> None:
        with pytest.raises(ValueError, match="at most 8 places"):
            Template(bytes(9), [(place, 1, False) for place in range(9)])


@pytest.mark.parametrize("call_class", [-1, len(CallClass)])
def test_a_class_that_does_not_exist(call_class: int) -> None:
    with pytest.raises(ValueError, match="no class"):
        BRIEFING.reserve(make_plan(call_class=call_class), 0, NOW, False, 0, b"", 1, False)


def test_limits_are_asked_for_once_a_class() -> None:
    asked = []

    def limits_of(call_class: int) -> tuple[bytes, ...]:
        asked.append(call_class)
        return (b"limits",)

    empty = Template(bytes(64), [(8 * place, 8, True) for place in range(5)])
    briefing = Briefing(
        valid_from=0, valid_until=2**40, hour=1, closed_hours=24, tombstones=(), filters=(),
        member_prefix=b"sub:", accounts=("sub",), limits_of=limits_of, reserve=empty, settle=empty,
    )  # fmt: skip
    for _ in range(2):
        assert briefing.settle(None, "c1", 0, 0, b"", "")[-1] == b"limits"
    assert asked == [CallClass.UNKNOWN]
