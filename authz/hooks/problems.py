"""Errors as callers of the hook API see them: problem documents after RFC 9457."""

from __future__ import annotations

import msgspec

from authz import log
from authz.errors import AuthzError, StoreError
from authz.hooks.messages import PROBLEM_JSON, Response
from authz.problems import ProblemDocument, problem, problem_of, retry_seconds, unexpected_problem
from authz.validation import invalid_input


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
        self.document = problem(status, reason, detail, field=field, seconds=seconds, id=id)
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
        headers=retry_after(1),
    )


def from_invalid_json(error: Exception) -> Problem:
    """Translate what msgspec says of a body into a problem that names the field."""
    if isinstance(error, msgspec.ValidationError):
        wrong = invalid_input(error)
        return Problem(400, "invalid_input", wrong.detail, field=wrong.field)
    if isinstance(error, UnicodeDecodeError):
        return Problem(400, "malformed_json", f"the body is not UTF-8: {error.reason}")
    return Problem(400, "malformed_json", f"the body is not JSON: {error}")


def from_exception(error: Exception, route: str) -> Problem:
    """Return the problem for whatever an endpoint raised; the unexpected is logged with an id."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, StoreError):
        log.event("hook_store_failed", level="warning", error=error, route=route)
    return _carrying(problem_of(error) or unexpected_problem(error, route))


def answer_of(error: Exception, route: str) -> Response:
    """Return the answer that tells the caller of an error."""
    return from_exception(error, route).response()


def _carrying(document: ProblemDocument) -> Problem:
    wait_seconds = retry_seconds(document)
    return Problem(
        document.status,
        document.reason,
        document.detail,
        field=document.field,
        seconds=document.seconds,
        id=document.id,
        headers=b"" if wait_seconds is None else retry_after(wait_seconds),
    )
