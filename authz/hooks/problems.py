"""Errors as callers see them: problem documents after RFC 9457, never a traceback."""

from __future__ import annotations

import re
import secrets
from http import HTTPStatus

import msgspec

from authz import log
from authz.errors import (
    AuthzError,
    CallUnknown,
    Conflict,
    InvalidInput,
    NotFound,
    SettledDifferently,
    SpoolFull,
    StoreError,
)
from authz.hooks.messages import PROBLEM_JSON, Response

#: What a caller may wait before it asks again, in seconds.
_RETRY_AFTER_SECONDS = 1
_RETRY_AFTER_FULL_SECONDS = 10
_FIELD_LENGTH_MAX = 128

_AT_PATH = re.compile(r"^(?P<detail>.*) - at `\$\.?(?P<path>.*)`$", re.DOTALL)
_NAMED_FIELD = re.compile(r"^Object (?:contains unknown|missing required) field `(?P<name>.*)`$")


class ProblemDocument(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The body of every answer that is not 2xx. `reason` is stable and made for programs."""

    title: str
    status: int
    reason: str
    detail: str = ""
    #: The wrong field as the caller wrote it.
    field: str | None = None
    #: Of `settled_differently`: what was booked.
    seconds: int | None = None
    #: Of `internal_error`: the id under which the log has the cause.
    id: str | None = None


class Problem(AuthzError):
    """A request that ends in a problem document. `close`: the connection cannot go on."""

    def __init__(
        self,
        status: int,
        reason: str,
        detail: str = "",
        *,
        field: str | None = None,
        seconds: int | None = None,
        id: str | None = None,
        headers: bytes = b"",
        close: bool = False,
    ) -> None:
        super().__init__(detail or reason)
        self.document = ProblemDocument(
            title=HTTPStatus(status).phrase,
            status=status,
            reason=reason,
            detail=detail,
            field=field[:_FIELD_LENGTH_MAX] if field else None,
            seconds=seconds,
            id=id,
        )
        self.headers = headers
        self.close = close

    def response(self) -> Response:
        """Return the answer that tells the caller."""
        return Response(
            self.document.status,
            msgspec.json.encode(self.document),
            PROBLEM_JSON,
            self.headers,
        )


def retry_after(seconds: int) -> bytes:
    """Return the header line that asks a caller to wait."""
    return b"Retry-After: %d\r\n" % seconds


def overloaded() -> Problem:
    """The process has as many requests in its engine as it may."""
    return Problem(
        503,
        "overloaded",
        "more requests are waiting than this process answers in time",
        headers=retry_after(_RETRY_AFTER_SECONDS),
    )


def from_invalid_json(error: Exception) -> Problem:
    """Translate what msgspec says of a body into a problem that names the field."""
    if isinstance(error, msgspec.ValidationError):
        return _from_validation(str(error))
    if isinstance(error, UnicodeDecodeError):
        return Problem(400, "malformed_json", f"the body is not UTF-8: {error.reason}")
    return Problem(400, "malformed_json", f"the body is not JSON: {error}")


def _from_validation(message: str) -> Problem:
    found = _AT_PATH.match(message)
    detail, path = (found["detail"], found["path"]) if found else (message, "")
    named = _NAMED_FIELD.match(detail)
    if named:
        path = f"{path}.{named['name']}" if path else named["name"]
    return Problem(400, "invalid_input", detail, field=path or None)


def from_exception(error: Exception, route: str) -> Problem:
    """Return the problem for whatever an endpoint raised; the unexpected is logged with an id."""
    match error:
        case Problem():
            return error
        case InvalidInput():
            return Problem(400, "invalid_input", error.detail, field=error.field or None)
        case CallUnknown():
            return Problem(404, "call_unknown", "no record of this call of this account exists")
        case SettledDifferently():
            return Problem(409, "settled_differently", str(error), seconds=error.seconds)
        case NotFound():
            return Problem(404, "not_found", str(error))
        case Conflict():
            return Problem(409, "conflict", str(error))
        case SpoolFull():
            return Problem(
                503,
                "spool_full",
                "neither the store nor the local spool takes this settle; send it again",
                headers=retry_after(_RETRY_AFTER_FULL_SECONDS),
            )
        case StoreError():
            log.event("hook_store_failed", level="warning", error=error, route=route)
            return Problem(
                503,
                "store_unavailable",
                "the store did not answer in time",
                headers=retry_after(_RETRY_AFTER_SECONDS),
            )
    problem_id = secrets.token_hex(8)
    log.event("hook_request_failed", level="error", error=error, route=route, id=problem_id)
    return Problem(500, "internal_error", "the log names the cause", id=problem_id)
