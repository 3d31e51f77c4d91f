"""Refused calls, counted in the process and told as events: `call.denied` and `rate.missing`.

Deciding costs an increment; a background task carries the counts to the store, where one script
tells of them at most once a minute per account and reason, whichever processes counted.
"""

from __future__ import annotations

import time
from typing import Final, NamedTuple

from authz import log
from authz.engine.context import Context
from authz.event_types import CALL_DENIED, RATE_MISSING
from authz.store import keys

#: Kinds of denials that wait to be told; past that, new ones are only counted as dropped.
_PENDING_MAX: Final = 10_000
#: Prefixes that one event names.
_PREFIXES_MAX: Final = 20
#: Digits of a number that name where it leads and not whom.
_PREFIX_DIGITS: Final = 7
_HIDDEN_DIGITS: Final = 4
#: What belongs to no account that could be told.
_UNTOLD_REASONS: Final = frozenset({"account_unknown"})


class _Kind(NamedTuple):
    """What is counted together: one event tells it."""

    event: str
    account: str
    reason: str


class DenialCounter:
    """The denials of one process that no event has told yet."""

    def __init__(self, context: Context) -> None:
        """Tell them in the context's store."""
        self._context = context
        self._counts: dict[_Kind, int] = {}
        self._prefixes: dict[_Kind, dict[str, None]] = {}
        #: Monotonic second before which a kind need not be asked for again.
        self._asked_from: dict[_Kind, float] = {}
        self.dropped = 0

    def count(self, account: str, reason: str, number: str, *, enforced: bool) -> None:
        """Count a refused call; one that is let through all the same is only a missing rate."""
        if reason in _UNTOLD_REASONS:
            return
        if enforced:
            self._add(_Kind(CALL_DENIED, account, reason))
        if reason == "no_rate":
            kind = _Kind(RATE_MISSING, account, reason)
            if self._add(kind):
                prefixes = self._prefixes.setdefault(kind, {})
                if len(prefixes) < _PREFIXES_MAX:
                    prefixes[prefix_of(number)] = None

    async def flush(self) -> None:
        """Carry the counts to the store; those that it cannot tell yet wait there.

        Raises StoreError when the store does not answer; what it has not taken stays counted.
        """
        if self.dropped:
            log.event("denials_dropped", level="warning", denials=self.dropped)
            self.dropped = 0
        now = time.monotonic()
        for kind in list(self._counts):
            if self._asked_from.get(kind, now) <= now:
                await self._tell(kind)

    def _add(self, kind: _Kind) -> bool:
        known = self._counts.get(kind)
        if known is None and len(self._counts) >= _PENDING_MAX:
            self.dropped += 1
            return False
        self._counts[kind] = (known or 0) + 1
        return True

    async def _tell(self, kind: _Kind) -> None:
        context = self._context
        tag = await context.directory.tag_of(kind.account)
        if tag is None:
            self._forget(kind)
            return
        count = self._counts[kind]
        (wait_seconds,) = await context.client.call_script(
            context.scripts["denied"],
            [keys.denials(tag, kind.account), keys.events(tag)],
            [
                kind.event.encode(),
                kind.account.encode(),
                kind.reason.encode(),
                count,
                ",".join(self._prefixes.get(kind, ())).encode(),
            ],
        )
        # What was counted meanwhile stays; so does a kind whose count waits in the store.
        self._counts[kind] -= count
        if wait_seconds:
            self._asked_from[kind] = time.monotonic() + wait_seconds
        elif self._counts[kind] == 0:
            self._forget(kind)

    def _forget(self, kind: _Kind) -> None:
        self._counts.pop(kind, None)
        self._prefixes.pop(kind, None)
        self._asked_from.pop(kind, None)


def prefix_of(number: str) -> str:
    """Return the digits of a number that say where it leads, without whom it belongs to."""
    digits = number.lstrip("+")
    return digits[: max(1, min(_PREFIX_DIGITS, len(digits) - _HIDDEN_DIGITS))]
