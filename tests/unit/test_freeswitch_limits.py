"""Timers and questions of running calls, and the switch's clock."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.hooks.freeswitch.limits import (
    US,
    SwitchClock,
    first_question_us,
    next_question_us,
    running_timer_seconds,
    used_seconds,
    warning_us,
)

grants = st.integers(2, 100_000)


@given(grants, st.integers(0, 100_000 * US))
def test_a_timer_never_passes_its_grant(granted: int, elapsed_us: int) -> None:
    seconds = running_timer_seconds(granted, elapsed_us)
    if seconds is not None:
        assert seconds >= 1
        # The switch cuts half a second later than it was told, at the worst.
        assert elapsed_us + seconds * US + US // 2 <= granted * US


@given(grants)
def test_a_timer_wastes_no_more_than_it_must(granted: int) -> None:
    assert running_timer_seconds(granted, 0) == granted - 1


@given(grants, st.integers(0, 100_000), st.integers(0, 100_000 * US))
def test_questions_come_later_and_end(granted: int, extend_at: int, elapsed_us: int) -> None:
    asked_us = first_question_us(granted, extend_at, elapsed_us)
    assert asked_us > elapsed_us
    questions = 0
    following = next_question_us(granted, asked_us)
    while following is not None:
        assert asked_us + 2 * US <= following <= granted * US - 3 * US
        asked_us, following = following, next_question_us(granted, following)
        questions += 1
    assert questions < 40


@pytest.mark.parametrize(("elapsed_us", "seconds"), [(-5, 0), (0, 0), (1, 1), (US, 1), (US + 1, 2)])
def test_use_is_reported_in_seconds_begun(elapsed_us: int, seconds: int) -> None:
    assert used_seconds(elapsed_us) == seconds


def test_a_warning_leaves_the_time_it_promises() -> None:
    assert warning_us(60, 20) == 38 * US
    assert warning_us(5, 20) == 0


def test_the_quickest_event_tells_the_time_best() -> None:
    clock = SwitchClock()
    assert clock.now_us(5) is None
    clock.observe(1_000_000, 400)
    clock.observe(1_000_500, 2_000)
    assert clock.now_us(2_000) == 1_001_600
    clock.observe(1_003_000, 2_100)
    assert clock.now_us(2_100) == 1_003_000


def test_a_clock_that_was_set_back_is_believed() -> None:
    clock = SwitchClock()
    clock.observe(10_000 * US, 0)
    clock.observe(9_000 * US, 10)
    assert clock.now_us(10) == 9_000 * US
