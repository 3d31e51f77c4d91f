"""Plans: what a call costs by them, and how many of them a process keeps."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from authz.engine.plans import CallMemory, Plan
from authz.reasons import Billing, CallClass, Direction
from authz_ext.rating import Rate, Tier, Window

CENT_A_MINUTE = Rate(tiers=[Tier(0, 10_000_000, 60, 60)])
FREE = Rate(tiers=[Tier(0, 0, 60, 60)])
#: Ends the call at a tenth of a unit; the first half minute is free.
ENDING = Rate(
    tiers=[Tier(0, 30_000_000, 60, 6)],
    free_seconds=30,
    max_cost=100_000,
    max_cost_action="end",
)
#: Twice as dear from eight in the morning to eight at night, in UTC.
DAYTIME = Rate(
    tiers=[Tier(0, 10_000_000, 60, 60)],
    windows=[Window(127, 480, 1_200, [Tier(0, 20_000_000, 60, 60)])],
)
NOON = 1_800_014_400
MIDNIGHT = 1_800_057_600


def make_plan(
    rates: tuple[Rate | None, ...], billings: tuple[Billing, ...], **changed: Any
) -> Plan:
    """Return the plan of an ordinary call."""
    values: dict[str, Any] = {
        "account": "sub",
        "call_id": "c1",
        "attempt": 7,
        "call_class": CallClass.NATIONAL,
        "direction": Direction.OUTBOUND,
        "number": "+14155550100",
        "dialled": "4155550100",
        "switch": "fs1",
        "authorized_at": NOON,
        **changed,
    }
    return Plan(rates=rates, billings=billings, **values)


PER_MINUTE, TRUNK, BURST = Billing.PER_MINUTE, Billing.TRUNK, Billing.BURST


def test_each_leg_costs_what_its_rate_and_billing_say() -> None:
    rates = (CENT_A_MINUTE, CENT_A_MINUTE, CENT_A_MINUTE, None)
    plan = make_plan(rates, (PER_MINUTE, TRUNK, BURST, Billing.FREE))
    assert plan.costs(61, NOON) == (20_000, 0, 0, 0)
    assert plan.pack_costs(61, NOON) == struct.pack(">4q", 20_000, 0, 0, 0)


def test_a_step_holds_at_least_one_priced_increment_of_each_limited_leg() -> None:
    plan = make_plan((CENT_A_MINUTE, ENDING, FREE), (PER_MINUTE, PER_MINUTE, PER_MINUTE))
    assert plan.limiting_rates == ((0, CENT_A_MINUTE), (1, ENDING))
    assert plan.pack_step(90, NOON) == struct.pack(">i3q", 90, 20_000, 45_000, 0)
    # Ten seconds are free on the second leg, but not the call's next increment.
    first_second, first_cost = ENDING.first_priced(NOON)
    assert ENDING.cost(10, NOON) == 0 < first_cost == ENDING.cost(first_second, NOON)
    assert plan.pack_step(10, NOON) == struct.pack(">i3q", 10, 10_000, first_cost, 0)


def test_the_first_increment_is_that_of_the_moment() -> None:
    plan = make_plan((DAYTIME,), (PER_MINUTE,))
    assert plan.pack_step(0, NOON) == struct.pack(">iq", 0, 20_000)
    assert plan.pack_step(0, MIDNIGHT) == struct.pack(">iq", 0, 10_000)
    assert plan.pack_step(0, NOON) == struct.pack(">iq", 0, 20_000)


def test_a_discounted_rate_has_a_first_increment_of_its_own() -> None:
    plain, half = CENT_A_MINUTE, CENT_A_MINUTE.discounted(5_000)
    for rate, cost in ((plain, 10_000), (half, 5_000), (plain, 10_000)):
        assert make_plan((rate,), (PER_MINUTE,)).pack_step(0, NOON) == struct.pack(">iq", 0, cost)


def test_an_endless_step_holds_nothing_where_nothing_is_limited() -> None:
    plan = make_plan((FREE, CENT_A_MINUTE), (PER_MINUTE, TRUNK))
    assert plan.limiting_rates == ()
    assert plan.pack_step(-1, NOON) == struct.pack(">i2q", -1, 0, 0)


@pytest.mark.parametrize(
    ("rates", "billings", "is_ended"),
    [
        ((ENDING,), (PER_MINUTE,), True),
        ((CENT_A_MINUTE, ENDING), (PER_MINUTE, PER_MINUTE), True),
        ((CENT_A_MINUTE, ENDING), (PER_MINUTE, TRUNK), False),
        ((CENT_A_MINUTE,), (PER_MINUTE,), False),
    ],
)
def test_a_rate_that_ends_calls_counts_where_it_is_charged(
    rates: tuple[Rate, ...], billings: tuple[Billing, ...], is_ended: bool
) -> None:
    assert make_plan(rates, billings).is_ended_by_rate is is_ended


def test_only_an_outbound_emergency_call_is_one() -> None:
    emergency = CallClass.EMERGENCY
    assert make_plan((), (), call_class=emergency).is_emergency
    assert not make_plan((), (), call_class=emergency, direction=Direction.INBOUND).is_emergency
    assert not make_plan((), ()).is_emergency


def test_as_many_rates_as_legs_that_pay() -> None:
    with pytest.raises(ValueError, match="1 rates, but 2 legs"):
        make_plan((CENT_A_MINUTE,), (PER_MINUTE, PER_MINUTE))
    with pytest.raises(TypeError):
        make_plan(("0.01",), (PER_MINUTE,))  # type: ignore[arg-type]


def test_the_memory_forgets_the_oldest() -> None:
    memory = CallMemory(2)
    plans = [make_plan((), (), call_id=f"c{number}") for number in range(3)]
    for plan in plans:
        memory.put(plan)
    assert memory.get("sub", "c0") is None
    assert memory.get("sub", "c1") is plans[1]
    assert memory.get("master", "c1") is None
    assert memory.forget("sub", "c1") is plans[1]
    assert memory.forget("sub", "c1") is None
    memory.put(plans[0])
    assert memory.get("sub", "c2") is plans[2]
