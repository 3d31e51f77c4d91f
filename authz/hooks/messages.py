"""What passes between the HTTP protocol and the endpoints: requests, responses, limits."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from authz_ext.messages import Request, Response

__all__ = ["JSON", "PROBLEM_JSON", "UNSAID", "Limits", "OrderKey", "Payload", "Request", "Response"]

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


#: A key that keeps requests of one call in order; None where order does not matter.
OrderKey = tuple[str, ...] | None
#: What an endpoint decodes its request into; only that endpoint knows the type.
Payload = Any
