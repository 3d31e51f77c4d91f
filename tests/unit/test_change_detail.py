"""What the log of changes keeps of a request: what was asked for, short and without secrets."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec import Struct, field

from authz.admin.changes import DETAIL_BYTES_MAX, detail_text
from authz.admin.tokens import TokenRequest
from authz.model import AccountConfig


class Receiver(Struct):
    """A body with a secret and a default."""

    url: str
    secret: str | None = None
    enabled: bool = True
    class_: str = field(default="x", name="class")


@pytest.mark.parametrize(
    ("detail", "expected"),
    [
        ({"body": {"max_calls": None}}, {"body": {"max_calls": None}}),
        ({"body": {"api_token": "x"}}, {"body": {"api_token": "***"}}),
        ({"body": {"Password": {"a": 1}}}, {"body": {"Password": "***"}}),
        ({"body": {"secret": None}}, {"body": {"secret": None}}),
        ({"body": [{"client_secret": "x"}]}, {"body": [{"client_secret": "***"}]}),
        ({"body": Receiver("https://a:b@c/d", "x")},
         {"body": {"url": "https://***@c/d", "secret": "***"}}),
        ({"body": Receiver("x", class_="y")}, {"body": {"url": "x", "class": "y"}}),
        ({"body": AccountConfig(max_calls=3)}, {"body": {"max_calls": 3}}),
        ({"body": TokenRequest(name="a", role="read")}, {"body": {"name": "a", "role": "read"}}),
        ({"note": "x" * 1_000}, {"note": "x" * 256}),
        ({"\udcff": "a\udcff"}, {"?": "a?"}),
        ({}, {}),
    ],
)  # fmt: skip
def test_a_detail_is_what_was_sent_without_secrets(
    detail: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert json.loads(detail_text(detail)) == expected


def test_a_detail_is_bounded() -> None:
    detail = {"body": {f"name-{number}": "x" * 200 for number in range(1_000)}}
    text = detail_text(detail)
    assert len(text) <= DETAIL_BYTES_MAX
    assert json.loads(text)["bytes"] > DETAIL_BYTES_MAX


def test_a_deep_detail_is_no_trouble() -> None:
    deep: Any = "x"
    for _ in range(200):
        deep = {"a": deep}
    assert json.loads(detail_text({"body": deep}))["body"]["a"]
