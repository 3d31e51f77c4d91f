"""Problem documents of the admin API, with what only its operations have to tell."""

from __future__ import annotations

from http import HTTPStatus

from aiohttp import web

from authz import log
from authz.engine.postings import PostingRefused
from authz.errors import AuthzError, StoreError
from authz.problems import ProblemDocument, problem, problem_of, unexpected_problem
from authz.rating.report import DeckRefused, ImportReport

_OUT_OF_RANGE = "amount_out_of_range"
#: What aiohttp refuses by itself: reason and detail by status.
_HTTP_PROBLEMS = {
    404: ("not_found", "no such path"),
    405: ("method_not_allowed", "the path has no such method"),
    413: ("body_too_large", "the body is too large"),
    417: ("expectation_failed", "the only expectation here is 100-continue"),
}


class DeckProblem(ProblemDocument, frozen=True, kw_only=True, omit_defaults=True):
    """A deck file with bad lines: nothing was imported, and `report` lists them."""

    report: ImportReport


class Problem(AuthzError):
    """A request that ends in this document; `retry_seconds` says when to come again."""

    def __init__(self, document: ProblemDocument, *, retry_seconds: int | None = None) -> None:
        super().__init__(document.detail or document.reason)
        self.document = document
        self.retry_seconds = retry_seconds


def refused_posting(refused: PostingRefused) -> Problem:
    """Return the problem of a posting that an account cannot bear."""
    status = 409 if refused.reason == _OUT_OF_RANGE else 402
    return Problem(problem(status, refused.reason, refused.detail, account=refused.account))


def document_of(error: Exception, route: str) -> ProblemDocument:
    """Return the document of whatever a request raised; the unexpected is logged with an id."""
    match error:
        case Problem():
            return error.document
        case DeckRefused():
            return DeckProblem(
                title=HTTPStatus(422).phrase,
                status=422,
                reason="deck_refused",
                detail=str(error),
                report=error.report,
            )
        case web.HTTPException() if error.status in _HTTP_PROBLEMS:
            return problem(error.status, *_HTTP_PROBLEMS[error.status])
        case StoreError():
            log.event("store_failed", level="warning", error=error, route=route)
    return problem_of(error) or unexpected_problem(error, route)
