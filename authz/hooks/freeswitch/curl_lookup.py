"""What mod_xml_curl asks: one lookup of the dialplan, as the question it puts to the engine.

The module asks for every lookup in every context. A context that is not ours is none of our
business; in one of ours every lookup gets a decision, because on anything but a document the
switch goes on with its own files.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple
from urllib.parse import unquote_to_bytes

import msgspec

from authz import log
from authz.hooks.freeswitch import variables
from authz.hooks.freeswitch.events import Event
from authz.hooks.freeswitch.lookup import NOBODY, Payer
from authz.hooks.freeswitch.refusals import INVALID_NUMBER, Refusal
from authz.hooks.problems import Problem
from authz.model import AuthorizeRequest
from authz.validation import invalid_input

_FIELDS_MAX: Final = 2_048
_DESTINATION_WORDS_MAX: Final = 3
_CALLER_LENGTH_MAX: Final = 128
_SWITCH_NAME: Final = re.compile(r"[!-~]{1,64}")
#: What may be put into a dial string or a transfer. Anything else could be an option, another
#: destination, or an expansion that runs a command on the switch.
_DIALLED: Final = re.compile(r"[A-Za-z0-9+*#][A-Za-z0-9+*#._-]{0,127}")
#: A field that the engine does not take, such as a call id of 300 characters.
INVALID_CALL: Final = Refusal("invalid_input", 403, "CALL_REJECTED")

FindPayer = Callable[[Event], Payer | None]


class Question(NamedTuple):
    """A call in one of our contexts that can be decided."""

    context: str
    request: AuthorizeRequest
    #: Whether an account was found that pays.
    has_payer: bool
    #: Where the call is transferred: extension, and dialplan and context if they are given.
    destination: tuple[str, ...]
    is_answered: bool
    #: Whether the leg was decided before and has its limits.
    is_repeat: bool
    #: The switch's time, in µs since the epoch.
    at_us: int | None


class Undecidable(NamedTuple):
    """A call in one of our contexts that no account or no number can be made out for."""

    context: str
    refusal: Refusal
    is_answered: bool


def read_form(body: bytes) -> Event:
    """Return the fields of a form; of one that is there twice, the first. Raises Problem.

    The switch writes a blank as %20 and never means one by `+`.
    """
    headers: dict[str, str | list[str]] = {}
    pairs = body.split(b"&", _FIELDS_MAX)
    if len(pairs) > _FIELDS_MAX:
        raise Problem(400, "invalid_input", f"more than {_FIELDS_MAX} fields")
    for pair in pairs:
        name, _, value = pair.partition(b"=")
        headers.setdefault(_text(name), _text(value))
    return Event(headers)


def read_lookup(
    event: Event, contexts: Sequence[str], find_payer: FindPayer, longest_seconds: int
) -> Question | Undecidable | None:
    """Return what is asked, or None if the lookup concerns no context of ours."""
    context = event.get("Hunt-Context")
    if event.get("section") != "dialplan" or context not in contexts:
        return None
    dialled = event.get("Hunt-Destination-Number")
    destination = tuple(event.variable(variables.DESTINATION).split() or [dialled])
    is_answered = event.get("Answer-State") == "answered"
    if len(destination) > _DESTINATION_WORDS_MAX or not all(
        map(_DIALLED.fullmatch, (dialled, *destination))
    ):
        return Undecidable(context, INVALID_NUMBER, is_answered)
    payer = find_payer(event)
    switch = event.get("FreeSWITCH-Switchname")
    words = {
        "call_id": event.unique_id,
        "account": NOBODY if payer is None else payer.account,
        "to": dialled,
        "from": _caller(event.get("Hunt-Caller-ID-Number")),
        "direction": "outbound" if payer is None else payer.direction,
        "switch": switch if _SWITCH_NAME.fullmatch(switch) else None,
        "seconds": longest_seconds,
        "rate_number": event.variable(variables.RATE_NUMBER) or None,
    }
    try:
        request = msgspec.convert(words, AuthorizeRequest)
    except msgspec.ValidationError as error:
        log.event("freeswitch_lookup_invalid", level="warning", error=invalid_input(error))
        return Undecidable(context, INVALID_CALL, is_answered)
    return Question(
        context=context,
        request=request,
        has_payer=payer is not None,
        destination=destination,
        is_answered=is_answered,
        is_repeat=event.variable(variables.CALL) == request.call_id,
        at_us=event.timestamp_us,
    )


def _caller(number: str) -> str | None:
    """Return the caller's number, which only informs, unless it is missing or too long."""
    return number if 0 < len(number) <= _CALLER_LENGTH_MAX else None


def _text(part: bytes) -> str:
    return (unquote_to_bytes(part) if b"%" in part else part).decode("utf-8", "replace")
