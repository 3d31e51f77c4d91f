# cython: cdivision=True
"""The wall clock of a time zone, fast enough to price every increment of a call by it.

`zoneinfo` knows the rules. Its answers are kept here as spans of constant offset, a day at a
time, so that a question costs a few nanoseconds instead of a `datetime`.
"""

from __future__ import annotations

import datetime
import zoneinfo

cdef int64_t DAY_SECONDS = 86_400
cdef int64_t HOUR_SECONDS = 3_600
# Two days before the year 10000, where datetime ends: any offset still fits.
cdef int64_t MOMENT_LAST = 253_402_128_000
cdef int NAME_LENGTH_MAX = 64
# Holds a month-long call and a busy archive; a scan over decades starts afresh now and then.
cdef int CACHED_DAYS_MAX = 1_024

MOMENT_MAX = MOMENT_LAST
cdef dict _zones = {}


cdef class Zone:
    """One IANA time zone. Get it from `zone`, which keeps one object for each name."""

    def __cinit__(self, str name not None):
        if not (0 < len(name) <= NAME_LENGTH_MAX and name.isascii()):
            raise ValueError(f"unknown time zone {name[:NAME_LENGTH_MAX]!r}")
        try:
            self._zone_info = zoneinfo.ZoneInfo(name)
        except (KeyError, ValueError, OSError) as error:
            # ZoneInfo says OSError for a directory such as "Europe".
            raise ValueError(f"unknown time zone {name!r}") from error
        self.name = name
        self._spans_by_day = {}
        self._span_start = self._span_end = self._span_offset = 0

    def offset_at(self, int64_t moment):
        """Return the seconds to add to UTC at `moment` (Unix seconds, 0 to MOMENT_MAX)."""
        cdef int64_t until
        return self.local_at(moment, &until) - moment

    cdef int64_t local_at(self, int64_t moment, int64_t* until) except? -1:
        """Return the wall clock as seconds since 1970 by it; the offset holds to `until`."""
        if not self._span_start <= moment < self._span_end:
            self._load_span(moment)
        until[0] = self._span_end
        return moment + self._span_offset

    cdef int _load_span(self, int64_t moment) except -1:
        """Make the span around `moment` the current one."""
        cdef int64_t start, end, offset
        if not 0 <= moment <= MOMENT_LAST:
            raise ValueError(f"moment {moment} is not within 0..{MOMENT_LAST}")
        cdef int64_t day_start = moment - moment % DAY_SECONDS
        spans = self._spans_by_day.get(day_start)
        if spans is None:
            if len(self._spans_by_day) >= CACHED_DAYS_MAX:
                self._spans_by_day.clear()
            spans = self._spans_by_day[day_start] = self._measure_day(day_start)
        for start, end, offset in spans:
            if start <= moment < end:
                self._span_start, self._span_end, self._span_offset = start, end, offset
        return 0

    cdef list _measure_day(self, int64_t day_start):
        """Return the spans of one UTC day as (start, end, offset).

        Asks once an hour and bisects to the second where two answers differ: no zone has
        ever changed twice within an hour.
        """
        cdef int64_t day_end = day_start + DAY_SECONDS
        cdef int64_t span_start = day_start, hour_start = day_start
        cdef int64_t offset = self._offset_at(day_start)
        cdef int64_t next_offset, before, after, middle
        spans = []
        while hour_start < day_end:
            next_offset = self._offset_at(hour_start + HOUR_SECONDS)
            if next_offset != offset:
                before, after = hour_start, hour_start + HOUR_SECONDS
                while after - before > 1:
                    middle = (before + after) // 2
                    if self._offset_at(middle) == offset:
                        before = middle
                    else:
                        after = middle
                spans.append((span_start, after, offset))
                span_start, offset = after, next_offset
            hour_start += HOUR_SECONDS
        if span_start < day_end:
            spans.append((span_start, day_end, offset))
        return spans

    cdef int64_t _offset_at(self, int64_t moment) except? -1:
        """Ask `zoneinfo` for the offset at `moment`, in seconds."""
        wall = datetime.datetime.fromtimestamp(moment, self._zone_info)
        offset = wall.utcoffset()
        return offset.days * DAY_SECONDS + offset.seconds


def zone(str name not None):
    """Return the Zone of an IANA name such as "America/New_York".

    Raises ValueError for a name that the host's time zone data does not know.
    """
    found = _zones.get(name)
    if found is None:
        found = _zones[name] = Zone(name)
    return found
