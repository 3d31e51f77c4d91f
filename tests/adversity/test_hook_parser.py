"""The hook parser against split, malformed, ambiguous, oversized and endless input."""

from __future__ import annotations

import asyncio
import itertools
import json

import pytest
from hook_double import (
    Answer,
    MemoryTransport,
    OrderedEngine,
    authorize,
    exchange_in_memory,
    get,
    new_server,
    parse_answers,
    post,
    settle,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from authz.hooks.messages import Limits

LIMITS = Limits(header_bytes_max=1_024, headers_max=16, url_bytes_max=256, body_bytes_max=512)
HEAD = b"POST /v1/settle HTTP/1.1\r\nHost: h\r\n"
BODY = b'{"call_id":"c1","account":"acme","seconds":61}'


def chunked(body: bytes, size: int) -> bytes:
    """Return a settle whose body comes in chunks."""
    chunks = [body[start : start + size] for start in range(0, len(body), size)]
    framed = b"".join(b"%x;x=y\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    return HEAD + b"Transfer-Encoding: Chunked\r\n\r\n" + framed + b"0\r\nX-Trailer: z\r\n\r\n"


PIPELINE_PARTS = st.one_of(
    st.integers(0, 9).map(lambda number: authorize(f"yield-{number}")),
    st.integers(0, 9).map(lambda number: settle(f"yield-{number}")),
    st.integers(1, 60).map(lambda size: chunked(BODY, size)),
    st.sampled_from(
        [
            settle("unknown"),
            settle("different"),
            settle("spooled"),
            post("/v1/settle", b"{"),
            post("/v1/settle", BODY, "Content-Type: text/plain"),
            post("/v1/settle", BODY, "Content-Type: application/json; charset=utf-8"),
            post("/nowhere", BODY),
            post("/v1/switches/sw%201/restarted", b""),
            post("/v1/switches/sw1/restarted", b"{}"),
            get("/v1/calls/c1?account=acme"),
            get("/v1/calls/nowhere?account=acme"),
            get("/v1/calls/c1"),
            get("/v1/authorize"),
            get("http://h/readyz"),
            b"\r\n" + get("/livez"),
            b"GET /livez HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
        ]
    ),
)
ENDS = st.sampled_from(
    [
        b"",
        get("/livez", "Connection: close"),
        b"GET /livez HTTP/1.0\r\n\r\n",
        b"BREW /livez HTTP/1.1\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: h\r\nBroken header\r\n\r\n",
        get("/" + "x" * 300),
        get("/livez", "X: " + "x" * 2_000),
        get("/livez", *["X: y"] * 20),
        post("/v1/settle", b"x" * 600),
        post("/v1/settle", BODY)[:-5],
    ]
)


def shape(answers: list[Answer]) -> list[tuple[int, dict[str, str], bytes]]:
    """Return what must not depend on how the input was cut."""
    shaped = []
    for answer in answers:
        headers = {name: value for name, value in answer.headers.items() if name != "date"}
        shaped.append((answer.status, headers, answer.body))
    return shaped


@given(
    parts=st.lists(PIPELINE_PARTS, max_size=12),
    end=ENDS,
    cuts=st.lists(st.integers(0, 4_000), max_size=40),
)
@settings(deadline=None, max_examples=150)
def test_cutting_the_stream_changes_no_answer(
    parts: list[bytes], end: bytes, cuts: list[int]
) -> None:
    stream = b"".join(parts) + end
    edges = [0, *sorted({cut for cut in cuts if 0 < cut < len(stream)}), len(stream)]
    pieces = [stream[start:stop] for start, stop in itertools.pairwise(edges)]
    whole, transport = asyncio.run(exchange_in_memory(stream, limits=LIMITS))
    cut, cut_transport = asyncio.run(exchange_in_memory(*pieces, limits=LIMITS))
    assert shape(cut) == shape(whole)
    assert cut_transport.has_eof == transport.has_eof
    assert len(whole) >= len(parts)


async def test_a_stream_byte_by_byte() -> None:
    stream = authorize("a") + chunked(BODY, 7) + get("/nowhere") + settle("yield-4")
    whole, _ = await exchange_in_memory(stream)
    single, _ = await exchange_in_memory(*[stream[at : at + 1] for at in range(len(stream))])
    assert shape(single) == shape(whole)
    assert [answer.status for answer in whole] == [200, 200, 404, 200]


@given(
    pieces=st.lists(
        st.one_of(
            st.binary(max_size=200),
            st.sampled_from(
                [b"\r\n", b"GET ", b"/livez", b" HTTP/1.1\r\n", b"Host: h\r\n", b"\r\n\r\n",
                 b"Transfer-Encoding: chunked\r\n", b"Content-Length: ", b"0", b":", b"POST ",
                 b"Upgrade: h2c\r\nConnection: upgrade\r\n", b"Expect: 100-continue\r\n", BODY,
                 b"Connection: close\r\n", b"CONNECT a:1 ", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"]
            ),
        ),
        max_size=30,
    )
)  # fmt: skip
@settings(deadline=None, max_examples=300)
def test_garbage_never_breaks_the_connection_handler(pieces: list[bytes]) -> None:
    answers, transport = asyncio.run(exchange_in_memory(*pieces, limits=LIMITS))
    assert all(answer.status != 500 for answer in answers)
    if any(answer.status == 400 and b"not HTTP" in answer.body for answer in answers):
        assert transport.has_eof


@given(body=st.one_of(st.binary(max_size=300), st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["call_id", "account", "seconds", "to"]), inner, max_size=4),
    max_leaves=8,
).map(lambda value: json.dumps(value).encode())))  # fmt: skip
@settings(deadline=None, max_examples=200)
def test_any_body_is_answered_with_200_or_400(body: bytes) -> None:
    [answer], _ = asyncio.run(exchange_in_memory(post("/v1/settle", body)))
    assert answer.status in (200, 400)


SMUGGLED = {
    "length and chunks": HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and length": HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "two lengths": HEAD + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "list of lengths": HEAD + b"Content-Length: 3, 3\r\n\r\nabc",
    "signed length": HEAD + b"Content-Length: +3\r\n\r\nabc",
    "negative length": HEAD + b"Content-Length: -3\r\n\r\nabc",
    "hexadecimal length": HEAD + b"Content-Length: 0x3\r\n\r\nabc",
    "empty length": HEAD + b"Content-Length:\r\n\r\nabc",
    "endless length": HEAD + b"Content-Length: 99999999999999999999999\r\n\r\nabc",
    "space before colon": HEAD + b"Content-Length : 3\r\n\r\nabc",
    "folded header": HEAD + b"X: a\r\n b\r\n\r\n",
    "bare LF after the request line": b"GET /livez HTTP/1.1\nHost: h\r\n\r\n",
    "bare LF after a header": b"GET /livez HTTP/1.1\r\nHost: h\n\r\n",
    "bare LF after the head": b"GET /livez HTTP/1.1\r\nHost: h\r\n\n",
    "bare CR in a header": b"GET /livez HTTP/1.1\r\nHost: h\rX: y\r\n\r\n",
    "NUL in a header": b"GET /livez HTTP/1.1\r\nHost: h\x00\r\n\r\n",
    "no name": b"GET /livez HTTP/1.1\r\nHost: h\r\n: x\r\n\r\n",
    "unknown coding": HEAD + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "two codings": HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked twice": HEAD + b"Transfer-Encoding: chunked\r\n" * 2 + b"\r\n0\r\n\r\n",
    "chunked in 1.0": b"POST /v1/settle HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunk size with LF": HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n",
    "chunk size no number": HEAD + b"Transfer-Encoding: chunked\r\n\r\n-1\r\nabc\r\n0\r\n\r\n",
    "chunk too long": HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n",
    "no Host": b"GET /livez HTTP/1.1\r\n\r\n",
    "two Hosts": b"GET /livez HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "two tokens": get("/livez", "Authorization: Bearer a", "Authorization: Bearer b"),
    "control byte in the target": b"GET /li\x01vez HTTP/1.1\r\nHost: h\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/0.9": b"GET /livez HTTP/0.9\r\n\r\n",
}


@pytest.mark.parametrize("name", SMUGGLED)
async def test_ambiguous_requests_end_the_connection(name: str) -> None:
    hidden = get("/v1/calls/hidden?account=acme")
    answers, transport = await exchange_in_memory(SMUGGLED[name] + hidden)
    assert [answer.status for answer in answers] in ([400], [405], [501], [505])
    assert answers[0].headers["connection"] == "close"
    assert answers[0].headers["content-type"] == "application/problem+json"
    assert transport.has_eof


OVERSIZED = {
    "target": (414, get("/" + "x" * 256)),
    "one header": (431, get("/livez", "X: " + "x" * 1_024)),
    "headers together": (431, get("/livez", *["X: " + "x" * 100] * 10)),
    "number of headers": (431, get("/livez", *["X: y"] * 16)),
    "trailers": (431, chunked(BODY, 9)[:-2] + b"X: " + b"x" * 1_024 + b"\r\n\r\n"),
    "announced body": (413, HEAD + b"Content-Length: 513\r\n\r\n"),
    "chunked body": (413, chunked(b"x" * 513, 100)),
}


@pytest.mark.parametrize("name", OVERSIZED)
async def test_too_much_of_anything(name: str) -> None:
    status, request = OVERSIZED[name]
    answers, transport = await exchange_in_memory(request + get("/livez"), limits=LIMITS)
    assert [answer.status for answer in answers] == [status]
    assert transport.has_eof


ENDLESS = {
    "target": (414, b"GET /", b"x" * 100),
    "header name": (431, b"GET /livez HTTP/1.1\r\n", b"x" * 100),
    "header value": (431, b"GET /livez HTTP/1.1\r\nX: ", b"x" * 100),
    "headers": (431, b"GET /livez HTTP/1.1\r\n", b"X: y\r\n"),
    "chunk extension": (413, HEAD + b"Transfer-Encoding: chunked\r\n\r\n1;", b"x" * 100),
    "tiny chunks": (413, HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    "trailer": (413, HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX: ", b"x" * 100),
}


@pytest.mark.parametrize("name", ENDLESS)
async def test_what_never_ends_is_ended(name: str) -> None:
    status, start, piece = ENDLESS[name]
    answers, transport = await exchange_in_memory(start, *[piece] * 600, limits=LIMITS)
    assert [answer.status for answer in answers] == [status]
    assert transport.has_eof


async def test_exactly_the_limits_are_allowed() -> None:
    limits = replace_limits(body_bytes_max=len(BODY), url_bytes_max=len("/v1/settle"))
    request = post("/v1/settle", BODY, *["X: y"] * 14)
    [answer], _ = await exchange_in_memory(request, limits=limits)
    assert answer.status == 200


def replace_limits(**changes: int) -> Limits:
    """Return the small limits with some changed."""
    values = {name: getattr(LIMITS, name) for name in LIMITS.__struct_fields__}
    return Limits(**{**values, **changes})


async def test_answers_before_a_broken_request_are_kept() -> None:
    stream = authorize("yield-4") + settle("yield-3") + b"garbage\r\n\r\n" + authorize("never")
    answers, _ = await exchange_in_memory(stream)
    assert [answer.status for answer in answers] == [200, 200, 405]
    assert "connection" not in answers[1].headers


@pytest.mark.parametrize("cut", [1, 10, 60, 100])
async def test_a_half_request_has_no_effect(cut: int) -> None:
    engine = OrderedEngine()
    server = new_server(engine)
    protocol = server.protocol()
    protocol.connection_made(MemoryTransport())
    request = settle("c1")
    protocol.data_received(request[: len(request) - cut])
    assert not protocol.eof_received()
    protocol.connection_lost(ConnectionResetError())
    await asyncio.sleep(0)
    assert (engine.began, server.connections) == ([], 0)
    server.close()


async def test_nothing_is_parsed_after_the_last_request() -> None:
    engine = OrderedEngine()
    server = new_server(engine)
    transport = MemoryTransport()
    protocol = server.protocol()
    protocol.connection_made(transport)
    protocol.data_received(settle("last", "Connection: close") + settle("later"))
    protocol.data_received(settle("latest"))
    for _ in range(5):
        await asyncio.sleep(0)
    assert engine.began == ["settle last"]
    assert len(parse_answers(bytes(transport.written))) == 1
    server.close()
