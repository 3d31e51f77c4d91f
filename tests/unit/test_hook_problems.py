"""Errors of the engine as callers see them."""

from __future__ import annotations

import logging

import msgspec
import pytest

from authz.errors import (
    AuthzError,
    CallUnknown,
    Conflict,
    InvalidInput,
    NotExecuted,
    NotFound,
    OutcomeUnknown,
    SettledDifferently,
    SpoolFull,
)
from authz.hooks.problems import Problem, from_exception


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (CallUnknown(), (404, "call_unknown")),
        (SettledDifferently(61), (409, "settled_differently")),
        (InvalidInput("to", "is empty"), (400, "invalid_input")),
        (SpoolFull(), (503, "spool_full")),
        (NotExecuted("LOADING"), (503, "store_unavailable")),
        (OutcomeUnknown("cut"), (503, "store_unavailable")),
        (NotFound("no such deck"), (404, "not_found")),
        (Conflict("in use"), (409, "conflict")),
        (Problem(418, "teapot"), (418, "teapot")),
    ],
)
def test_errors_become_problems(error: AuthzError, expected: tuple[int, str]) -> None:
    response = from_exception(error, "settle").response()
    document = msgspec.json.decode(response.body)
    assert (response.status, document["reason"]) == expected
    assert document["status"] == response.status
    assert response.content_type == b"application/problem+json"
    assert (b"Retry-After: " in response.headers) == (response.status == 503)


def test_what_was_booked_is_told() -> None:
    document = from_exception(SettledDifferently(61), "settle").document
    assert document.seconds == 61


def test_the_field_is_told() -> None:
    assert from_exception(InvalidInput("answered_at", "no moment"), "x").document.field == (
        "answered_at"
    )


def test_the_unexpected_is_logged_and_hidden(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, "authz"):
        problem = from_exception(RuntimeError("a secret of the inside"), "authorize")
    response = problem.response()
    assert response.status == 500
    assert b"secret" not in response.body
    assert problem.document.id is not None
    [record] = caplog.records
    assert record.fields["id"] == problem.document.id
    assert record.fields["route"] == "authorize"
