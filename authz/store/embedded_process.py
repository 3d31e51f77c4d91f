"""A store process held by a descriptor, so that its number can never mean another process."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
from typing import Self


class Process:
    """A process of this host: a child, or another's. Close it when it is no longer of interest."""

    def __init__(self, pid: int, child: subprocess.Popen[bytes] | None) -> None:
        self.pid = pid
        self._child = child
        self._descriptor = os.pidfd_open(pid)

    @classmethod
    def of_child(cls, child: subprocess.Popen[bytes]) -> Self:
        """Hold a child of this process."""
        return cls(child.pid, child)

    @classmethod
    def of_peer(cls, pid: int) -> Self:
        """Hold the process that answers at the other end of an open socket."""
        return cls(pid, None)

    @property
    def running(self) -> bool:
        """Whether the process has not ended."""
        return not self.wait(0)

    @property
    def status(self) -> int | None:
        """The exit status of a child that has ended (negative: the signal), else None."""
        return None if self._child is None else self._child.poll()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; harmless if the process has ended."""
        try:
            signal.pidfd_send_signal(self._descriptor, number)
        except ProcessLookupError:
            return

    def wait(self, timeout_seconds: float | None) -> bool:
        """Wait for the end of the process, for ever with None; return whether it has come."""
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        ended = bool(poll.poll(None if timeout_seconds is None else timeout_seconds * 1000))
        if ended and self._child is not None:
            self._child.wait()
        return ended

    async def wait_in_loop(self) -> None:
        """Wait for the end of the process without blocking the event loop."""
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        # A descriptor of its own: the other may be closed while this waits.
        descriptor = os.dup(self._descriptor)
        loop.add_reader(descriptor, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(descriptor)
            os.close(descriptor)
        if self._child is not None:
            self._child.wait()

    def close(self) -> None:
        """Let go of the process without touching it."""
        os.close(self._descriptor)
