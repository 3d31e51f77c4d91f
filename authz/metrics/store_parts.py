"""The parts that ask the store: how its server is, and how much lies in it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

from authz.errors import StoreError
from authz.metrics.readings import Readings
from authz.store import keys
from authz.store.client import StoreClient
from authz.store.handshake import parse_info

_DEADLINE_MS: Final = 1_000
#: Reading, and the field of INFO that it is, in the reading's unit.
_PLAIN: Final = {
    "authz_store_uptime_seconds": "uptime_in_seconds",
    "authz_store_memory_bytes": "used_memory",
    "authz_store_memory_max_bytes": "maxmemory",
    "authz_store_clients": "connected_clients",
    "authz_store_commands_total": "total_commands_processed",
    "authz_store_replicas": "connected_slaves",
    "authz_store_aof_enabled": "aof_enabled",
}
_PERSISTENCE: Final = ("rdb_last_bgsave_status", "aof_last_bgrewrite_status",
                       "aof_last_write_status")  # fmt: skip
_MICROSECONDS: Final = 1_000_000


class StorePart:
    """The store's server, as it tells of itself."""

    name = "store"

    def __init__(self, client: StoreClient) -> None:
        """Ask by this client."""
        self._client = client

    async def read(self) -> Readings:
        """Return what INFO says; of a store that does not answer only that."""
        readings = Readings()
        try:
            info = parse_info(await self._client.execute("INFO", deadline_ms=_DEADLINE_MS))
        except StoreError:
            readings.add("authz_store_up", 0)
            return readings
        readings.add("authz_store_up", 1)
        _add_info(readings, info)
        return readings


def _add_info(readings: Readings, info: Mapping[str, str]) -> None:
    server = info.get("server_name", "redis")
    version = info.get(f"{server}_version") or info.get("redis_version", "")
    readings.add("authz_store_info", 1, server, version, info.get("role", ""))
    # Hosted servers leave fields out.
    for name, field in _PLAIN.items():
        if field in info:
            readings.add(name, int(info[field]))
    if "used_cpu_user" in info:
        seconds = float(info["used_cpu_user"]) + float(info.get("used_cpu_sys", "0"))
        readings.add("authz_store_cpu_seconds_total", seconds)
    if "latest_fork_usec" in info:
        fork_us = int(info["latest_fork_usec"])
        readings.add("authz_store_fork_seconds", fork_us / _MICROSECONDS)
    is_well = all(info.get(field, "ok") == "ok" for field in _PERSISTENCE)
    readings.add("authz_store_persistence_ok", is_well)


class CallsPart:
    """Calls, movements and events in the store, over all buckets."""

    name = "calls"

    def __init__(self, client: StoreClient) -> None:
        """Ask by this client."""
        self._client = client

    async def read(self) -> Readings:
        """Return the three sums; raises StoreError."""
        readings = Readings()
        for name, command, key in (
            ("authz_live_calls", "ZCARD", keys.leases),
            ("authz_ledger_entries", "XLEN", keys.ledger),
            ("authz_event_entries", "XLEN", keys.events),
        ):
            # One write for all buckets.
            counts = await asyncio.gather(
                *(
                    self._client.execute(command, key(tag), deadline_ms=_DEADLINE_MS)
                    for tag in keys.TAGS
                )
            )
            readings.add(name, sum(counts))
        return readings
