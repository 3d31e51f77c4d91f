"""Ports of 127.0.0.1 for servers that tests start: each is given to one process of tests only.

A port that the system chooses is free for a moment: by the time that a server listens, another
worker's server or somebody's outgoing connection may have it. These lie below those that the
system gives to connections, and whoever has one holds a lock on it until its process ends.
"""

from __future__ import annotations

import itertools
import os
import socket
from pathlib import Path
from typing import Final

_HOST: Final = "127.0.0.1"
_FIRST: Final = 15_000
#: The system's own choice begins at this number on Linux, unless somebody has changed that.
_USUAL_END: Final = 32_768
_RANGE: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
#: Abstract sockets: the kernel takes them back when their process ends, however that happens.
_LOCK: Final = "\0authz-test-port-{}"

_held: list[socket.socket] = []


def _candidates() -> itertools.chain[int]:
    """Return all ports to try; processes begin at different ones, so that they seldom meet."""
    try:
        end = int(_RANGE.read_text().split()[0])
    except OSError:
        end = _USUAL_END
    if end < _FIRST + 1_000:
        # No room below: above a usual beginning is all the same to a lock.
        end = _USUAL_END
    begin = _FIRST + os.getpid() * 61 % (end - _FIRST)
    return itertools.chain(range(begin, end), range(_FIRST, begin))


_ports: Final = _candidates()


def _lock(port: int) -> socket.socket | None:
    lock = socket.socket(socket.AF_UNIX)
    try:
        lock.bind(_LOCK.format(port))
    except OSError:
        lock.close()
        return None
    return lock


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As servers do: what closed connections have left behind is in nobody's way.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nobody listens on and no other test will be given."""
    for port in _ports:
        lock = _lock(port)
        if lock is None:
            continue
        if _is_free(port):
            _held.append(lock)
            return port
        lock.close()
    raise RuntimeError("no free port is left")
