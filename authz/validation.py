"""What msgspec says of wrong input, as an error that names the field."""

from __future__ import annotations

import re
from typing import Final

import msgspec

from authz.errors import InvalidInput

_PLACE: Final = re.compile(r" - at `(?:key` in `)?\$\.?(?P<path>[^`]*)`\Z")
#: What mail servers agree on; quoted local parts and bare hosts are not among it.
_EMAIL: Final = re.compile(
    r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@(?=.{1,253}\Z)"
    r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,62}[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]{0,62}[A-Za-z0-9])?)*\Z"
)
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


def parse_bucket_cursor(cursor: str | None, buckets: int) -> tuple[int, int]:
    """Return the bucket and the position in it that a scan's `<bucket>-<position>` names.

    Raises InvalidInput for a cursor that no earlier page has given.
    """
    if cursor is None:
        return 0, 0
    bucket, _, position = cursor.partition("-")
    if not (bucket.isdecimal() and position.isdecimal() and int(bucket) < buckets):
        raise InvalidInput("cursor", "is not the cursor of an earlier page")
    return int(bucket), int(position)


def check_email(address: str) -> None:
    """Raise ValueError unless the text is one bare address such as `ops@example.net`."""
    if not _EMAIL.match(address):
        raise ValueError(f"{address[:80]!r} is not an e-mail address such as ops@example.net")
