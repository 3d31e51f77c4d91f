"""Windows of time as callers write them, in microseconds since 1970-01-01 as the ledger has them.

A window begins with its start and ends before its end. Days and months are those of an account's
time zone, so that they have 23 or 25 hours where its clocks change.
"""

from __future__ import annotations

import datetime as dt
import re
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

from authz.errors import InvalidInput

MICROS_PER_SECOND: Final = 1_000_000
_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MICROSECOND: Final = dt.timedelta(microseconds=1)
_DAY: Final = dt.timedelta(days=1)
_YEAR_MIN, _YEAR_MAX = 1970, 9998

_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}\Z", re.ASCII)
_MOMENT = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?"
    r"(?:(?P<offset>[Zz]|[+-][0-9]{2}:[0-9]{2})| [0-9]{2}:[0-9]{2})?\Z",
    re.ASCII,
)
#: Unix seconds since 1973: with fewer digits it is rather a date without hyphens.
_SECONDS = re.compile(r"[0-9]{9,11}\Z", re.ASCII)
_MONTH = re.compile(r"(?P<year>[0-9]{4})-(?P<month>[0-9]{2})\Z", re.ASCII)
_FORMS: Final = "a date such as 2026-11-30, an RFC 3339 time or Unix seconds"


class Window(NamedTuple):
    """What was booked from `start_us` until before `end_us`; None leaves a side open."""

    start_us: int | None
    end_us: int | None


class Month(NamedTuple):
    """A month of a calendar in some time zone."""

    year: int
    month: int

    def __str__(self) -> str:
        return f"{self.year:04}-{self.month:02}"

    def window(self, zone: ZoneInfo) -> tuple[int, int]:
        """Return the microseconds with which it begins and before which it ends."""
        start = dt.date(self.year, self.month, 1)
        end = dt.date(self.year + self.month // 12, self.month % 12 + 1, 1)
        return _midnight(start, zone), _midnight(end, zone)


def parse_window(start: str | None, end: str | None, zone: ZoneInfo) -> Window:
    """Return the window that two words name.

    Each is a date of `zone`, an RFC 3339 time with an offset, or whole Unix seconds. A date as
    the end includes that day; a moment as the end is the first one outside. Raises InvalidInput
    naming `start` or `end`.
    """
    start_us = None if start is None else _parse(start, "start", zone, dt.timedelta())
    end_us = None if end is None else _parse(end, "end", zone, _DAY)
    if start_us is not None and end_us is not None and end_us <= start_us:
        raise InvalidInput("end", "is not after start")
    return Window(start_us, end_us)


def parse_month(text: str) -> Month:
    """Return the month of text such as `2026-11`; raises InvalidInput naming `month`."""
    match = _MONTH.match(text)
    if match is not None:
        year, month = int(match["year"]), int(match["month"])
        if _YEAR_MIN <= year <= _YEAR_MAX and 1 <= month <= 12:
            return Month(year, month)
    raise InvalidInput("month", f"{text[:40]!r} is not a month such as 2026-11")


def month_at(moment_us: int, zone: ZoneInfo) -> Month:
    """Return the month in which a moment lies."""
    local = (_EPOCH + moment_us * _MICROSECOND).astimezone(zone)
    return Month(local.year, local.month)


def moment_text(moment_us: int, zone: dt.tzinfo = dt.UTC, timespec: str = "auto") -> str:
    """Return RFC 3339 text with the offset of a zone, or in UTC with Z.

    `timespec` is that of datetime.isoformat: how much of the second is told.
    """
    text = (_EPOCH + moment_us * _MICROSECOND).astimezone(zone).isoformat(timespec=timespec)
    return text.replace("+00:00", "Z") if zone is dt.UTC else text


def _parse(text: str, field: str, zone: ZoneInfo, after_date: dt.timedelta) -> int:
    match = _MOMENT.match(text)
    try:
        if _DATE.match(text):
            return _midnight(dt.date.fromisoformat(text) + after_date, zone)
        if _SECONDS.match(text):
            return int(text) * MICROS_PER_SECOND
        if match is not None and match["offset"]:
            moment = dt.datetime.fromisoformat(text.upper())
            if _YEAR_MIN <= moment.year <= _YEAR_MAX:
                return (moment - _EPOCH) // _MICROSECOND
    except (ValueError, OverflowError):
        match = None
    if match is not None and not match["offset"]:
        # Whoever forgets to encode the plus of an offset sends a blank in its place.
        detail = f"{text[:40]!r} has no offset such as Z or +02:00 (in a URL, + is written %2B)"
        raise InvalidInput(field, detail)
    raise InvalidInput(field, f"{text[:40]!r} is not {_FORMS}")


def _midnight(day: dt.date, zone: ZoneInfo) -> int:
    """Return the first moment of a day; where clocks skip midnight, that is the skip itself."""
    if not _YEAR_MIN <= day.year <= _YEAR_MAX + 1:
        raise ValueError(day)
    return (dt.datetime.combine(day, dt.time(), zone) - _EPOCH) // _MICROSECOND
