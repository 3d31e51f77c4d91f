"""The agent of one switch: gives every charged leg its own orderly queue of what happens to it.

Events of different legs are worked on at the same time, those of one leg one after the other. A
leg is known from the moment it waits until it is settled. While the switch cannot be reached
nothing is decided about its legs: they go on, limited by the switch's own timers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Final

from authz import log
from authz.engine.switches import claim_ended
from authz.hooks.freeswitch import commands
from authz.hooks.freeswitch.charged_call import (
    ChargedCall,
    Phase,
    ended_us,
    restore_call,
    talk_seconds,
)
from authz.hooks.freeswitch.connection import EventSocketConnection
from authz.hooks.freeswitch.decision import Decider, Door
from authz.hooks.freeswitch.desk import Alarm, Desk
from authz.hooks.freeswitch.events import Event
from authz.hooks.freeswitch.leg_queues import Leg, LegQueues
from authz.hooks.freeswitch.lookup import Payer
from authz.hooks.freeswitch.supervision import Supervisor
from authz.store.switches import HangupRequest

#: What the agent must hear of; the link adds the switch's own heartbeat.
EVENTS: Final = (
    "CHANNEL_PARK",
    "CHANNEL_ANSWER",
    "CHANNEL_BRIDGE",
    "CHANNEL_UNBRIDGE",
    "CHANNEL_HANGUP_COMPLETE",
    "SESSION_HEARTBEAT",
)
#: Causes with which a charged leg leaves while its callee talks on.
_LEAVING_CAUSES: Final = frozenset(("ATTENDED_TRANSFER", "BLIND_TRANSFER"))


class InboundDoor:
    """Orders to a waiting leg by the inbound connection."""

    def __init__(self, connection: EventSocketConnection, uuid: str) -> None:
        self._connection = connection
        self._uuid = uuid

    async def api(self, line: str) -> str:
        """Run an api command."""
        return await self._connection.api(line)

    async def run(self, applications: Sequence[tuple[str, str]]) -> None:
        """Run dialplan applications on the leg."""
        if len(applications) == 1:
            [(application, argument)] = applications
            await self._connection.execute(application, argument, uuid=self._uuid)
        else:
            await self.api(commands.uuid_transfer_inline(self._uuid, applications))


class SwitchAgent:
    """Decides and supervises the calls of one switch, as its events tell of them."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.legs = LegQueues(desk)
        self.decider = Decider(desk, self.legs)
        self.supervisor = Supervisor(desk, self.decider, self.legs)
        self.draining = False
        self.legs.alarm_steps = {
            Alarm.ASK: self.supervisor.ask,
            Alarm.WARN: self.supervisor.warn,
            Alarm.ALONE: self.supervisor.look_alone,
            Alarm.RING: self.supervisor.ring_out,
            Alarm.REFUSED: self.decider.end_refused,
            Alarm.GONE: self._end_unseen,
        }

    # Events of the switch.

    def on_event(self, event: Event) -> None:
        """Take one event, in the order of the switch."""
        uuid = event.unique_id
        leg = self.legs.get(uuid)
        match event.name:
            case "CHANNEL_PARK":
                self._take_parked(event, leg)
            case "CHANNEL_HANGUP_COMPLETE":
                self._take_hangup(event, leg)
            case "CHANNEL_ANSWER" if leg is None:
                self._take_callee(event)
            case "CHANNEL_ANSWER" | "SESSION_HEARTBEAT" if leg is not None:
                self.legs.post(leg, partial(self.supervisor.observe, leg.call, event), event)
            case "CHANNEL_BRIDGE" if leg is not None:
                self.legs.post(leg, partial(self.supervisor.bridged, leg.call, event), event)
            case "CHANNEL_UNBRIDGE" if leg is not None:
                self.legs.post(leg, partial(self.supervisor.unbridged, leg.call, event), event)

    def _take_parked(self, event: Event, leg: Leg | None) -> None:
        uuid = event.unique_id
        connection = self.desk.connection
        if self.draining or connection is None or self.legs.has_ended(uuid):
            return
        door = InboundDoor(connection, uuid)
        if leg is not None:
            self.legs.post(leg, partial(self._park_again, leg.call, event, door), event)
        elif self.decider.is_waiting(event) and self._may_wait(event):
            self.wait(event, door, self._inherited(event))

    def _may_wait(self, event: Event) -> bool:
        """Return whether a parked leg may be charged: a caller's, or a callee's sent on by one."""
        return event.get("Call-Direction") != "outbound" or self._inherited(event) is not None

    def _inherited(self, event: Event) -> Payer | None:
        """Return who pays for a callee's leg that waits by itself: who paid for its caller's."""
        if event.get("Call-Direction") != "outbound":
            return None
        leg = self.legs.get(event.variable("originator"))
        return None if leg is None else Payer(leg.call.account, leg.call.direction)

    def wait(
        self, channel: Event, door: Door, payer: Payer | None = None
    ) -> asyncio.Future[None] | None:
        """Have a waiting leg decided; the future is done when it is. None: it is known already."""
        uuid = channel.unique_id
        if self.legs.get(uuid) is not None or self.legs.has_ended(uuid):
            return None
        call = self.decider.describe(channel, payer)
        decided: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        step = partial(self._decide, call, channel, door, decided)
        self.legs.post(self.legs.add(call), step, channel)
        return decided

    async def _decide(
        self, call: ChargedCall, channel: Event, door: Door, decided: asyncio.Future[None]
    ) -> None:
        try:
            await self.decider.decide(call, channel, door)
        finally:
            if not decided.done():
                decided.set_result(None)

    async def _park_again(self, call: ChargedCall, event: Event, door: Door) -> None:
        """Decide anew a leg that was released and waits again, for another call of its own."""
        moment_us = event.timestamp_us or 0
        if moment_us <= call.parked_us or call.is_at(Phase.ENDING) or call.is_at(Phase.WAITING):
            return
        profile_us = event.integer("Caller-Profile-Created-Time") or 0
        if profile_us and profile_us == call.profile_us:
            return
        call.parked_us, call.profile_us = moment_us, profile_us
        self.supervisor.close_leg(call, event)
        call.is_clock_answer = not event.integer("Caller-Channel-Answered-Time")
        await self.decider.decide(call, event, door)

    def _take_callee(self, event: Event) -> None:
        caller = event.variable("originator") or event.get("Other-Leg-Unique-ID")
        leg = self.legs.get(caller)
        if leg is not None:
            self.legs.post(leg, partial(self.supervisor.callee_answered, leg.call, event), None)

    def _take_hangup(self, event: Event, leg: Leg | None) -> None:
        uuid = event.unique_id
        if self.legs.has_ended(uuid):
            return
        if leg is not None:
            self.legs.post(leg, partial(self._end, leg.call, event), event, is_last=True)
            return
        call = restore_call(event, uuid)
        if call is not None:
            # Decided by a process that is gone, or by another door.
            self.legs.remember_ended(uuid)
            self._settle(call, event)

    async def _end(self, call: ChargedCall, event: Event) -> None:
        self.legs.remove(call)
        if not call.is_authorized:
            return
        self._settle(call, event)
        cause = event.get("Hangup-Cause")
        if cause in _LEAVING_CAUSES and call.clock_us is not None:
            await self._follow_callee(call, event)

    def _settle(self, call: ChargedCall, event: Event) -> None:
        seconds = talk_seconds(call, event, self.desk.settings.rounding)
        if seconds and call.clock_us is None:
            call.clock_us = event.integer("Caller-Channel-Answered-Time")
        self.desk.settle(call, seconds, ended_us(event), event.get("Hangup-Cause"))

    async def _follow_callee(self, call: ChargedCall, event: Event) -> None:
        """Charge on when the paying leg has transferred its callee and left."""
        uuid = event.variable("last_bridge_to") or event.variable("bridge_uuid")
        connection = self.desk.connected
        if not uuid or self.legs.get(uuid) is not None or self.legs.has_ended(uuid):
            return
        if await connection.api(commands.uuid_exists(uuid)) == "true":
            is_sent_on = event.get("Hangup-Cause") == "BLIND_TRANSFER"
            self.charge_on(call, uuid, ended_us(event), is_sent_on=is_sent_on)

    def charge_on(
        self, call: ChargedCall, uuid: str, moment_us: int, *, is_sent_on: bool = False
    ) -> None:
        """Charge a callee's leg from a moment on, whose paying leg has left it behind."""
        if self.legs.get(uuid) is not None or self.legs.has_ended(uuid):
            return
        following = ChargedCall(
            uuid=uuid,
            account=call.account,
            direction=call.direction,
            to=call.to,
            from_=call.from_,
            origin=call.origin or call.uuid,
            leg=call.leg + 1,
            is_clock_answer=False,
            heard_us=self.desk.here_us(),
        )
        leg = self.legs.add(following)
        step = partial(self.supervisor.take_over, following, moment_us, is_sent_on=is_sent_on)
        self.legs.post(leg, step, None)

    async def _end_unseen(self, call: ChargedCall) -> None:
        """Let go of a leg that is gone, and whose last event never came.

        A CDR of the switch, if it sends any, says what it cost; until then the policy of orphans.
        """
        self.legs.remove(call)
        log.event("call_end_unseen", level="warning", call_id=call.call_id, account=call.account)
        if call.is_authorized:
            await claim_ended(self.desk.engine.context, call.account, call.call_id)

    # What others want.

    def hang_up(self, request: HangupRequest) -> None:
        """End a call because somebody asks for it."""
        for leg in self.legs.all():
            if leg.call.call_id == request.call_id and leg.call.account == request.account:
                self.legs.post(leg, partial(self.desk.kill, leg.call, "NORMAL_CLEARING"), None)
                return
        uuid = request.call_id.partition("#")[0]
        self.legs.in_background(self._kill_unknown(uuid))

    async def _kill_unknown(self, uuid: str) -> None:
        await self.desk.connected.api(commands.uuid_kill(uuid, "NORMAL_CLEARING"))

    def adopt(self, call: ChargedCall, channel: Event, groups: list[str], door: Door) -> None:
        """Go on with a leg that was found live, known or not."""
        leg = self.legs.get(call.uuid) or self.legs.add(call)
        self.legs.post(leg, partial(self._go_on, leg.call, channel, groups, door), channel)

    async def _go_on(
        self, call: ChargedCall, channel: Event, groups: list[str], door: Door
    ) -> None:
        """Do anew what a lost connection may have kept from the switch."""
        is_parked = channel.variable("current_application") == "park"
        if call.is_at(Phase.WAITING) and is_parked:
            await self.decider.decide(call, channel, door)
        elif call.is_at(Phase.ENDING) and not call.is_authorized:
            await self.desk.kill(call, "NORMAL_TEMPORARY_FAILURE")
        elif not call.is_at(Phase.ENDING):
            if call.is_at(Phase.WAITING):
                call.phase = Phase.RINGING
            await self.supervisor.adopt(call, channel, groups)

    async def drain(self, limit_seconds: float) -> None:
        """Decide nothing new and finish what is under way; the legs go on with the switch."""
        self.draining = True
        await self.legs.drain(limit_seconds)
