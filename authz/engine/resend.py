"""The resend window: what this process booked last, booked again after the store has lost some.

A store that lost power, or a replica that was promoted, may have lost its last moments although
it had answered. Everything that moves money is idempotent by its key, so that saying it again
costs nothing where it was kept, and books it where it was lost.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

from msgspec import Struct

from authz import log
from authz.errors import AuthzError, NotExecuted, OutcomeUnknown
from authz.meters import now_ms

WINDOW_MS: Final = 10_000
#: However long the store was away, nothing older is said again: what makes an operation
#: idempotent is kept for at least so long.
_AGE_MS_MAX: Final = 86_400_000
_OPERATIONS_MAX: Final = 200_000
#: Operations sent again at once: few enough to leave the connection to live traffic.
_BATCH: Final = 64
_PAUSE_SECONDS: Final = 0.2

#: Performs the whole operation again, with what the store knows by then, and reports to nobody.
#: Ten seconds of a busy process are tens of thousands: what is kept for each settle is made of
#: records without `gc`, as the cyclic garbage collector would stop all calls to walk over them.
Operation = Callable[[], Awaitable[object]]


class _Kept(Struct, gc=False):
    """When an operation was done, and how to do it again; as `Operation` says, no tuple."""

    done_ms: int
    operation: Operation


class ResendWindow:
    """Keeps the operations of the last ten seconds and repeats them when the store lost any.

    The seconds end with the last operation that the store has answered: an outage, however long,
    uses none of them up.

    Give it every settle, credit and debit that the store has answered (`remember`) and the
    bucket's ledger sequence in that answer (`observe`); register `repeat` with
    `StoreClient.on_run_id_change`. An operation must not remember itself when it is repeated.
    """

    def __init__(
        self,
        *,
        window_ms: int = WINDOW_MS,
        operations_max: int = _OPERATIONS_MAX,
        clock_ms: Callable[[], int] = now_ms,
    ) -> None:
        self._window_ms = window_ms
        self._clock_ms = clock_ms
        self._kept: deque[_Kept] = deque(maxlen=operations_max)
        self._due: deque[Operation] = deque()
        self._sequences: dict[str, int] = {}
        self._task: asyncio.Task[None] | None = None

    @property
    def operations(self) -> int:
        """How many operations are kept or wait to be repeated."""
        return len(self._kept) + len(self._due)

    def remember(self, operation: Operation) -> None:
        """Keep an operation that the store has just answered."""
        done_ms = self._clock_ms()
        oldest_ms = done_ms - self._window_ms
        kept = self._kept
        while kept and kept[0].done_ms < oldest_ms:
            kept.popleft()
        kept.append(_Kept(done_ms, operation))

    def observe(self, tag: str, sequence: int) -> None:
        """Take note of the ledger sequence that a fresh booking in this bucket was given.

        One below an earlier one means that the bucket has forgotten bookings.
        """
        before = self._sequences.get(tag, 0)
        self._sequences[tag] = sequence
        if sequence < before:
            log.event(
                "store_went_back", level="error", bucket=tag, before=before, sequence=sequence
            )
            self.repeat("", "")

    def repeat(self, _previous: str, _present: str) -> None:
        """Perform everything in the window again; the arguments (run ids) do not matter."""
        oldest_ms = self._clock_ms() - _AGE_MS_MAX
        self._due.extend(one.operation for one in self._kept if one.done_ms >= oldest_ms)
        self._kept.clear()
        self._sequences.clear()
        self._start()

    async def finished(self) -> None:
        """Wait until everything that is due has been repeated."""
        while self._task is not None:
            await asyncio.wait((self._task,))

    async def close(self) -> None:
        """Stop repeating."""
        task = self._task
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def forget(self) -> None:
        """Drop everything: what is kept refers back to the engine that keeps it, out of any
        collector's sight.
        """
        self._kept.clear()
        self._due.clear()

    def _start(self) -> None:
        if self._due and self._task is None:
            self._task = asyncio.create_task(self._repeat_due(), name="resend")
            self._task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if task.cancelled():
            return
        if (error := task.exception()) is not None:
            log.event("resend_failed", level="error", error=error)
        else:
            # Another loss may have been noticed since the task found nothing more to do.
            self._start()

    async def _repeat_due(self) -> None:
        log.event("resend_started", operations=len(self._due))
        repeated = 0
        while self._due:
            batch = [self._due.popleft() for _ in range(min(_BATCH, len(self._due)))]
            results = await asyncio.gather(*map(self._perform, batch))
            unsent = [one for one, done in zip(batch, results, strict=True) if not done]
            repeated += len(batch) - len(unsent)
            if unsent:
                self._due.extendleft(reversed(unsent))
                await asyncio.sleep(_PAUSE_SECONDS)
        log.event("resend_finished", operations=repeated)

    async def _perform(self, operation: Operation) -> bool:
        """Return False if the store did not answer, so that it must be tried again."""
        try:
            await operation()
        except (NotExecuted, OutcomeUnknown):
            return False
        except AuthzError as error:
            # It was answered before; what refuses it now is a change made since.
            log.event("resend_refused", level="error", error=error)
            return True
        self.remember(operation)
        return True
