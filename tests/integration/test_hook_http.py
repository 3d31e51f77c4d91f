"""The hook listener on real sockets: what switches and health checks send, well and badly."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from hook_double import (
    Answer,
    AnswerParser,
    OrderedEngine,
    authorize,
    get,
    new_server,
    post,
    settle,
)
from tally import Tally

from authz.hooks.access import Access
from authz.hooks.messages import Limits
from authz.hooks.routes import hook_routes
from authz.hooks.server import HookServer

EVERY_LOOP = True
SMALL_BUFFER_BYTES = 4_096
SOON_SECONDS = 90


class Caller:
    """A client connection that reads whole answers."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._parser = AnswerParser()

    def send(self, data: bytes) -> None:
        """Send data."""
        self.writer.write(data)

    async def answers(self, count: int) -> list[Answer]:
        """Return the next answers, or those that came before the end of the stream."""
        async with asyncio.timeout(SOON_SECONDS):
            while len(self._parser.answers) < count:
                data = await self.reader.read(65_536)
                if not data:
                    break
                self._parser.feed(data)
        taken, self._parser.answers = self._parser.answers[:count], self._parser.answers[count:]
        return taken

    async def ask(self, data: bytes) -> Answer:
        """Send a request and return its answer."""
        self.send(data)
        [answer] = await self.answers(1)
        return answer

    async def is_closed(self) -> bool:
        """Wait until the server closes; nothing more may come before that."""
        async with asyncio.timeout(SOON_SECONDS):
            try:
                return await self.reader.read(1) == b""
            except ConnectionResetError:
                return True

    def close(self) -> None:
        """Close the connection, whatever is still to come."""
        self.writer.transport.abort()

    def reset(self) -> None:
        """Break the connection off, as a crashing host does."""
        connected = self.writer.get_extra_info("socket")
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()


class House:
    """Servers, and callers connected to the last of them."""

    def __init__(self, directory: Path) -> None:
        self.engine = OrderedEngine()
        self.server: HookServer | None = None
        self.path = str(directory / "hook.sock")
        self.port = 0
        self._stack = AsyncExitStack()

    async def start(
        self,
        *,
        access: Access | None = None,
        limits: Limits | None = None,
        host: str = "127.0.0.1",
        tick_seconds: float = 0.02,
    ) -> HookServer:
        """Serve on a TCP and a Unix socket."""
        loop = asyncio.get_running_loop()
        server = self.server = new_server(
            self.engine, access=access, limits=limits, tick_seconds=tick_seconds
        )
        self._stack.callback(server.close)
        tcp = await loop.create_server(server.protocol, host, 0)
        unix = await loop.create_unix_server(server.protocol, self.path)
        for listener in (tcp, unix):
            self._stack.callback(listener.close)
        self.port = tcp.sockets[0].getsockname()[1]
        return server

    async def connect(self, host: str = "127.0.0.1", *, small_buffer: bool = False) -> Caller:
        """Connect over TCP."""
        client = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        client.setblocking(False)
        if small_buffer:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER_BYTES)
        await asyncio.get_running_loop().sock_connect(client, (host, self.port))
        limit = SMALL_BUFFER_BYTES if small_buffer else 65_536
        return self._caller(*await asyncio.open_connection(sock=client, limit=limit))

    async def connect_unix(self) -> Caller:
        """Connect over the Unix socket."""
        return self._caller(*await asyncio.open_unix_connection(self.path))

    async def close(self) -> None:
        """End everything."""
        await self._stack.aclose()
        # Transports tell of their end in the next turns of the loop.
        await asyncio.sleep(0.01)

    def _caller(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Caller:
        caller = Caller(reader, writer)
        self._stack.callback(caller.close)
        return caller


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    house = House(tmp_path)
    yield house
    await house.close()


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that happens soon."""
    async with asyncio.timeout(SOON_SECONDS):
        while not condition():  # noqa: ASYNC110  # it happens in another connection's callbacks
            await asyncio.sleep(0.005)


async def test_a_call_from_start_to_end(house: House) -> None:
    await house.start()
    caller = await house.connect()
    granted = await caller.ask(authorize("c1"))
    assert granted.status == 200
    assert granted.headers["content-type"] == "application/json"
    assert granted.headers["date"].endswith("GMT")
    assert "connection" not in granted.headers
    assert json.loads(granted.body)["seconds"] == 60
    reserve = post("/v1/reserve", b'{"call_id":"c1","account":"acme","used_seconds":45}')
    assert json.loads((await caller.ask(reserve)).body)["allowed"]
    shown = await caller.ask(get("/v1/calls/c1?account=acme"))
    assert json.loads(shown.body)["state"] == "open"
    settled = await caller.ask(settle("c1"))
    assert json.loads(settled.body) == {
        "call_id": "c1", "settled": True, "duplicate": False, "seconds": 61, "legs": [],
    }  # fmt: skip
    restarted = await caller.ask(post("/v1/switches/sw1/restarted", b""))
    assert json.loads(restarted.body) == {"switch": "sw1", "orphaned": 3}


@pytest.mark.parametrize(
    ("request_bytes", "status", "facts"),
    [
        (settle("unknown"), 404, {"reason": "call_unknown", "title": "Not Found"}),
        (settle("different"), 409, {"reason": "settled_differently", "seconds": 61}),
        (settle("full"), 503, {"reason": "spool_full"}),
        (settle("wrong"), 400, {"reason": "invalid_input", "field": "answered_at"}),
        (settle("broken"), 500, {"reason": "internal_error"}),
        (get("/v1/calls/nowhere?account=acme"), 404, {"reason": "call_unknown"}),
        (get("/v1/calls/c1"), 400, {"field": "account"}),
        (post("/v1/settle", b'{"call_id":"c","account":"a","seconds":"x"}'), 400,
         {"field": "seconds"}),
        (post("/v1/settle", b"{]"), 400, {"reason": "malformed_json"}),
        (post("/v1/switches/sw1/restarted", b"[]"), 400, {"reason": "invalid_input"}),
        (get("/nowhere"), 404, {"reason": "not_found"}),
        (get("/v1/settle"), 405, {"reason": "method_not_allowed"}),
        (post("/v1/settle", b"x", "Content-Type: text/xml"), 415,
         {"reason": "unsupported_media_type"}),
        (post("/v1/settle", b"x", "Content-Encoding: gzip"), 415,
         {"reason": "unsupported_media_type"}),
    ],
)  # fmt: skip
async def test_problems_keep_the_connection(
    house: House, request_bytes: bytes, status: int, facts: dict[str, object]
) -> None:
    await house.start()
    caller = await house.connect()
    answer = await caller.ask(request_bytes)
    document = json.loads(answer.body)
    assert (answer.status, document["status"]) == (status, status)
    assert answer.headers["content-type"] == "application/problem+json"
    assert facts.items() <= document.items()
    assert "secret" not in answer.body.decode()
    assert (await caller.ask(authorize("next"))).status == 200


async def test_a_spooled_settle_is_accepted_not_done(house: House) -> None:
    await house.start()
    answer = await (await house.connect()).ask(settle("spooled"))
    assert answer.status == 202
    assert json.loads(answer.body) == {"call_id": "spooled", "settled": False, "spooled": True}


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "PROPFIND"])
async def test_other_methods_are_told_which_are_allowed(house: House, method: str) -> None:
    await house.start()
    caller = await house.connect()
    answer = await caller.ask(f"{method} /v1/settle HTTP/1.1\r\nHost: h\r\n\r\n".encode())
    assert (answer.status, answer.headers["allow"]) == (405, "POST")


async def test_a_method_nobody_knows(house: House) -> None:
    await house.start()
    caller = await house.connect()
    answer = await caller.ask(b"BREW /v1/settle HTTP/1.1\r\nHost: h\r\n\r\n")
    assert (answer.status, answer.headers["allow"]) == (405, "GET, POST")
    assert await caller.is_closed()


async def test_the_answer_to_head_has_no_body(house: House) -> None:
    await house.start()
    caller = await house.connect()
    caller.send(b"HEAD /livez HTTP/1.1\r\nHost: h\r\n\r\n" + get("/livez"))
    async with asyncio.timeout(SOON_SECONDS):
        head = await caller.reader.readuntil(b"\r\n\r\n")
        following = await caller.reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 405 ")
    assert following.startswith(b"HTTP/1.1 200 ")


async def test_http_1_0_and_connection_close(house: House) -> None:
    await house.start()
    for request_bytes in (b"GET /livez HTTP/1.0\r\n\r\n", get("/livez", "Connection: close")):
        caller = await house.connect()
        answer = await caller.ask(request_bytes)
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert await caller.is_closed()
    caller = await house.connect()
    for _ in range(2):
        answer = await caller.ask(b"GET /livez HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        assert answer.headers["connection"] == "keep-alive"


async def test_an_offer_to_upgrade_is_declined(house: House) -> None:
    await house.start()
    caller = await house.connect()
    upgrade = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk")
    answer = await caller.ask(get("/v1/calls/c1?account=acme", *upgrade))
    assert (answer.status, answer.headers["connection"]) == (200, "close")
    assert await caller.is_closed()
    caller = await house.connect()
    answer = await caller.ask(post("/v1/settle", b"{}", *upgrade))
    assert (answer.status, json.loads(answer.body)["reason"]) == (501, "upgrade_with_body")
    assert await caller.is_closed()


async def test_expect_100_continue(house: House) -> None:
    await house.start()
    caller = await house.connect()
    head, _, body = settle("c1", "Expect: 100-continue").partition(b"\r\n\r\n")
    # The interim answer has to wait until the answer before it is out.
    house.engine.hold("before")
    caller.send(authorize("before") + head + b"\r\n\r\n")
    await until(lambda: house.engine.began == ["authorize before"])
    house.engine.release("before")
    first, interim = await caller.answers(2)
    assert json.loads(first.body)["call_id"] == "before"
    assert (interim.status, interim.headers) == (100, {})
    settled = await caller.ask(body)
    assert settled.status == 200


@pytest.mark.parametrize(
    ("status", "request_bytes"),
    [
        (404, post("/nowhere", b"x", "Expect: 100-continue")),
        (415, post("/v1/settle", b"x", "Expect: 100-continue", "Content-Type: text/xml")),
        (417, post("/v1/settle", b"x", "Expect: a miracle")),
        (413, post("/v1/settle", b"x" * 100_000, "Expect: 100-continue")),
    ],
)
async def test_a_refused_expectation_ends_the_connection(
    house: House, status: int, request_bytes: bytes
) -> None:
    await house.start()
    caller = await house.connect()
    answer = await caller.ask(request_bytes.partition(b"\r\n\r\n")[0] + b"\r\n\r\n")
    assert (answer.status, answer.headers["connection"]) == (status, "close")
    assert await caller.is_closed()


async def test_a_refusal_reaches_a_client_that_is_still_sending(house: House) -> None:
    await house.start(limits=Limits(body_bytes_max=1_000))
    caller = await house.connect()
    caller.send(post("/v1/settle", b"x" * 2_000_000))
    [answer] = await caller.answers(1)
    assert answer.status == 413
    assert await caller.is_closed()


async def test_pipelined_requests_from_many_connections(house: House, tally: Tally) -> None:
    server = await house.start(limits=Limits(pipelined_max=8))
    callers = [await house.connect() for _ in range(4)] + [await house.connect_unix()]
    for number, caller in enumerate(callers):
        caller.send(b"".join(authorize(f"yield-{number}-{n}") for n in range(200)))
    for number, caller in enumerate(callers):
        answers = await caller.answers(200)
        expected = [f"yield-{number}-{n}" for n in range(200)]
        assert [json.loads(answer.body)["call_id"] for answer in answers] == expected
    assert tally.of("authz_hook_answers_total") == {("authorize", "2xx"): 1_000}
    assert tally.observed("authz_hook_answer_seconds", "authorize") == 1_000
    assert server.in_flight == 0


async def test_ipv6(house: House) -> None:
    await house.start(host="::1", access=Access(allow=["::1"]))
    assert (await (await house.connect("::1")).ask(authorize("c1"))).status == 200


async def test_tokens_and_addresses(house: House) -> None:
    await house.start(access=Access(tokens=["s3cret"], allow=["127.0.0.0/8"]))
    caller = await house.connect()
    refused = await caller.ask(authorize("c1"))
    assert (refused.status, refused.headers["www-authenticate"]) == (401, "Bearer")
    assert (await caller.ask(authorize("c1", "Authorization: Bearer wrong"))).status == 401
    assert (await caller.ask(get("/livez"))).status == 200
    assert house.engine.began == []
    assert (await caller.ask(authorize("c1", "Authorization: Bearer s3cret"))).status == 200
    local = await house.connect_unix()
    assert (await local.ask(authorize("c2"))).status == 200


async def test_an_address_that_may_not_connect(house: House) -> None:
    await house.start(access=Access(allow=["192.0.2.0/24"]))
    caller = await house.connect()
    answer = await caller.ask(authorize("c1"))
    assert (answer.status, json.loads(answer.body)["reason"]) == (403, "address_not_allowed")
    assert await caller.is_closed()
    assert (await (await house.connect_unix()).ask(authorize("c2"))).status == 200


async def test_readiness_is_asked_each_time() -> None:
    obstacles: list[str | None] = ["the store does not answer", None]
    routes = hook_routes(OrderedEngine(), lambda: obstacles.pop(0))
    server = HookServer(routes, access=Access())
    ours, theirs = socket.create_server(("127.0.0.1", 0)), socket.socket()
    theirs.connect(ours.getsockname())
    accepted, _ = ours.accept()
    ours.close()
    await asyncio.get_running_loop().connect_accepted_socket(server.protocol, accepted)
    caller = Caller(*await asyncio.open_connection(sock=theirs))
    answer = await caller.ask(get("/readyz"))
    assert (answer.status, json.loads(answer.body)["detail"]) == (503, "the store does not answer")
    assert (await caller.ask(get("/readyz"))).status == 200
    caller.close()
    await until(lambda: server.connections == 0)
    server.close()


async def test_a_slow_request_is_given_up(house: House, tally: Tally) -> None:
    await house.start(limits=Limits(request_seconds=0.2))
    caller = await house.connect()
    caller.send(settle("c1")[:-3])
    [answer] = await caller.answers(1)
    assert (answer.status, answer.headers["connection"]) == (408, "close")
    assert await caller.is_closed()
    assert tally.total("authz_hook_timeouts_total") == 1
    assert house.engine.began == []


async def test_trickling_does_not_buy_time(house: House) -> None:
    await house.start(limits=Limits(request_seconds=0.3))
    caller = await house.connect()
    answered = asyncio.create_task(caller.answers(1))
    caller.send(b"GET /livez HTTP/1.1\r\nX: ")
    while not answered.done():
        caller.send(b"x")
        await asyncio.sleep(0.02)
    [answer] = await answered
    assert answer.status == 408


@pytest.mark.parametrize("noise", [b"", b"\r\n"])
async def test_an_idle_connection_is_closed(house: House, noise: bytes) -> None:
    server = await house.start(limits=Limits(idle_seconds=0.2))
    caller = await house.connect()
    assert (await caller.ask(authorize("c1"))).status == 200
    caller.send(noise)
    assert await caller.is_closed()
    assert server.connections == 0


async def test_a_connection_at_work_is_not_idle(house: House) -> None:
    await house.start(limits=Limits(idle_seconds=0.1, request_seconds=0.1))
    caller = await house.connect()
    house.engine.hold("long")
    caller.send(authorize("long"))
    await asyncio.sleep(0.4)
    house.engine.release("long")
    [answer] = await caller.answers(1)
    assert answer.status == 200


async def test_a_client_that_shuts_its_side_gets_its_answers(house: House) -> None:
    await house.start()
    caller = await house.connect()
    house.engine.hold("c1")
    caller.send(authorize("c1") + settle("c1"))
    caller.writer.write_eof()
    await until(lambda: house.engine.began == ["authorize c1"])
    house.engine.release("c1")
    assert [answer.status for answer in await caller.answers(2)] == [200, 200]
    assert await caller.is_closed()


async def test_a_cut_in_the_middle_of_a_body_leaves_the_engine_at_work(
    house: House, tally: Tally
) -> None:
    server = await house.start()
    caller = await house.connect()
    house.engine.hold("c1")
    caller.send(settle("c1") + authorize("half")[:-5])
    await until(lambda: house.engine.began == ["settle c1"])
    caller.reset()
    await until(lambda: server.connections == 0)
    house.engine.release("c1")
    await until(lambda: server.in_flight == 0)
    assert house.engine.ended == ["settle c1"]
    assert tally.total("authz_hook_answers_dropped_total") == 1


async def test_a_client_that_closes_at_once_gets_its_work_done(house: House) -> None:
    server = await house.start()
    caller = await house.connect()
    house.engine.hold("c1")
    caller.send(settle("c1"))
    await until(lambda: house.engine.began == ["settle c1"])
    caller.close()
    house.engine.release("c1")
    await until(lambda: server.connections == 0)
    assert house.engine.ended == ["settle c1"]


async def test_a_client_that_never_reads_is_bounded_and_cut(house: House, tally: Tally) -> None:
    server = await house.start(limits=Limits(request_seconds=0.3, idle_seconds=60))
    caller = await house.connect(small_buffer=True)
    caller.writer.transport.pause_reading()
    # Far more answers than the kernel's buffers take; the client reads none.
    request_bytes = get("/v1/calls/" + "x" * 200 + "?account=acme")
    count = 60_000
    caller.send(request_bytes * count)
    await until(lambda: server.connections == 0)
    assert tally.total("authz_hook_timeouts_total") == 1
    assert len(house.engine.began) < count


async def test_a_slow_reader_gets_every_answer(house: House) -> None:
    await house.start(limits=Limits(request_seconds=60))
    caller = await house.connect(small_buffer=True)
    caller.send(authorize("c1") * 5_000)
    async with asyncio.timeout(SOON_SECONDS):
        await asyncio.sleep(0.2)
        assert len(await caller.answers(5_000)) == 5_000


async def test_draining_answers_what_came_and_closes(house: House) -> None:
    server = await house.start()
    busy, idle, local = await house.connect(), await house.connect(), await house.connect_unix()
    for caller in (idle, local):
        assert (await caller.ask(get("/livez"))).status == 200
    house.engine.hold("c1")
    busy.send(authorize("c1"))
    await until(lambda: server.in_flight == 1)
    drained = asyncio.create_task(server.drain(SOON_SECONDS))
    assert await idle.is_closed()
    assert await local.is_closed()
    late = await house.connect()
    assert [answer.status for answer in await late.answers(1)] == [503]
    house.engine.release("c1")
    [answer] = await busy.answers(1)
    assert (answer.status, answer.headers["connection"]) == (200, "close")
    busy.close()
    late.close()
    assert await drained == 0


async def test_a_lingering_client_is_cut(house: House) -> None:
    server = await house.start(limits=Limits(linger_seconds=0.1))
    caller = await house.connect()
    assert (await caller.ask(get("/livez", "Connection: close"))).status == 200
    await until(lambda: server.connections == 0)


async def test_random_bytes_on_a_real_socket(house: House) -> None:
    server = await house.start()
    for _ in range(50):
        caller = await house.connect()
        caller.send(os.urandom(300))
        caller.writer.write_eof()
        try:
            answers = await caller.answers(1)
        except ConnectionResetError:
            continue
        assert all(answer.status in (400, 405) for answer in answers)
    await until(lambda: server.connections == 0)
    assert (await (await house.connect()).ask(get("/livez"))).status == 200
