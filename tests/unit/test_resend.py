"""The resend window: what is kept, and what is done again when the store lost its last moments."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from authz.engine.resend import Operation, ResendWindow
from authz.errors import AuthzError, CallUnknown, NotExecuted, OutcomeUnknown


class Clock:
    """Milliseconds that pass only when told."""

    def __init__(self) -> None:
        self.now_ms = 1_000_000

    def __call__(self) -> int:
        return self.now_ms


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def window(clock: Clock) -> ResendWindow:
    return ResendWindow(clock_ms=clock)


@pytest.fixture
def done() -> list[str]:
    """What was performed again, in order."""
    return []


@pytest.fixture
def keep(window: ResendWindow, done: list[str]) -> Callable[..., None]:
    """Remember an operation that fails as told before it succeeds."""

    def keep(name: str, *failures: AuthzError) -> None:
        failing = iter(failures)

        async def perform() -> None:
            if (error := next(failing, None)) is not None:
                raise error
            done.append(name)

        operation: Operation = perform
        window.remember(operation)

    return keep


async def test_the_last_ten_seconds_are_done_again_in_order(window, clock, keep, done):
    keep("old")
    clock.now_ms += 10_001
    for name in ("first", "second", "third"):
        keep(name)
    window.repeat("before", "after")
    await window.finished()
    assert done == ["first", "second", "third"]


async def test_an_outage_does_not_use_up_the_window(window, clock, keep, done):
    keep("last before the power went")
    clock.now_ms += 600_000
    window.repeat("before", "after")
    await window.finished()
    assert done == ["last before the power went"]


async def test_what_is_a_day_old_is_not_done_again(window, clock, keep, done):
    keep("old")
    clock.now_ms += 86_400_001
    window.repeat("before", "after")
    await window.finished()
    assert done == []


async def test_what_was_done_again_is_done_again_after_the_next_loss(window, keep, done):
    keep("settle")
    for _ in range(3):
        window.repeat("before", "after")
        await window.finished()
    assert done == ["settle"] * 3


async def test_what_the_store_does_not_take_is_tried_until_it_does(window, keep, done):
    keep("a", NotExecuted("away"), OutcomeUnknown("lost"))
    keep("b")
    window.repeat("before", "after")
    await window.finished()
    assert sorted(done) == ["a", "b"]


async def test_one_that_is_refused_does_not_hold_up_the_rest(window, keep, done):
    keep("refused", CallUnknown("gone"))
    keep("kept")
    window.repeat("before", "after")
    await window.finished()
    assert done == ["kept"]
    assert window.operations == 1


async def test_a_sequence_that_goes_back_is_a_loss(window, keep, done):
    keep("settle")
    for sequence in (5, 6, 7):
        window.observe("17", sequence)
    window.observe("18", 1)
    await asyncio.sleep(0)
    assert done == []
    window.observe("17", 7)
    window.observe("17", 6)
    await window.finished()
    assert done == ["settle"]


async def test_closing_ends_what_waits_for_the_store(window, keep, done):
    keep("never", *(NotExecuted("away") for _ in range(1_000)))
    window.repeat("before", "after")
    await asyncio.sleep(0.01)
    await window.close()
    assert done == []
