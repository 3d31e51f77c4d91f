"""Error replies of the store: which of them mean that nothing was changed."""

from __future__ import annotations

import pytest

from authz.errors import NotExecuted, StoreReplyError
from authz.store.replies import NOT_EXECUTED_CODES, reply_error


@pytest.mark.parametrize("code", sorted(NOT_EXECUTED_CODES))
def test_not_executed(code: str) -> None:
    for text in (
        f"{code} says the server",
        "ERR Error running script (call to f_0123): @user_script:1: @user_script: 1: "
        f"-{code} says the server",
        f"ERR Error running script (call to f_0123): @user_script:12: -{code} says the server",
    ):
        error = reply_error(text)
        assert isinstance(error, NotExecuted)
        assert error.code == code
        assert str(error) == text


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("ERR value is not an integer or out of range", "ERR"),
        ("WRONGTYPE Operation against a key", "WRONGTYPE"),
        ("NOAUTH Authentication required.", "NOAUTH"),
        ("OOMPH is no code", "OOMPH"),
        ("ERR -OOM said a value", "ERR"),
        ("ERR Error running script (call to f_0): @user_script:1: user_script:1: BUSY", "ERR"),
        ("", ""),
    ],
)
def test_final(text: str, code: str) -> None:
    error = reply_error(text)
    assert isinstance(error, StoreReplyError)
    assert error.code == code
