"""Requests as the daemon reads them, and answers cut apart however they arrive."""

from __future__ import annotations

import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.model import AuthorizeRequest, ReserveRequest, SettleRequest
from loadtest.errors import LoadTestError
from loadtest.plan import CallKind
from loadtest.templates import draw, fill
from loadtest.wire import AnswerParser

CALL_ID = b"0a1b2c-0-1-0000002a"
KIND = CallKind(
    accounts=("load-a", "load-b"),
    to=("+1415555xxxx", "911"),
    weight=1,
    talk_seconds=(30, 90),
    unanswered=0.25,
    direction="outbound",
    ask_seconds=None,
    emergency=False,
)
ANSWERS = [
    (200, b'{"allowed":true}'),
    (503, b'{"reason":"overloaded"}'),
    (200, b""),
    (404, b"x" * 500),
]


def body_of(request: bytes, path: str) -> bytes:
    head, _, body = request.partition(b"\r\n\r\n")
    assert head.startswith(f"POST {path} HTTP/1.1\r\n".encode())
    assert f"Content-Length: {len(body)}".encode() in head
    return body


def answer(status: int, body: bytes, length: bytes = b"Content-Length: ") -> bytes:
    return b"HTTP/1.1 %d X\r\nDate: x\r\n%b%d\r\n\r\n%b" % (status, length, len(body), body)


def test_requests_are_what_the_daemon_reads() -> None:
    for template in draw([KIND], 50, len(CALL_ID), random.Random(1)):
        authorize = msgspec.json.decode(
            body_of(template.authorize(CALL_ID), "/v1/authorize"), type=AuthorizeRequest
        )
        reserve = msgspec.json.decode(
            body_of(template.reserve(CALL_ID, 45), "/v1/reserve"), type=ReserveRequest
        )
        settle = msgspec.json.decode(
            body_of(template.settle(CALL_ID, 2_678_400), "/v1/settle"), type=SettleRequest
        )

        assert authorize.call_id == reserve.call_id == settle.call_id == CALL_ID.decode()
        assert authorize.account == reserve.account == settle.account
        assert (reserve.used_seconds, settle.seconds) == (45, 2_678_400)


def test_what_a_kind_of_call_says_is_asked() -> None:
    kind = msgspec.structs.replace(KIND, direction="inbound", ask_seconds=7200, unanswered=0)

    template = draw([kind], 1, len(CALL_ID), random.Random(1))[0]

    body = body_of(template.authorize(CALL_ID), "/v1/authorize")
    request = msgspec.json.decode(body, type=AuthorizeRequest)
    assert (request.direction, request.seconds) == ("inbound", 7200)
    assert not template.extends


def test_the_mix_is_drawn_in_its_proportions() -> None:
    urgent = msgspec.structs.replace(KIND, emergency=True, weight=3)

    pool = draw([KIND, urgent], 10_000, len(CALL_ID), random.Random(1))

    assert len(pool) == 10_000
    assert sum(one.emergency for one in pool) / len(pool) == pytest.approx(0.75, abs=0.02)
    assert sum(one.talk_seconds == 0 for one in pool) / len(pool) == pytest.approx(0.25, abs=0.02)
    assert {one.talk_seconds for one in pool} == {0, 30, 90}


def test_a_pattern_becomes_a_number() -> None:
    number = fill("+1415555xxxx", random.Random(1))

    assert number.startswith("+1415555")
    assert number[1:].isdigit()
    assert len(number) == 12
    assert fill("911", random.Random(1)) == "911"


@given(st.lists(st.integers(1, 300), max_size=40))
def test_answers_are_cut_apart_wherever_the_reads_end(sizes: list[int]) -> None:
    stream = b"".join(answer(*one) for one in ANSWERS)
    parser = AnswerParser()
    found = []
    for size in [*sizes, len(stream)]:
        found += parser.feed(stream[:size])
        stream = stream[size:]

    assert found == ANSWERS


def test_another_spelling_of_the_length_is_understood() -> None:
    assert AnswerParser().feed(answer(200, b"abc", b"content-length:")) == [(200, b"abc")]


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"SSH-2.0-OpenSSH\r\n\r\n", "no answer in HTTP/1"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "no Content-Length"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 1_100_000, "no end"),
    ],
)
def test_what_cannot_be_cut_is_refused(data: bytes, complaint: str) -> None:
    with pytest.raises(LoadTestError, match=complaint):
        AnswerParser().feed(data)
