"""The channel between the supervisor and one child: small messages, some with open sockets.

It is a SOCK_SEQPACKET pair, so a message arrives whole or not at all, and its end is seen at
once by the other side when a process dies, however it dies.
"""

from __future__ import annotations

import array
import asyncio
import collections
import contextlib
import os
import socket
from collections.abc import Callable, Sequence
from typing import Final

import msgspec
from msgspec import Struct

MESSAGE_BYTES_MAX: Final = 131_072
_SOCKETS_MAX: Final = 8
#: Messages read in one turn of the loop, so that a burst does not starve everything else.
_MESSAGES_PER_TURN: Final = 64


class Start(Struct, tag="start", frozen=True):
    """Supervisor to child, first of all: what to serve. Carries one socket for each listener."""

    name: str
    #: JSON of the settings, kept as text so that this module knows nothing of them.
    settings: str
    store_url: str
    listeners: tuple[str, ...]


class Connection(Struct, tag="connection", frozen=True):
    """Supervisor to worker: serve the connection that comes with this."""


class Ping(Struct, tag="ping", frozen=True):
    """Supervisor to child: are you alive?"""


class Drain(Struct, tag="drain", frozen=True):
    """Supervisor to child: begin nothing new, finish what is begun, then exit."""


class Ready(Struct, tag="ready", frozen=True):
    """Child to supervisor: from now on I answer."""


class Leaving(Struct, tag="leaving", frozen=True):
    """Child to supervisor: I have been told by a signal to drain."""


class Pong(Struct, tag="pong", frozen=True):
    """Child to supervisor: I am alive."""


class Closed(Struct, tag="closed", frozen=True):
    """Worker to supervisor: so many of my connections have ended since I last said so."""

    connections: int


class Failed(Struct, tag="failed", frozen=True):
    """Child to supervisor: I cannot go on. A wrong setting will not mend by starting anew."""

    detail: str
    is_setting: bool


Message = Start | Connection | Ping | Drain | Ready | Leaving | Pong | Closed | Failed

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Message).decode


class Channel:
    """One end of the pair on a running loop."""

    def __init__(
        self,
        end: socket.socket,
        *,
        on_message: Callable[[Message, list[socket.socket]], None],
        on_end: Callable[[], None],
    ) -> None:
        """Own `end` and read from it; `on_message` owns the sockets it is given."""
        end.setblocking(False)
        self._end = end
        self._loop = asyncio.get_running_loop()
        self._on_message = on_message
        self._on_end = on_end
        self._waiting: collections.deque[tuple[bytes, list[socket.socket]]] = collections.deque()
        self._closed = False
        self._loop.add_reader(end, self._read)

    @staticmethod
    def pair() -> tuple[socket.socket, socket.socket]:
        """Return two connected ends."""
        return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def send(self, message: Message, sockets: Sequence[socket.socket] = ()) -> None:
        """Send now or, if the other side is slow, later; the sockets are closed here then.

        Nothing happens on a channel whose other end is gone: `on_end` tells of that.
        """
        if self._closed:
            _close_all(sockets)
            return
        self._waiting.append((_encode(message), list(sockets)))
        if len(self._waiting) == 1:
            self._write()

    def finish(self) -> None:
        """Read what the other side said before it ended, then close."""
        self._read()
        self.close()

    def close(self) -> None:
        """Close this end without another word."""
        if self._closed:
            return
        self._closed = True
        self._loop.remove_reader(self._end)
        self._loop.remove_writer(self._end)
        self._end.close()
        for _, sockets in self._waiting:
            _close_all(sockets)
        self._waiting.clear()

    def _write(self) -> None:
        while self._waiting:
            data, sockets = self._waiting[0]
            handles = array.array("i", [one.fileno() for one in sockets])
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, handles)] if handles else []
            try:
                self._end.sendmsg([data], rights)
            except BlockingIOError:
                self._loop.add_writer(self._end, self._write)
                return
            except OSError:
                self._lost()
                return
            self._waiting.popleft()
            _close_all(sockets)
        self._loop.remove_writer(self._end)

    def _read(self) -> None:
        for _ in range(_MESSAGES_PER_TURN):
            if self._closed:
                return
            try:
                data, handles, _, _ = socket.recv_fds(self._end, MESSAGE_BYTES_MAX, _SOCKETS_MAX)
            except BlockingIOError:
                return
            except OSError:
                data, handles = b"", []
            if not data:
                self._lost()
                return
            self._on_message(_decode(data), [socket.socket(fileno=one) for one in handles])

    def _lost(self) -> None:
        self.close()
        self._on_end()


def _close_all(sockets: Sequence[socket.socket]) -> None:
    for one in sockets:
        with contextlib.suppress(OSError):
            one.close()


def adopt_end(handle: int) -> socket.socket:
    """Return the end that a child inherited under this descriptor."""
    os.set_inheritable(handle, False)
    return socket.socket(fileno=handle)
