"""A proxy between a client and a real store that holds, splits, swallows, cuts and forges bytes."""

from __future__ import annotations

import asyncio
import contextlib
import random
import ssl
from types import TracebackType
from typing import Self

_CHUNK_BYTES = 65_536


class _Direction:
    """One way through the proxy, of all its connections."""

    def __init__(self) -> None:
        self._open = asyncio.Event()
        self._open.set()
        self.bytes_seen = 0
        #: Let through this many more bytes, then cut the connection; None: never.
        self.cut_after_bytes: int | None = None
        #: Pieces of 1 to so many bytes, each written on its own; None: as they come.
        self.split_bytes_max: int | None = None

    def hold(self) -> None:
        """Keep what comes from now on until `release`."""
        self._open.clear()

    def release(self) -> None:
        """Let through what was held, and all that follows."""
        self._open.set()

    async def wait_open(self) -> None:
        await self._open.wait()

    def pieces(self, data: bytes, rng: random.Random) -> list[bytes]:
        if self.split_bytes_max is None:
            return [data]
        pieces, start = [], 0
        while start < len(data):
            size = rng.randint(1, self.split_bytes_max)
            pieces.append(data[start : start + size])
            start += size
        return pieces


class Proxy:
    """Listens on a TCP port of 127.0.0.1 (with `tls`, encrypted) and forwards to a Unix socket."""

    def __init__(
        self,
        target_path: str,
        *,
        rng: random.Random | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._target_path = target_path
        self._rng = rng or random.Random(0)
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._clients: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._swallowed: set[asyncio.StreamWriter] = set()
        self.port = 0
        self.connections = 0
        self.requests = _Direction()
        self.replies = _Direction()

    @property
    def url(self) -> str:
        """The URL of the store as seen through the proxy."""
        return f"redis://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        await self.listen()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.refuse()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def listen(self) -> None:
        """Take connections, again on the same port after `refuse`."""
        self._server = await asyncio.start_server(
            self._accept, "127.0.0.1", self.port, ssl=self._tls
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def refuse(self) -> None:
        """Cut every connection and refuse new ones."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.cut()
        await asyncio.sleep(0)

    def cut(self) -> None:
        """Reset every connection, on both sides; what is on its way is lost."""
        for writer in tuple(self._writers):
            writer.transport.abort()

    def swallow(self) -> None:
        """Let the connections that are open now lead nowhere, as a route that is gone does."""
        self._swallowed |= self._writers

    def forge_reply(self, data: bytes) -> None:
        """Send bytes to every client that its store never sent."""
        for writer in self._clients:
            writer.write(data)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            from_store, to_store = await asyncio.open_unix_connection(self._target_path)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, to_store}
        self._clients.add(writer)
        ways = (
            asyncio.create_task(self._forward(reader, to_store, self.requests)),
            asyncio.create_task(self._forward(from_store, writer, self.replies)),
        )
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in (writer, to_store):
                one.transport.abort()
            self._writers -= {writer, to_store}
            self._clients.discard(writer)
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _forward(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: _Direction
    ) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(_CHUNK_BYTES):
                await way.wait_open()
                if writer in self._swallowed:
                    continue
                way.bytes_seen += len(data)
                if way.cut_after_bytes is not None:
                    data, way.cut_after_bytes = data[: way.cut_after_bytes], None
                    writer.write(data)
                    await writer.drain()
                    await asyncio.sleep(0.01)
                    return
                for piece in way.pieces(data, self._rng):
                    writer.write(piece)
                    await writer.drain()
                    if way.split_bytes_max is not None:
                        await asyncio.sleep(0)
