"""Errors as callers of an HTTP API see them: problem documents after RFC 9457.

One table says for every error of authz which status and which `reason` it becomes, so that the
APIs cannot differ. It knows no HTTP library.
"""

from __future__ import annotations

import secrets
from http import HTTPStatus

from msgspec import Struct

from authz import log
from authz.errors import (
    ArchiveElsewhere,
    ArchiveUnavailable,
    CallUnknown,
    Conflict,
    DeckError,
    HistoryTooLong,
    InvalidInput,
    NotFound,
    SettledDifferently,
    SpoolFull,
    StoreError,
)

PROBLEM_JSON = "application/problem+json"
_FIELD_LENGTH_MAX = 128


class ProblemDocument(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The body of every answer that is not 2xx. `reason` is stable and made for programs."""

    title: str
    status: int
    reason: str
    detail: str = ""
    #: The wrong field as the caller wrote it.
    field: str | None = None
    #: Of a refused posting: the account that lacks the money.
    account: str | None = None
    #: Of `settled_differently`: what was booked.
    seconds: int | None = None
    #: Of `internal_error`: the id under which the log has the cause.
    id: str | None = None


def problem(
    status: int,
    reason: str,
    detail: str = "",
    *,
    field: str | None = None,
    account: str | None = None,
    seconds: int | None = None,
    id: str | None = None,
) -> ProblemDocument:
    """Return a document with the title of its status."""
    return ProblemDocument(
        title=HTTPStatus(status).phrase,
        status=status,
        reason=reason,
        detail=detail,
        field=field[:_FIELD_LENGTH_MAX] if field else None,
        account=account,
        seconds=seconds,
        id=id,
    )


def problem_of(error: Exception) -> ProblemDocument | None:
    """Return the document of an error that callers can act on; None for any other."""
    match error:
        case InvalidInput():
            return problem(400, "invalid_input", error.detail, field=error.field)
        case CallUnknown():
            detail = "no record of this call of this account exists"
            return problem(404, "call_unknown", detail)
        case NotFound():
            return problem(404, "not_found", str(error))
        case SettledDifferently():
            return problem(409, "settled_differently", str(error), seconds=error.seconds)
        case Conflict():
            return problem(409, "conflict", str(error))
        case DeckError():
            return problem(422, "deck_refused", str(error))
        case SpoolFull():
            detail = "neither the store nor the local spool takes this settle; send it again"
            return problem(503, "spool_full", detail)
        case StoreError():
            return problem(503, "store_unavailable", "the store did not answer in time")
        case HistoryTooLong():
            return problem(400, "history_too_long", str(error), field="start")
        case ArchiveElsewhere():
            return problem(503, "archive_elsewhere", str(error))
        case ArchiveUnavailable():
            return problem(503, "archive_unavailable", "the archive cannot be asked now")
    return None


def unexpected_problem(error: Exception, route: str) -> ProblemDocument:
    """Log an error that nobody expected; return the document that names its log entry."""
    problem_id = secrets.token_hex(8)
    log.event("request_failed", level="error", error=error, route=route, id=problem_id)
    return problem(500, "internal_error", "the log names the cause", id=problem_id)


def retry_seconds(document: ProblemDocument) -> int | None:
    """Return how long a caller should wait before it asks again; None if that is in vain."""
    if document.status != 503:
        return None
    # A disk is not emptied within a second, a store is often back by then.
    return 10 if document.reason == "spool_full" else 1
