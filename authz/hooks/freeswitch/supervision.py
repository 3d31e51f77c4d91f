"""A released leg from its answer to its end: clock, extensions, timers, other destinations.

An extension is asked for only on evidence from the switch younger than one chunk. The timer that
cuts the leg is the switch's; it is moved forward by a new one before the old one is undone, so
that there is none moment without.
"""

from __future__ import annotations

from typing import Final

from authz import log
from authz.hooks.freeswitch import commands
from authz.hooks.freeswitch.charged_call import (
    ChargedCall,
    Phase,
    answered_us,
    seconds_until,
)
from authz.hooks.freeswitch.decision import Decider
from authz.hooks.freeswitch.desk import Alarm, Alarms, Desk
from authz.hooks.freeswitch.errors import CommandFailed
from authz.hooks.freeswitch.events import Event
from authz.hooks.freeswitch.limits import (
    US,
    first_question_us,
    next_question_us,
    running_timer_seconds,
    used_seconds,
    warning_us,
)
from authz.hooks.freeswitch.queries import dump_channel
from authz.hooks.freeswitch.refusals import Refusal
from authz.model import Denial, Grant

#: How long a leg may stand alone after its bridge before it is looked at.
_ALONE_US: Final = 1 * US
#: Applications in which a leg whose callee has left only waits.
_WAITING_APPLICATIONS: Final = frozenset(("bridge", "park", ""))
#: How long after a leg is found gone its last event may still come.
_LAST_EVENT_US: Final = 3 * US
_TIMEOUT: Final = "ALLOTTED_TIMEOUT"


class Supervisor:
    """Supervises the released calls of one switch. All methods raise SwitchError."""

    def __init__(self, desk: Desk, decider: Decider, alarms: Alarms) -> None:
        self._desk = desk
        self._decider = decider
        self._alarms = alarms

    # What the switch tells.

    async def observe(self, call: ChargedCall, channel: Event) -> None:
        """Take in what an event, or a query, says of the leg; the first answer starts the clock."""
        if not call.is_at(Phase.RINGING):
            return
        start_us = answered_us(channel) if call.is_clock_answer else _connected_us(channel)
        if start_us is not None:
            await self._start_clock(call, channel, start_us)

    async def callee_answered(self, call: ChargedCall, callee: Event) -> None:
        """Start the clock of a leg that was answered before its destination was."""
        if call.is_at(Phase.RINGING) and not call.is_clock_answer:
            start_us = answered_us(callee) or callee.timestamp_us
            if start_us is not None:
                await self._start_clock(call, None, start_us)

    async def bridged(self, call: ChargedCall, channel: Event) -> None:
        """The leg is connected to a callee, perhaps another one than it is charged for."""
        self._alarms.clear_alarm(call, Alarm.ALONE)
        if self._is_elsewhere(call, channel):
            await self.follow(call, channel)
        await self.observe(call, channel)

    async def unbridged(self, call: ChargedCall, channel: Event) -> None:
        """The callee has left: the leg is on its way to another one, alone, or at its end."""
        if self._is_elsewhere(call, channel):
            await self.follow(call, channel)
        elif call.is_at(Phase.TALKING):
            self._alarms.set_alarm(call, Alarm.ALONE, _ALONE_US)

    async def look_alone(self, call: ChargedCall) -> None:
        """Hang up a leg that waits for nothing; one that hears something else goes on."""
        channel = await self._look(call)
        if channel is None or not call.is_at(Phase.TALKING):
            return
        if self._is_elsewhere(call, channel):
            await self.follow(call, channel)
        elif channel.variable("current_application") in _WAITING_APPLICATIONS:
            await self._desk.kill(call, "NORMAL_CLEARING")

    def _is_elsewhere(self, call: ChargedCall, channel: Event) -> bool:
        now = channel.get("Caller-Destination-Number")
        is_charged = call.is_at(Phase.TALKING) and bool(call.extension)
        return is_charged and bool(now) and now != call.extension

    async def _start_clock(self, call: ChargedCall, channel: Event | None, start_us: int) -> None:
        call.phase = Phase.TALKING
        call.clock_us = start_us
        self._alarms.clear_alarm(call, Alarm.RING)
        if channel is not None:
            call.extension = channel.get("Caller-Destination-Number")
        if not call.is_clock_answer:
            # Until now the timer has counted from the release.
            await self._desk.connected.api(commands.uuid_setvar_multi(call.uuid, call.variables()))
            await self.move_timer(call)
        self._plan_question(call)

    # More time.

    async def ask(self, call: ChargedCall) -> None:
        """Ask for more time, or only say that the leg lives, on evidence that it does."""
        if call.is_at(Phase.RINGING):
            await self._ask_ringing(call)
            return
        if not call.is_at(Phase.TALKING) or not await self._is_alive(call):
            return
        desk = self._desk
        used = used_seconds(desk.elapsed_us(call))
        answer = await desk.engine.reserve(
            call.reserve_request(desk.name, used, desk.chunk_seconds)
        )
        if not call.is_at(Phase.TALKING):
            return
        if isinstance(answer, Denial):
            await self._deny(call, answer)
        else:
            await self._extend(call, answer)

    async def _ask_ringing(self, call: ChargedCall) -> None:
        """Learn anew the grant of a leg that was found ringing."""
        desk = self._desk
        answer = await desk.engine.reserve(call.reserve_request(desk.name, 0, desk.chunk_seconds))
        if isinstance(answer, Grant):
            call.granted_seconds = answer.seconds
            call.is_final = answer.final
            call.extend_at_seconds = answer.extend_at

    async def _extend(self, call: ChargedCall, answer: Grant) -> None:
        before = call.granted_seconds
        call.is_final = answer.final
        call.extend_at_seconds = answer.extend_at
        if answer.seconds is None:
            call.granted_seconds = None
            if call.timer_group is not None:
                await self._desk.connected.api(commands.sched_del(call.timer_group))
                call.timer_group = None
            self._plan_question(call)
        elif before is None or answer.seconds > before or call.timer_group is None:
            call.granted_seconds = answer.seconds
            await self.move_timer(call)
            self._plan_question(call)
        else:
            self._plan_another_question(call)

    async def _deny(self, call: ChargedCall, answer: Denial) -> None:
        log.event(
            "extension_denied", call_id=call.call_id, account=call.account, reason=answer.reason
        )
        if call.timer_group is None:
            # Nothing else would ever end it.
            await self._desk.kill(call, _TIMEOUT)
        elif call.granted_seconds is not None:
            call.is_final = True
            self._plan_another_question(call)

    async def move_timer(self, call: ChargedCall) -> None:
        """Let the switch cut the leg at its present grant, and undo what would cut it earlier."""
        if call.granted_seconds is None:
            return
        elapsed_us = self._desk.elapsed_us(call)
        seconds = running_timer_seconds(call.granted_seconds, elapsed_us)
        if seconds is None:
            if call.timer_group is None or elapsed_us >= call.granted_seconds * US:
                await self._desk.kill(call, _TIMEOUT)
            return
        connection = self._desk.connected
        group = call.next_timer_group()
        await connection.api(commands.sched_kill(seconds, group, call.uuid))
        before, call.timer_group = call.timer_group, group
        if before is not None:
            await connection.api(commands.sched_del(before))

    async def _is_alive(self, call: ChargedCall) -> bool:
        """Return whether the switch has told of the leg within one chunk; if not, ask it."""
        chunk_us = self._desk.engine.context.settings.calls.chunk_seconds * US
        if self._desk.here_us() - call.heard_us < chunk_us // 2:
            return True
        return await self._look(call) is not None and call.is_at(Phase.TALKING)

    async def _look(self, call: ChargedCall) -> Event | None:
        """Ask the switch for the leg; None if it is gone, when its last event is awaited."""
        channel = await dump_channel(self._desk.connected, call.uuid)
        if channel is None:
            call.phase = Phase.ENDING
            self._alarms.set_alarm(call, Alarm.GONE, _LAST_EVENT_US)
            return None
        self._desk.hear(call, channel)
        return channel

    def _plan_question(self, call: ChargedCall) -> None:
        elapsed_us = self._desk.elapsed_us(call)
        if call.granted_seconds is None:
            self._alarms.set_alarm(call, Alarm.ASK, call.extend_at_seconds * US - elapsed_us)
            return
        asked_us = first_question_us(call.granted_seconds, call.extend_at_seconds, elapsed_us)
        self._alarms.set_alarm(call, Alarm.ASK, asked_us - elapsed_us)
        self._plan_warning(call, elapsed_us)

    def _plan_another_question(self, call: ChargedCall) -> None:
        if call.granted_seconds is None:
            self._plan_question(call)
            return
        elapsed_us = self._desk.elapsed_us(call)
        asked_us = next_question_us(call.granted_seconds, elapsed_us)
        if asked_us is not None:
            self._alarms.set_alarm(call, Alarm.ASK, asked_us - elapsed_us)
        self._plan_warning(call, elapsed_us)

    def _plan_warning(self, call: ChargedCall, elapsed_us: int) -> None:
        settings = self._desk.settings
        self._alarms.clear_alarm(call, Alarm.WARN)
        if not call.is_final or call.granted_seconds is None or settings.low_credit_file is None:
            return
        due_us = warning_us(call.granted_seconds, settings.low_credit_seconds)
        # A call this short is as good as warned; one past the moment has been.
        if due_us > elapsed_us:
            self._alarms.set_alarm(call, Alarm.WARN, due_us - elapsed_us)

    async def warn(self, call: ChargedCall) -> None:
        """Tell the caller that the call is going to end."""
        path = self._desk.settings.low_credit_file
        if call.is_at(Phase.TALKING) and call.is_final and path is not None:
            await self._desk.connected.api(commands.uuid_broadcast(call.uuid, path))

    async def ring_out(self, call: ChargedCall) -> None:
        """End a leg that nobody has answered in time; its lease lasts no longer."""
        if not call.is_at(Phase.RINGING):
            return
        channel = await self._look(call)
        if channel is not None:
            await self.observe(call, channel)
            if call.is_at(Phase.RINGING):
                await self._desk.kill(call, "NO_ANSWER")

    # Another destination.

    async def follow(self, call: ChargedCall, channel: Event) -> None:
        """Settle a charged leg that goes to another destination, and authorize it for that.

        A refusal hangs it up. It is charged again once the new destination has answered.
        """
        desk = self._desk
        self.close_leg(call, channel)
        call.extension = call.to
        call.is_clock_answer = False
        answer = await self._decider.ask(call)
        if isinstance(answer, Refusal):
            log.event("follow_refused", call_id=call.call_id, reason=answer.reason)
            call.granted_seconds = None
            await desk.kill(call, answer.hangup_cause)
            return
        call.phase = Phase.RINGING
        await desk.connected.api(commands.uuid_setvar_multi(call.uuid, call.variables()))
        await self.move_timer(call)
        self._alarms.set_alarm(call, Alarm.RING, answer.ring_seconds * US)

    def close_leg(self, call: ChargedCall, channel: Event) -> None:
        """Settle what the leg is charged for now, and make it the next call of the same leg."""
        desk = self._desk
        moment_us = channel.timestamp_us or 0
        seconds = 0
        if call.is_at(Phase.TALKING):
            seconds = seconds_until(call, moment_us, desk.settings.rounding)
        desk.settle(call, seconds, moment_us, "")
        for alarm in (Alarm.ASK, Alarm.WARN, Alarm.ALONE, Alarm.RING):
            self._alarms.clear_alarm(call, alarm)
        call.leg += 1
        call.phase = Phase.WAITING
        call.to = channel.get("Caller-Destination-Number")
        call.rate_number = None
        call.extension = ""
        call.clock_us = None

    async def take_over(self, call: ChargedCall, moment_us: int, *, is_sent_on: bool) -> None:
        """Charge a callee's leg from the moment at which the leg that paid has left it.

        `is_sent_on`: it was sent to another destination, for which it is charged then.
        """
        desk = self._desk
        channel = await self._look(call)
        if channel is None:
            return
        call.extension = channel.get("Caller-Destination-Number")
        if is_sent_on:
            call.to = call.extension
        answer = await self._decider.ask(call)
        if isinstance(answer, Refusal):
            log.event("follow_refused", call_id=call.call_id, reason=answer.reason)
            await desk.kill(call, answer.hangup_cause)
            return
        call.phase = Phase.TALKING
        call.clock_us = moment_us
        await self.move_timer(call)
        await desk.connected.api(commands.uuid_setvar_multi(call.uuid, call.variables()))
        self._plan_question(call)

    async def adopt(self, call: ChargedCall, channel: Event, groups: list[str]) -> None:
        """Go on with a leg found live; `groups` are those in which the switch has timers of it."""
        self._desk.hear(call, channel)
        call.timers = max([call.timers, *map(_timer_number, groups)])
        call.timer_group = groups[0] if groups else None
        await self.ask(call)
        if call.is_at(Phase.RINGING):
            call.timer_group = call.timer_group or call.uuid
            await self.observe(call, channel)
            ring_seconds = self._desk.engine.context.settings.calls.ring_seconds
            self._alarms.set_alarm(call, Alarm.RING, ring_seconds * US)
        elif call.timer_group not in groups:
            # The new timer holds; an earlier one would cut the call too soon.
            for group in groups[1:]:
                await self._undo(group)

    async def _undo(self, group: str) -> None:
        try:
            await self._desk.connected.api(commands.sched_del(group))
        except CommandFailed as error:
            log.event("timer_not_undone", level="warning", group=group, error=error)


def _connected_us(channel: Event) -> int | None:
    """Return since when an answered leg talks to an answered callee, None if it does not."""
    bridged_us = channel.integer("Caller-Channel-Bridged-Time")
    callee_us = channel.integer("Other-Leg-Channel-Answered-Time")
    return max(bridged_us, callee_us) if bridged_us and callee_us else None


def _timer_number(group: str) -> int:
    """Return the number in a timer's group of ours, 0 of another group."""
    words = group.split("-", 2)
    is_ours = len(words) == 3 and words[0] == "authz" and words[1].isdigit()
    return int(words[1]) if is_ours else 0
