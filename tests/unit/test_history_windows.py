"""Windows of time in callers' words: dates of a zone, moments, months, and what is none."""

from __future__ import annotations

import datetime as dt
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from authz.errors import InvalidInput
from authz.ledger.windows import (
    Month,
    Window,
    moment_text,
    month_at,
    parse_month,
    parse_window,
)

UTC = ZoneInfo("UTC")
NEW_YORK = ZoneInfo("America/New_York")
HOUR_US = 3_600_000_000


def micros(text: str) -> int:
    """Return the microseconds of RFC 3339 text by way of another reckoning."""
    moment = dt.datetime.fromisoformat(text)
    since = moment - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


@pytest.mark.parametrize(
    ("start", "end", "zone", "expected"),
    [
        (None, None, UTC, (None, None)),
        ("2026-11-01", "2026-11-30", UTC, ("2026-11-01T00:00:00Z", "2026-12-01T00:00:00Z")),
        ("2026-11-22", "2026-11-22", UTC, ("2026-11-22T00:00:00Z", "2026-11-23T00:00:00Z")),
        # The clocks go back on this day, which has 25 hours, and forward on that, which has 23.
        ("2026-11-01", "2026-11-01", NEW_YORK, ("2026-11-01T04:00:00Z", "2026-11-02T05:00:00Z")),
        ("2026-03-08", "2026-03-08", NEW_YORK, ("2026-03-08T05:00:00Z", "2026-03-09T04:00:00Z")),
        # Here midnight itself is skipped: the day begins at one o'clock.
        ("2026-03-08", None, ZoneInfo("America/Havana"), ("2026-03-08T05:00:00Z", None)),
        # And here it comes twice: the day begins with the first.
        ("2026-11-01", None, ZoneInfo("America/Havana"), ("2026-11-01T04:00:00Z", None)),
        (
            "2026-11-01T08:00:00+02:00", "2026-11-01T06:00:00.25Z", UTC,
            ("2026-11-01T06:00:00Z", "2026-11-01T06:00:00.250000Z"),
        ),
        ("1793491200", "2026-11-01t00:00:01z", UTC,
         ("2026-11-01T00:00:00Z", "2026-11-01T00:00:01Z")),
        ("1970-01-01", None, ZoneInfo("Asia/Tokyo"), ("1969-12-31T15:00:00Z", None)),
    ],
)  # fmt: skip
def test_a_window_is_read(
    start: str | None, end: str | None, zone: ZoneInfo, expected: tuple[str | None, str | None]
) -> None:
    assert parse_window(start, end, zone) == Window(
        *(None if text is None else micros(text) for text in expected)
    )


@pytest.mark.parametrize(
    ("start", "end", "field", "detail"),
    [
        ("2026-11-31", None, "start", "is not a date"),
        ("2026-13-01", None, "start", "is not a date"),
        ("20261101", None, "start", "is not a date"),
        ("2026-W45-1", None, "start", "is not a date"),
        ("2026-11-01T00:00:00", None, "start", "no offset"),
        ("2026-11-01T00:00:00 02:00", None, "start", "%2B"),
        ("2026-11-01T25:00:00Z", None, "start", "is not a date"),
        ("2026-11-01T00:00:00+99:00", None, "start", "is not a date"),
        ("2026-11-01T00:00Z", None, "start", "is not a date"),
        ("0001-01-01", None, "start", "is not a date"),
        ("9999-12-31", "9999-12-31", "end", "is not a date"),
        ("-1", None, "start", "is not a date"),
        ("1e9", None, "start", "is not a date"),
        ("9" * 40, None, "start", "is not a date"),
        ("٢٠٢٦-١١-٠١", None, "start", "is not a date"),
        ("yesterday", None, "start", "is not a date"),
        (None, "2026-11-01\n", "end", "is not a date"),
        ("2026-11-02", "2026-11-01", "end", "is not after start"),
        ("2026-11-01T00:00:00Z", "2026-11-01T00:00:00Z", "end", "is not after start"),
    ],
)
def test_a_wrong_window_is_refused(
    start: str | None, end: str | None, field: str, detail: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_window(start, end, UTC)
    assert caught.value.field == field
    assert detail in caught.value.detail


@pytest.mark.parametrize(
    ("text", "zone", "start", "hours"),
    [
        ("2026-11", UTC, "2026-11-01T00:00:00Z", 30 * 24),
        ("2026-12", UTC, "2026-12-01T00:00:00Z", 31 * 24),
        ("2026-11", NEW_YORK, "2026-11-01T04:00:00Z", 30 * 24 + 1),
        ("2026-03", NEW_YORK, "2026-03-01T05:00:00Z", 31 * 24 - 1),
        ("2028-02", ZoneInfo("Pacific/Kiritimati"), "2028-01-31T10:00:00Z", 29 * 24),
    ],
)
def test_a_month_is_that_of_its_zone(text: str, zone: ZoneInfo, start: str, hours: int) -> None:
    month = parse_month(text)
    assert str(month) == text
    start_us, end_us = month.window(zone)
    assert start_us == micros(start)
    assert end_us - start_us == hours * HOUR_US
    assert month_at(start_us, zone) == month_at(end_us - 1, zone) == month
    assert month_at(end_us, zone) > month > month_at(start_us - 1, zone)


@pytest.mark.parametrize("text", ["2026", "2026-00", "2026-13", "2026-1", "0000-01", "9999-01"])
def test_what_is_no_month_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="month"):
        parse_month(text)


def test_months_follow_one_another_without_a_gap() -> None:
    for zone in (UTC, NEW_YORK, ZoneInfo("Australia/Lord_Howe"), ZoneInfo("Africa/Cairo")):
        months = [Month(year, month) for year in (2025, 2026) for month in range(1, 13)]
        windows = [month.window(zone) for month in months]
        assert all(end == start for (_, end), (start, _) in pairwise(windows))


def test_moments_are_told_in_a_zone_or_in_utc() -> None:
    moment_us = micros("2026-11-01T05:30:00.5Z")
    assert moment_text(moment_us) == "2026-11-01T05:30:00.500000Z"
    assert moment_text(moment_us, NEW_YORK, "seconds") == "2026-11-01T01:30:00-04:00"
    # The same time of the clock, an hour later.
    assert moment_text(moment_us + HOUR_US, NEW_YORK, "seconds") == "2026-11-01T01:30:00-05:00"
