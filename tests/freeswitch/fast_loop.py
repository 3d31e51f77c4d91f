"""An event loop on which time passes faster, for calls that last minutes.

Everything on the loop agrees on the time: switch, agent, deadlines and pauses. Only the store has
its own, which is why leases end late there.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _FastSelector(selectors.DefaultSelector):
    """Waits shorter than it is asked to."""

    speed = 1.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait for files for `timeout` seconds of the loop."""
        return super().select(None if timeout is None else timeout / self.speed)


class FastLoop(asyncio.SelectorEventLoop):
    """A loop whose seconds are shorter."""

    def __init__(self, speed: float) -> None:
        selector = _FastSelector()
        selector.speed = self._speed = speed
        super().__init__(selector)

    def time(self) -> float:
        """Return the loop's time in its own seconds."""
        return super().time() * self._speed


def run_fast(work: Coroutine[Any, Any, T], speed: float = 20.0) -> T:
    """Run `work` on a loop of its own, `speed` times as fast as the world."""
    with asyncio.Runner(loop_factory=lambda: FastLoop(speed)) as runner:
        return runner.run(work)
