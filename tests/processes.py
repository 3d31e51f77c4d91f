"""Watching processes from tests: whether one lives, how it is scheduled, until something is so."""

from __future__ import annotations

import asyncio
import ctypes
import platform
import struct
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


def attributes_of(pid: int) -> tuple[int, int, int]:
    """Return policy, niceness and slice in nanoseconds of a process, as the kernel has them."""
    number = {"x86_64": 315}.get(platform.machine(), 275)
    # 56 bytes are all that `sched_getattr` knows of.
    attributes = ctypes.create_string_buffer(56)
    if ctypes.CDLL(None).syscall(number, pid, attributes, 56, 0):
        raise OSError
    _, policy, _, niceness, _, slice_ns = struct.unpack_from("=IIQiIQ", attributes.raw)
    return policy, niceness, slice_ns


def has_slices() -> bool:
    """Return whether the kernel lets processes choose their slices."""
    release = tuple(int(part) for part in platform.release().split(".")[:2])
    return release >= (6, 12)
