"""On what a load test ran: without it no figure can be compared."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

from msgspec import Struct

from authz.errors import StoreReplyError
from authz.store.client import StoreClient


class Environment(Struct, frozen=True, kw_only=True):
    """Machine, versions and the store's durability."""

    authz: str
    #: The source's commit, with `+` when files have changed since; empty outside a checkout.
    commit: str
    python: str
    kernel: str
    processor: str
    cores: int
    store: str
    appendonly: str
    appendfsync: str


async def look_around(client: StoreClient) -> Environment:
    """Describe this host and the store that the client is connected to."""
    information = _fields(await client.execute("INFO", "server"))
    name = information.get("server_name", "redis")
    number = information.get(f"{name}_version") or information.get("redis_version", "?")
    return Environment(
        authz=version("authz"),
        commit=_commit(),
        python=platform.python_version(),
        kernel=platform.release(),
        processor=_processor(),
        cores=len(os.sched_getaffinity(0)),
        store=f"{name} {number}",
        appendonly=await _setting(client, "appendonly"),
        appendfsync=await _setting(client, "appendfsync"),
    )


async def _setting(client: StoreClient, name: str) -> str:
    try:
        reply: list[bytes] = await client.execute("CONFIG", "GET", name)
    except StoreReplyError:
        # Hosted servers keep their settings to themselves.
        return "?"
    return reply[1].decode() if len(reply) == 2 else "?"


def _fields(text: bytes) -> dict[str, str]:
    lines = (line.partition(":") for line in text.decode().splitlines() if ":" in line)
    return {name: value for name, _, value in lines}


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _commit() -> str:
    root = Path(__file__).parent.parent
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--exclude=*"],
            cwd=root, capture_output=True, text=True, check=True, timeout=10,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return ""
    return found.stdout.strip()
