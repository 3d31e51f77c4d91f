"""JSON bodies into Structs, strictly: typed, no unknown names, no name twice."""

from __future__ import annotations

import json
from typing import Generic, TypeVar

import msgspec

from authz.hooks.problems import Problem, from_invalid_json
from authz_ext.members import may_repeat_a_name

T = TypeVar("T", bound=msgspec.Struct)


class JsonBody(Generic[T]):
    """Decoder of one flat Struct; a member named twice is refused, not silently overwritten."""

    def __init__(self, struct: type[T]) -> None:
        self._decode = msgspec.json.Decoder(struct).decode

    def decode(self, body: bytes) -> T:
        """Return the request in a body; raises Problem 400 that names the field or position."""
        if not body:
            raise Problem(400, "malformed_json", "the body is empty")
        try:
            value = self._decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise from_invalid_json(error) from None
        if may_repeat_a_name(body):
            json.loads(body, object_pairs_hook=_refuse_repeated_name)
        return value


def _refuse_repeated_name(members: list[tuple[str, object]]) -> dict[str, object]:
    unique = dict(members)
    if len(unique) != len(members):
        seen: set[str] = set()
        for name, _ in members:
            if name in seen:
                raise Problem(400, "invalid_input", f"`{name}` is there twice", field=name)
            seen.add(name)
    return unique
