"""What happens to calls while the store does not answer (settings `failure.*`)."""

from __future__ import annotations

from authz.config.sections import FailureSettings
from authz.meters import now_ms


class OutagePolicy:
    """Counts the outage and what was let through in it, in this process."""

    def __init__(self, settings: FailureSettings) -> None:
        self._settings = settings
        #: Whether the last thing that the store was asked failed. (Plain facts, not properties:
        #: every decision asks.)
        self.is_outage = False
        #: Whether any call may have been let through.
        self.has_let_through = False
        self._began_ms = 0
        self._let_through: dict[tuple[str, str], int] = {}

    def store_failed(self) -> None:
        """Note that the store did not answer."""
        if not self.is_outage:
            self.is_outage = True
            self._began_ms = now_ms()

    def store_answered(self) -> None:
        """Note that the store answers again."""
        self.is_outage = False

    def admit(self, account: str, call_id: str, seconds: int) -> int | None:
        """Return the seconds granted to a new call without the store, or None to deny it."""
        settings = self._settings
        if settings.on_store_failure == "deny":
            return None
        moment_ms = now_ms()
        key = (account, call_id)
        if key not in self._let_through:
            self._expire(moment_ms)
            if len(self._let_through) >= settings.allow_calls_max:
                return None
        granted = min(seconds, settings.allow_seconds_max)
        self.has_let_through = True
        self._let_through[key] = moment_ms + granted * 1000
        return granted

    def may_extend(self) -> bool:
        """Return whether a running call gets one more chunk in this outage."""
        if self._settings.on_store_failure_running == "deny":
            return False
        if not self.is_outage:
            return True
        return now_ms() - self._began_ms <= self._settings.extend_seconds_max * 1000

    def ended(self, account: str, call_id: str) -> None:
        """Forget a call that was let through."""
        self._let_through.pop((account, call_id), None)
        self.has_let_through = bool(self._let_through)

    def _expire(self, moment_ms: int) -> None:
        over = [key for key, until_ms in self._let_through.items() if until_ms <= moment_ms]
        for key in over:
            del self._let_through[key]
