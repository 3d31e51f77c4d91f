"""Reads answers of the hook API: cuts what a connection sends, and finds what decides a call."""

from __future__ import annotations

class AnswerReader:
    """Cuts what a connection sends into answers. They must carry a length (ours do)."""

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Read `data`; return (status, body) of every answer that is complete now.

        Raises LoadTestError for what is no answer.
        """

def scan(body: bytes) -> tuple[bool, str, int | None, int] | None:
    """Return (allowed, reason, seconds, extend_at) of a decision; None if the body is unusual.

    What it misses has the value that `loadtest.caller.decide` gives it.
    """
