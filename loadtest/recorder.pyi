"""Measurements of a generator: appended to arrays, handed on as bytes, counted elsewhere."""

from __future__ import annotations

from loadtest.plan import Samples

class Recorder:
    """Keeps one item a request in each of its arrays."""

    def record(
        self, operation: int, outcome: str, due_ns: int, sent_ns: int, answered_ns: int
    ) -> None:
        """Note one request. Its latency counts from `due_ns`, whenever it was sent.

        LoadTestError when there are more names of outcomes than an API can have.
        """

    def take(self, in_flight: int, calls: int, state: str) -> Samples:
        """Return what was noted since the last time, and forget it."""
