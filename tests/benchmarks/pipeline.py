"""The plainest client of a store: prepared commands, many in flight, nothing else.

It is what "the ceiling" means in docs/benchmarks.md: no event loop, no deadlines, no engine.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any, Final, Self

import hiredis

from authz.store.connection import pack_command
from authz.store.url import parse_store_url

#: Commands in flight, as docs/benchmarks.md defines the ceiling.
DEPTH: Final = 50
_RECEIVE_BYTES: Final = 1 << 16


class Pipeline:
    """A blocking connection to the store at `url` that keeps `depth` commands in flight."""

    def __init__(self, url: str, depth: int = DEPTH) -> None:
        address = parse_store_url(url)
        if address.socket_path:
            self._socket = socket.socket(socket.AF_UNIX)
            self._socket.connect(address.socket_path)
        else:
            self._socket = socket.create_connection((address.host, address.port))
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = hiredis.Reader()
        self._depth = depth

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Disconnect."""
        self._socket.close()

    def run(self, commands: Sequence[bytes]) -> list[Any]:
        """Send packed commands and return their replies; an error reply is raised at the end."""
        replies: list[Any] = []
        sent = 0
        error: hiredis.ReplyError | None = None
        while len(replies) < len(commands):
            room = min(len(commands) - sent, self._depth - (sent - len(replies)))
            if room > 0:
                self._socket.sendall(b"".join(commands[sent : sent + room]))
                sent += room
            for reply in self._received():
                replies.append(reply)
                if isinstance(reply, hiredis.ReplyError):
                    error = reply
        if error is not None:
            raise error
        return replies

    def execute(self, *command: bytes | str | int) -> Any:
        """Send one command and return its reply."""
        return self.run([pack_command(command)])[0]

    def information(self, section: str) -> dict[str, str]:
        """Return one section of INFO."""
        lines = self.execute("INFO", section).decode().split("\r\n")
        return dict(line.split(":", 1) for line in lines if ":" in line)

    def _received(self) -> Iterable[Any]:
        """Wait for at least one reply; return all that have come."""
        replies: list[Any] = []
        while True:
            while (reply := self._reader.gets()) is not False:
                replies.append(reply)
            if replies:
                return replies
            data = self._socket.recv(_RECEIVE_BYTES)
            if not data:
                raise ConnectionError("the store has hung up")
            self._reader.feed(data)
