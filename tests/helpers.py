"""Small things that several test modules need."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable

from authz.store.scripts import Script


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition, ten seconds at most."""
    for _ in range(2_000):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("waited in vain")


def make_script(name: str, source: str) -> Script:
    """Return a script of one key."""
    return Script(name, 1, source, hashlib.sha1(source.encode()).hexdigest())
