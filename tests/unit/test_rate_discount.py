"""Discounts by examples: what is left of a cost, its inverse, and what a call pins of it."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from math import floor
from typing import Any

import pytest

from authz.engine.quotes import discount_text
from authz.errors import InvalidInput
from authz.model import AccountConfig
from authz.money import format_percent, percent_basis_points
from authz.store.accounts import check_config
from authz_ext import rating
from authz_ext.rating import Rate, Tier, Window

PRICE_NANOS = 13_700_000
EIGHTH = 1_250


def by_second(discount: int = EIGHTH, **terms: Any) -> Rate:
    """Return 0.0137 a minute by the second, less a discount."""
    return Rate(tiers=[Tier(0, PRICE_NANOS, 60, 1)], discount_basis_points=discount, **terms)


def test_the_discount_is_cut_and_taken_off_the_rounded_cost() -> None:
    # 13,928 without; an eighth of that is 1,741.
    assert by_second().cost(61) == 13_928 - 1_741
    # An eighth of 13,700 is 1,712.5: the half micro is the seller's.
    assert by_second().cost(60) == 13_700 - 1_712


@pytest.mark.parametrize("mode", ["up", "half_up", "down"])
@pytest.mark.parametrize("decimals", range(7))
def test_it_is_cut_to_the_rates_decimals_in_every_mode(mode: str, decimals: int) -> None:
    terms: dict[str, Any] = {"rounding_mode": mode, "rounding_decimals": decimals}
    quantum = 10 ** (6 - decimals)
    for seconds in (1, 59, 4_000, 86_400):
        whole = by_second(0, **terms).cost(seconds)
        paid = by_second(3_333, **terms).cost(seconds)
        assert paid % quantum == 0
        assert whole - paid == floor(Fraction(whole * 3_333, 10_000 * quantum)) * quantum


@pytest.mark.parametrize("percent", range(0, 101, 7))
def test_in_kazoos_units_it_is_kazoos_formula(percent: int) -> None:
    rate = by_second(percent * 100, rounding_mode="down", rounding_decimals=4, connect_fee=5_000)
    plain = rate.discounted(0)
    for seconds in (1, 60, 61, 599, 7_200):
        units = plain.cost(seconds) // 100
        assert rate.cost(seconds) // 100 == units - units * percent // 100


def test_seconds_for_is_what_is_paid() -> None:
    rate = by_second()
    for seconds in (1, 60, 61, 3_599):
        paid = rate.cost(seconds)
        assert rate.seconds_for(paid) >= seconds
        assert rate.cost(rate.seconds_for(paid) + 1) > paid
        assert rate.seconds_for(paid - 1) < seconds
        assert rate.hold_seconds_for(rate.hold(seconds, 0, 0), 0, 0) >= seconds


def test_all_of_it_is_free() -> None:
    rate = by_second(10_000, connect_fee=1_000_000)
    assert rate.is_free
    assert rate.cost(rating.SECONDS_MAX) == rate.hold(60, 0, 180) == 0
    assert rate.seconds_for(0) == rating.SECONDS_MAX
    assert rate.first_priced() == (0, 0)
    assert not by_second(9_999).is_free


def test_a_discount_never_makes_the_smallest_part_free() -> None:
    # A quantum less a part of itself that is cut away is the quantum.
    rate = by_second(9_999, rounding_mode="up", rounding_decimals=2)
    assert rate.cost(1) == 10_000
    assert rate.first_priced() == (1, 10_000)


def test_a_greatest_cost_is_of_what_is_paid() -> None:
    free = by_second(max_cost=12_000)
    assert [free.cost(seconds) for seconds in (60, 61, 3_600)] == [11_988, 12_000, 12_000]
    assert free.seconds_for(12_000) == rating.SECONDS_MAX
    ending = by_second(max_cost=11_988, max_cost_action="end")
    assert ending.seconds_until_max_cost() == 60
    assert ending.discounted(0).seconds_until_max_cost() == 52


@pytest.mark.parametrize("discount", [1, 5_000, 9_999, 10_000])
@pytest.mark.parametrize("decimals", [0, 6])
def test_the_dearest_call_and_the_most_money_stay_exact(discount: int, decimals: int) -> None:
    tiers = [
        Tier(0, rating.PRICE_NANOS_MAX, 1, 86_400),
        # Never reached: these make the common denominator great.
        Tier(rating.SECONDS_MAX - 1, 0, 86_399, 86_400),
        Tier(rating.SECONDS_MAX, 0, 86_381, 86_400),
    ]
    rate = Rate(tiers=tiers, rounding_decimals=decimals, discount_basis_points=discount)
    whole = rate.discounted(0).cost(rating.SECONDS_MAX)
    assert whole == rating.SECONDS_MAX * 10**12
    paid = rate.cost(rating.SECONDS_MAX)
    assert paid == -(-whole * (10_000 - discount) // 10**10) * 10**6
    assert rate.seconds_for(2**62) == rate.seconds_for(paid) == rating.SECONDS_MAX
    if discount < 10_000:
        assert rate.seconds_for(paid - 1) == rating.SECONDS_MAX - 86_400


def test_prices_are_told_without_it() -> None:
    assert by_second().per_minute_text() == "0.0137"
    assert by_second().dearest_per_minute_nanos == PRICE_NANOS
    assert [discount_text(by_second(points)) for points in (0, 1, 10, 1_000, 1_250, 10_000)] == [
        None, "0.01", "0.1", "10", "12.5", "100",
    ]  # fmt: skip


def test_another_discount_takes_the_place_of_the_first() -> None:
    window = Window(127, 60, 120, [Tier(0, 1, 60, 60)], 5, 6)
    rate = by_second(100, windows=[window], timezone="Europe/Berlin", max_cost=7)
    other = rate.discounted(EIGHTH)
    assert (rate.discount_basis_points, other.discount_basis_points) == (100, EIGHTH)
    assert other.discounted(100) == rate
    assert other != rate
    assert hash(other.discounted(100)) == hash(rate)
    assert (other.windows, other.max_cost, other.timezone) == ((window,), 7, "Europe/Berlin")
    assert rate.discounted(100) is rate
    assert eval(repr(other)) == other


@pytest.mark.parametrize("discount", [-1, 10_001, 2**70])
def test_what_a_discount_cannot_be(discount: int) -> None:
    with pytest.raises(ValueError, match="discount_basis_points"):
        by_second(discount)
    with pytest.raises(ValueError, match="discount_basis_points"):
        by_second(0).discounted(discount)


def test_a_discount_is_an_integer() -> None:
    half: Any = Fraction(1, 2)
    with pytest.raises(TypeError, match="discount_basis_points"):
        by_second(half)


def test_a_pinned_rate_grows_only_by_its_discount() -> None:
    plain, discounted = by_second(0).pack(), by_second().pack()
    assert (len(plain), len(discounted)) == (12, 14)
    assert Rate.unpack(discounted) == by_second()
    # As it was packed before there were discounts.
    assert plain == bytes((1, 1 | 6 << 2, 1, 0, 0, 0)) + bytes.fromhex("a097c406") + b"\x3c\x01"
    assert Rate.unpack(plain).discount_basis_points == 0


@pytest.mark.parametrize(
    ("discount", "complaint"),
    [(b"\x00", "1..10000"), (b"\x91\x4e", "1..10000"), (b"\x80\x00", "shortest")],
)
def test_a_packed_discount_is_in_bounds_and_in_one_spelling(
    discount: bytes, complaint: str
) -> None:
    packed = by_second().pack()
    with pytest.raises(ValueError, match=complaint):
        Rate.unpack(packed[:2] + discount + packed[4:])


@pytest.mark.parametrize(
    ("text", "basis_points"),
    [("0", 0), ("0.01", 1), ("12.5", 1_250), ("12.50", 1_250), ("100", 10_000), ("1e1", 1_000)],
)
def test_percent_is_exact(text: str, basis_points: int) -> None:
    assert percent_basis_points(Decimal(text)) == basis_points
    assert Decimal(format_percent(basis_points)) == Decimal(text)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("-0.01", "from 0 to 100"),
        ("100.01", "from 0 to 100"),
        ("1e999999", "from 0 to 100"),
        ("NaN", "from 0 to 100"),
        ("sNaN", "from 0 to 100"),
        ("Infinity", "from 0 to 100"),
        ("12.345", "2 decimals"),
        ("1e-999999", "2 decimals"),
        ("1." + "0" * 40 + "1", "2 decimals"),
    ],
)
def test_what_an_account_cannot_be_given(text: str, complaint: str) -> None:
    config = AccountConfig(discounts={"national": Decimal(text)})
    with pytest.raises(InvalidInput, match=complaint) as refused:
        check_config(config)
    assert refused.value.field == "discounts.national"
