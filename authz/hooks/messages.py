"""What passes between the HTTP protocol and the endpoints: requests, responses, limits."""

from __future__ import annotations

import http
import time
from email.utils import formatdate
from typing import Any

from msgspec import Struct

JSON = b"application/json"
#: What `curl -d` and Python's urllib call any body unless told otherwise.
UNSAID = b"application/x-www-form-urlencoded"
PROBLEM_JSON = b"application/problem+json"


class Limits(Struct, frozen=True, kw_only=True):
    """Every bound of the hook listener. Durations are whole seconds, sizes are bytes."""

    #: Request line, header lines and trailers of one request together.
    header_bytes_max: int = 16_384
    headers_max: int = 64
    url_bytes_max: int = 2_048
    body_bytes_max: int = 16_384
    #: A connection without any request is closed after this long.
    idle_seconds: float = 300
    #: From the first byte of a request to its last; also how long unread answers may wait.
    request_seconds: float = 10
    #: How long a connection that we have closed may still send before it is cut.
    linger_seconds: float = 2
    #: Requests of one connection in the engine at a time; further ones wait unread.
    pipelined_max: int = 256
    #: New calls beyond this many requests in the engine are denied `overloaded`.
    in_flight_max: int = 1_024
    connections_max: int = 4_096


class Request:
    """One complete request as its endpoint sees it; routed, authenticated, not yet decoded."""

    __slots__ = ("body", "content_type", "parameters", "query")

    def __init__(self, parameters: dict[str, str], query: bytes, content_type: bytes) -> None:
        self.parameters = parameters
        self.query = query
        self.content_type = content_type
        self.body = b""


class Response(Struct, frozen=True, gc=False):
    """One answer. `headers` are complete lines, each ending in CRLF."""

    status: int
    body: bytes
    content_type: bytes = JSON
    headers: bytes = b""


class Heads:
    """Renders responses from prepared header blocks; the `Date` line is made once a second."""

    def __init__(self) -> None:
        self._prepared: dict[tuple[int, bytes], bytes] = {}
        self._date_line = b""
        self.refresh_date()

    def refresh_date(self) -> None:
        """Take the present wall clock into the `Date` line."""
        self._date_line = b"\r\nDate: %b\r\n" % formatdate(time.time(), usegmt=True).encode()

    def render(self, response: Response, connection: bytes, head_only: bool) -> bytes:
        """Return the bytes of an answer; `connection` is a whole Connection line or empty."""
        key = (response.status, response.content_type)
        start = self._prepared.get(key)
        if start is None:
            start = self._prepared[key] = _status_and_type(response)
        body = response.body
        return b"".join(
            (
                start,
                b"%d" % len(body),
                self._date_line,
                connection,
                response.headers,
                b"\r\n",
                b"" if head_only else body,
            )
        )


def _status_and_type(response: Response) -> bytes:
    phrase = http.HTTPStatus(response.status).phrase.encode()
    return b"HTTP/1.1 %d %b\r\nContent-Type: %b\r\nContent-Length: " % (
        response.status,
        phrase,
        response.content_type,
    )


#: A key that keeps requests of one call in order; None where order does not matter.
OrderKey = tuple[str, ...] | None
#: What an endpoint decodes its request into; only that endpoint knows the type.
Payload = Any
