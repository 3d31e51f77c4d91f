"""Which processes take how much of the processor, as /proc tells it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

_TICKS_PER_SECOND: Final = os.sysconf("SC_CLK_TCK")
#: What a command line contains, and what such a process is called here.
_ROLES: Final = {
    "authz.server.worker": "hook workers",
    "authz.server.office": "office",
    "authz.server.agents": "agents",
    "loadtest.generator": "generators",
    "loadtest.echo": "echo",
    "valkey-server": "store",
    "redis-server": "store",
    "serve": "supervisor",
}


def tree(pid: int) -> list[int]:
    """Return a process and all its descendants that live now."""
    pids = [pid]
    for one in pids:
        # Any of its threads may have started a child.
        for children in Path(f"/proc/{one}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                pids += map(int, children.read_text().split())
    return pids


def by_role(pids: Iterable[int]) -> dict[str, list[int]]:
    """Return the ids of those of these processes that still live, by what each is here."""
    found: dict[str, list[int]] = {}
    for pid in pids:
        with contextlib.suppress(OSError):
            command = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
            found.setdefault(_role(command), []).append(pid)
    return found


def cpu_seconds(pids: Iterable[int]) -> dict[str, float]:
    """Return the user and system time so far of these processes, summed by role."""
    used: dict[str, float] = {}
    for role, members in by_role(pids).items():
        for pid in members:
            with contextlib.suppress(OSError):
                stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                ticks = int(stat[11]) + int(stat[12])
                used[role] = used.get(role, 0.0) + ticks / _TICKS_PER_SECOND
    return used


def shares(before: dict[str, float], after: dict[str, float], seconds: float) -> dict[str, float]:
    """Return how much of one core each role used between two looks: 1.0 is all of it."""
    return {
        role: round(max(0.0, used - before.get(role, 0.0)) / seconds, 3)
        for role, used in sorted(after.items())
    }


def _role(command: list[str]) -> str:
    # The store rewrites its command line, with its arguments in one word.
    words = {Path(word.partition(" ")[0]).name for word in command}
    return next((role for word, role in _ROLES.items() if word in words), "other")
