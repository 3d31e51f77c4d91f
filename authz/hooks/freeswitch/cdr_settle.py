"""What a CDR means for the books: the settle of a charged leg, or why there is none.

Charged are the legs that bear authz's mark, and those that were in one of our contexts without one:
calls that the switch let through while it got no answer from us.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec

from authz.errors import CallUnknown, InvalidInput
from authz.hooks.freeswitch import variables
from authz.hooks.freeswitch.cdr import Cdr
from authz.hooks.freeswitch.durations import Rounding, whole_seconds
from authz.hooks.freeswitch.events import Event
from authz.hooks.freeswitch.lookup import Payer
from authz.model import ACCOUNT_ID_PATTERN, SettleRequest
from authz.reasons import DIRECTIONS, REASONS
from authz.validation import invalid_input

_OK: Final = REASONS["ok"].name
_ACCOUNT_ID: Final = re.compile(ACCOUNT_ID_PATTERN)
_SWITCH_NAME: Final = re.compile(r"[!-~]{1,64}")
_CAUSE: Final = re.compile(r"[A-Z0-9_]{1,64}")
_MICROSECONDS: Final = 1_000_000


class Ignored(NamedTuple):
    """A record of nothing that is to be booked, and why."""

    call_id: str
    why: str


class CdrRules(NamedTuple):
    """By what a record is judged."""

    contexts: tuple[str, ...]
    find_payer: Callable[[Event], Payer | None]
    rounding: Rounding


def settle_of(cdr: Cdr, rules: CdrRules) -> SettleRequest | Ignored:
    """Return the settle that a record stands for, or why it is of no charged leg.

    Raises InvalidInput if it lacks what a settle needs, CallUnknown if nobody is found who pays
    for a call that has been talked on.
    """
    leg = cdr.leg
    uuid = leg.unique_id
    if not uuid:
        raise InvalidInput("variables.uuid", "is missing")
    mark = leg.variable(variables.CALL)
    # A mark may have been copied to another leg; LEG is on one that goes on with that leg's call.
    if mark and uuid in (mark, mark.partition("#")[0], leg.variable(variables.LEG)):
        return _settle(cdr, rules, mark, _marked_payer(leg) or rules.find_payer(leg))
    if mark or leg.get("Call-Direction") == "outbound":
        return Ignored(uuid, "not the charged leg")
    reason = leg.variable(variables.REASON)
    if reason not in ("", _OK):
        return Ignored(uuid, f"refused or free: {reason}")
    way = cdr.in_contexts(rules.contexts)
    if way is None:
        return Ignored(uuid, "was in none of freeswitch.contexts")
    return _settle(cdr, rules, uuid, rules.find_payer(way))


def _settle(
    cdr: Cdr, rules: CdrRules, call_id: str, payer: Payer | None
) -> SettleRequest | Ignored:
    leg = cdr.leg
    ended_us = _integer(leg, "end_uepoch")
    started_us = leg.integer_variable(variables.STARTED_US) or _integer(leg, "answer_uepoch")
    seconds = whole_seconds(_billed_ms(leg, ended_us), rules.rounding)
    if payer is None:
        if seconds == 0:
            return Ignored(call_id, "never answered, and nobody pays")
        raise CallUnknown(f"no account pays for call {call_id} of {seconds} seconds")
    way = cdr.in_contexts(rules.contexts)
    dialled = leg.variable(variables.TO) or (way or leg).get("Caller-Destination-Number")
    switch, cause = leg.get("FreeSWITCH-Switchname"), leg.variable("hangup_cause")
    words = {
        "call_id": call_id,
        "account": payer.account,
        "seconds": seconds,
        "hangup_cause": cause if _CAUSE.fullmatch(cause) else None,
        "answered_at": started_us // _MICROSECONDS if seconds else None,
        "ended_at": ended_us // _MICROSECONDS,
        "to": dialled or None,
        "direction": payer.direction,
        "switch": switch if _SWITCH_NAME.fullmatch(switch) else None,
        "rate_number": leg.variable(variables.RATE_NUMBER) or None,
    }
    try:
        return msgspec.convert(words, SettleRequest)
    except msgspec.ValidationError as error:
        raise invalid_input(error) from None


def _billed_ms(leg: Event, ended_us: int) -> int:
    """Return the milliseconds of talk: from our own start of the charge, or the switch's count."""
    started_us = leg.integer_variable(variables.STARTED_US)
    if started_us is None:
        return _integer(leg, "billmsec")
    return max(0, ended_us - started_us) // 1000


def _marked_payer(leg: Event) -> Payer | None:
    account, direction = leg.variable(variables.ACCOUNT), leg.variable(variables.DIRECTION)
    if not _ACCOUNT_ID.match(account) or direction not in DIRECTIONS:
        return None
    return Payer(account, DIRECTIONS[direction].label)


def _integer(leg: Event, name: str) -> int:
    number = leg.integer_variable(name)
    if number is None:
        raise InvalidInput(f"variables.{name}", "is missing or no whole number")
    return number
