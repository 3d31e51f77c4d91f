"""HTTP and JSON as a load generator needs them: requests of ready pieces, unusual answers.

Usual answers are read by `loadtest.answers`.
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Struct

from loadtest.plan import ERROR_PREFIX, SPOOLED

#: Failures that do not tell what they are; the others have a reason in their body.
#: Status 0 is that of a request whose connection was lost.
_FAILURES: Final = {0: "connection lost", 202: SPOOLED}


class Decision(Struct, frozen=True, gc=False):
    """What a generator reads of a grant, a denial or a problem."""

    allowed: bool = False
    reason: str = "no reason"
    seconds: int | None = None
    extend_at: int = 0


_decide = msgspec.json.Decoder(Decision).decode


def request_start(path: str, body_start: bytes, rest_bytes: int) -> bytes:
    """Return a POST whose body begins with `body_start` and has `rest_bytes` more to come."""
    return (
        b"POST %b HTTP/1.1\r\nHost: authz\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (path.encode(), len(body_start) + rest_bytes, body_start)
    )


def read_decision(status: int, body: bytes) -> Decision | None:
    """Return what an answer decides, or None if it is no decision."""
    if status != 200:
        return None
    try:
        return _decide(body)
    except msgspec.DecodeError:
        return None


def failure(status: int, body: bytes) -> str:
    """Return the name of the outcome of a request that failed."""
    if status in _FAILURES:
        return ERROR_PREFIX + _FAILURES[status]
    try:
        reason = _decide(body).reason
    except msgspec.DecodeError:
        reason = "unreadable answer"
    return f"{ERROR_PREFIX}{status} {reason}"
