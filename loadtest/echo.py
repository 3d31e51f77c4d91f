"""The least HTTP server that a generator can talk to: what is left of a latency is its floor.

Started by `loadtest.fleet`; prints its port on a line of its own and ends with its standard
input. Every request is answered with the same grant, so that calls live as on the daemon.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Final, cast

import uvloop

from loadtest.errors import LoadTestError

_BODY: Final = (
    b'{"call_id":"0000000000000000","allowed":true,"reason":"ok","class":"national",'
    b'"number":"+14155550100","seconds":null,"final":false,"extend_at":300,"ring_seconds":180,'
    b'"legs":[{"account":"load-sub","billing":"per_minute","rate":"0.01","held":"0.01",'
    b'"available":"9.99"},{"account":"load-master","billing":"per_minute","rate":"0.005",'
    b'"held":"0.005","available":"250"}]}'
)
_ANSWER: Final = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
    % (len(_BODY), _BODY)
)
_HEAD_END: Final = b"\r\n\r\n"
_LENGTH: Final = b"Content-Length: "


class Echo(asyncio.Protocol):
    """Counts the requests that have come in whole and answers as many."""

    def __init__(self) -> None:
        self._rest = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a connection."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Answer every request that is complete now, in one write."""
        data = self._rest + data
        position = requests = 0
        while (head_end := data.find(_HEAD_END, position)) >= 0:
            at = data.find(_LENGTH, position, head_end)
            if at < 0:
                raise LoadTestError("only our own generators may talk to the echo")
            length = int(data[at + len(_LENGTH) : data.find(b"\r\n", at)])
            end = head_end + len(_HEAD_END) + length
            if end > len(data):
                break
            position = end
            requests += 1
        self._rest = data[position:]
        if requests and self._transport is not None:
            self._transport.write(_ANSWER * requests)


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Echo, "127.0.0.1", 0)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


if __name__ == "__main__":
    uvloop.run(_serve())
