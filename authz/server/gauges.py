"""What a process tells once a second of how it is now: its store, its spool, its decks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from authz import meters
from authz.meters.shared import SharedMeters
from authz.server.engine_host import EngineHost

_BEAT_SECONDS: Final = 1
_CONNECTED: Final = meters.gauge("authz_store_connected")
_IN_FLIGHT: Final = meters.gauge("authz_store_in_flight")
_QUEUED: Final = meters.gauge("authz_store_queued")
_SPOOL_WAITING: Final = meters.gauge("authz_spool_waiting")
_SPOOL_BYTES: Final = meters.gauge("authz_spool_bytes")
_DECKS_DIGEST: Final = meters.gauge("authz_decks_digest")


def publish_gauges(
    host: EngineHost, shared: SharedMeters | None, *more: Callable[[], None]
) -> None:
    """Set the gauges of a process every second, and those that `more` sets, until the host ends.

    A process whose row has passed to its successor leaves them alone.
    """

    async def publish() -> None:
        if shared is None or shared.beat():
            _publish_engine(host)
            for one in more:
                one()

    host.repeat(_BEAT_SECONDS, publish)


def _publish_engine(host: EngineHost) -> None:
    client, spool = host.client, host.engine.spool
    _CONNECTED.set(client.connected)
    _IN_FLIGHT.set(client.in_flight)
    _QUEUED.set(client.queued)
    _SPOOL_WAITING.set(spool.depth)
    _SPOOL_BYTES.set(spool.bytes_held)
    _DECKS_DIGEST.set(host.decks.digest)
