"""The reader of plain requests answers as the general parser does, or leaves the request to it.

A request whose first byte comes alone is never a plain one. So each stream is fed whole and with
its first byte apart: whatever the plain reader accepts, llhttp must have accepted with the same
meaning, and its limits must be the same. So it must be where the stream, or another one with
some of the same heads, has come before, on another connection: heads are then known.
"""

from __future__ import annotations

import asyncio

from hook_double import Answer, exchange_in_memory
from hypothesis import example, given, settings
from hypothesis import strategies as st

from authz.hooks.access import Access
from authz.hooks.messages import Limits

LIMITS = Limits(header_bytes_max=300, headers_max=8, url_bytes_max=40, body_bytes_max=80)
BODY = b'{"call_id":"yield-1","account":"acme","seconds":61}'

START_LINES = st.sampled_from(
    [
        b"POST /v1/settle HTTP/1.1", b"POST /v1/settle HTTP/1.1", b"POST /v1/settle HTTP/1.0",
        b"POST /v1/settle  HTTP/1.1", b"POST  /v1/settle HTTP/1.1", b"POST /v1/settle HTTP/1.1 ",
        b"post /v1/settle HTTP/1.1", b"POST /v1/settle#x HTTP/1.1", b"POST /v1/settle?a=b HTTP/1.1",
        b"POST /v1/%73ettle HTTP/1.1", b"POST /v1/call\xe9 HTTP/1.1", b"POST /" + b"x" * 38 +
        b" HTTP/1.1", b"POST /" + b"x" * 39 + b" HTTP/1.1", b"POST /" + b"x" * 40 + b" HTTP/1.1",
        b"POST http://h/v1/settle HTTP/1.1", b"POST * HTTP/1.1", b"GET /livez HTTP/1.1",
        b"POST /v1/settle HTTP/1.1\r\n", b"POST /v1/{x} HTTP/1.1", b'POST /"<>|^`\\ HTTP/1.1',
    ]
)  # fmt: skip
LINES = st.sampled_from(
    [
        b"Host: h", b"Host:h", b"host: h", b"HOST:   h  ", b"Host:", b"Ho_t: h", b"Host : h",
        b"Content-Length: 51", b"Content-Length: 51", b"content-length:51", b"Content-Length: 0051",
        b"Content-Length: 51 ", b"Content-Length: 5", b"Content-Length: 52", b"Content-Length: +51",
        b"Content-Length: 5 1", b"Content-Length: 0x33", b"Content-Length:", b"Content-Length: 81",
        b"Content-Length: 99999999999999999999", b"Content-Type: application/json",
        b"Content-Type: Application/JSON ; charset=utf-8", b"Content-Type: text/xml",
        b"Content-Type:\tapplication/json\t", b"Content-Type:", b"Content-Encoding: gzip",
        b"Content-Encoding: identity", b"Transfer-Encoding: chunked", b"Connection: close",
        b"Connection: keep-alive", b"Connection: Keep-Alive", b"Connection: keep-alive, close",
        b"Connection: upgrade", b"Upgrade: h2c", b"Expect: 100-continue", b"Expect: else",
        b"Authorization: Bearer secret", b"Authorization: Bearer wrong", b"Authorization:secret",
        b"Proxy-Connection: close", b"User-Agent: freeswitch-json/1.0", b"Accept: */*", b"X: y",
        b"X:", b": y", b"X-" + b"a" * 120 + b": b", b"X: " + b"a" * 150, b" folded", b"\tfolded",
        b"X: a\x00b", b"X: a\x7fb", b"X: a\xffb", b"X: a\rb", b"X(y): z", b"X", b"X y: z", b"",
    ]
)  # fmt: skip
ENDS = st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r", b"\r\r\n"])


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """Return some requests one after the other, most of them nearly right."""
    stream = b""
    for _ in range(draw(st.integers(1, 3))):
        lines = [draw(START_LINES), b"Host: h", b"Content-Length: 51"]
        lines += draw(st.lists(LINES, max_size=8))
        lines = draw(st.permutations(lines[1:])) if draw(st.booleans()) else lines[1:]
        head = b"".join(line + draw(ENDS) for line in [draw(START_LINES), *lines])
        stream += head + b"\r\n" + draw(st.sampled_from([BODY, BODY, BODY[:-1], b"", BODY + b"x"]))
    if draw(st.booleans()):
        place = draw(st.integers(0, len(stream) - 1))
        changed = draw(st.sampled_from([b"", b" ", b"\r", b"\n", b"\0", b":", b"\x80", b"5"]))
        stream = stream[:place] + changed + stream[place + 1 :]
    return stream


def shape(answers: list[Answer]) -> list[tuple[int, dict[str, str], bytes]]:
    """Return what must be the same however a request was read."""
    return [
        (one.status, {name: text for name, text in one.headers.items() if name != "date"}, one.body)
        for one in answers
    ]


@given(stream=streams(), before=streams(), guarded=st.booleans())
@example(stream=b"POST /v1/settle HTTP/1.1\r\nHost: h\r\nContent-Length: 51\r\n\r\n" + BODY * 2,
         before=b"", guarded=False)  # fmt: skip
@example(stream=b"POST /v1/x HTTP/1.1\r\nHost: h\r\nContent-Length: 81\r\n\r\n" + b"x" * 81,
         before=b"", guarded=False)  # fmt: skip
@settings(deadline=None, max_examples=400)
def test_all_ways_of_reading_answer_alike(stream: bytes, before: bytes, guarded: bool) -> None:
    access = Access(("secret",) if guarded else ())
    whole, transport = asyncio.run(exchange_in_memory(stream, limits=LIMITS, access=access))
    parts = (stream[:1], stream[1:])
    parsed, parsed_transport = asyncio.run(exchange_in_memory(*parts, limits=LIMITS, access=access))
    assert shape(whole) == shape(parsed)
    assert transport.has_eof == parsed_transport.has_eof
    for seen in (stream, before + stream):
        known, known_transport = asyncio.run(
            exchange_in_memory(stream, limits=LIMITS, access=access, seen=seen)
        )
        assert shape(known) == shape(parsed)
        assert known_transport.has_eof == parsed_transport.has_eof
