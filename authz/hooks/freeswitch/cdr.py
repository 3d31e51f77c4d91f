"""Call detail records of mod_json_cdr: a leg's last state, read leniently.

A record that we fail to read is a call that nobody charges. So whatever way the module was told to
encode is understood, bytes that are no UTF-8 are replaced, and only what is needed is looked at.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from typing import Any, Final, NamedTuple
from urllib.parse import unquote_to_bytes

from authz.errors import InvalidInput
from authz.hooks.freeswitch.events import Event

#: What mod_json_cdr calls its bodies: plain, encode=true, encode=base64, and older versions.
MEDIA_TYPES: Final = frozenset(
    {
        b"application/json",
        b"application/x-www-form-urlencoded",
        b"application/x-www-form-base64-encoded",
        b"application/x-www-form-plaintext",
    }
)
_FORM_NAME: Final = b"cdr="
_BLANKS: Final = re.compile(rb"\s+")
#: Members of a caller profile under the names that events have for them.
_PROFILE_HEADERS: Final = {
    "username": "Caller-Username",
    "caller_id_number": "Caller-Caller-ID-Number",
    "ani": "Caller-ANI",
    "network_addr": "Caller-Network-Addr",
    "destination_number": "Caller-Destination-Number",
    "context": "Caller-Context",
    "source": "Caller-Source",
    "chan_name": "Caller-Channel-Name",
}
_PROFILES_MAX: Final = 64


class Cdr(NamedTuple):
    """One leg. `profiles` are the events of its way through the dialplan, the newest first.

    Each has the leg's variables, and as `Caller-…` headers what that part of the way was called by.
    """

    profiles: tuple[Event, ...]

    @property
    def leg(self) -> Event:
        """The leg as it was at its end."""
        return self.profiles[0]

    def in_contexts(self, contexts: tuple[str, ...]) -> Event | None:
        """Return the newest part of the way that lay in one of these contexts, or None."""
        for profile in self.profiles:
            if profile.get("Caller-Context") in contexts:
                return profile
        return None


def read_cdr(body: bytes) -> Cdr:
    """Return the record in a request's body or in a file. Raises InvalidInput."""
    tree = _tree(_unwrapped(body.strip()))
    variables = tree.get("variables")
    if not isinstance(variables, dict):
        raise InvalidInput("variables", "is missing: this is no record of mod_json_cdr")
    # With encode-values the module encodes variables, and nothing else. A time tells: it always
    # has a blank or its code.
    is_encoded = "%20" in _text(variables.get("start_stamp"))
    headers: dict[str, str | list[str]] = {
        f"variable_{name}": _decoded(_text(value)) if is_encoded else _text(value)
        for name, value in variables.items()
    }
    headers["FreeSWITCH-Switchname"] = _text(tree.get("switchname"))
    headers["Core-UUID"] = _text(tree.get("core-uuid"))
    for header, variable in (("Unique-ID", "uuid"), ("Call-Direction", "direction")):
        headers[header] = headers.get(f"variable_{variable}", "")
    flow = tree.get("callflow")
    profiles = [_profile(part) for part in flow[:_PROFILES_MAX]] if isinstance(flow, list) else []
    return Cdr(tuple(Event({**headers, **profile}) for profile in profiles or [{}]))


def _unwrapped(body: bytes) -> bytes:
    """Return the JSON inside what `encode` made of it."""
    if not body.startswith(_FORM_NAME):
        return body
    text = body[len(_FORM_NAME) :]
    if text.startswith(b"{"):
        return text
    if text.startswith(b"%"):
        return unquote_to_bytes(text)
    try:
        return base64.b64decode(_BLANKS.sub(b"", text), validate=True)
    except binascii.Error:
        raise InvalidInput("cdr", "is neither percent-encoded nor base64") from None


def _tree(text: bytes) -> dict[str, Any]:
    try:
        tree = json.loads(text.decode("utf-8", "replace"), strict=False)
    except (ValueError, RecursionError) as error:
        # With both encodings on, the module's body has quotes inside values that nothing marks.
        raise InvalidInput(
            "",
            f"no JSON ({error}); if both are on, turn encode or encode-values off in mod_json_cdr",
        ) from None
    if not isinstance(tree, dict):
        raise InvalidInput("", "the record is no JSON object")
    return tree


def _profile(part: object) -> dict[str, str | list[str]]:
    profile = part.get("caller_profile") if isinstance(part, dict) else None
    if not isinstance(profile, dict):
        return {}
    return {header: _text(profile.get(name)) for name, header in _PROFILE_HEADERS.items()}


def _decoded(text: str) -> str:
    return unquote_to_bytes(text).decode("utf-8", "replace") if "%" in text else text


def _text(value: object) -> str:
    """Return a member that should be a text; of several values the newest, which is the last."""
    if isinstance(value, list):
        value = value[-1] if value else None
    if isinstance(value, bool | None):
        return ""
    return str(value) if isinstance(value, str | int) else ""
