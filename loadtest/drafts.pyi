"""Requests of calls: their templates with a call id, and the seconds, written into them."""

from __future__ import annotations

from loadtest.templates import Template

class Drafts:
    """Templates by the number of the call, which they serve in turns."""

    def __init__(self, pool: list[Template], id_start: bytes) -> None:
        """`id_start` begins every call id. LoadTestError if a call talks for too long."""

    def request(self, operation: int, number: int, seconds: int) -> bytes:
        """Return the request of that operation for the call of that number (from 1 on).

        `seconds` is the use so far, or of a settle the duration; authorize tells neither.
        """
