"""Watching processes from tests: whether one lives, and waiting until something is so."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Final

#: Longer than anything takes on a machine that is busy with other tests.
WAIT_SECONDS: Final = 90
_POLL_SECONDS: Final = 0.02


def is_alive(pid: int) -> bool:
    """Whether a process runs: one that has ended and whose parent has not noticed does not."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


async def until(condition: Callable[[], bool]) -> None:
    """Return when the condition holds; raise TimeoutError if it never does."""
    for _ in range(round(WAIT_SECONDS / _POLL_SECONDS)):
        if condition():
            return
        await asyncio.sleep(_POLL_SECONDS)
    raise TimeoutError
