"""Small things that several test modules need."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from typing import Final

from processes import WAIT_SECONDS

from authz.store.scripts import Script

_POLL_SECONDS: Final = 0.005


async def until(condition: Callable[[], bool]) -> None:
    """Return when the condition holds; fail if it never does."""
    for _ in range(round(WAIT_SECONDS / _POLL_SECONDS)):
        if condition():
            return
        await asyncio.sleep(_POLL_SECONDS)
    raise AssertionError("waited in vain")


def make_script(name: str, source: str) -> Script:
    """Return a script of one key."""
    return Script(name, 1, source, hashlib.sha1(source.encode()).hexdigest())
