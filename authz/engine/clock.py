"""The store's time as this process estimates it; scripts decide by the store's own."""

from __future__ import annotations

import datetime as dt
import time

from authz.errors import InvalidInput

_MICROS_PER_SECOND = 1_000_000


class StoreClock:
    """Unix seconds of the store: this host's clock, corrected by what scripts answer."""

    def __init__(self) -> None:
        self._offset_seconds = 0

    def now(self) -> int:
        """Return the store's Unix time in whole seconds."""
        return int(time.time()) + self._offset_seconds

    def correct(self, store_seconds: int) -> None:
        """Take over the time that a script has answered."""
        self._offset_seconds = store_seconds - int(time.time())


def parse_moment(value: str | int, field: str) -> int:
    """Return Unix seconds of whole seconds or RFC 3339 text with an offset, rounded down."""
    if isinstance(value, int):
        if not 0 <= value < 1 << 40:
            raise InvalidInput(field, "is not a time in Unix seconds")
        return value
    try:
        moment = dt.datetime.fromisoformat(value)
    except ValueError:
        raise InvalidInput(field, f"{value[:40]!r} is not an RFC 3339 time") from None
    if moment.tzinfo is None:
        raise InvalidInput(field, f"{value[:40]!r} has no offset such as Z")
    return int(moment.timestamp())


def moment_of(seconds: int) -> dt.datetime:
    """Return Unix seconds as a time in UTC."""
    return dt.datetime.fromtimestamp(seconds, dt.UTC)


def format_moment(seconds: int) -> str:
    """Return Unix seconds as RFC 3339 text in UTC."""
    return moment_of(seconds).strftime("%Y-%m-%dT%H:%M:%SZ")
