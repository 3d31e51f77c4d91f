"""Events of a real FreeSWITCH as forms to fill in: whose call, which numbers, what moment.

Every form is cut from a transcript, so that its headers are those that a FreeSWITCH sends at that
point of a call's life, in its order. What is filled in: the uuids of both legs, the numbers, and
(by `legs`) times, durations, causes and the variables that were set.
"""

from __future__ import annotations

import functools
import re
from typing import NamedTuple

from authz.hooks.freeswitch.events import Event, event_of_frame, event_of_headers
from authz.hooks.freeswitch.frames import COMMAND_REPLY, FrameReader
from freeswitch import transcripts

Headers = dict[str, str | list[str]]

#: Legs by the switch's name for them: the caller's and the callee's.
A_LEG = "inbound"
B_LEG = "outbound"

#: How far a leg is, which decides what its hang-up tells: never routed, routed, answered.
PARKED = "parked"
RINGING = "ringing"
ANSWERED = "answered"

#: With early media the legs are joined before the answer.
EARLY_MEDIA = "early media"

#: Where each phase's events are cut from; 09k is in JSON and was not led by variables.
_SOURCES = {PARKED: "02a_refuse", RINGING: "01o", EARLY_MEDIA: "01n", ANSWERED: "09k"}
_NOT_OF_A_LEG = {"HEARTBEAT": "01c", "ADD_SCHEDULE": "01c", "DEL_SCHEDULE": "01c"}
_SOCKET = {"async": "03a", "static": "03n"}

#: What the recording client had set, which is nobody else's.
_NOT_THE_SWITCH = re.compile(
    r"variable_(authz|execute_on_answer$|export_vars$|call_timeout$|enable_heartbeat_events$)"
)
#: What the simulator says itself, at every event.
_PROLOGUE = re.compile(r"Core-UUID|Event-Date-|Event-Sequence|Event-UUID|Job-|_body|Content-")


class Names(NamedTuple):
    """What is filled into a form's gaps."""

    a_uuid: str
    b_uuid: str
    from_number: str
    to_number: str


class Form:
    """An event with gaps. `fill` makes the headers of one call of it."""

    __slots__ = ("_fixed", "_gaps")

    def __init__(self, event: Event, names: Names) -> None:
        self._fixed: Headers = {}
        self._gaps: list[tuple[str, list[int | str]]] = []
        pattern = _token_pattern(names)
        for header in event:
            if _PROLOGUE.match(header) or _NOT_THE_SWITCH.match(header):
                continue
            value = event.get(header)
            if header.endswith("_sdp") or not pattern.search(value):
                self._fixed[header] = value
                continue
            # The place is kept, so that the order stays that of the switch.
            self._fixed[header] = ""
            pieces = pattern.split(value)
            filled = [names.index(piece) if piece in names else piece for piece in pieces if piece]
            self._gaps.append((header, filled))

    def fill(self, names: Names) -> Headers:
        """Return the headers for a call with these names."""
        headers = self._fixed.copy()
        for header, pieces in self._gaps:
            headers[header] = "".join(
                names[piece] if isinstance(piece, int) else piece for piece in pieces
            )
        return headers


@functools.cache
def form(name: str, leg: str, phase: str) -> Form:
    """Return the form of an event of a leg in a phase, or in the next phase that has it."""
    for candidate in (_SOURCES[phase], _SOURCES[ANSWERED]):
        events, names = _recorded(candidate)
        for event in events:
            if event.name == name and event.get("Call-Direction") == leg:
                return Form(event, names)
    raise LookupError(f"no transcript has a {name} of a {leg} leg that is {phase}")


@functools.cache
def form_without_leg(name: str) -> Form:
    """Return the form of an event that belongs to no leg."""
    events, names = _recorded(_NOT_OF_A_LEG[name])
    return Form(next(event for event in events if event.name == name), names)


@functools.cache
def socket_form(mode: str) -> Form:
    """Return the form of an outbound socket's first reply; `mode` is async or static."""
    said = transcripts.load(_SOCKET[mode]).said("osock", by_switch=True)
    frames = FrameReader().feed(said)
    event = event_of_headers(next(one for one in frames if one.content_type == COMMAND_REPLY))
    number = event.get("Caller-Caller-ID-Number")
    names = Names(event.unique_id, "", number, event.get("Caller-Destination-Number"))
    return Form(event, names)


@functools.cache
def _recorded(prefix: str) -> tuple[list[Event], Names]:
    transcript = transcripts.load(prefix)
    said = transcript.said("esl", by_switch=True)
    frames = FrameReader().feed(said)
    events = [event_of_frame(one) for one in frames if one.content_type.startswith("text/event")]
    caller = next(one for one in events if one.get("Call-Direction") == A_LEG)
    callee = next((one for one in events if one.get("Call-Direction") == B_LEG), None)
    names = Names(
        caller.unique_id,
        callee.unique_id if callee else "",
        caller.get("Caller-Caller-ID-Number"),
        caller.get("Caller-Destination-Number"),
    )
    # Several calls may be in one recording: only the first one's names are known.
    legs = {names.a_uuid, names.b_uuid, ""}
    return [one for one in events if one.unique_id in legs], names


def _token_pattern(names: Names) -> re.Pattern[str]:
    tokens = [re.escape(name) for name in names if name]
    return re.compile(rf"(?<![0-9A-Za-z])({'|'.join(tokens)})(?![0-9A-Za-z])")
