"""The page that Prometheus reads: all parts, gathered at most once a second."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

from prometheus_client import exposition
from prometheus_client.core import Metric as Family
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

from authz import log, meters
from authz.meters.shared import Row
from authz.metrics.counted import counted_families
from authz.metrics.parts import Part
from authz.metrics.readings import Readings

#: Whoever asks more often gets the same page again.
_FRESH_SECONDS: Final = 1
#: A part that takes longer is left out; Prometheus itself gives up after 10 s.
_PART_SECONDS: Final = 3
_TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"
_OPENMETRICS: Final = "application/openmetrics-text"
#: The library's own, with its type.
_generate_openmetrics: Final[Callable[[Collector], bytes]] = openmetrics.generate_latest
_FAILURES: Final = meters.counters("authz_scrape_failures_total")


class Page(NamedTuple):
    """What to send, and as what."""

    body: bytes
    content_type: str


class MetricsPage:
    """Makes the page of one daemon."""

    def __init__(self, rows: Callable[[], Sequence[Row]], parts: Sequence[Part]) -> None:
        """`rows` returns what the processes have counted; `parts` are read side by side."""
        self._rows = rows
        self._parts = parts
        self._lock = asyncio.Lock()
        self._families: list[Family] = []
        self._gathered_at = -float(_FRESH_SECONDS)

    async def render(self, accept: str) -> Page:
        """Return the page in the format that an Accept header asks for."""
        async with self._lock:
            if time.monotonic() - self._gathered_at >= _FRESH_SECONDS:
                self._families = await self._gather()
                self._gathered_at = time.monotonic()
        families = _Gathered(self._families)
        if _OPENMETRICS in accept:
            return Page(_generate_openmetrics(families), openmetrics.CONTENT_TYPE_LATEST)
        return Page(exposition.generate_latest(families), _TEXT)

    async def _gather(self) -> list[Family]:
        readings = Readings()
        for one in await asyncio.gather(*map(self._read, self._parts)):
            readings.merge(one)
        return [*counted_families(self._rows()), *readings.families()]

    async def _read(self, part: Part) -> Readings:
        try:
            async with asyncio.timeout(_PART_SECONDS):
                return await part.read()
        except Exception as error:
            # Whatever is wrong with one part, the others are needed all the more.
            _FAILURES[part.name].add()
            log.event("scrape_failed", level="warning", part=part.name, error=error)
            return Readings()


class _Gathered(Collector):
    """A registry for the exposition: it has been collected already."""

    def __init__(self, families: list[Family]) -> None:
        self._families = families

    def collect(self) -> Iterator[Family]:
        return iter(self._families)
