"""The legs of one switch, each with its own queue of steps and its alarms.

Steps of one leg are done one after the other, those of different legs at the same time.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from functools import partial
from typing import Any, Final, NamedTuple

from authz import log
from authz.hooks.freeswitch.charged_call import ChargedCall, Phase
from authz.hooks.freeswitch.desk import Alarm, Desk
from authz.hooks.freeswitch.errors import CommandFailed, SwitchError
from authz.hooks.freeswitch.events import Event
from authz.hooks.freeswitch.limits import US
from authz_ext.tables import Latest

#: Steps that wait for one leg; more than any leg has in good order.
_STEPS_MAX: Final = 64
#: Ended legs that are remembered, so that a late event does not bring one back.
_ENDED_MAX: Final = 20_000

Step = Callable[[], Awaitable[None]]


class Leg(NamedTuple):
    """A leg with what waits to be done for it."""

    call: ChargedCall
    steps: deque[Step]
    alarms: dict[Alarm, asyncio.TimerHandle]


class LegQueues:
    """See the module. `alarm_steps` is what each alarm does to its call."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self.alarm_steps: Mapping[Alarm, Callable[[ChargedCall], Awaitable[None]]] = {}
        self._legs: dict[str, Leg] = {}
        self._ended: Latest[str, bool] = Latest(_ENDED_MAX)
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        """Return how many legs are known."""
        return len(self._legs)

    def get(self, uuid: str) -> Leg | None:
        """Return a known leg."""
        return self._legs.get(uuid)

    def all(self) -> Iterable[Leg]:
        """Return the known legs."""
        return tuple(self._legs.values())

    def has_ended(self, uuid: str) -> bool:
        """Return whether a leg has ended a while ago."""
        return uuid in self._ended

    def add(self, call: ChargedCall) -> Leg:
        """Know a leg from now on."""
        leg = self._legs[call.uuid] = Leg(call, deque(), {})
        self._desk.live = len(self._legs)
        return leg

    def remove(self, call: ChargedCall) -> None:
        """Let go of a leg that has ended."""
        self.forget(call.uuid)
        call.phase = Phase.ENDING
        self.remember_ended(call.uuid)

    def forget(self, uuid: str) -> None:
        """Let go of a leg that goes on without us."""
        leg = self._legs.pop(uuid, None)
        if leg is None:
            return
        for handle in leg.alarms.values():
            handle.cancel()
        leg.alarms.clear()
        self._desk.live = len(self._legs)

    def remember_ended(self, uuid: str) -> None:
        """Take no further event of the leg for the beginning of one."""
        self._ended.put(uuid, True)

    def post(self, leg: Leg, step: Step, event: Event | None, *, is_last: bool = False) -> None:
        """Have a step done for a leg after those that wait; `event` is what told of it, if any."""
        if event is not None:
            self._desk.hear(leg.call, event)
        if len(leg.steps) >= _STEPS_MAX and not is_last:
            log.event("call_steps_dropped", level="error", call_id=leg.call.call_id)
            return
        leg.steps.append(step)
        if len(leg.steps) == 1:
            self.in_background(self._work(leg))

    def in_background(self, work: Coroutine[Any, Any, None]) -> None:
        """Do some work; its failure is logged."""
        task = asyncio.get_running_loop().create_task(_guarded(work, None))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def set_alarm(self, call: ChargedCall, alarm: Alarm, in_us: int) -> None:
        """Wake the call after so many microseconds, and not at the time set before."""
        leg = self._legs.get(call.uuid)
        if leg is not None:
            self.clear_alarm(call, alarm)
            leg.alarms[alarm] = asyncio.get_running_loop().call_later(
                max(0, in_us) / US, self._sound, leg, alarm
            )

    def clear_alarm(self, call: ChargedCall, alarm: Alarm) -> None:
        """Let an alarm be, if it is set."""
        leg = self._legs.get(call.uuid)
        handle = None if leg is None else leg.alarms.pop(alarm, None)
        if handle is not None:
            handle.cancel()

    async def drain(self, limit_seconds: float) -> None:
        """Finish the steps that wait, then let go of all legs."""
        for leg in self.all():
            for handle in leg.alarms.values():
                handle.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=limit_seconds)
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.forget_all()

    def forget_all(self) -> None:
        """Let go of all legs: another process serves the switch, or it has restarted."""
        for leg in self.all():
            self.forget(leg.call.uuid)

    def _sound(self, leg: Leg, alarm: Alarm) -> None:
        leg.alarms.pop(alarm, None)
        # A leg that cannot be seen is left as it is; the next connection looks at all of them.
        if self._desk.connection is not None:
            self.post(leg, partial(self.alarm_steps[alarm], leg.call), None)

    async def _work(self, leg: Leg) -> None:
        while leg.steps:
            await _guarded(leg.steps[0](), leg.call)
            leg.steps.popleft()


async def _guarded(work: Awaitable[None], call: ChargedCall | None) -> None:
    """Do some work and log what it fails with: the leg's next step must not suffer from it."""
    call_id = None if call is None else call.call_id
    try:
        await work
    except SwitchError as error:
        is_gone = isinstance(error, CommandFailed) and error.is_gone
        level: log.LevelName = "debug" if is_gone else "warning"
        log.event("switch_command_failed", level=level, call_id=call_id, error=error)
    except Exception as error:
        log.event("call_step_failed", level="error", call_id=call_id, error=error)
