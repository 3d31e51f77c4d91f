"""Spreads connections evenly over the workers: accepts them and passes each on.

Switches open a handful of connections and keep them for days, so that a worker's share is
decided when it gets a connection. SO_REUSEPORT hashes addresses, which puts all four
connections of a switch on one worker as often as not, and knows no Unix sockets.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Mapping
from typing import Final

from authz import log
from authz.server.process import Process

#: Connections accepted in one turn of the loop.
_ACCEPTS_PER_TURN: Final = 64
#: How long a new connection waits for its worker. A switch that connects anew has just closed
#: its old connections: the workers' word of that must be here before theirs are counted.
_SETTLE_SECONDS: Final = 0.002
#: How long to leave connections waiting when no descriptor is free for another.
_PAUSE_SECONDS: Final = 0.1
_EXHAUSTED: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Balancer:
    """Accepts on the listeners while at least one worker is ready to serve."""

    def __init__(self) -> None:
        """Begin with no listener and no worker."""
        self._loop = asyncio.get_running_loop()
        self._listeners: list[socket.socket] = []
        self._workers: list[Process] = []
        self._accepting = False

    def listen(self, listeners: Mapping[str, socket.socket]) -> None:
        """Accept on these non-blocking sockets instead of those before, which are not closed."""
        self._pause()
        self._listeners = list(listeners.values())
        self._resume()

    def add(self, worker: Process) -> None:
        """Pass connections to this worker too."""
        self._workers.append(worker)
        self._resume()

    def remove(self, worker: Process) -> None:
        """Pass no more connections to this worker; without any, they wait in the backlog."""
        if worker in self._workers:
            self._workers.remove(worker)
        if not self._workers:
            self._pause()

    def _pause(self) -> None:
        if self._accepting:
            for listener in self._listeners:
                self._loop.remove_reader(listener)
            self._accepting = False

    def _resume(self) -> None:
        if self._workers and self._listeners and not self._accepting:
            for listener in self._listeners:
                self._loop.add_reader(listener, self._accept_soon, listener)
            self._accepting = True

    def _accept_soon(self, listener: socket.socket) -> None:
        self._pause()
        self._loop.call_later(_SETTLE_SECONDS, self._accept_all)

    def _accept_all(self) -> None:
        if not self._workers:
            # The last one has gone meanwhile; the next one resumes.
            return
        self._resume()
        for listener in self._listeners:
            self._accept(listener)

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(_ACCEPTS_PER_TURN):
            try:
                connection, _ = listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    log.event("accept_paused", level="warning", error=error)
                    self._pause()
                    self._loop.call_later(_PAUSE_SECONDS, self._resume)
                    return
                # The peer has gone meanwhile (ECONNABORTED and its like).
                continue
            self._next_worker().pass_connection(connection)

    def _next_worker(self) -> Process:
        """Return the worker with the fewest connections; of equals the one not used longest."""
        staying = [one for one in self._workers if not one.is_draining]
        worker = min(staying or self._workers, key=lambda one: one.connections)
        self._workers.remove(worker)
        self._workers.append(worker)
        return worker
