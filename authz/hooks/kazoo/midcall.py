"""A call from its start to its end: more time while it runs, a warning, and its end in time.

An extension is asked for only on evidence younger than one chunk: an event of the channel, or its
presence among the channels that an ecallmgr tells of. Every process looks at every call, and goes
on with one whose own process does not: asking twice changes nothing.
"""

from __future__ import annotations

import asyncio
from typing import Final

from authz import log
from authz.config.kazoo import KazooSettings
from authz.engine.engine import Engine
from authz.engine.excuses import ExcusedReserve
from authz.errors import AuthzError
from authz.hooks.kazoo.calls import CallBook, LiveCall
from authz.hooks.kazoo.dids import DidLimits
from authz.hooks.kazoo.errors import KazooError
from authz.hooks.kazoo.hangups import Hangups
from authz.model import SECONDS_MAX, Denial, Grant

#: How long before the end of its grant a call is hung up: what the order takes on its way.
CUT_AHEAD_SECONDS: Final = 2.0
#: How long before that another process takes over a call that its own one has not extended.
_TAKE_OVER_SECONDS: Final = 8.0
_AGAIN_SECONDS: Final = 5.0
_SOON_SECONDS: Final = 2.0
#: After so many orders in vain a call is only tried to be hung up once a minute.
_HANGUPS_QUICK: Final = 6
_HANGUP_SLOW_SECONDS: Final = 60.0
#: Denials by which the call is none any more, or another one.
_GONE_REASONS: Final = frozenset(("call_ended", "call_id_conflict", "call_unknown"))


def cut_seconds(granted_seconds: int) -> float:
    """Return after how many seconds of talk a call is hung up that is granted so many."""
    return granted_seconds - min(CUT_AHEAD_SECONDS, granted_seconds / 4)


class Supervisor:
    """Looks after the calls of a book."""

    def __init__(
        self,
        engine: Engine,
        settings: KazooSettings,
        book: CallBook,
        hangups: Hangups,
        dids: DidLimits,
    ) -> None:
        self._engine = engine
        self._settings = settings
        self._calls = engine.context.settings.calls
        self._book = book
        self._hangups = hangups
        self._dids = dids
        self._tasks: set[asyncio.Task[None]] = set()
        #: Calls extended, taken over from others, and hung up for want of money, since the start.
        self.extended = 0
        self.taken_over = 0
        self.cut = 0

    # What is told of a call.

    def start(self, call: LiveCall, grant: Grant | None) -> None:
        """Look after a call that was let through here; without a grant, if nobody else does."""
        if grant is None:
            call.is_own = False
        else:
            self._take_grant(call, grant)
        self._plan(call)

    def answered(self, call: LiveCall, seconds_ago: float) -> None:
        """The call is answered: from now on it costs."""
        if call.answered_at is None:
            call.answered_at = self._now() - seconds_ago
            self._plan(call)

    def hear(self, call: LiveCall) -> None:
        """Note that the switch has told of the call."""
        call.heard_at = self._now()
        call.missed = 0

    def stop(self, call: LiveCall) -> None:
        """Look after a call no more."""
        self._book.drop(call)
        call.alarm += 1

    async def drain(self, limit_seconds: float) -> None:
        """Finish what is under way and begin nothing more; others take the calls over."""
        for call in self._book:
            self.stop(call)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=limit_seconds)
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # When to look at it.

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _plan(self, call: LiveCall) -> None:
        """Set the call's next alarm to the first thing that is to be done."""
        now = self._now()
        if not call.is_own:
            self._wake_at(call, self._foreign_moment(call, now))
        elif call.answered_at is None:
            self._wake_at(call, max(now + 1, call.ring_asked_at + self._calls.ring_seconds / 2))
        else:
            self._wake_at(call, call.answered_at + self._talk_moment(call))

    def _foreign_moment(self, call: LiveCall, now: float) -> float:
        """Return when its own process should have extended it."""
        if call.answered_at is None:
            return now + self._calls.ring_seconds / 2
        granted = call.granted_seconds
        if granted is None:
            granted = self._calls.chunk_seconds
        return call.answered_at + max(0.0, granted - _TAKE_OVER_SECONDS)

    def _talk_moment(self, call: LiveCall) -> float:
        moments = [float(call.extend_at_seconds)]
        if call.granted_seconds is not None:
            moments.append(cut_seconds(call.granted_seconds))
            if call.is_final and not call.is_warned:
                moments.append(call.granted_seconds - self._settings.warning_seconds)
        return max(0.0, min(moments))

    def _wake_at(self, call: LiveCall, moment: float) -> None:
        call.alarm += 1
        loop = asyncio.get_running_loop()
        loop.call_at(moment, self._wake, call, call.alarm)

    def _wake(self, call: LiveCall, alarm: int) -> None:
        if alarm != call.alarm or self._book.get(call.call_id) is not call:
            return
        if call.is_working:
            # Events have moved the alarm; whoever works on the call plans anew at its end.
            return
        task = asyncio.get_running_loop().create_task(self._work(call))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _work(self, call: LiveCall) -> None:
        call.is_working = True
        again: float | None = _AGAIN_SECONDS
        try:
            again = await self._look(call)
        except AuthzError as error:
            log.event("kazoo_call_waits", level="warning", call_id=call.call_id, error=error)
        except Exception as error:
            log.event("kazoo_call_waits", level="error", call_id=call.call_id, error=error)
        finally:
            call.is_working = False
        if self._book.get(call.call_id) is not call:
            return
        if again is None:
            self._plan(call)
        else:
            self._wake_at(call, self._now() + again)

    # What is done then. Each returns in how many seconds to look again, None: as planned.

    async def _look(self, call: LiveCall) -> float | None:
        if not call.is_own:
            return await self._look_at_foreign(call)
        if call.answered_at is None:
            return await self._look_at_ringing(call)
        elapsed = call.elapsed_seconds(self._now())
        granted = call.granted_seconds
        if granted is not None and elapsed >= cut_seconds(granted):
            return await self._end(call)
        if granted is not None and call.is_final and not call.is_warned:
            self._warn_in_time(call, granted - elapsed)
        if elapsed >= call.extend_at_seconds:
            if not self._is_evident(call):
                left = _SOON_SECONDS if granted is None else cut_seconds(granted) - elapsed
                return max(0.0, min(_SOON_SECONDS, left))
            await self._ask(call, int(elapsed))
        return None

    async def _look_at_ringing(self, call: LiveCall) -> float | None:
        """Say that it lives while it does; one of which nothing is heard runs out by itself."""
        if self._is_evident(call):
            call.ring_asked_at = self._now()
            await self._ask(call, 0)
            return None
        if self._now() - call.heard_at > self._calls.ring_seconds + self._calls.chunk_seconds:
            self.stop(call)
        return _AGAIN_SECONDS

    async def _look_at_foreign(self, call: LiveCall) -> float | None:
        """Take over a call that nobody has extended in time."""
        state = await self._engine.call(call.account, call.call_id)
        if state is None and self._is_evident(call):
            await self._take_in(call)
            return None
        if state is None or state.state == "settled":
            self.stop(call)
            return None
        call.granted_seconds = state.seconds
        call.is_final = state.final
        if state.seconds is None and state.state == "open":
            # Its own process says that it lives long before its lease ends.
            return max(_AGAIN_SECONDS, self._calls.sign_of_life_seconds / 2)
        elapsed = call.elapsed_seconds(self._now())
        is_late = state.seconds is None or elapsed >= state.seconds - _TAKE_OVER_SECONDS
        if state.state == "open" and not (is_late and call.answered_at is not None):
            return None
        if not self._is_evident(call):
            return _AGAIN_SECONDS
        self.taken_over += 1
        call.is_own = True
        call.extend_at_seconds = int(elapsed)
        log.event("kazoo_call_taken_over", level="debug", call_id=call.call_id)
        await self._ask(call, int(elapsed))
        return None

    async def _take_in(self, call: LiveCall) -> None:
        """Look after a talking call that the store does not know, if it can be paid.

        If it cannot, it is only charged when it ends: nobody has promised to end it.
        """
        if call.answered_at is None or not call.number:
            return
        used_seconds = int(call.elapsed_seconds(self._now()))
        answer = await self._engine.reserve(self._question(call, used_seconds))
        if isinstance(answer, Denial):
            log.event("kazoo_call_not_taken_in", level="warning", call_id=call.call_id,
                      account=answer.account, reason=answer.reason)  # fmt: skip
            self.stop(call)
            return
        self.taken_over += 1
        call.is_own = True
        self._take_grant(call, answer)

    def _is_evident(self, call: LiveCall) -> bool:
        return self._now() - call.heard_at < self._calls.chunk_seconds

    async def _ask(self, call: LiveCall, used_seconds: int) -> None:
        answer = await self._engine.reserve(self._question(call, used_seconds))
        if isinstance(answer, Grant):
            self._take_grant(call, answer)
            await self._dids.renew(call)
        else:
            await self._take_denial(call, answer)

    def _question(self, call: LiveCall, used_seconds: int) -> ExcusedReserve:
        return ExcusedReserve(
            call_id=call.call_id,
            account=call.account,
            used_seconds=min(used_seconds, SECONDS_MAX),
            # With its number, so that one that was let through without the store is taken in.
            to=call.number,
            direction=call.direction,
            switch=call.node,
            excuses=call.excuses,
        )

    def _take_grant(self, call: LiveCall, answer: Grant) -> None:
        before = call.granted_seconds
        call.granted_seconds = answer.seconds
        call.is_final = answer.final
        call.extend_at_seconds = answer.extend_at
        if answer.seconds is None:
            return
        # Of a short grant the engine's moment may be later than the cut.
        latest = int(cut_seconds(answer.seconds) - _SOON_SECONDS)
        call.extend_at_seconds = max(0, min(answer.extend_at, latest))
        if before is None or answer.seconds > before:
            self.extended += before is not None
            call.is_warned = call.is_warned and answer.final
        elapsed = call.elapsed_seconds(self._now())
        if elapsed >= call.extend_at_seconds:
            self._ask_later(call, elapsed)

    def _ask_later(self, call: LiveCall, elapsed: float) -> None:
        """Ask once more before the end: credit may have been booked meanwhile."""
        if call.granted_seconds is not None:
            left = cut_seconds(call.granted_seconds) - elapsed
            call.extend_at_seconds = int(elapsed + max(_SOON_SECONDS, left / 2)) + 1

    async def _take_denial(self, call: LiveCall, answer: Denial) -> None:
        if answer.reason in _GONE_REASONS:
            self.stop(call)
            return
        log.event("kazoo_extension_denied", call_id=call.call_id, account=answer.account,
                  reason=answer.reason)  # fmt: skip
        elapsed = call.elapsed_seconds(self._now())
        if call.granted_seconds is None:
            # Nothing else would ever end it.
            call.granted_seconds = int(elapsed)
        call.is_final = True
        self._ask_later(call, elapsed)

    def _warn_in_time(self, call: LiveCall, left_seconds: float) -> None:
        """Tell once that the call ends soon."""
        if left_seconds > self._settings.warning_seconds:
            return
        call.is_warned = True
        log.event("kazoo_call_ends_soon", level="warning", call_id=call.call_id,
                  account=call.account, seconds_left=int(left_seconds))  # fmt: skip

    async def _end(self, call: LiveCall) -> float:
        """Hang the call up; its end is settled when it is told."""
        if call.hangups == 0:
            self.cut += 1
            reason = "no_more_time" if call.is_final else "no_sign_of_life"
            log.event("kazoo_call_cut", call_id=call.call_id, account=call.account,
                      seconds=call.granted_seconds, reason=reason)  # fmt: skip
        call.hangups += 1
        try:
            await self._hangups.hang_up(call)
        except KazooError as error:
            log.event("kazoo_hangup_failed", level="error", call_id=call.call_id, error=error)
            return _SOON_SECONDS
        return _AGAIN_SECONDS if call.hangups < _HANGUPS_QUICK else _HANGUP_SLOW_SECONDS
