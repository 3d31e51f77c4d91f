"""Settles of ended calls, said until they are answered.

The engine books a settle or keeps it on disk; only while it can do neither (a full disk) does one
wait here, and is said again with growing pauses.
"""

from __future__ import annotations

import asyncio
from typing import Final

from authz import log, meters
from authz.engine.engine import Engine
from authz.errors import AuthzError, CallUnknown, InvalidInput, SettledDifferently
from authz.model import SettleRequest

_PAUSE_SECONDS_FIRST: Final = 0.5
_PAUSE_SECONDS_MAX: Final = 10.0
#: Settles that wait to be said again; the one beyond is given up, loudly.
WAITING_MAX: Final = 20_000
_SETTLED: Final = meters.counter("authz_freeswitch_settled_total")
_GIVEN_UP: Final = meters.counter("authz_freeswitch_settles_given_up_total")


class Settler:
    """Books ended calls. `settle` returns when the call is booked or safe; see `submit`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._tasks: set[asyncio.Task[None]] = set()
        #: Calls booked or spooled since the start, and those that nobody could book.
        self.settled = 0
        self.failed = 0

    @property
    def waiting(self) -> int:
        """How many settles are not answered yet."""
        return len(self._tasks)

    def submit(self, request: SettleRequest) -> None:
        """Have a call settled in the background, whatever it takes."""
        if len(self._tasks) >= WAITING_MAX:
            self._give_up(request, "too many settles wait")
            return
        task = asyncio.get_running_loop().create_task(self._settle(request))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def drain(self, limit_seconds: float) -> None:
        """Wait for the settles under way; those still waiting at the limit are written down."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=limit_seconds)
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _settle(self, request: SettleRequest) -> None:
        pause_seconds = _PAUSE_SECONDS_FIRST
        try:
            while not await self._is_settled(request):
                await asyncio.sleep(pause_seconds)
                pause_seconds = min(2 * pause_seconds, _PAUSE_SECONDS_MAX)
        except asyncio.CancelledError:
            self._give_up(request, "the process ends")
            raise

    async def _is_settled(self, request: SettleRequest) -> bool:
        """Say the settle once; return whether it need not be said again."""
        try:
            await self._engine.settle(request)
        except (CallUnknown, SettledDifferently, InvalidInput) as error:
            # Nothing will change these answers.
            self._give_up(request, f"{type(error).__name__}: {error}")
            return True
        except AuthzError as error:
            log.event(
                "settle_waits",
                level="warning",
                account=request.account,
                call_id=request.call_id,
                error=error,
            )
            return False
        self.settled += 1
        _SETTLED.add()
        return True

    def _give_up(self, request: SettleRequest, reason: str) -> None:
        self.failed += 1
        _GIVEN_UP.add()
        log.event(
            "call_not_settled",
            level="error",
            account=request.account,
            call_id=request.call_id,
            seconds=request.seconds,
            reason=reason,
        )
