"""What is due next, against the heap of the standard library."""

from __future__ import annotations

import heapq
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.agenda import Agenda

#: Push a plan for one of few moments, so that many share one, or pop one.
STEPS = st.lists(st.none() | st.integers(0, 20), max_size=200)


@given(STEPS)
def test_the_earliest_comes_first_and_of_one_moment_the_first_made(steps: list[int | None]) -> None:
    agenda = Agenda()
    plans: list[tuple[int, int]] = []
    for number, due_ns in enumerate(steps):
        if due_ns is not None:
            agenda.push(due_ns, number % 3, number)
            heapq.heappush(plans, (due_ns, number))
        elif plans:
            due_ns, number = heapq.heappop(plans)
            assert agenda.pop() == (due_ns, number % 3, number)
        assert len(agenda) == len(plans)
    for due_ns, number in sorted(plans):
        assert agenda.pop() == (due_ns, number % 3, number)


def test_it_grows_as_needed() -> None:
    agenda = Agenda()
    moments = [number * 617 % 10_007 for number in range(10_007)]
    for moment in moments:
        agenda.push(moment, 0, moment)

    popped = [agenda.pop()[0] for _ in moments]

    assert all(before < after for before, after in itertools.pairwise(popped))


def test_nothing_can_be_taken_from_an_empty_one() -> None:
    agenda = Agenda()
    agenda.push(1, 0, 2**64 - 1)
    assert agenda.pop() == (1, 0, 2**64 - 1)

    with pytest.raises(IndexError, match="nothing is planned"):
        agenda.pop()
