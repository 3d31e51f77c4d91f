"""A timer of the kernel that wakes an event loop within microseconds of the due time.

asyncio's and uvloop's own timers count in whole milliseconds: a generator that slept on them
would be late by more than most answers take, or would have to spin.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
from collections.abc import Callable
from typing import Final

_CLOCK_MONOTONIC: Final = 1
_TIMER_ABSOLUTE: Final = 1
_NANOS_PER_SECOND: Final = 1_000_000_000
#: timerfd_settime takes 0 for "never", so the past is the first nanosecond of the clock.
_LONG_AGO_NS: Final = 1


class _TimerSpec(ctypes.Structure):
    """`struct itimerspec`: the interval, which stays 0, and the moment."""

    _fields_ = (
        ("interval_seconds", ctypes.c_long),
        ("interval_nanos", ctypes.c_long),
        ("seconds", ctypes.c_long),
        ("nanos", ctypes.c_long),
    )


_libc = ctypes.CDLL(None, use_errno=True)


class Alarm:
    """Calls `wake` in the running loop once the moment of `time.monotonic_ns` has come."""

    def __init__(self, wake: Callable[[], None]) -> None:
        """Make the timer; OSError where the kernel has none to give (any Linux has)."""
        self._wake = wake
        self._loop = asyncio.get_running_loop()
        self._spec = _TimerSpec()
        self._descriptor = _libc.timerfd_create(_CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._descriptor < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create failed")
        self._due_ns: int | None = None
        self._loop.add_reader(self._descriptor, self._ring)

    def set(self, due_ns: int) -> None:
        """Wake at this moment, or at once if it has passed, instead of what was set before."""
        if due_ns == self._due_ns:
            return
        self._due_ns = due_ns
        seconds, nanos = divmod(max(due_ns, _LONG_AGO_NS), _NANOS_PER_SECOND)
        self._spec.seconds, self._spec.nanos = seconds, nanos
        spec = ctypes.byref(self._spec)
        if _libc.timerfd_settime(self._descriptor, _TIMER_ABSOLUTE, spec, None) < 0:
            raise OSError(ctypes.get_errno(), "timerfd_settime failed")

    def close(self) -> None:
        """Wake no more."""
        self._loop.remove_reader(self._descriptor)
        os.close(self._descriptor)

    def _ring(self) -> None:
        try:
            os.read(self._descriptor, 8)
        except BlockingIOError:
            # Set anew between the kernel's notice and here.
            return
        self._due_ns = None
        self._wake()
