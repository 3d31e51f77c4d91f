"""What happens to calls while the store does not answer (settings `failure.*`)."""

from __future__ import annotations

import time

from authz.config import FailureSettings


class OutagePolicy:
    """Counts the outage and what was let through in it, in this process."""

    def __init__(self, settings: FailureSettings) -> None:
        self._settings = settings
        self._began: float | None = None
        self._let_through: dict[tuple[str, str], float] = {}

    @property
    def is_outage(self) -> bool:
        """Whether the last thing that the store was asked failed."""
        return self._began is not None

    def store_failed(self) -> None:
        """Note that the store did not answer."""
        if self._began is None:
            self._began = time.monotonic()

    def store_answered(self) -> None:
        """Note that the store answers again."""
        self._began = None

    def admit(self, account: str, call_id: str, seconds: int) -> int | None:
        """Return the seconds granted to a new call without the store, or None to deny it."""
        settings = self._settings
        if settings.on_store_failure == "deny":
            return None
        now = time.monotonic()
        key = (account, call_id)
        if key not in self._let_through:
            self._expire(now)
            if len(self._let_through) >= settings.allow_calls_max:
                return None
        granted = min(seconds, settings.allow_seconds_max)
        self._let_through[key] = now + granted
        return granted

    def may_extend(self) -> bool:
        """Return whether a running call gets one more chunk in this outage."""
        if self._settings.on_store_failure_running == "deny":
            return False
        began = self._began
        return began is None or time.monotonic() - began <= self._settings.extend_seconds_max

    def ended(self, account: str, call_id: str) -> None:
        """Forget a call that was let through."""
        self._let_through.pop((account, call_id), None)

    def _expire(self, now: float) -> None:
        over = [key for key, until in self._let_through.items() if until <= now]
        for key in over:
            del self._let_through[key]
