"""What a process remembers of its calls is nothing that the cyclic garbage collector walks over.

It would stop all calls meanwhile, for a time that grows with the calls that are remembered.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

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
