"""What msgspec says of wrong input, as an error that names the field."""

from __future__ import annotations

import re
from typing import Final

import msgspec

from authz.errors import InvalidInput

_PLACE: Final = re.compile(r" - at `(?:key in )?\$\.?(?P<path>[^`]*)`\Z")
_NAMED_FIELD: Final = re.compile(
    r"\AObject (?:contains unknown|missing required) field `(?P<name>[^`]*)`"
)


def invalid_input(error: msgspec.ValidationError) -> InvalidInput:
    """Return the InvalidInput for what msgspec found, with the field as the caller wrote it."""
    text = str(error)
    place = _PLACE.search(text)
    path = place["path"] if place else ""
    if named := _NAMED_FIELD.search(text):
        path = f"{path}.{named['name']}" if path else named["name"]
    return InvalidInput(path, _PLACE.sub("", text))
