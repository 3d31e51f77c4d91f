"""Deciding a waiting call: ask the engine, then release it with its limits set, or refuse it.

The order on the way out is what keeps a dead daemon from meaning an endless call: variables and
timer first, the release only once the switch has taken them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

import msgspec

from authz import log, meters
from authz.errors import InvalidInput
from authz.hooks.freeswitch import commands, variables
from authz.hooks.freeswitch.charged_call import ChargedCall, Phase, answered_us, caller_of
from authz.hooks.freeswitch.desk import Alarm, Alarms, Desk
from authz.hooks.freeswitch.durations import GRANT_SECONDS_MIN, cut_seconds
from authz.hooks.freeswitch.errors import CommandFailed, SwitchError
from authz.hooks.freeswitch.events import Event
from authz.hooks.freeswitch.limits import US
from authz.hooks.freeswitch.lookup import NOBODY, Payer
from authz.hooks.freeswitch.refusals import INVALID_NUMBER, Refusal, refusal_of
from authz.model import Denial, Grant
from authz.reasons import REASONS

#: How long a refused leg may take to hang up before it is killed; with an announcement, longer.
_REFUSAL_SECONDS: Final = 5
_ANNOUNCEMENT_SECONDS: Final = 60
_SHORT: Final = "insufficient_credit"
_RELEASED, _REFUSED, _ABANDONED = (
    meters.counter("authz_freeswitch_decided_total", outcome)
    for outcome in ("released", "refused", "abandoned")
)


class Door(Protocol):
    """Where a waiting leg takes its orders: the inbound connection, or its own outbound one."""

    async def api(self, line: str) -> str:
        """Run an api command; raises SwitchError."""

    async def run(self, applications: Sequence[tuple[str, str]]) -> None:
        """Run dialplan applications on the leg, one after the other; raises SwitchError."""


class Decider:
    """Decides the waiting calls of one switch."""

    def __init__(self, desk: Desk, alarms: Alarms) -> None:
        self._desk = desk
        self._alarms = alarms
        #: Calls being decided now, and decided since the start.
        self.deciding = 0
        self.released = 0
        self.refused = 0

    def is_waiting(self, channel: Event) -> bool:
        """Return whether a parked leg waits for us."""
        if channel.variable(variables.PARK) == "true":
            return True
        if channel.get("Caller-Context") in self._desk.settings.contexts:
            return True
        return self._desk.lookup.find(channel) is not None

    def describe(self, channel: Event, payer: Payer | None = None) -> ChargedCall:
        """Return the call that a waiting leg would be."""
        payer = payer or self._desk.lookup.find(channel) or Payer(NOBODY, "outbound")
        return ChargedCall(
            uuid=channel.unique_id,
            account=payer.account,
            direction=payer.direction,
            to=channel.get("Caller-Destination-Number"),
            from_=caller_of(channel),
            rate_number=channel.variable(variables.RATE_NUMBER) or None,
            is_clock_answer=answered_us(channel) is None,
            parked_us=channel.timestamp_us or 0,
            profile_us=channel.integer("Caller-Profile-Created-Time") or 0,
        )

    async def decide(self, call: ChargedCall, channel: Event, door: Door) -> None:
        """Release or refuse a waiting leg; the call's phase tells which. Raises SwitchError."""
        self.deciding += 1
        try:
            answer = await self.ask(call)
            if isinstance(answer, Refusal):
                await self._refuse(call, channel, answer, door)
            else:
                await self._release(call, channel, answer, door)
        finally:
            self.deciding -= 1

    async def ask(self, call: ChargedCall) -> Grant | Refusal:
        """Ask the engine; a grant shorter than the switch can keep is as good as none."""
        desk = self._desk
        try:
            request = call.authorize_request(desk.name, desk.chunk_seconds)
        except msgspec.ValidationError:
            return INVALID_NUMBER
        settings = desk.settings
        is_overloaded = self.deciding > settings.deciding_max or desk.live > settings.calls_max
        if is_overloaded and not desk.engine.is_emergency(request):
            return refusal_of(REASONS["overloaded"], call.direction)
        try:
            answer = await desk.engine.authorize(request)
        except InvalidInput:
            return INVALID_NUMBER
        if isinstance(answer, Denial):
            return refusal_of(answer)
        if answer.seconds is not None and answer.seconds < GRANT_SECONDS_MIN:
            desk.settle(call, 0, None, REASONS[_SHORT].cause(call.direction))
            return refusal_of(REASONS[_SHORT], call.direction)
        self._take_grant(call, answer)
        return answer

    def _take_grant(self, call: ChargedCall, answer: Grant) -> None:
        call.is_authorized = True
        call.granted_seconds = answer.seconds
        call.is_final = answer.final
        call.extend_at_seconds = answer.extend_at

    async def _release(self, call: ChargedCall, channel: Event, answer: Grant, door: Door) -> None:
        desk = self._desk
        try:
            await self._set_timer(call, door)
            await door.api(commands.uuid_setvar_multi(call.uuid, self._limits(call, answer)))
            extension, dialplan, context = self._destination(channel)
            await door.api(commands.uuid_transfer(call.uuid, extension, dialplan, context))
        except CommandFailed as error:
            await self._abandon(call, door, error)
            return
        except InvalidInput as error:
            log.event("release_failed", level="warning", call_id=call.call_id, error=error)
            desk.settle(call, 0, None, INVALID_NUMBER.hangup_cause)
            await self._refuse(call, channel, INVALID_NUMBER, door)
            return
        self.released += 1
        _RELEASED.add()
        call.phase = Phase.RINGING
        self._alarms.set_alarm(call, Alarm.RING, answer.ring_seconds * US)

    async def _set_timer(self, call: ChargedCall, door: Door) -> None:
        """Limit a leg that is answered already: nothing would run at its answer."""
        before, call.timer_group = call.timer_group, None
        if call.granted_seconds is not None and not call.is_clock_answer:
            call.timer_group = call.next_timer_group()
            seconds = cut_seconds(call.granted_seconds)
            await door.api(commands.sched_kill(seconds, call.timer_group, call.uuid))
        if before is not None:
            await door.api(commands.sched_del(before))

    def _limits(self, call: ChargedCall, answer: Grant) -> dict[str, str]:
        """Return the variables by which the switch itself keeps the call's limits."""
        ring = str(answer.ring_seconds)
        limits = {**call.variables(), "call_timeout": ring, "originate_timeout": ring}
        if call.granted_seconds is not None and call.is_clock_answer:
            # In the group that bears the leg's uuid; the first extension replaces it.
            call.timer_group = call.uuid
            seconds = cut_seconds(call.granted_seconds)
            limits["execute_on_answer"] = f"sched_hangup +{seconds} allotted_timeout"
        if self._desk.settings.heartbeat_seconds:
            limits["enable_heartbeat_events"] = str(self._desk.settings.heartbeat_seconds)
        return limits

    def _destination(self, channel: Event) -> tuple[str, str, str]:
        """Return extension, dialplan and context of the destination."""
        settings = self._desk.settings
        words = channel.variable(variables.DESTINATION).split()
        extension = words[0] if words else channel.get("Caller-Destination-Number")
        dialplan = words[1] if len(words) > 1 else settings.release_dialplan
        context = words[2] if len(words) > 2 else settings.release_context
        return extension, dialplan, context

    async def _abandon(self, call: ChargedCall, door: Door, error: CommandFailed) -> None:
        """Give up a release that the switch refused: the leg is gone, or must not wait for ever."""
        call.phase = Phase.ENDING
        _ABANDONED.add()
        if error.is_gone:
            self._desk.settle(call, 0, None, "ORIGINATOR_CANCEL")
            self._alarms.set_alarm(call, Alarm.GONE, _REFUSAL_SECONDS * US)
            return
        log.event("release_failed", level="error", call_id=call.call_id, error=error)
        self._alarms.set_alarm(call, Alarm.REFUSED, _REFUSAL_SECONDS * US)
        await door.api(commands.uuid_kill(call.uuid, "NORMAL_TEMPORARY_FAILURE"))

    async def _refuse(
        self, call: ChargedCall, channel: Event, refusal: Refusal, door: Door
    ) -> None:
        self.refused += 1
        _REFUSED.add()
        call.phase = Phase.ENDING
        call.granted_seconds = None
        announcement = self._announcement(refusal.reason)
        limit_seconds = _REFUSAL_SECONDS
        try:
            await door.api(commands.uuid_setvar(call.uuid, variables.REASON, refusal.reason))
            if answered_us(channel) is not None or self._desk.settings.refuse_by == "hangup":
                await door.api(commands.uuid_kill(call.uuid, refusal.hangup_cause))
            else:
                way = [("respond", refusal.status_line)]
                if announcement is not None:
                    limit_seconds += _ANNOUNCEMENT_SECONDS
                    way = [("pre_answer", ""), ("playback", announcement), *way]
                await door.run(way)
        except CommandFailed as error:
            if not error.is_gone:
                log.event("refusal_failed", level="error", call_id=call.call_id, error=error)
        self._alarms.set_alarm(call, Alarm.REFUSED, limit_seconds * US)

    def _announcement(self, reason: str) -> str | None:
        found: str | None = None
        for one in self._desk.settings.announcements:
            if one.reason == reason:
                return one.file
            if one.reason == "*":
                found = found or one.file
        return found

    async def end_refused(self, call: ChargedCall) -> None:
        """Kill a leg that did not hang up by itself, again and again while the switch refuses."""
        try:
            await self._desk.kill(call, "NORMAL_TEMPORARY_FAILURE")
        except SwitchError as error:
            log.event("refusal_failed", level="debug", call_id=call.call_id, error=error)
            if isinstance(error, CommandFailed) and not error.is_gone:
                self._alarms.set_alarm(call, Alarm.REFUSED, _REFUSAL_SECONDS * US)
