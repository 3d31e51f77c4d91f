"""Rating by examples: each one a sentence of the design, or a bound."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest

from authz_ext import rating, zones
from authz_ext.rating import Rate, Tier, Window

CENT_NANOS = 10_000_000
SECONDS_MAX = rating.SECONDS_MAX
#: Monday 2026-01-05, midnight UTC.
MONDAY = 1_767_571_200
HOUR = 3_600
DAY = 86_400
WORKDAYS = 0b0011111


def per_minute(price_nanos: int, first: int = 60, following: int = 60, **terms: Any) -> Rate:
    """Return the rate of a deck row such as `30/6`."""
    tiers = [Tier(0, price_nanos, 60, first)]
    if following != first:
        tiers.append(Tier(first, price_nanos, 60, following))
    return Rate(tiers=tiers, **terms)


def test_the_example_of_the_issue() -> None:
    rate = per_minute(13_700_000, 1, 1)
    assert rate.cost(61) == 13_928
    assert rate.seconds_for(13_928) == 61
    assert rate.seconds_for(13_927) == 60


@pytest.mark.parametrize(
    ("seconds", "micros"),
    [(0, 0), (1, 5_000), (30, 5_000), (31, 6_000), (36, 6_000), (37, 7_000), (60, 10_000)],
)
def test_thirty_six(seconds: int, micros: int) -> None:
    assert per_minute(CENT_NANOS, 30, 6).cost(seconds) == micros


def test_an_increment_may_overrun_the_next_tiers_start() -> None:
    rate = Rate(tiers=[Tier(0, 60_000_000, 60, 40), Tier(60, 6_000_000, 60, 60)])
    # Increments start at 0 and 40 in the first tier; the next starts at 80, in the second.
    assert rate.cost(40) == 40_000
    assert rate.cost(80) == 80_000
    assert rate.cost(81) == 86_000
    assert rate.increment_at(79) == 40
    assert rate.increment_at(80) == 60
    assert rate.seconds_for(85_999) == 80
    assert rate.seconds_for(86_000) == 140


def test_free_seconds_are_an_exemption_not_a_discount() -> None:
    rate = per_minute(CENT_NANOS, 60, 60, free_seconds=5, connect_fee=300)
    assert [rate.cost(seconds) for seconds in (0, 5, 6, 60, 61)] == [0, 0, 10_300, 10_300, 20_300]
    assert rate.seconds_for(10_299) == 5
    assert rate.seconds_for(10_300) == 60
    assert rate.first_priced() == (60, 10_300)


@pytest.mark.parametrize(
    ("mode", "decimals", "micros"),
    [
        ("half_up", 6, 13_928), ("up", 6, 13_929), ("down", 6, 13_928),
        ("half_up", 4, 13_900), ("up", 4, 14_000), ("down", 4, 13_900),
        ("half_up", 2, 10_000), ("up", 2, 20_000), ("down", 2, 10_000),
        ("half_up", 0, 0), ("up", 0, 1_000_000), ("down", 0, 0),
    ],
)  # fmt: skip
def test_rounding_happens_once(mode: str, decimals: int, micros: int) -> None:
    rate = per_minute(13_700_000, 1, 1, rounding_mode=mode, rounding_decimals=decimals)
    assert rate.cost(61) == micros


def test_half_a_micro_rounds_up() -> None:
    rate = Rate(tiers=[Tier(0, 500, 1, 1)])
    assert [rate.cost(seconds) for seconds in (1, 2, 3)] == [1, 1, 2]
    assert rate.seconds_for(0) == 0
    assert rate.seconds_for(1) == 2


def test_a_greatest_cost_makes_the_rest_free() -> None:
    rate = per_minute(CENT_NANOS, max_cost=25_000)
    assert [rate.cost(seconds) for seconds in (120, 121, 6_000)] == [20_000, 25_000, 25_000]
    assert rate.seconds_for(24_999) == 120
    assert rate.seconds_for(25_000, limit=700) == 700
    assert rate.seconds_until_max_cost() is None


def test_a_greatest_cost_that_ends_the_call_caps_nothing() -> None:
    rate = per_minute(CENT_NANOS, max_cost=25_000, max_cost_action="end")
    assert rate.cost(121) == 30_000
    assert rate.seconds_until_max_cost() == 120


def test_a_limit_within_an_increment_is_the_answer_when_it_is_paid_for() -> None:
    rate = per_minute(CENT_NANOS)
    assert rate.seconds_for(20_000, limit=90) == 90
    assert rate.seconds_for(10_000, limit=90) == 60
    assert rate.seconds_for(9_999, limit=90) == 0
    assert rate.seconds_for(-1) == 0
    assert rate.seconds_for(2**62) == rate.seconds_for(2**63 - 1) == SECONDS_MAX


def test_a_free_rate_needs_no_money() -> None:
    rate = per_minute(0)
    assert rate.is_free
    assert rate.first_priced() == (0, 0)
    assert rate.seconds_for(0) == SECONDS_MAX
    assert rate.per_minute_text() == "0"
    assert not per_minute(0, connect_fee=1).is_free
    assert not per_minute(1).is_free


def test_first_priced_waits_until_the_rounded_cost_is_not_zero() -> None:
    rate = per_minute(CENT_NANOS, 6, 6, rounding_mode="down", rounding_decimals=2)
    assert rate.first_priced() == (60, 10_000)
    later = Rate(tiers=[Tier(0, 0, 60, 60), Tier(90, CENT_NANOS, 60, 60)])
    assert later.first_priced() == (180, 10_000)


def test_the_dearest_call_is_exact() -> None:
    dear = rating.PRICE_NANOS_MAX
    rate = Rate(tiers=[Tier(0, dear, 1, 1)], connect_fee=rating.CONNECT_FEE_MAX)
    assert rate.cost(SECONDS_MAX) == SECONDS_MAX * 10**12 + 10**12 < 2**62
    assert rate.seconds_for(rate.cost(SECONDS_MAX) - 1) == SECONDS_MAX - 1
    # Coprime per_seconds: their common multiple is near the greatest that is accepted.
    odd = [86_399, 86_393, 86_389]
    mixed = Rate(tiers=[Tier(60 * at, dear, per, 60) for at, per in enumerate(odd)])
    assert mixed.cost(180) == round(sum(Fraction(60 * dear, per) for per in odd) / 1_000)


def test_per_minute_prices() -> None:
    rate = Rate(tiers=[Tier(0, 0, 60, 60), Tier(60, 1_000_000, 7, 1), Tier(90, 5_000, 60, 1)])
    assert rate.per_minute_text() == "0.008571429"
    assert rate.dearest_per_minute_nanos == 8_571_429
    assert per_minute(CENT_NANOS).per_minute_text() == "0.01"
    assert per_minute(2_000_000_000).per_minute_text() == "2"
    assert per_minute(1).per_minute_text() == "0.000000001"


# --- windows ---------------------------------------------------------------------------------


def office_hours(**terms: Any) -> Rate:
    """Return 1 cent a minute, and 5 by the second on workdays from 8 to 18, Berlin time."""
    peak = Window(WORKDAYS, 8 * 60, 18 * 60, [Tier(0, 5 * CENT_NANOS, 60, 1)], 7_000, 3)
    return Rate(
        tiers=[Tier(0, CENT_NANOS, 60, 60)], windows=[peak], timezone="Europe/Berlin", **terms
    )


def test_the_window_open_at_an_increments_start_prices_it() -> None:
    rate = office_hours()
    # 7:59:30 in Berlin is 6:59:30 in UTC; the first minute reaches into the window.
    answered_at = MONDAY + 7 * HOUR - 30
    assert rate.cost(60, answered_at) == 10_000
    assert rate.cost(66, answered_at) == 15_000
    assert rate.increment_at(59, answered_at) == 60
    assert rate.increment_at(60, answered_at) == 1
    assert rate.seconds_for(15_000, answered_at) == 66


def test_fee_and_free_seconds_are_those_of_the_answer() -> None:
    rate = office_hours()
    answered_at = MONDAY + 17 * HOUR - 2
    assert rate.cost(3, answered_at) == 0
    assert rate.cost(4, answered_at) == 7_000 + 2 * 833 + 1 + 10_000
    assert rate.cost(1, MONDAY + 17 * HOUR) == 10_000


def test_windows_follow_summer_time() -> None:
    rate = office_hours()
    # 2026-03-27 (Friday) is winter time, 2026-03-30 (Monday) is summer time.
    friday = MONDAY + 81 * DAY
    assert rate.per_minute_text(friday + 7 * HOUR - 1) == "0.01"
    assert rate.per_minute_text(friday + 7 * HOUR) == "0.05"
    monday = friday + 3 * DAY
    assert rate.per_minute_text(monday + 6 * HOUR - 1) == "0.01"
    assert rate.per_minute_text(monday + 6 * HOUR) == "0.05"
    assert rate.per_minute_text(monday + 16 * HOUR) == "0.01"


def test_an_hour_that_comes_twice_is_open_twice() -> None:
    night = Window(127, 120, 180, [Tier(0, CENT_NANOS, 60, 60)])
    rate = Rate(tiers=[Tier(0, 0, 60, 60)], windows=[night], timezone="Europe/Berlin")
    # Sunday 2026-10-25: 2:00 to 3:00 twice, from 0:00 to 2:00 UTC.
    autumn = MONDAY + 293 * DAY
    assert rate.cost(4 * HOUR, autumn - HOUR) == 120 * 10_000
    # Sunday 2026-03-29: 2:00 to 3:00 is left out.
    spring = MONDAY + 83 * DAY
    assert rate.cost(4 * HOUR, spring - HOUR) == 0
    assert rate.first_priced(spring - HOUR)[0] > 20 * HOUR


def test_a_window_past_midnight_belongs_to_the_day_it_starts_on() -> None:
    friday_night = Window(1 << 4, 22 * 60, 6 * 60, [Tier(0, CENT_NANOS, 60, 60)])
    rate = Rate(tiers=[Tier(0, 0, 60, 60)], windows=[friday_night])
    friday = MONDAY + 4 * DAY
    prices = {
        friday + 5 * HOUR: "0",
        friday + 22 * HOUR - 1: "0",
        friday + 22 * HOUR: "0.01",
        friday + 30 * HOUR - 1: "0.01",
        friday + 30 * HOUR: "0",
        friday + 46 * HOUR: "0",
    }
    assert {moment: rate.per_minute_text(moment) for moment in prices} == prices


def test_the_earlier_of_two_open_windows_counts() -> None:
    def window(price_nanos: int) -> Window:
        return Window(127, 0, 1440, [Tier(0, price_nanos, 60, 60)])

    rate = Rate(tiers=[Tier(0, 1, 60, 60)], windows=[window(CENT_NANOS), window(5 * CENT_NANOS)])
    assert rate.cost(60, MONDAY) == 10_000


def test_a_hold_takes_the_dearest_window_that_may_be_open_at_answer() -> None:
    rate = office_hours()
    opening = MONDAY + 7 * HOUR
    assert rate.hold(60, opening - 181, 180) == 10_000
    assert rate.hold(60, opening - 180, 180) == 57_000
    assert rate.hold_seconds_for(57_000, opening - 180, 180) == 60
    assert rate.hold_seconds_for(10_000, opening - 181, 180) == 60
    assert rate.hold_seconds_for(2**62, opening, 0, 77) == 77
    closing = MONDAY + 17 * HOUR
    assert rate.hold(60, closing - 1, 180) == 57_000
    assert rate.hold(60, closing, 180) == 10_000


def test_a_month_long_call_through_windows_is_priced_by_the_clock() -> None:
    peak = Window(WORKDAYS, 480, 1080, [Tier(0, 5 * CENT_NANOS, 60, 60)])
    rate = Rate(tiers=[Tier(0, CENT_NANOS, 60, 60)], windows=[peak])
    minutes_of_peak = 4 * 5 * 600
    assert rate.cost(28 * DAY, MONDAY) == (28 * 1440 + 4 * minutes_of_peak) * 10_000


# --- values ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("terms", "complaint"),
    [
        ({"tiers": []}, "tiers: their number"),
        ({"tiers": [Tier(at, 1, 60, 60) for at in range(17)]}, "tiers: their number"),
        ({"tiers": [Tier(1, 1, 60, 60)]}, "start at second 0"),
        ({"tiers": [Tier(0, 1, 60, 60)] * 2}, "must rise"),
        ({"connect_fee": -1}, "connect_fee"),
        ({"connect_fee": rating.CONNECT_FEE_MAX + 1}, "connect_fee"),
        ({"connect_fee": 2**200}, "connect_fee"),
        ({"free_seconds": SECONDS_MAX + 1}, "free_seconds"),
        ({"rounding_mode": "bankers"}, "rounding_mode"),
        ({"rounding_decimals": 7}, "rounding_decimals"),
        ({"rounding_decimals": 2**32 + 6}, "rounding_decimals"),
        ({"max_cost": -1}, "max_cost"),
        ({"max_cost": 2 * 10**15 + 1}, "max_cost"),
        ({"max_cost_action": "stop"}, "max_cost_action"),
        ({"timezone": "Mars/Olympus"}, "time zone"),
        ({"timezone": "Europe"}, "time zone"),
        ({"timezone": "../etc/passwd"}, "time zone"),
        ({"timezone": ""}, "time zone"),
        ({"windows": [Window(1, 0, 60, [Tier(0, 1, 60, 60)])] * 17}, "windows: their number"),
        ({"tiers": [Tier(at, 1, 86_399 - at, 60) for at in range(8)]}, "common multiple"),
    ],
)
def test_what_a_rate_cannot_be(terms: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Rate(**{"tiers": [Tier(0, 1, 60, 60)], **terms})


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ((-1, 1, 60, 60), "from_second"),
        ((SECONDS_MAX + 1, 1, 60, 60), "from_second"),
        ((0, -1, 60, 60), "price_nanos"),
        ((0, rating.PRICE_NANOS_MAX + 1, 60, 60), "price_nanos"),
        ((0, 1, 0, 60), "per_seconds"),
        ((0, 1, 86_401, 60), "per_seconds"),
        ((0, 1, 60, 0), "increment_seconds"),
        ((0, 1, 60, 86_401), "increment_seconds"),
    ],
)
def test_what_a_tier_cannot_be(fields: tuple[int, int, int, int], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Tier(*fields)


@pytest.mark.parametrize(
    ("days", "start", "end", "complaint"),
    [
        (0, 0, 60, "days"),
        (128, 0, 60, "days"),
        (1, -1, 60, "start_minute"),
        (1, 1440, 60, "start_minute"),
        (1, 0, 1441, "end_minute"),
        (1, 60, 60, "differ"),
    ],
)
def test_what_a_window_cannot_be(days: int, start: int, end: int, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Window(days, start, end, [Tier(0, 1, 60, 60)])


def test_wrong_types_are_named() -> None:
    price: Any = "1"
    with pytest.raises(TypeError, match="price_nanos must be an integer, not str"):
        Tier(0, price, 60, 60)
    tiers: Any = [1]
    with pytest.raises(TypeError, match="expected Tier, got int"):
        Rate(tiers=tiers)
    windows: Any = "x"
    with pytest.raises(TypeError, match="expected Window, got str"):
        Rate(tiers=[Tier(0, 1, 60, 60)], windows=windows)


@pytest.mark.parametrize("seconds", [-1, SECONDS_MAX + 1])
def test_durations_out_of_bounds_are_refused(seconds: int) -> None:
    rate = per_minute(CENT_NANOS)
    questions: tuple[Callable[[], object], ...] = (
        lambda: rate.cost(seconds),
        lambda: rate.seconds_for(1, limit=seconds),
        lambda: rate.hold(seconds, 0, 0),
        lambda: rate.hold(0, 0, seconds),
        lambda: rate.hold_seconds_for(1, 0, 0, seconds),
        lambda: rate.hold_seconds_for(1, 0, seconds),
        lambda: rate.increment_at(seconds),
    )
    for ask in questions:
        with pytest.raises(ValueError, match=r"must be within 0\.\.2678400"):
            ask()


def test_moments_without_a_wall_clock_are_refused() -> None:
    for moment in (-1, zones.MOMENT_MAX + 1):
        with pytest.raises(ValueError, match="moment"):
            office_hours().cost(1, moment)
    assert office_hours().cost(60, zones.MOMENT_MAX) > 0


def test_a_rate_says_what_it_was_made_of() -> None:
    rate = office_hours(
        rounding_mode="up", rounding_decimals=4, max_cost=9, max_cost_action="end",
        discount_basis_points=1_250,
    )  # fmt: skip
    again = Rate(
        tiers=rate.tiers,
        connect_fee=rate.connect_fee,
        free_seconds=rate.free_seconds,
        rounding_mode=rate.rounding_mode,
        rounding_decimals=rate.rounding_decimals,
        max_cost=rate.max_cost,
        max_cost_action=rate.max_cost_action,
        windows=rate.windows,
        timezone=rate.timezone,
        discount_basis_points=rate.discount_basis_points,
    )
    assert again == rate
    assert hash(again) == hash(rate)
    assert again != per_minute(1)
    other: object = "a rate"
    assert again != other
    assert eval(repr(rate)) == rate


def test_what_makes_no_difference_is_not_kept() -> None:
    plain = per_minute(CENT_NANOS)
    assert per_minute(CENT_NANOS, timezone="Europe/Berlin", max_cost_action="end") == plain
    tiers = [Tier(0, 1, 60, 60)]
    assert Window(1, 60, 0, tiers) == Window(1, 60, 1440, tiers)


def test_a_rate_cannot_be_changed() -> None:
    rate: Any = per_minute(CENT_NANOS)
    with pytest.raises(TypeError, match="immutable"):
        rate.__init__(tiers=[Tier(0, 1, 60, 60)])
    for changed, name in ((rate, "connect_fee"), (rate.tiers[0], "price_nanos")):
        with pytest.raises(AttributeError):
            setattr(changed, name, 0)
    assert Rate.__new__(Rate).cost(60) == 0


def test_a_plain_rate_packs_small() -> None:
    dear = Tier(0, rating.PRICE_NANOS_MAX, 86_400, 86_400)
    packed = Rate(tiers=[dear], connect_fee=rating.CONNECT_FEE_MAX, free_seconds=SECONDS_MAX).pack()
    assert len(packed) <= 32
    assert len(per_minute(13_700_000, 1, 1).pack()) == 12


def test_the_greatest_rate_packs() -> None:
    tiers = [Tier(SECONDS_MAX - 20 + at if at else 0, 10**15, 86_400, 86_400) for at in range(16)]
    windows = [Window(127, 1438, 1439, tiers, 10**12, SECONDS_MAX)] * 16
    zone = "America/Argentina/ComodRivadavia"
    rate = Rate(
        tiers=tiers,
        connect_fee=10**12,
        free_seconds=SECONDS_MAX,
        max_cost=2 * 10**15,
        windows=windows,
        timezone=zone,
    )
    assert Rate.unpack(rate.pack()) == rate
    assert len(rate.pack()) < 6_144


@pytest.mark.parametrize("length", range(12))
def test_a_cut_off_rate_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match="packed rate"):
        Rate.unpack(per_minute(13_700_000, 1, 1).pack()[:length])


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda data: b"\x03" + data[1:], "layout"),
        (lambda data: b"\x00" + data[1:], "layout"),
        (lambda data: data[:1] + b"\x03" + data[2:], "rounding"),
        (lambda data: data[:1] + b"\x1d" + data[2:], "rounding"),
        (lambda data: data[:1] + b"\x59" + data[2:], "ends at no cost"),
        (lambda data: data + b"\x00", "left over"),
        (lambda data: data[:-1] + b"\x81\x00", "shortest"),
        (lambda data: data[:-1] + b"\xff" * 12, "shortest"),
        (lambda data: data[:-1] + b"\x00", "increment_seconds"),
    ],
)
def test_packed_garbage_is_refused(change: Any, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Rate.unpack(change(per_minute(13_700_000, 1, 1).pack()))


# --- the wall clock --------------------------------------------------------------------------


def test_zones_know_every_change_of_the_clock() -> None:
    york = zones.zone("America/New_York")
    assert york is zones.zone("America/New_York")
    forward, back = 1_741_503_600, 1_762_063_200
    offsets = [york.offset_at(moment) // 60 for moment in (forward - 1, forward, back - 1, back)]
    assert offsets == [-300, -240, -240, -300]
    # A whole day was left out here, and the offset jumped by 24 hours.
    apia = zones.zone("Pacific/Apia")
    assert [apia.offset_at(1_325_239_200 + second) // 3_600 for second in (-1, 0)] == [-10, 14]


def test_the_cache_of_a_zone_forgets_without_harm() -> None:
    berlin = zones.zone("Europe/Berlin")
    for day in range(0, 3_000 * DAY, DAY):
        berlin.offset_at(MONDAY + day)
    assert berlin.offset_at(MONDAY) == HOUR
