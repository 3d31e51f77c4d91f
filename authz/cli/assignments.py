"""`FIELD=VALUE` words of the command line: changes to an account's configuration.

A field inside another is named with a dot (`trunks.outbound=2`), a list is written with commas
(`blocked_classes=premium,satellite`), and `null` takes a field's default.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec
from msgspec import inspect

from authz.errors import InvalidInput
from authz.model import AccountConfig

_NULL = "null"


def changes_of(words: Iterable[str]) -> dict[str, Any]:
    """Return the merge patch that the words describe; raises InvalidInput naming a field."""
    patch: dict[str, Any] = {}
    for word in words:
        path, separator, text = word.partition("=")
        if not separator:
            raise InvalidInput(path, "write FIELD=VALUE, such as credit_limit=50")
        *parents, name = path.split(".")
        target = patch
        for parent in parents:
            target = target.setdefault(parent, {})
        if name in target:
            raise InvalidInput(path, "is there twice")
        target[name] = _value(path, text)
    return patch


def fields_of(config: AccountConfig) -> Iterator[tuple[str, str]]:
    """Yield every field as the command line would set it: dotted name and text."""
    yield from _flatten("", msgspec.to_builtins(config))


def field_names() -> list[str]:
    """Return the fields that may be set; `.NAME` stands for a key of the caller's."""
    return list(_names("", inspect.type_info(AccountConfig)))


def _value(path: str, text: str) -> object:
    if text == _NULL:
        return None
    kind = _kind(path)
    match kind:
        case inspect.VarTupleType():
            return [part.strip() for part in text.split(",") if part.strip()]
        case inspect.StructType() | inspect.DictType():
            raise InvalidInput(path, f"has fields of its own: write {path}.NAME=VALUE")
        case inspect.IntType():
            return _converted(path, text, int, "is no whole number")
        case inspect.BoolType():
            return _converted(path, text, bool, "is neither true nor false")
    return text


def _converted(path: str, text: str, kind: type, complaint: str) -> object:
    try:
        return msgspec.convert(text, kind, strict=False)
    except msgspec.ValidationError:
        raise InvalidInput(path, f"{text!r} {complaint}") from None


def _kind(path: str) -> inspect.Type:
    """Return the type of the field that a dotted path names."""
    kind: inspect.Type = inspect.type_info(AccountConfig)
    for name in path.split("."):
        if isinstance(kind, inspect.DictType):
            kind = _without_null(kind.value_type)
            continue
        fields = {}
        if isinstance(kind, inspect.StructType):
            fields = {field.encode_name: field.type for field in kind.fields}
        if name not in fields:
            raise InvalidInput(path, _unknown(path))
        kind = _without_null(fields[name])
    return kind


def _unknown(path: str) -> str:
    near = difflib.get_close_matches(path, field_names(), n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"there is no such field{hint}"


def _without_null(kind: inspect.Type) -> inspect.Type:
    if isinstance(kind, inspect.UnionType):
        return next(one for one in kind.types if not isinstance(one, inspect.NoneType))
    return kind


def _names(prefix: str, kind: inspect.Type) -> Iterator[str]:
    match kind:
        case inspect.StructType():
            for field in kind.fields:
                yield from _names(f"{prefix}.{field.encode_name}", _without_null(field.type))
        case inspect.DictType():
            yield f"{prefix}.NAME".lstrip(".")
        case _:
            yield prefix.lstrip(".")


def _flatten(prefix: str, value: object) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        for name, inner in value.items():
            yield from _flatten(f"{prefix}.{name}" if prefix else str(name), inner)
    elif isinstance(value, Mapping | list | tuple):
        yield prefix, ",".join(map(str, value))
    elif isinstance(value, bool):
        yield prefix, "true" if value else "false"
    else:
        yield prefix, _NULL if value is None else str(value)
