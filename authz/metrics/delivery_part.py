"""What the page tells of events on their way to receivers."""

from __future__ import annotations

from authz.events.outbox import Outbox
from authz.metrics.readings import Readings


class DeliveriesPart:
    """How many deliveries wait, and how many were given up."""

    name = "deliveries"

    def __init__(self, outbox: Outbox) -> None:
        """Tell of this outbox."""
        self._outbox = outbox

    async def read(self) -> Readings:
        """Return a count for each channel and state, also where it is 0."""
        readings = Readings()
        for (channel, state), deliveries in (await self._outbox.backlog()).items():
            readings.add("authz_deliveries", deliveries, channel, state)
        return readings
