"""Measurements of a generator: appended to arrays, handed on as bytes, counted elsewhere."""

from __future__ import annotations

import time
from array import array

from loadtest.plan import OK, Samples


class Recorder:
    """Keeps one item a request in each of its arrays."""

    def __init__(self) -> None:
        self._names = [OK]
        self._numbers = {OK: 0}
        self._clear()

    def _clear(self) -> None:
        self._operations = array("B")
        self._outcomes = array("H")
        self._dues = array("Q")
        self._latencies = array("Q")
        self._lags = array("Q")

    def record(
        self, operation: int, outcome: str, due_ns: int, sent_ns: int, answered_ns: int
    ) -> None:
        """Note one request. Its latency counts from `due_ns`, whenever it was sent."""
        number = self._numbers.get(outcome)
        if number is None:
            number = self._numbers[outcome] = len(self._names)
            self._names.append(outcome)
        self._operations.append(operation)
        self._outcomes.append(number)
        self._dues.append(due_ns)
        self._latencies.append(answered_ns - due_ns)
        self._lags.append(sent_ns - due_ns)

    def take(self, in_flight: int, calls: int, state: str) -> Samples:
        """Return what was noted since the last time, and forget it."""
        samples = Samples(
            operations=self._operations.tobytes(),
            outcomes=self._outcomes.tobytes(),
            dues=self._dues.tobytes(),
            latencies=self._latencies.tobytes(),
            lags=self._lags.tobytes(),
            outcome_names=tuple(self._names),
            in_flight=in_flight,
            calls=calls,
            cpu_ns=time.process_time_ns(),
            state=state,
        )
        self._clear()
        return samples
