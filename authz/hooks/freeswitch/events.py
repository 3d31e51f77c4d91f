"""Events of FreeSWITCH, alike whichever of its two formats they came in.

JSON is what we ask for, because it keeps what a caller wrote. The plain format, which is also that
of an outbound socket's first reply, is lossy: FreeSWITCH does not encode a `%41` that a value holds
already, so that it comes out as `A`. Nothing here trusts a caller's text: bytes that are no UTF-8
are replaced and control characters pass, because an event that we fail to read is a call that
nobody charges.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Final
from urllib.parse import unquote_to_bytes

import msgspec

from authz.errors import ProtocolError
from authz.hooks.freeswitch.frames import EVENT_JSON, Frame, parse_headers

_VARIABLE: Final = "variable_"
#: How the plain format and `uuid_getvar` write a variable of several values.
_ARRAY: Final = "ARRAY::"
_ARRAY_SEPARATOR: Final = "|:"
#: The key of an event's body in JSON.
_JSON_BODY: Final = "_body"
#: Microseconds since 1970 have 16; what has more is no number of the switch.
_DIGITS_MAX: Final = 20

_DECODER: Final = msgspec.json.Decoder(dict[str, str | list[str]])


class Event:
    """One event. Headers are read by the names that FreeSWITCH gives them."""

    __slots__ = ("_headers", "body", "name")

    def __init__(self, headers: dict[str, str | list[str]], body: str = "") -> None:
        self._headers = headers
        #: What the event carries beside its headers: a background job's answer, for one.
        self.body = body
        self.name = self.get("Event-Name")

    def __repr__(self) -> str:
        return f"<Event {self.name} {self.subclass} {self.unique_id}>"

    def __contains__(self, header: object) -> bool:
        return header in self._headers

    def __iter__(self) -> Iterator[str]:
        """Yield the names of its headers, in the order of the switch."""
        return iter(self._headers)

    def get(self, header: str, default: str = "") -> str:
        """Return a header's value, of several the last, which is the newest."""
        value = self._headers.get(header)
        if value is None:
            return default
        if isinstance(value, str):
            return value
        return value[-1] if value else default

    def values(self, header: str) -> tuple[str, ...]:
        """Return all values of a header, oldest first; none if it is missing."""
        value = self._headers.get(header)
        if value is None:
            return ()
        return (value,) if isinstance(value, str) else tuple(value)

    def integer(self, header: str) -> int | None:
        """Return a header that is a number, or None if it is missing or something else."""
        return _integer(self.get(header))

    def variable(self, name: str, default: str = "") -> str:
        """Return a channel variable."""
        return self.get(_VARIABLE + name, default)

    def integer_variable(self, name: str) -> int | None:
        """Return a channel variable that is a number, or None."""
        return _integer(self.get(_VARIABLE + name))

    @property
    def variables(self) -> dict[str, str]:
        """All channel variables by name."""
        start = len(_VARIABLE)
        return {
            name[start:]: self.get(name) for name in self._headers if name.startswith(_VARIABLE)
        }

    @property
    def subclass(self) -> str:
        """Which CUSTOM event it is; empty for the others."""
        return self.get("Event-Subclass")

    @property
    def unique_id(self) -> str:
        """The leg's uuid; empty where the event concerns no leg, or names it elsewhere."""
        return self.get("Unique-ID")

    @property
    def core_uuid(self) -> str:
        """The running switch's identity, which a restart changes."""
        return self.get("Core-UUID")

    @property
    def timestamp_us(self) -> int | None:
        """When the switch made the event, by its own clock, in steps of 20 ms."""
        return self.integer("Event-Date-Timestamp")


def event_of_frame(frame: Frame) -> Event:
    """Return the event in a frame of either format. Raises ProtocolError if there is none."""
    if frame.content_type == EVENT_JSON:
        return event_of_json(frame.body)
    return event_of_plain(frame.body)


def event_of_json(data: bytes) -> Event:
    """Return the event that JSON describes. Raises ProtocolError where it is no such thing."""
    try:
        headers = _DECODER.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        headers = _lenient_headers(data)
    body = headers.pop(_JSON_BODY, "")
    return Event(headers, body if isinstance(body, str) else "\n".join(body))


def event_of_plain(data: bytes) -> Event:
    """Return the event of a plain body: encoded headers, and perhaps a body of its own."""
    block, _, rest = data.partition(b"\n\n")
    event = Event(_decoded(parse_headers(block)))
    length = event.integer("Content-Length")
    if length is not None:
        event.body = rest[:length].decode("utf-8", "replace")
    return event


def event_of_headers(frame: Frame) -> Event:
    """Return the channel data of an outbound socket's connect reply, which is a header block."""
    return Event(_decoded(frame.headers))


def values_of_text(text: str) -> tuple[str, ...]:
    """Return the values of a variable as `uuid_getvar` and the plain format write them."""
    if not text.startswith(_ARRAY):
        return (text,)
    return tuple(text[len(_ARRAY) :].split(_ARRAY_SEPARATOR))


def _integer(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _DIGITS_MAX else None


def _decoded(headers: dict[str, str]) -> dict[str, str | list[str]]:
    decoded: dict[str, str | list[str]] = {}
    for name, value in headers.items():
        if "%" in value:
            value = unquote_to_bytes(value).decode("utf-8", "replace")
        decoded[name] = list(values_of_text(value)) if value.startswith(_ARRAY) else value
    return decoded


def _lenient_headers(data: bytes) -> dict[str, str | list[str]]:
    """Read what a caller's bytes made unreadable to a strict reader."""
    try:
        tree = json.loads(data.decode("utf-8", "replace"), strict=False)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"an event that is no JSON: {error}") from None
    if not isinstance(tree, dict):
        raise ProtocolError("an event that is no JSON object")
    return {
        name: [_text(item) for item in value] if isinstance(value, list) else _text(value)
        for name, value in tree.items()
    }


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
