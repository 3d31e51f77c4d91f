"""From a request to checked words: path, query and body, each error naming the field."""

from __future__ import annotations

import json
from typing import Any, Final, TypeVar

import msgspec
from aiohttp import web

from authz.admin.problems import Problem
from authz.admin.routes import Body
from authz.errors import InvalidInput
from authz.problems import problem
from authz.validation import invalid_input

JSON_BYTES_MAX: Final = 1_048_576
#: With what curl -d, Python's urllib and aiohttp call a body that nobody has named.
_JSON_TYPES = frozenset(
    {
        "application/json", "application/merge-patch+json",
        "application/x-www-form-urlencoded", "application/octet-stream",
    }
)  # fmt: skip
#: A deck file is taken as curl and browsers send it; only forms are refused, which wrap it.
_WRAPPED_TYPES = frozenset({"multipart/form-data", "application/json"})
_CHUNK_BYTES = 262_144

T = TypeVar("T", bound=msgspec.Struct)


def parameters_of(request: web.Request, struct: type[T] | None) -> T | None:
    """Return the words of path and query; InvalidInput for an unknown, repeated or wrong one."""
    words: dict[str, str] = dict(request.match_info)
    for name, value in request.query.items():
        if name in words:
            raise InvalidInput(name, "is there twice, or part of the path already")
        words[name] = value
    if struct is None:
        if words:
            raise InvalidInput(next(iter(words)), "unknown query parameter")
        return None
    known = {field.encode_name: field.name for field in msgspec.structs.fields(struct)}
    for name in words:
        if name not in known:
            raise InvalidInput(name, "unknown query parameter")
    try:
        parameters = msgspec.convert(words, struct, strict=False)
    except msgspec.ValidationError as error:
        raise invalid_input(error) from None
    for name in words:
        # To msgspec a number may be the word "null"; who means none leaves the parameter out.
        if getattr(parameters, known[name]) is None:
            raise InvalidInput(name, "null is no value: leave it out")
    return parameters


async def read_body(
    request: web.Request, body: type[msgspec.Struct] | Body | None, csv_bytes_max: int
) -> Any:
    """Return the body as its operation wants it.

    Raises Problem for a wrong media type or too many bytes, InvalidInput for a wrong content.
    """
    if body is None:
        data = await _read(request, JSON_BYTES_MAX)
        if data.strip() not in (b"", b"{}"):
            raise InvalidInput("", "this request takes no body")
        return None
    if body is Body.CSV:
        if request.content_type in _WRAPPED_TYPES:
            raise _wrong_type("send the file itself, as curl -T or --data-binary does")
        return await _read(request, csv_bytes_max)
    if request.content_type not in _JSON_TYPES:
        raise _wrong_type("send Content-Type: application/json")
    data = await _read(request, JSON_BYTES_MAX)
    if not data and request.method == "POST" and not has_required_field(body):
        # Who has nothing to add may send nothing; a PUT of nothing would set every default.
        data = b"{}"
    return _decode(data, dict[str, Any] if body is Body.MERGE_PATCH else body)


def has_required_field(body: type[msgspec.Struct] | Body) -> bool:
    """Whether a request's body cannot be left out: it has something that must be said."""
    return isinstance(body, Body) or any(one.required for one in msgspec.structs.fields(body))


async def _read(request: web.Request, bytes_max: int) -> bytes:
    parts = bytearray()
    if (request.content_length or 0) > bytes_max:
        raise _too_large(bytes_max)
    async for chunk in request.content.iter_chunked(_CHUNK_BYTES):
        parts += chunk
        if len(parts) > bytes_max:
            raise _too_large(bytes_max)
    return bytes(parts)


def _decode(data: bytes, kind: Any) -> Any:
    try:
        value = msgspec.json.decode(data, type=kind)
        json.loads(data, object_pairs_hook=_refuse_repeated_name)
    except msgspec.ValidationError as error:
        raise invalid_input(error) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Problem(problem(400, "malformed_json", f"the body is not JSON: {error}")) from None
    except RecursionError:
        raise Problem(problem(400, "malformed_json", "the body is nested too deeply")) from None
    return value


def _refuse_repeated_name(members: list[tuple[str, object]]) -> dict[str, object]:
    unique: dict[str, object] = {}
    for name, value in members:
        if name in unique:
            raise InvalidInput(name, "is there twice")
        unique[name] = value
    return unique


def _wrong_type(detail: str) -> Problem:
    return Problem(problem(415, "unsupported_media_type", detail, field="Content-Type"))


def _too_large(bytes_max: int) -> Problem:
    return Problem(problem(413, "body_too_large", f"more than {bytes_max} bytes"))
