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
from authz.hooks.freeswitch.refusals import INVALID_NUMBER, Refusal, refusal_of
from authz.hooks.problems import Problem
from authz.model import AuthorizeRequest
from authz.reasons import REASONS
from authz.validation import invalid_input

_FIELDS_MAX: Final = 2_048
_DESTINATION_WORDS_MAX: Final = 3
_CALLER_LENGTH_MAX: Final = 128
_SWITCH_NAME: Final = re.compile(r"[!-~]{1,64}")
#: What may be put into a dial string or a transfer. Anything else could be an option, another
#: destination, or an expansion that runs a command on the switch.
_DIALLED: Final = re.compile(r"[A-Za-z0-9+*#][A-Za-z0-9+*#._-]{0,127}")
NO_PAYER: Final = refusal_of(REASONS["account_unknown"])
#: A field that the engine does not take, such as a call id of 300 characters.
INVALID_CALL: Final = Refusal("invalid_input", 403, "CALL_REJECTED")

FindPayer = Callable[[Event], Payer | None]
#: Names and values as they came.
Form = dict[bytes, bytes]


class Question(NamedTuple):
    """A call in one of our contexts."""

    context: str
    #: What to ask the engine. With a `flaw`, only emergency calls may be asked for by it.
    request: AuthorizeRequest
    #: Why any other call is refused unasked.
    flaw: Refusal | None
    #: Whether an account was found that pays; else the request names NOBODY.
    has_payer: bool
    #: Where the operator sends the call instead: extension, then perhaps dialplan and context.
    destination: tuple[str, ...]
    is_answered: bool
    #: Whether the leg was decided before and has its limits.
    is_repeat: bool
    #: The switch's time, in µs since the epoch.
    at_us: int | None


def read_form(body: bytes) -> Form:
    """Return the fields of a form, still encoded; of one that is there twice, the first.

    Raises Problem.
    """
    form: Form = {}
    pairs = body.split(b"&", _FIELDS_MAX)
    if len(pairs) > _FIELDS_MAX:
        raise Problem(400, "invalid_input", f"more than {_FIELDS_MAX} fields")
    for pair in pairs:
        name, _, value = pair.partition(b"=")
        form.setdefault(name, value)
    return form


def event_of_form(form: Form) -> Event:
    """Return the event that a form spells: the switch makes both alike."""
    return Event({_text(name): _text(value) for name, value in form.items()})


def read_lookup(
    form: Form, contexts: Sequence[str], find_payer: FindPayer, longest_seconds: int
) -> Question | None:
    """Return what is asked, or None if the lookup concerns no context of ours."""
    context = _text(form.get(b"Hunt-Context", b""))
    # Most lookups are none of our business; decoding them would cost more than all the rest.
    if form.get(b"section") != b"dialplan" or context not in contexts:
        return None
    event = event_of_form(form)
    payer = find_payer(event)
    request, flaw = _request(event, payer, longest_seconds)
    destination = tuple(event.variable(variables.DESTINATION).split())
    if not (_DIALLED.fullmatch(request.to) and _is_destination(destination)):
        flaw, destination = INVALID_NUMBER, ()
    elif flaw is None and payer is None:
        flaw = NO_PAYER
    return Question(
        context=context,
        request=request,
        flaw=flaw,
        has_payer=request.account != NOBODY,
        destination=destination,
        is_answered=event.get("Answer-State") == "answered",
        is_repeat=event.variable(variables.CALL) == request.call_id,
        at_us=event.timestamp_us,
    )


def _request(
    event: Event, payer: Payer | None, longest_seconds: int
) -> tuple[AuthorizeRequest, Refusal | None]:
    """Return what to ask the engine, and what is wrong with it, if anything is."""
    dialled = event.get("Hunt-Destination-Number")
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
        return msgspec.convert(words, AuthorizeRequest), None
    except msgspec.ValidationError as error:
        log.event("freeswitch_lookup_invalid", level="warning", error=invalid_input(error))
    # Enough to tell whether it is an emergency call, and to let it pass.
    return AuthorizeRequest(call_id=event.unique_id, account=NOBODY, to=dialled), INVALID_CALL


def _is_destination(words: Sequence[str]) -> bool:
    return len(words) <= _DESTINATION_WORDS_MAX and all(map(_DIALLED.fullmatch, words))


def _caller(number: str) -> str | None:
    """Return the caller's number, which only informs, unless it is missing or too long."""
    return number if 0 < len(number) <= _CALLER_LENGTH_MAX else None


def _text(part: bytes) -> str:
    # The switch writes a blank as %20 and never means one by `+`.
    return (unquote_to_bytes(part) if b"%" in part else part).decode("utf-8", "replace")
