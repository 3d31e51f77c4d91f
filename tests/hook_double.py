"""What the tests of the HTTP layer put around it: an engine to order, a transport in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field

import httptools

from authz.errors import CallUnknown, InvalidInput, SettledDifferently, SpoolFull
from authz.hooks.access import Access
from authz.hooks.messages import Limits
from authz.hooks.routes import hook_routes
from authz.hooks.server import HookServer
from authz.model import (
    AuthorizeRequest,
    CallState,
    Denial,
    Grant,
    ReserveRequest,
    Settlement,
    SettleRequest,
    Spooled,
    SwitchRestarted,
)

FAILURES: dict[str, Exception] = {
    "unknown": CallUnknown(),
    "different": SettledDifferently(61),
    "full": SpoolFull(),
    "wrong": InvalidInput("answered_at", "is no moment"),
    "broken": RuntimeError("a secret of the inside"),
}


class OrderedEngine:
    """An engine whose answers depend on the call id alone, and wait as long as a test wants."""

    def __init__(self) -> None:
        self.began: list[str] = []
        self.ended: list[str] = []
        self._gates: dict[str, asyncio.Event] = {}

    def hold(self, call_id: str) -> None:
        """Let requests of this call wait until `release`."""
        self._gates[call_id] = asyncio.Event()

    def release(self, call_id: str) -> None:
        """Let the requests of this call go on."""
        self._gates.pop(call_id).set()

    async def _pass(self, verb: str, call_id: str) -> None:
        self.began.append(f"{verb} {call_id}")
        if call_id in self._gates:
            await self._gates[call_id].wait()
        if call_id.startswith("yield"):
            for _ in range(int(call_id.rpartition("-")[2]) % 5):
                await asyncio.sleep(0)
        if call_id in FAILURES:
            raise FAILURES[call_id]
        self.ended.append(f"{verb} {call_id}")

    def is_emergency(self, request: AuthorizeRequest) -> bool:
        """Only 911 is."""
        return request.to == "911"

    async def authorize(self, request: AuthorizeRequest) -> Grant | Denial:
        """Grant a minute."""
        await self._pass("authorize", request.call_id)
        return _grant(request.call_id, request.to)

    async def reserve(self, request: ReserveRequest) -> Grant | Denial:
        """Grant a minute more."""
        await self._pass("reserve", request.call_id)
        return _grant(request.call_id, "+14155550100")

    async def settle(self, request: SettleRequest) -> Settlement | Spooled:
        """Book, or spool what is called so."""
        await self._pass("settle", request.call_id)
        if request.call_id == "spooled":
            return Spooled(request.call_id)
        return Settlement(request.call_id, True, False, request.seconds, ())

    async def call(self, account: str, call_id: str) -> CallState | None:
        """Know every call but `nowhere`."""
        await self._pass("call", call_id)
        if call_id == "nowhere":
            return None
        return CallState(
            call_id=call_id, account=account, state="open", class_=None, direction=None,
            number=None, switch=None, authorized_at=None, used_seconds=0, seconds=None,
            final=False, lease_until=None, legs=(),
        )  # fmt: skip

    async def switch_restarted(self, name: str) -> SwitchRestarted:
        """Orphan three calls."""
        await self._pass("restarted", name)
        return SwitchRestarted(name, 3)


def _grant(call_id: str, number: str) -> Grant:
    return Grant(
        call_id=call_id, allowed=True, reason="ok", class_="national", number=number, seconds=60,
        final=False, extend_at=45, ring_seconds=180, legs=(),
    )  # fmt: skip


class MemoryTransport(asyncio.Transport):
    """Keeps what is written; the kernel's part in tests that cut streams at chosen bytes."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 5060)})
        self.written = bytearray()
        self.is_paused = False
        self.has_eof = False
        self._is_closing = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Keep the data."""
        assert not self.has_eof, "written after the end"
        self.written += data

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """There is no buffer."""

    def get_write_buffer_size(self) -> int:
        """Everything is always sent."""
        return 0

    def can_write_eof(self) -> bool:
        """As TCP."""
        return True

    def write_eof(self) -> None:
        """Close our side."""
        self.has_eof = True

    def is_closing(self) -> bool:
        """Whether close or abort was called."""
        return self._is_closing

    def close(self) -> None:
        """Close."""
        self._is_closing = True

    def abort(self) -> None:
        """Close at once."""
        self._is_closing = True

    def pause_reading(self) -> None:
        """Note it."""
        assert not self.is_paused
        self.is_paused = True

    def resume_reading(self) -> None:
        """Note it."""
        assert self.is_paused
        self.is_paused = False


@dataclass
class Answer:
    """One parsed response."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


class AnswerParser:
    """Collects complete responses from a stream."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self._parser = httptools.HttpResponseParser(self)
        self._current = Answer()

    def feed(self, data: bytes) -> None:
        """Take more of the stream."""
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        """A response begins."""
        self._current = Answer()

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        self._current.headers[name.decode().lower()] = value.decode()

    def on_body(self, body: bytes) -> None:
        """Some of the body."""
        self._current.body += body

    def on_message_complete(self) -> None:
        """The response is whole."""
        self._current.status = self._parser.get_status_code()
        self.answers.append(self._current)


def parse_answers(stream: bytes) -> list[Answer]:
    """Return the responses of a whole stream, without interim ones."""
    parser = AnswerParser()
    parser.feed(stream.replace(b"HTTP/1.1 100 Continue\r\n\r\n", b""))
    return parser.answers


def post(path: str, body: bytes, *headers: str, host: str = "h") -> bytes:
    """Return a POST with a JSON body."""
    lines = [f"POST {path} HTTP/1.1", f"Host: {host}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def authorize(call_id: str, *headers: str, to: str = "+14155550100") -> bytes:
    """Return a request to authorize a call."""
    body = b'{"call_id":"%b","account":"acme","to":"%b"}' % (call_id.encode(), to.encode())
    return post("/v1/authorize", body, *headers)


def settle(call_id: str, *headers: str) -> bytes:
    """Return a request to settle a call of 61 seconds."""
    body = b'{"call_id":"%b","account":"acme","seconds":61}' % call_id.encode()
    return post("/v1/settle", body, *headers)


def get(path: str, *headers: str) -> bytes:
    """Return a GET."""
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: h", *headers]).encode() + b"\r\n\r\n"


def new_server(
    engine: OrderedEngine,
    *,
    access: Access | None = None,
    limits: Limits | None = None,
    tick_seconds: float = 60.0,
) -> HookServer:
    """Return a ready server around an engine; close it at the end."""
    return HookServer(
        hook_routes(engine, lambda: None),
        access=access or Access(),
        limits=limits,
        tick_seconds=tick_seconds,
    )


async def exchange_in_memory(
    *pieces: bytes, limits: Limits | None = None, access: Access | None = None, seen: bytes = b""
) -> tuple[list[Answer], MemoryTransport]:
    """Feed pieces to a fresh connection; return its answers and its transport.

    Another connection of the same server has been fed `seen` before.
    """
    server = new_server(OrderedEngine(), limits=limits, access=access)
    if seen:
        await _exchange(server, (seen,))
    transport = await _exchange(server, pieces)
    server.close()
    return parse_answers(bytes(transport.written)), transport


async def _exchange(server: HookServer, pieces: Iterable[bytes]) -> MemoryTransport:
    transport = MemoryTransport()
    protocol = server.protocol()
    protocol.connection_made(transport)
    for piece in pieces:
        protocol.data_received(piece)
    turns_left = 4
    for _ in range(10_000):
        turns_left = 4 if server.in_flight else turns_left - 1
        if turns_left == 0:
            break
        await asyncio.sleep(0)
    protocol.connection_lost(None)
    return transport
