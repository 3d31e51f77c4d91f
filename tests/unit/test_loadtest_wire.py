"""Requests as the daemon reads them."""

from __future__ import annotations

import random

import msgspec
import pytest

from authz.model import AuthorizeRequest, ReserveRequest, SettleRequest
from loadtest.drafts import Drafts
from loadtest.errors import LoadTestError
from loadtest.plan import AUTHORIZE, EMERGENCY, RESERVE, SETTLE, CallKind
from loadtest.templates import draw, fill

ID_START = b"0a1b2c-0-1-"
CALL_ID = ID_START + b"0000002a"
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


def body_of(request: bytes, path: str) -> bytes:
    head, _, body = request.partition(b"\r\n\r\n")
    assert head.startswith(f"POST {path} HTTP/1.1\r\n".encode())
    assert f"Content-Length: {len(body)}".encode() in head
    return body


def test_requests_are_what_the_daemon_reads() -> None:
    drafts = Drafts(draw([KIND], 50, len(CALL_ID), random.Random(1)), ID_START)
    for number in range(1, 51):
        authorize = msgspec.json.decode(
            body_of(drafts.request(AUTHORIZE, number, 0), "/v1/authorize"), type=AuthorizeRequest
        )
        reserve = msgspec.json.decode(
            body_of(drafts.request(RESERVE, number, 45), "/v1/reserve"), type=ReserveRequest
        )
        settle = msgspec.json.decode(
            body_of(drafts.request(SETTLE, number, 2_678_400), "/v1/settle"), type=SettleRequest
        )

        call_id = f"{ID_START.decode()}{number:08x}"
        assert authorize.call_id == reserve.call_id == settle.call_id == call_id
        assert authorize.account == reserve.account == settle.account
        assert (reserve.used_seconds, settle.seconds) == (45, 2_678_400)
        assert drafts.request(EMERGENCY, number, 0) == drafts.request(AUTHORIZE, number, 0)


def test_templates_serve_calls_in_turns() -> None:
    pool = draw([KIND], 3, len(CALL_ID), random.Random(1))
    drafts = Drafts(pool, ID_START)

    for number in (1, 2, 3, 4, 3_000_001, 0xFFFFFFFF):
        request = drafts.request(AUTHORIZE, number, 0)
        start = pool[(number - 1) % 3].authorize_start
        assert request == start + ID_START + b'%08x"}' % number


@pytest.mark.parametrize("seconds", [0, 9, 10, 9_999_999])
def test_seconds_stand_in_their_column(seconds: int) -> None:
    drafts = Drafts(draw([KIND], 1, len(CALL_ID), random.Random(1)), ID_START)

    assert drafts.request(SETTLE, 1, seconds).endswith(b'"seconds":%7d}' % seconds)


def test_what_no_request_can_say_is_refused() -> None:
    pool = draw([KIND], 1, len(CALL_ID), random.Random(1))

    with pytest.raises(LoadTestError, match="no call to place"):
        Drafts([], ID_START)
    with pytest.raises(LoadTestError, match="10000000 s"):
        Drafts([pool[0]._replace(talk_seconds=10_000_000)], ID_START)
    with pytest.raises(ValueError, match="no request"):
        Drafts(pool, ID_START).request(SETTLE, 1, 10_000_000)


def test_what_a_kind_of_call_says_is_asked() -> None:
    kind = msgspec.structs.replace(KIND, direction="inbound", ask_seconds=7200, unanswered=0)

    pool = draw([kind], 1, len(CALL_ID), random.Random(1))

    body = body_of(Drafts(pool, ID_START).request(AUTHORIZE, 1, 0), "/v1/authorize")
    request = msgspec.json.decode(body, type=AuthorizeRequest)
    assert (request.direction, request.seconds) == ("inbound", 7200)
    assert not pool[0].extends


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
