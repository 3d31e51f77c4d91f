"""What passes between connections and endpoints: requests, answers, and the bytes of an answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

class Request:
    """One complete request as its endpoint sees it; routed, authenticated, not yet decoded."""

    body: bytes

    def __init__(self, parameters: dict[str, str], query: bytes, content_type: bytes) -> None: ...
    @property
    def parameters(self) -> dict[str, str]: ...
    @property
    def query(self) -> bytes: ...
    @property
    def content_type(self) -> bytes: ...

class Response:
    """One answer. `headers` are complete lines, each ending in CRLF."""

    def __init__(
        self, status: int, body: bytes, content_type: bytes = ..., headers: bytes = b""
    ) -> None: ...
    @property
    def status(self) -> int: ...
    @property
    def body(self) -> bytes: ...
    @property
    def content_type(self) -> bytes: ...
    @property
    def headers(self) -> bytes: ...

class JsonAnswers:
    """Makes answers of results: their JSON, and 200 unless the result's type has another status."""

    def __init__(self, encode: Callable[[Any], bytes], statuses: dict[type, int]) -> None: ...

class Heads:
    """Renders answers from prepared beginnings; the `Date` line is made once a second."""

    def refresh_date(self) -> None:
        """Take the present wall clock into the `Date` line."""

    def render(self, response: Response, connection: bytes, head_only: bool) -> bytes:
        """Return the bytes of an answer; `connection` is a whole Connection line or empty."""
