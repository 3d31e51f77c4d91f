"""An event loop on which nothing is waited for in vain, for calls that last minutes.

When nobody has anything to do, its clock goes on to the next timer at once. Switch and agent,
which both live on it, agree on the time; while the store has something to answer, time passes as
it does in the world, so that deadlines mean what they say. The store has a time of its own, which
is why leases end late there.
"""

from __future__ import annotations

import asyncio
import selectors
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

#: What was written to a socket of the same process is there by then.
_GRACE_SECONDS = 0.0005
#: How long to wait at a time for others, who may change what is waited for.
_PATIENCE_SECONDS = 0.005


class _Selector(selectors.DefaultSelector):
    """Waits for files, but not for the time."""

    def __init__(self) -> None:
        super().__init__()
        self.is_busy: Callable[[], bool] = lambda: True
        self.skipped_seconds = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait for files; where nobody is busy, let `timeout` have passed."""
        if timeout is None or timeout <= 0:
            return super().select(timeout)
        if self.is_busy():
            return super().select(min(timeout, _PATIENCE_SECONDS))
        began = time.monotonic()
        events = super().select(min(timeout, _GRACE_SECONDS))
        if not events:
            self.skipped_seconds += max(0.0, timeout - (time.monotonic() - began))
        return events


class FastLoop(asyncio.SelectorEventLoop):
    """A loop that skips the time in which nothing happens, once `skip_time` was called."""

    def __init__(self) -> None:
        self._waiting = _Selector()
        super().__init__(self._waiting)

    def time(self) -> float:
        """Return the loop's time, what was skipped included."""
        return super().time() + self._waiting.skipped_seconds

    def skip_time(self, unless: Callable[[], bool]) -> None:
        """Skip idle time from now on, `unless` somebody outside is still to answer."""
        self._waiting.is_busy = unless


def run_fast(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` on a fast loop of its own."""
    with asyncio.Runner(loop_factory=FastLoop) as runner:
        return runner.run(work)
