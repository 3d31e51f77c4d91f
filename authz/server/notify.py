"""Telling systemd how the daemon is (sd_notify(3)); does nothing elsewhere."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Mapping
from typing import Final

_MICROSECONDS: Final = 1_000_000


class Notifier:
    """Sends states to the socket that the service manager named in the environment."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        """Read NOTIFY_SOCKET and WATCHDOG_USEC."""
        address = environ.get("NOTIFY_SOCKET", "")
        # A leading @ stands for the zero byte of an abstract socket.
        self._address = "\0" + address[1:] if address.startswith("@") else address
        is_watched = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        interval = int(environ.get("WATCHDOG_USEC", "0")) if is_watched else 0
        #: How often to call `watchdog`, or None if nobody waits for it.
        self.watchdog_seconds = interval / _MICROSECONDS / 2 if interval else None

    def ready(self, status: str) -> None:
        """Say that the service answers, after its start or a reload."""
        self._send(f"READY=1\nSTATUS={status}")

    def reloading(self) -> None:
        """Say that settings are being read again; `ready` must follow."""
        moment = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1_000
        self._send(f"RELOADING=1\nMONOTONIC_USEC={moment}")

    def stopping(self) -> None:
        """Say that the service ends."""
        self._send("STOPPING=1\nSTATUS=draining")

    def watchdog(self) -> None:
        """Say that the supervisor is alive."""
        self._send("WATCHDOG=1")

    def _send(self, state: str) -> None:
        if not self._address:
            return
        # A manager that is gone or slow must not stop the daemon.
        with (
            contextlib.suppress(OSError),
            socket.socket(
                socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
            ) as sender,
        ):
            sender.sendto(state.encode(), self._address)
