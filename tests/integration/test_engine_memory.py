"""What a process remembers of its calls is nothing that the cyclic garbage collector walks over.

It would stop all calls meanwhile, for a time that grows with the calls that are remembered.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
from world import PriceList, per_minute

CALLS = 300
#: What else the process may come to keep meanwhile.
OTHERS_MAX = CALLS // 4


@pytest.fixture
def collected_by_hand() -> Iterator[None]:
    """Let no collection untrack or free anything but those of the test."""
    gc.disable()
    yield
    gc.enable()


def tracked() -> int:
    """Return how many objects the collector would walk over; new pairs of texts count."""
    return len(gc.get_objects())


@pytest.mark.usefixtures("collected_by_hand")
async def test_calls_leave_nothing_to_the_collector(world):
    await world.pair(sub="100", master="100")
    # Chains, terms and prepared commands come to be once.
    for name in ("one", "other"):
        await world.granted(name)
        await world.reserve(name, used_seconds=1)
        await world.settle(name, 60)
    gc.collect()
    at_first = tracked()
    for number in range(CALLS):
        await world.granted(f"live-{number}")
    while_live = tracked()
    assert world.engine.context.gate.call_count == CALLS
    assert while_live - at_first < OTHERS_MAX
    for number in range(CALLS):
        await world.settle(f"live-{number}", 60)
    assert world.engine.context.resend.operations >= CALLS
    assert world.engine.context.gate.call_count == 0
    assert tracked() - at_first < OTHERS_MAX


@pytest.mark.usefixtures("collected_by_hand")
async def test_numbers_all_over_a_deck_leave_nothing_to_the_collector(world):
    rows = {f"44{number:04}": per_minute("0.01") for number in range(CALLS)}
    world.decks["retail"] = PriceList(rows)
    await world.pair(sub="100", master="100")
    await world.granted("first", to="+440000123456")
    gc.collect()
    at_first = tracked()
    for number in range(CALLS):
        await world.granted(f"call-{number}", to=f"+44{number:04}123456")
    # A look finds that a tuple holds nothing to follow; the next one that a tuple of it does not.
    gc.collect()
    gc.collect()
    assert tracked() - at_first < OTHERS_MAX
