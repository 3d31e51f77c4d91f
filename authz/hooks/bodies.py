"""JSON bodies into Structs, strictly: typed, no unknown names, no name twice."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Generic, TypeVar

import msgspec

from authz.hooks.messages import Request
from authz.hooks.patterns import without_patterns
from authz.hooks.problems import Problem, from_invalid_json
from authz_ext.members import StrictDecoder

T = TypeVar("T", bound=msgspec.Struct)


class JsonBody(Generic[T]):
    """Decoder of one flat Struct; a member named twice is refused, not silently overwritten.

    `decode` takes a body, `decode_body` a request that has one. Both raise Problem 400, which names
    the field or the position.
    """

    def __init__(self, struct: type[T]) -> None:
        loose, words = without_patterns(struct)
        decoder = StrictDecoder(
            msgspec.json.Decoder(struct).decode,
            _refusal,
            _check_names,
            decode_loosely=msgspec.json.Decoder(loose).decode,
            words=words,
        )
        # Not methods of ours: nothing of Python runs between the bytes and the struct.
        self.decode: Callable[[bytes], T] = decoder.decode
        self.decode_body: Callable[[Request], T] = decoder.decode_body


def _refusal(body: bytes, error: Exception) -> Problem:
    if not body:
        return Problem(400, "malformed_json", "the body is empty")
    return from_invalid_json(error)


def _check_names(body: bytes) -> None:
    json.loads(body, object_pairs_hook=_refuse_repeated_name)


def _refuse_repeated_name(members: list[tuple[str, object]]) -> dict[str, object]:
    unique = dict(members)
    if len(unique) != len(members):
        seen: set[str] = set()
        for name, _ in members:
            if name in seen:
                raise Problem(400, "invalid_input", f"`{name}` is there twice", field=name)
            seen.add(name)
    return unique
