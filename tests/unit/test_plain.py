"""Which requests are plain, and what is read of them."""

from __future__ import annotations

import pytest

from authz_ext.plain import PlainReader

READER = PlainReader(url_bytes_max=20, header_bytes_max=200, headers_max=4, body_bytes_max=8)
HEAD = b"POST /v1/settle HTTP/1.1\r\n"


def test_a_plain_request_is_read() -> None:
    data = HEAD + b"HOST: a\r\nContent-Type:  x/y \r\ncontent-length: 2\r\nX: \r\n\r\n{}POST"
    request = READER.read(data, 0)
    assert request is not None
    assert (request.url, request.body, data[request.end :]) == (b"/v1/settle", b"{}", b"POST")
    assert request.headers == {b"host": b"a", b"content-type": b"x/y", b"content-length": b"2"}


def test_it_may_begin_anywhere_and_be_followed_by_others() -> None:
    one = HEAD + b"Host: a\r\nContent-Length: 1\r\n\r\nx"
    second = READER.read(one + one, len(one))
    assert second is not None
    assert second.end == 2 * len(one)
    assert READER.read(one + one, 2 * len(one)) is None
    assert READER.read(one, -1) is None
    assert READER.read(b"", 0) is None


def test_a_body_beyond_the_limit_is_left_to_the_general_parser() -> None:
    head = HEAD + b"Host: a\r\nContent-Length: %d\r\n\r\n"
    assert READER.read(head % 8 + b"x" * 8, 0) is not None
    assert READER.read(head % 9 + b"x" * 9, 0) is None


@pytest.mark.parametrize("cut", range(1, len(HEAD) + 34))
def test_half_a_request_is_none(cut: int) -> None:
    whole = HEAD + b"Host: a\r\nContent-Length: 4\r\n\r\nabcd"
    assert READER.read(whole, 0) is not None
    assert READER.read(whole[:-cut], 0) is None


@pytest.mark.parametrize(
    "headers",
    [
        b"",
        b"Host: a\r\n",
        b"Content-Length: 0\r\n",
        b"Host: a\r\nHost: a\r\nContent-Length: 0\r\n",
        b"Host: a\r\nContent-Length: 0\r\nContent-Length: 0\r\n",
        b"Host: a\r\nContent-Length: 0 \r\n",
        b"Host: a\r\nContent-Length: 00000000\r\n",
        b"Host: a\r\nContent-Length: 0\r\nConnection: close\r\n",
        b"Host: a\r\nContent-Length: 0\r\nTransfer-Encoding: identity\r\n",
        b"Host: a\r\nContent-Length: 0\r\nExpect: 100-continue\r\n",
        b"Host: a\r\nContent-Length: 0\r\nContent-Encoding: identity\r\n",
        b"Host: a\r\nContent-Length: 0\r\nX: " + b"y" * 200 + b"\r\n",
        b"Host: a\r\nContent-Length: 0\r\n" + b"X: y\r\n" * 3,
        b"Host: a\r\nContent-Length: 0\r\nX: \x80\r\n",
        b"Host: a\r\nContent-Length: 0\r\nX : y\r\n",
        b"Host: a\r\nContent-Length: 0\r\nX: y\r\n z\r\n",
        b"Host: a\nContent-Length: 0\r\n",
    ],
)
def test_anything_else_is_left_to_the_general_parser(headers: bytes) -> None:
    assert READER.read(HEAD + headers + b"\r\n", 0) is None


def test_a_long_target_is_not_plain() -> None:
    rest = b" HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"
    assert READER.read(b"POST /" + b"x" * 19 + rest, 0) is not None
    assert READER.read(b"POST /" + b"x" * 20 + rest, 0) is None
    assert READER.read(b"GET /" + rest, 0) is None
    assert READER.read(b"POST /a b" + rest, 0) is None
