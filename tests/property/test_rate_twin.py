"""Rating against its pure-Python twin, over a large random space."""

from __future__ import annotations

import math
import pickle

from hypothesis import example, given, settings
from hypothesis import strategies as st
from rate_twin import RateTwin, TierTwin, WindowTwin

from authz_ext import rating
from authz_ext.rating import Rate

#: Zones with half-hour and quarter-hour offsets, a half-hour DST, a DST in the southern summer,
#: a change at midnight, and a day that was left out (Apia, 2011-12-30).
ZONES = (
    "UTC", "America/New_York", "Europe/Berlin", "Australia/Lord_Howe", "Asia/Kathmandu",
    "America/Santiago", "Asia/Beirut", "Africa/Casablanca", "Pacific/Apia",
)  # fmt: skip
#: Around changes of the clock in those zones, besides any moment at all.
CHANGES = (
    1_741_503_600,  # 2025-03-09 New York, forward
    1_762_063_200,  # 2025-11-02 New York, back
    1_743_296_400,  # 2025-03-30 Berlin, forward
    1_761_440_400,  # 2025-10-26 Berlin, back
    1_743_865_200,  # 2025-04-05 Lord Howe, half an hour back
    1_743_282_000,  # 2025-03-30 Beirut, forward at midnight
    1_757_217_600,  # 2025-09-07 Santiago, forward at midnight
    1_325_239_200,  # 2011-12-30 Apia, a day forward
    1_740_276_000,  # 2025-02-23 Casablanca, back for Ramadan
)
SECONDS_MAX = rating.SECONDS_MAX

prices = st.one_of(
    st.just(0),
    st.integers(1, 3_000_000_000),
    st.integers(1, 1_000_000).map(lambda price: price * 100_000),
    st.integers(1, rating.PRICE_NANOS_MAX),
)
per_seconds = st.one_of(st.sampled_from((1, 6, 7, 30, 60, 3600)), st.integers(1, 86_400))
increments = st.one_of(st.sampled_from((1, 6, 30, 60)), st.integers(1, 400))
discounts = st.one_of(st.just(0), st.sampled_from((1, 1_250, 9_999, 10_000)), st.integers(1, 9_999))
moments = st.one_of(
    st.integers(0, 4_000_000_000),
    st.tuples(st.sampled_from(CHANGES), st.integers(-90_000, 90_000)).map(sum),
)


@st.composite
def tier_lists(draw: st.DrawFn, increment: st.SearchStrategy[int]) -> tuple[TierTwin, ...]:
    """Draw one to five tiers that start at 0 and rise."""
    starts = sorted({0} | draw(st.sets(st.integers(1, 2_000), max_size=4)))
    return tuple(
        TierTwin(start, draw(prices), draw(per_seconds), draw(increment)) for start in starts
    )


@st.composite
def terms(draw: st.DrawFn, increment: st.SearchStrategy[int], *, timed: bool = False) -> WindowTwin:
    """Draw the terms of one window; timed ones are open at some time of the week."""
    start_minute = draw(st.integers(0, 1439)) if timed else 0
    return WindowTwin(
        tiers=draw(tier_lists(increment)),
        connect_fee=draw(st.one_of(st.just(0), st.integers(0, 2_000_000))),
        free_seconds=draw(st.one_of(st.just(0), st.integers(0, 90))),
        days=draw(st.integers(1, 127)) if timed else 0,
        start_minute=start_minute,
        end_minute=draw(st.integers(1, 1440).filter(lambda end: end != start_minute))
        if timed
        else 1440,
    )


@st.composite
def rates(
    draw: st.DrawFn, *, windows_max: int = 0, increment: st.SearchStrategy[int] = increments
) -> RateTwin:
    """Draw a rate."""
    return RateTwin(
        base=draw(terms(increment)),
        windows=tuple(draw(st.lists(terms(increment, timed=True), max_size=windows_max))),
        timezone=draw(st.sampled_from(ZONES)),
        rounding_mode=draw(st.sampled_from(("up", "half_up", "down"))),
        rounding_decimals=draw(st.integers(0, 6)),
        max_cost=draw(st.one_of(st.none(), st.integers(0, 50_000_000))),
        max_cost_action=draw(st.sampled_from(("free", "end"))),
        discount_basis_points=draw(discounts),
    )


def has_denominator(twin: RateTwin) -> bool:
    """Say whether the per_seconds of all tiers have a common multiple that a Rate accepts."""
    terms = (twin.base, *twin.windows)
    return math.lcm(*(tier.per_seconds for one in terms for tier in one.tiers)) <= 10**15


plain = rates().filter(has_denominator)
windowed = rates(windows_max=3, increment=st.integers(20, 4_000)).filter(has_denominator)
coarse = rates(windows_max=2, increment=st.integers(3_000, 86_400)).filter(has_denominator)
any_rate = st.one_of(plain, windowed)


@settings(max_examples=400, deadline=None)
@given(plain, st.integers(0, 20_000))
@example(RateTwin(WindowTwin((TierTwin(0, 13_700_000, 60, 1),))), 61)
def test_cost_is_the_twins(twin: RateTwin, seconds: int) -> None:
    assert twin.rate().cost(seconds) == twin.cost(seconds)


@settings(max_examples=400, deadline=None)
@given(windowed, st.integers(0, 200_000), moments)
def test_cost_in_windows_is_the_twins(twin: RateTwin, seconds: int, answered_at: int) -> None:
    assert twin.rate().cost(seconds, answered_at) == twin.cost(seconds, answered_at)


@settings(max_examples=150, deadline=None)
@given(coarse, st.integers(SECONDS_MAX - 100_000, SECONDS_MAX), moments)
def test_cost_of_the_longest_calls_is_the_twins(
    twin: RateTwin, seconds: int, answered_at: int
) -> None:
    assert twin.rate().cost(seconds, answered_at) == twin.cost(seconds, answered_at)


@settings(max_examples=400, deadline=None)
@given(any_rate, st.data(), moments)
def test_seconds_for_is_the_exact_inverse(
    twin: RateTwin, data: st.DataObject, answered_at: int
) -> None:
    rate = twin.rate()
    limit = data.draw(st.integers(0, 30_000))
    near = rate.cost(data.draw(st.integers(0, 30_000)), answered_at)
    amount = max(0, near + data.draw(st.integers(-1, 1)))
    seconds = rate.seconds_for(amount, answered_at, limit)
    assert 0 <= seconds <= limit
    assert rate.cost(seconds, answered_at) <= amount
    if seconds == limit:
        return
    assert rate.cost(seconds + 1, answered_at) > amount
    ends = {0, twin.window_at(answered_at).free_seconds}
    ends |= {
        start + tier.increment_seconds for start, tier in twin.increments(seconds, answered_at)
    }
    assert seconds in ends


@settings(max_examples=300, deadline=None)
@given(any_rate, st.integers(0, 30_000), st.integers(0, 4_000), moments)
def test_cost_never_falls(twin: RateTwin, seconds: int, more: int, answered_at: int) -> None:
    rate = twin.rate()
    assert rate.cost(seconds, answered_at) <= rate.cost(seconds + more, answered_at)


@settings(max_examples=300, deadline=None)
@given(any_rate, st.integers(0, 10**18), st.integers(0, 10**18), moments)
def test_more_money_never_buys_less(twin: RateTwin, one: int, other: int, answered_at: int) -> None:
    rate = twin.rate()
    less, more = sorted((one, other))
    assert rate.seconds_for(less, answered_at) <= rate.seconds_for(more, answered_at)


@settings(max_examples=150, deadline=None)
@given(windowed, st.integers(0, 5_000), moments, st.integers(0, 1_200), st.integers(0, 10**9))
def test_hold_is_the_dearest_open_window(
    twin: RateTwin, seconds: int, now: int, ring_seconds: int, amount: int
) -> None:
    rate = twin.rate()
    hold = rate.hold(seconds, now, ring_seconds)
    assert hold == twin.hold(seconds, now, ring_seconds)
    affordable = rate.hold_seconds_for(amount, now, ring_seconds, 5_000)
    assert rate.hold(affordable, now, ring_seconds) <= amount
    assert affordable == 5_000 or rate.hold(affordable + 1, now, ring_seconds) > amount


@settings(max_examples=300, deadline=None)
@given(any_rate, moments)
def test_first_priced_is_the_shortest_priced_call(twin: RateTwin, answered_at: int) -> None:
    rate = twin.rate()
    seconds, cost = rate.first_priced(answered_at)
    if seconds == 0:
        assert cost == rate.cost(SECONDS_MAX, answered_at) == 0
        return
    assert cost == rate.cost(seconds, answered_at) > 0
    free = rate.seconds_for(0, answered_at)
    assert free < seconds
    assert rate.cost(free + 1, answered_at) == cost
    last_start, tier = twin.increments(free + 1, answered_at)[-1] if free < 30_000 else (0, None)
    assert tier is None or seconds == min(SECONDS_MAX, last_start + tier.increment_seconds)


@settings(max_examples=300, deadline=None)
@given(any_rate, st.integers(0, 20_000), moments)
def test_increment_at_is_the_one_around_the_second(
    twin: RateTwin, second: int, answered_at: int
) -> None:
    _, tier = twin.increments(second + 1, answered_at)[-1]
    assert twin.rate().increment_at(second, answered_at) == tier.increment_seconds


@settings(max_examples=300, deadline=None)
@given(any_rate, moments)
def test_end_at_max_cost_is_where_it_is_reached(twin: RateTwin, answered_at: int) -> None:
    rate = twin.rate()
    seconds = rate.seconds_until_max_cost(answered_at)
    if twin.max_cost is None or twin.max_cost_action == "free":
        assert seconds is None
        return
    assert seconds is not None
    assert rate.cost(seconds, answered_at) <= twin.max_cost
    assert seconds == SECONDS_MAX or rate.cost(seconds + 1, answered_at) > twin.max_cost


@settings(max_examples=300, deadline=None)
@given(any_rate, any_rate)
def test_packed_rates_come_back_and_compare(twin: RateTwin, other: RateTwin) -> None:
    rate, another = twin.rate(), other.rate()
    again = Rate.unpack(rate.pack())
    assert again == rate
    assert hash(again) == hash(rate)
    assert repr(again) == repr(rate)
    assert pickle.loads(pickle.dumps(rate)) == rate
    assert (rate == another) == (repr(rate) == repr(another))


@settings(max_examples=500, deadline=None)
@given(any_rate, st.data())
def test_garbage_is_refused_or_is_a_rate(twin: RateTwin, data: st.DataObject) -> None:
    packed = bytearray(twin.rate().pack())
    for _ in range(data.draw(st.integers(1, 3))):
        packed[data.draw(st.integers(0, len(packed) - 1))] = data.draw(st.integers(0, 255))
    packed = packed[: data.draw(st.integers(0, len(packed) + 5))]
    try:
        rate = Rate.unpack(bytes(packed))
    except ValueError:
        return
    assert rate.pack() == bytes(packed)


@given(st.binary(max_size=64))
def test_random_bytes_are_refused_or_are_a_rate(data: bytes) -> None:
    try:
        rate = Rate.unpack(data)
    except ValueError:
        return
    assert rate.pack() == data
