"""What all connections of one process share: routes, rules, limits and a coarse clock."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from authz.hooks import counts
from authz.hooks.access import Access
from authz.hooks.messages import Limits
from authz.hooks.problems import answer_of
from authz.hooks.routing import RouteTable
from authz_ext.known import KnownHeads
from authz_ext.pipeline import Traffic
from authz_ext.plain import PlainReader

if TYPE_CHECKING:
    from authz.hooks.http import HookProtocol

#: One for each route, kind of switch and length of a body; with their keys some 1 MiB at most.
_KNOWN_HEADS_MAX = 1_024


class Site(Traffic):
    """The shared state of the hook listeners of one process; make it inside the running loop."""

    def __init__(self, routes: RouteTable, access: Access, limits: Limits) -> None:
        super().__init__(
            in_flight_max=limits.in_flight_max,
            pipelined_max=limits.pipelined_max,
            explain=answer_of,
            unmatched=counts.answers_of(counts.UNMATCHED),
            overloaded=counts.OVERLOADED,
            dropped=counts.ANSWERS_DROPPED,
        )
        self.routes = routes
        self.access = access
        self.limits = limits
        self.plain = PlainReader(
            url_bytes_max=limits.url_bytes_max,
            header_bytes_max=limits.header_bytes_max,
            headers_max=limits.headers_max,
            body_bytes_max=limits.body_bytes_max,
        )
        #: Callers on a Unix socket need no token: what is admitted of them is of no other.
        self.known_local = KnownHeads(_KNOWN_HEADS_MAX)
        self.known_remote = KnownHeads(_KNOWN_HEADS_MAX)
        self.connections: set[HookProtocol] = set()
        #: Monotonic seconds as of the last tick: close enough for time limits, free to read.
        self.now = time.monotonic()
        self._quiet = asyncio.Event()

    def tick(self) -> None:
        """Advance the clock and enforce the time limits of every connection."""
        self.now = time.monotonic()
        self.heads.refresh_date()
        for connection in tuple(self.connections):
            connection.check_time_limits()

    def disconnect(self, connection: HookProtocol) -> None:
        """A connection has ended."""
        self.connections.discard(connection)
        self.note_quiet()

    async def until_quiet(self) -> None:
        """Wait until a draining site has no connection and no request left."""
        self.note_quiet()
        await self._quiet.wait()

    def note_quiet(self) -> None:
        """Let `until_quiet` go on if there is nothing left to wait for."""
        if self.draining and not self.in_flight and not self.connections:
            self._quiet.set()
