"""The histogram of a load test against exact percentiles."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.histogram import Histogram

FRACTIONS = (0.0, 0.1, 0.5, 0.9, 0.99, 0.999, 1.0)
durations = st.lists(st.integers(0, 100_000_000_000), min_size=1, max_size=300)


def exact(values: list[int], fraction: float) -> int:
    return sorted(values)[max(1, math.ceil(fraction * len(values))) - 1]


@given(durations)
def test_percentiles_are_never_too_low_and_a_thousandth_too_high_at_most(values: list[int]) -> None:
    histogram = Histogram(values)

    for fraction in FRACTIONS:
        right, found = exact(values, fraction), histogram.value_at(fraction)
        assert right <= found <= right + right // 1024
    assert histogram.value_at(1) == histogram.max == max(values)
    assert histogram.count == len(values)
    assert histogram.mean == sum(values) / len(values)


@given(durations, durations)
def test_merging_is_counting_all_in_one(left: list[int], right: list[int]) -> None:
    merged = Histogram(left)
    merged.merge(Histogram(right))

    together = Histogram(left + right)
    assert merged.curve() == together.curve()
    assert (merged.count, merged.max, merged.mean) == (
        together.count,
        together.max,
        together.mean,
    )


@given(durations)
def test_the_curve_ascends_to_everything(values: list[int]) -> None:
    curve = Histogram(values).curve()

    assert curve == sorted(curve)
    assert curve[-1] == (1.0, max(values))


def test_small_values_are_exact() -> None:
    histogram = Histogram(range(2048))

    assert [histogram.value_at((value + 1) / 2048) for value in range(2048)] == list(range(2048))


def test_a_wide_spread_takes_little_room() -> None:
    rng = random.Random(1)
    histogram = Histogram(int(rng.lognormvariate(13, 2)) for _ in range(100_000))

    assert len(histogram.curve()) < 20_000


def test_without_values_everything_is_zero() -> None:
    histogram = Histogram()

    assert (histogram.value_at(0.99), histogram.max, histogram.mean) == (0, 0, 0.0)
    assert histogram.curve() == []


def test_a_negative_duration_is_refused() -> None:
    with pytest.raises(ValueError, match="below 0"):
        Histogram([5, -1])


def test_only_fractions_are_percentiles() -> None:
    with pytest.raises(ValueError, match="no fraction"):
        Histogram([1]).value_at(99)
