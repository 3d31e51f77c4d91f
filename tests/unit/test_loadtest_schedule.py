"""The schedule of a load test: fixed before the run, whatever the server does."""

from __future__ import annotations

import itertools
import random

import pytest

from loadtest.schedule import NANOS_PER_SECOND, Arrivals, Stretch, arrivals

START_NS = 7 * NANOS_PER_SECOND


def due(stretches: list[Stretch], kind: Arrivals = "even", seed: int = 1) -> list[int]:
    return list(arrivals(stretches, START_NS, kind, random.Random(seed)))


def test_even_arrivals_come_at_equal_distances() -> None:
    moments = due([Stretch(2, 100)])

    gaps = {after - before for before, after in itertools.pairwise(moments)}
    assert len(moments) == 200
    assert all(abs(gap - NANOS_PER_SECOND // 100) <= 1 for gap in gaps)


@pytest.mark.parametrize("kind", ["even", "poisson"])
def test_arrivals_ascend_within_their_stretch(kind: Arrivals) -> None:
    moments = due([Stretch(1, 1000), Stretch(0.5, 50), Stretch(2, 400)], kind)

    assert moments == sorted(moments)
    assert moments[0] >= START_NS
    assert moments[-1] < START_NS + 3.5 * NANOS_PER_SECOND


def test_poisson_arrivals_have_the_wanted_rate_and_uneven_gaps() -> None:
    moments = due([Stretch(20, 1000)], "poisson")

    gaps = [after - before for before, after in itertools.pairwise(moments)]
    mean = sum(gaps) / len(gaps)
    longer = sum(gap > mean for gap in gaps) / len(gaps)
    assert 19_000 < len(moments) < 21_000
    # Of an exponential distribution, 1/e lies above its mean.
    assert 0.34 < longer < 0.40


def test_each_stretch_has_its_own_rate() -> None:
    moments = due([Stretch(1, 100), Stretch(1, 300), Stretch(1, 0), Stretch(1, 10)])

    seconds = [(moment - START_NS) // NANOS_PER_SECOND for moment in moments]
    assert [seconds.count(second) for second in range(4)] == [100, 300, 0, 10]


def test_the_same_seed_repeats_the_schedule() -> None:
    stretches = [Stretch(1, 500)]

    assert due(stretches, "poisson", 5) == due(stretches, "poisson", 5)
    assert due(stretches, "poisson", 5) != due(stretches, "poisson", 6)


def test_even_generators_do_not_fire_together() -> None:
    assert due([Stretch(1, 10)], seed=1)[0] != due([Stretch(1, 10)], seed=2)[0]


def test_nothing_arrives_without_a_rate() -> None:
    assert due([Stretch(5, 0)]) == []
    assert due([]) == []
