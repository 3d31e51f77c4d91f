"""Patterns of Struct fields that a table of characters can stand in for.

msgspec runs a regular expression for each of them, which costs more than decoding the rest. A
pattern that only says which characters a text may consist of is read here, so that the knowledge
stays in the pattern alone.
"""

from __future__ import annotations

import re
from typing import Any, Final, TypeVar, cast

import msgspec
from msgspec.inspect import NoneType, StrType, StructType, UnionType, type_info

from authz_ext.words import Word

T = TypeVar("T", bound=msgspec.Struct)

_SET: Final = r"\[(?:[^\]\\]|\\x[0-9a-f]{2})+\]"
#: `[set]+`, `[set]*` or `[first][further]{0,n}`, up to the end of the text.
_PATTERN: Final = re.compile(
    rf"\^(?P<first>{_SET})(?:(?P<any>[+*])|(?P<further>{_SET})\{{0,(?P<further_max>\d+)\}})"
    r"(?:\$\(\?!\\n\)|\\Z)"
)
_ASCII: Final = [chr(code) for code in range(128)]
#: Longer words are left to the pattern.
_SIZE_MAX: Final = 255


def word_of(text: StrType) -> Word | None:
    """Return a word that only texts of this type are; None if its pattern says anything else."""
    form = _PATTERN.fullmatch(text.pattern or "")
    if form is None:
        return None
    size_max = _SIZE_MAX if text.max_length is None else min(text.max_length, _SIZE_MAX)
    if form["further_max"] is not None:
        size_max = min(size_max, int(form["further_max"]) + 1)
    size_min = max(text.min_length or 0, 0 if form["any"] == "*" else 1)
    further = form["further"] or form["first"]
    return Word(_characters(form["first"]), _characters(further), size_min, size_max)


def without_patterns(struct: type[T]) -> tuple[type[T], dict[str, Word]]:
    """Return a Struct derived from this one that checks fewer fields, and their words by name."""
    words: dict[str, Word] = {}
    fields: list[tuple[str, Any, Any]] = []
    for field in cast(StructType, type_info(struct)).fields:
        kinds = field.type.types if isinstance(field.type, UnionType) else (field.type,)
        texts = [kind for kind in kinds if isinstance(kind, StrType)]
        is_optional = any(isinstance(kind, NoneType) for kind in kinds)
        word = word_of(texts[0]) if len(kinds) == 1 + is_optional and texts else None
        if word is None:
            continue
        words[field.name] = word
        looser = str | None if is_optional else str
        default = msgspec.field(name=field.encode_name, default=field.default)
        fields.append((field.name, looser, default))
    config = struct.__struct_config__
    derived = msgspec.defstruct(
        struct.__name__,
        fields,
        bases=(struct,),
        module=struct.__module__,
        kw_only=True,  # required fields now come behind optional ones
        frozen=config.frozen,
        gc=config.gc,
        forbid_unknown_fields=config.forbid_unknown_fields,
    )
    return cast(type[T], derived), words


def _characters(of_set: str) -> str:
    return "".join(one for one in _ASCII if re.fullmatch(of_set, one))
