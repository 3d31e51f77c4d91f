"""Whether the store answers in time: three misses in a row and nobody waits for it any more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

#: Commands in a row whose deadline passed unanswered that make a store count as down.
MISSES_MAX: Final = 3


class StoreHealth:
    """Counts missed deadlines. `up` is false from the third miss in a row until a probe succeeds.

    `on_down` is called once per change from up to down.
    """

    __slots__ = ("_misses", "_on_down", "up")

    def __init__(self, on_down: Callable[[], None]) -> None:
        self.up = True
        self._misses = 0
        self._on_down = on_down

    def answered(self) -> None:
        """Note that a command was answered in time."""
        self._misses = 0

    def missed(self, count: int) -> None:
        """Note that the deadlines of `count` commands passed without an answer."""
        self._misses += count
        if self.up and self._misses >= MISSES_MAX:
            self.up = False
            self._on_down()

    def recovered(self) -> None:
        """Note that a probe, or the greeting of a new connection, was answered."""
        self.up = True
        self._misses = 0
