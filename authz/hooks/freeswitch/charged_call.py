"""One charged leg as the agent knows it: who pays, since when, until when, and what it is at.

`call_id` is the leg's uuid, and `<uuid>#2`, `#3`, … for each further destination it is sent to.
Times are microseconds of the switch's clock, which is the one that its events tell.
"""

from __future__ import annotations

import enum
import re
from typing import Final

import msgspec
from msgspec import Struct

from authz.config.freeswitch import Rounding
from authz.hooks.freeswitch import variables
from authz.hooks.freeswitch.durations import whole_seconds
from authz.hooks.freeswitch.events import Event
from authz.model import (
    SECONDS_MAX,
    AuthorizeRequest,
    DirectionName,
    ReserveRequest,
    SettleRequest,
)
from authz.reasons import DIRECTIONS

_US: Final = 1_000_000
_CAUSE_LENGTH_MAX: Final = 64
_FROM_LENGTH_MAX: Final = 128
_FOLLOWING: Final = "#"
#: A moment that never comes: the clock of a leg that waits for its new destination's answer.
NEVER_US: Final = 1 << 52
_CALL_ID: Final = re.compile(r"(?P<uuid>[!-\"$-~]+)(?:#(?P<leg>[1-9][0-9]{0,3}))?")


class Phase(enum.Enum):
    """What a leg is at."""

    #: It waits, or its decision is on the way to the switch.
    WAITING = "waiting"
    #: Released to its destination, which has not answered.
    RINGING = "ringing"
    #: Charged.
    TALKING = "talking"
    #: Told to hang up; only its last event is awaited.
    ENDING = "ending"


class ChargedCall(Struct, kw_only=True):
    """See the module. `clock_us` is when charging began, None before."""

    uuid: str
    account: str
    direction: DirectionName
    to: str
    from_: str = ""
    rate_number: str | None = None
    #: The leg that the call began with, where this one goes on for it.
    origin: str = ""
    leg: int = 1
    #: Whether the store counts the call, so that it must be settled.
    is_authorized: bool = False
    phase: Phase = Phase.WAITING
    clock_us: int | None = None
    #: Whether the clock is the leg's own answer, so that the switch's counters hold.
    is_clock_answer: bool = True
    #: What the destination is called once the leg is charged for it.
    extension: str = ""
    granted_seconds: int | None = None
    is_final: bool = False
    extend_at_seconds: int = 0
    #: The group of the switch's scheduler that holds the leg's timer, None without one.
    timer_group: str | None = None
    timers: int = 0
    #: When something was last heard of the leg, on this process's monotonic clock.
    heard_us: int = 0
    #: Time of the newest event that made the leg wait, by which a repeated one is known.
    parked_us: int = 0
    #: When the leg came to where it waited. An asynchronous socket's leg parks there only after it
    #: was handed over, perhaps after its release; a transfer back would be a later moment.
    profile_us: int = 0

    @property
    def call_id(self) -> str:
        """The id under which the leg is charged now."""
        first = self.origin or self.uuid
        return first if self.leg == 1 else f"{first}{_FOLLOWING}{self.leg}"

    def is_at(self, phase: Phase) -> bool:
        """Return whether the leg is at this phase now."""
        return self.phase is phase

    def next_timer_group(self) -> str:
        """Return a name for another timer of this leg, unlike all before."""
        self.timers += 1
        return f"authz-{self.timers}-{self.uuid}"

    def elapsed_us(self, now_us: int) -> int:
        """Return for how long the leg has been charged at `now_us`."""
        return 0 if self.clock_us is None else max(0, now_us - self.clock_us)

    def authorize_request(self, switch: str, chunk_seconds: int | None) -> AuthorizeRequest:
        """Return the question whether the call may start. Raises ValidationError."""
        return msgspec.convert({**self._words(switch), "seconds": chunk_seconds}, AuthorizeRequest)

    def reserve_request(
        self, switch: str, used_seconds: int, chunk_seconds: int | None
    ) -> ReserveRequest:
        """Return the question whether the call may go on."""
        words = {**self._words(switch), "used_seconds": used_seconds, "seconds": chunk_seconds}
        return msgspec.convert(words, ReserveRequest)

    def settle_request(
        self, switch: str, seconds: int, ended_us: int | None, cause: str
    ) -> SettleRequest:
        """Return the settle of so many seconds of talk that ended at `ended_us`."""
        words = {**self._words(switch), "seconds": seconds}
        if cause:
            words["hangup_cause"] = cause[:_CAUSE_LENGTH_MAX]
        if ended_us is not None:
            words["ended_at"] = ended_us // _US
        if self.clock_us is not None and seconds:
            words["answered_at"] = self.clock_us // _US
        return msgspec.convert(words, SettleRequest)

    def variables(self) -> dict[str, str]:
        """Return the channel variables by which the leg is found again, and charged by others."""
        found = {
            variables.CALL: self.call_id,
            variables.ACCOUNT: self.account,
            variables.DIRECTION: self.direction,
            variables.TO: self.to,
            variables.REASON: "ok",
        }
        if self.origin:
            found[variables.LEG] = self.uuid
        if self.extension:
            found[variables.CHARGED_EXTENSION] = self.extension
        if not self.is_clock_answer:
            found[variables.STARTED_US] = str(NEVER_US if self.clock_us is None else self.clock_us)
        return found

    def _words(self, switch: str) -> dict[str, object]:
        words: dict[str, object] = {
            "call_id": self.call_id,
            "account": self.account,
            "to": self.to,
            "direction": self.direction,
            "switch": switch,
        }
        if self.from_:
            words["from"] = self.from_
        if self.rate_number is not None:
            words["rate_number"] = self.rate_number
        return words


def caller_of(channel: Event) -> str:
    """Return the caller's number, for the record."""
    return channel.get("Caller-Caller-ID-Number")[:_FROM_LENGTH_MAX]


def answered_us(channel: Event) -> int | None:
    """Return when the leg was answered, None if it is not."""
    return channel.integer("Caller-Channel-Answered-Time") or None


def restore_call(channel: Event, uuid: str) -> ChargedCall | None:
    """Return the call as which a leg is charged by its variables; None: it is not by any of ours.

    Variables can be copied to another leg; one that names another leg's uuid charges nothing.
    """
    match = _CALL_ID.fullmatch(channel.variable(variables.CALL))
    account = channel.variable(variables.ACCOUNT)
    to = channel.variable(variables.TO)
    direction = DIRECTIONS.get(channel.variable(variables.DIRECTION) or "outbound")
    if match is None or not account or not to or direction is None:
        return None
    if uuid not in (match["uuid"], channel.variable(variables.LEG)):
        return None
    started_us = channel.integer_variable(variables.STARTED_US)
    clock_us = answered_us(channel) if started_us is None else started_us
    if clock_us == NEVER_US:
        clock_us = None
    return ChargedCall(
        uuid=uuid,
        account=account,
        direction=direction.label,
        to=to,
        from_=caller_of(channel),
        rate_number=channel.variable(variables.RATE_NUMBER) or None,
        origin="" if match["uuid"] == uuid else match["uuid"],
        leg=int(match["leg"] or 1),
        is_authorized=True,
        phase=Phase.RINGING if clock_us is None else Phase.TALKING,
        clock_us=clock_us,
        is_clock_answer=started_us is None,
        extension=channel.variable(variables.CHARGED_EXTENSION),
    )


def left_behind_by(callee: Event) -> ChargedCall | None:
    """Return the call by which a callee's leg was paid for, as its dialplan has told; None: not."""
    words = callee.variable(variables.PAID_BY).split(" ", 3)
    match = _CALL_ID.fullmatch(words[0])
    if len(words) < 4 or match is None or words[2] not in DIRECTIONS:
        return None
    return ChargedCall(
        uuid=match["uuid"],
        account=words[1],
        direction=DIRECTIONS[words[2]].label,
        to=words[3],
        from_=caller_of(callee),
        leg=int(match["leg"] or 1),
    )


def talk_seconds(call: ChargedCall, hangup: Event, rounding: Rounding) -> int:
    """Return the seconds to settle at the leg's end, by the switch's own counters.

    They begin at the leg's answer; a leg whose clock began later is measured by its end. A counter
    that no call can have is as good as none; what no call can last is settled as the longest.
    """
    if answered_us(hangup) is None:
        return 0
    if call.is_clock_answer:
        milliseconds = hangup.integer_variable("billmsec")
        if milliseconds is None or milliseconds > SECONDS_MAX * 1000:
            milliseconds = (ended_us(hangup) - (answered_us(hangup) or 0)) // 1000
        return min(whole_seconds(max(0, milliseconds), rounding), SECONDS_MAX)
    return seconds_until(call, ended_us(hangup), rounding)


def seconds_until(call: ChargedCall, moment_us: int, rounding: Rounding) -> int:
    """Return the seconds to settle if charging ends at a moment of the switch's clock."""
    return min(whole_seconds(call.elapsed_us(moment_us) // 1000, rounding), SECONDS_MAX)


def ended_us(hangup: Event) -> int:
    """Return when a leg ended."""
    return (
        hangup.integer_variable("end_uepoch")
        or hangup.integer("Caller-Channel-Hangup-Time")
        or hangup.timestamp_us
        or 0
    )
