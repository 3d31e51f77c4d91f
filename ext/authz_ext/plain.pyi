"""Reads requests as switches nearly always send them; see plain.pyx."""

from __future__ import annotations

class PlainRequest:
    """One whole request. `headers` are those that decide something, by lower-case name."""

    @property
    def url(self) -> bytes: ...
    @property
    def headers(self) -> dict[bytes, bytes]: ...
    @property
    def body(self) -> bytes: ...
    @property
    def end(self) -> int:
        """Where the next request begins in what was read."""

class PlainReader:
    """Reads plain requests within the limits of a listener; larger ones are not plain."""

    def __init__(
        self, *, url_bytes_max: int, header_bytes_max: int, headers_max: int, body_bytes_max: int
    ) -> None: ...
    def read(self, data: bytes, start: int) -> PlainRequest | None:
        """Return the plain request that begins at `start`, or None if none does."""
