"""The legs of answers: made of what the scripts answer, as callers read them."""

from __future__ import annotations

import pytest

from authz.engine.quotes import discount_text
from authz.model import GrantLeg, SettledLeg
from authz.reasons import BILLING_OF, Billing
from authz_ext.legs import LegWriter
from authz_ext.rating import Rate, Tier

RATE = Rate(tiers=[Tier(0, 10_000_000, 60, 60)])
NOW = 1_800_000_000
PER_MINUTE, TRUNK = int(Billing.PER_MINUTE), int(Billing.TRUNK)


@pytest.fixture
def writer() -> LegWriter[GrantLeg, SettledLeg]:
    return LegWriter(
        grant_leg=GrantLeg,
        settled_leg=SettledLeg,
        labels=[billing.label for billing in BILLING_OF],
        discount_text=discount_text,
    )


def test_a_grant_tells_what_is_held_and_left(writer: LegWriter[GrantLeg, SettledLeg]) -> None:
    reply = [0, 60, PER_MINUTE, 10_000, 9_990_000, PER_MINUTE, 5_000, 1, TRUNK, 0, -2_500_000]
    rates = (RATE, RATE.discounted(1_250), RATE)
    legs = writer.granted(("sub", "mid", "master"), (False, True, False), rates, reply, 2, NOW)
    assert legs == (
        GrantLeg("sub", "per_minute", "0.01", "0.01", "9.99", None),
        GrantLeg("mid", "per_minute", "0.01", "0.005", None, "12.5"),
        GrantLeg("master", "trunk", "0", "0", "-2.5", None),
    )


def test_a_leg_without_a_rate_costs_nothing(writer: LegWriter[GrantLeg, SettledLeg]) -> None:
    (leg,) = writer.granted(("sub",), (False,), (None,), [PER_MINUTE, 0, 7], 0, NOW)
    assert leg == GrantLeg("sub", "per_minute", "0", "0", "0.000007", None)


def test_a_settlement_tells_charge_and_balance(writer: LegWriter[GrantLeg, SettledLeg]) -> None:
    reply = [0, 61, 3, 12, PER_MINUTE, 20_000, -1_000_000, TRUNK, 0, 5]
    assert writer.settled(("sub", "master"), reply, 4) == (
        SettledLeg("sub", "per_minute", "0.02", "-1"),
        SettledLeg("master", "trunk", "0", "0.000005"),
    )


def test_there_are_as_many_legs_as_all_know_of(writer: LegWriter[GrantLeg, SettledLeg]) -> None:
    two = [PER_MINUTE, 1, 2, PER_MINUTE, 3, 4]
    assert len(writer.settled(("sub",), two, 0)) == 1
    assert len(writer.settled(("sub", "mid", "master"), two, 0)) == 2
    assert writer.settled(("sub",), two, 6) == writer.settled(("sub",), [], 2) == ()
    assert len(writer.settled(("sub", "master"), two[:5], 0)) == 1
    assert len(writer.granted(("sub", "master"), (True, True), (RATE,), two, 0, NOW)) == 1
    assert len(writer.granted(("sub", "master"), (True,), (RATE, RATE), two, 0, NOW)) == 1


@pytest.mark.parametrize("billing", [-1, len(BILLING_OF)])
def test_a_billing_that_does_not_exist(
    writer: LegWriter[GrantLeg, SettledLeg], billing: int
) -> None:
    with pytest.raises(ValueError, match=f"pays in the way {billing}"):
        writer.settled(("sub",), [billing, 0, 0], 0)
    with pytest.raises(ValueError, match=f"pays in the way {billing}"):
        writer.granted(("sub",), (False,), (RATE,), [billing, 0, 0], 0, NOW)
