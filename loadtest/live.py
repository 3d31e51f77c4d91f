"""The live line: what a load test does now, on standard error."""

from __future__ import annotations

from types import TracebackType
from typing import Final, Self

from rich.console import Console
from rich.status import Status
from rich.text import Text

from loadtest.fleet import Tick

#: Where nobody watches, a line every so many seconds will do.
_PIPE_SECONDS: Final = 5


class LiveLine:
    """One line that changes on a terminal; a few plain lines elsewhere. A context manager."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._status: Status | None = None
        self._stage = ""
        self._ticks = 0

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._status = self._console.status("")
            self._status.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._status is not None:
            self._status.stop()

    def stage(self, text: str) -> None:
        """Say what begins."""
        self._stage = text
        self._ticks = 0
        self._show(text)
        if self._status is None:
            self._console.print(f"{text} ...", markup=False)

    def progress(self, what: str, done: int, total: int) -> None:
        """Say how much of the stage is done."""
        self._show(f"{self._stage}: {what} {done:,} of {total:,}")

    def tick(self, tick: Tick) -> None:
        """Say how the last second of load went."""
        self._ticks += 1
        text = line(tick)
        self._show(f"{self._stage} {text}")
        if self._status is None and self._ticks % _PIPE_SECONDS == 0:
            self._console.print(text, markup=False, soft_wrap=True)

    def _show(self, text: str) -> None:
        if self._status is not None:
            self._status.update(Text(text, no_wrap=True, overflow="ellipsis"))


def line(tick: Tick) -> str:
    """Return a second of load in one line."""
    return (
        f"{max(0.0, tick.elapsed_seconds):5.0f} s  {tick.answered:>7,}/s  p50 {tick.p50_ms:.2f}  "
        f"p99 {tick.p99_ms:.2f} ms  denied {tick.denied:,}  failed {tick.failed:,}  "
        f"in flight {tick.in_flight:,}  calls {tick.calls:,}"
    )
