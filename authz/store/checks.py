"""What a server must be like to hold money: checked when the daemon starts, watched after."""

from __future__ import annotations

import re
from typing import Final

from authz.errors import ConfigError
from authz.store.client import StoreClient
from authz.store.handshake import parse_info

_VERSION_MIN: Final = (6, 2)
_INFO_DEADLINE_MS: Final = 2_000


async def check_server(client: StoreClient) -> list[str]:
    """Return what an operator should know about the server, one sentence each.

    Raises ConfigError, which says what to do, for a server that would lose or forget calls:
    older than Redis 6.2, or one that evicts keys when its memory is full. Only INFO is used,
    which hosted servers allow as well. Store errors pass through.
    """
    info = parse_info(await client.execute("INFO", deadline_ms=_INFO_DEADLINE_MS))
    where = f"the store at {client.address}"
    # Valkey tells the Redis version it is compatible with under the same name.
    version = info.get("redis_version", "")
    numbers = tuple(int(digits) for digits in re.findall(r"\d+", version)[:2])
    if numbers < _VERSION_MIN:
        raise ConfigError(
            f"{where} has version {version or 'unknown'}; Redis 6.2 or newer, or Valkey, is needed"
        )
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        raise ConfigError(
            f"{where} has maxmemory-policy {policy}, which would drop accounts and calls when "
            "memory is full: set maxmemory-policy noeviction in its configuration"
        )
    warnings: list[str] = []
    if info.get("aof_enabled") != "1":
        warnings.append(
            f"{where} writes no append-only file: a crash loses what its last snapshot lacks; "
            "set appendonly yes"
        )
    # The count of good replicas is told only where a minimum of them is asked for.
    if int(info.get("connected_slaves", "0")) > 0 and "min_slaves_good_slaves" not in info:
        warnings.append(
            f"{where} has replicas but min-replicas-to-write 0: a failover may lose calls "
            "already answered for; set min-replicas-to-write 1"
        )
    return warnings


async def memory_ratio(client: StoreClient) -> float:
    """Return how full the server's memory is, of `maxmemory`; 0.0 where there is no limit.

    Store errors pass through.
    """
    info = parse_info(await client.execute("INFO", "memory", deadline_ms=_INFO_DEADLINE_MS))
    limit_bytes = int(info.get("maxmemory", "0"))
    return int(info["used_memory"]) / limit_bytes if limit_bytes else 0.0
