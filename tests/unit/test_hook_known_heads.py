"""Heads that have come before: what is admitted by them is what is admitted without them."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from hook_double import (
    Answer,
    MemoryTransport,
    OrderedEngine,
    authorize,
    get,
    parse_answers,
    post,
    settle,
)

from authz.hooks.access import Access
from authz.hooks.http import HookProtocol
from authz.hooks.messages import Limits
from authz.hooks.routes import hook_routes
from authz.hooks.site import Site

TOKEN = "Authorization: Bearer secret"
LIMITS = Limits(pipelined_max=4)


class Unreadable:
    """In the place of the plain reader: nothing is left for it to read."""

    def read(self, data: bytes, start: int) -> Any:
        """Fail."""
        raise AssertionError(f"read: {data[start:]!r}")


class Hall:
    """A site with connections from several places."""

    def __init__(self, access: Access | None = None, limits: Limits = LIMITS) -> None:
        self.engine = OrderedEngine()
        self.site = Site(hook_routes(self.engine, lambda: None), access or Access(), limits)

    def connect(self, peer: str | socket.socket = "127.0.0.1") -> Caller:
        """Return a caller from an address, or over a Unix socket."""
        return Caller(HookProtocol(self.site), peer)

    def read_nothing_more(self) -> None:
        """From now on only known heads are taken."""
        self.site.plain = Unreadable()  # type: ignore[assignment]


class Caller:
    """One connection."""

    def __init__(self, protocol: HookProtocol, peer: str | socket.socket) -> None:
        self.protocol = protocol
        self.transport = MemoryTransport()
        if isinstance(peer, str):
            self.transport._extra["peername"] = (peer, 5060)  # type: ignore[attr-defined]
        else:
            self.transport._extra["socket"] = peer  # type: ignore[attr-defined]
        protocol.connection_made(self.transport)

    async def feed(self, *pieces: bytes) -> list[Answer]:
        """Deliver data; return the answers to it."""
        self.transport.written.clear()
        for piece in pieces:
            self.protocol.data_received(piece)
        for _ in range(12):
            await asyncio.sleep(0)
        return parse_answers(bytes(self.transport.written))

    async def statuses(self, *pieces: bytes) -> list[int]:
        """Deliver data; return the statuses of the answers to it."""
        return [answer.status for answer in await self.feed(*pieces)]


@pytest.fixture
def unix_socket() -> Iterator[socket.socket]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours


async def test_a_head_that_comes_again_is_not_read_again() -> None:
    hall = Hall()
    assert await hall.connect().statuses(authorize("a") + settle("a")) == [200, 200]
    assert len(hall.site.known_remote) == 2
    hall.read_nothing_more()
    assert await hall.connect().statuses(authorize("b") + settle("b")) == [200, 200]
    assert hall.engine.ended[2:] == ["authorize b", "settle b"]


async def test_only_the_bytes_of_an_admitted_head_are_known() -> None:
    hall = Hall(Access(["secret"]))
    caller = hall.connect()
    assert await caller.statuses(authorize("a", TOKEN)) == [200]
    assert await caller.statuses(authorize("a", TOKEN[:-1] + "T")) == [401]
    assert await caller.statuses(authorize("a", TOKEN + "t")) == [401]
    assert await caller.statuses(authorize("a")) == [401]
    assert await hall.connect().statuses(authorize("a")) == [401]
    assert len(hall.site.known_remote) == 1
    hall.read_nothing_more()
    assert await hall.connect().statuses(authorize("a", TOKEN)) == [200]


async def test_what_a_unix_socket_may_is_not_what_others_may(unix_socket: socket.socket) -> None:
    hall = Hall(Access(["secret"]))
    assert await hall.connect(unix_socket).statuses(authorize("a")) == [200]
    assert (len(hall.site.known_local), len(hall.site.known_remote)) == (1, 0)
    assert await hall.connect().statuses(authorize("a")) == [401]
    hall.read_nothing_more()
    assert await hall.connect(unix_socket).statuses(authorize("a")) == [200]


async def test_an_address_that_may_not_connect_gets_nowhere_by_a_known_head() -> None:
    hall = Hall(Access(allow=["192.0.2.0/24"]))
    assert await hall.connect("192.0.2.7").statuses(authorize("a")) == [200]
    stranger = hall.connect("198.51.100.7")
    assert await stranger.statuses(authorize("a")) == [403]
    assert stranger.transport.has_eof


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (post("/nowhere", b"{}"), 404),
        (post("/livez", b"{}"), 405),
        (post("/v1/settle", b"{}", "Content-Type: text/xml"), 415),
        (post("/v1/settle", b"x" * 20_000), 413),
        (post("/v1/switches/fs1/restarted", b"{}"), 200),
        (authorize("a").replace(b"/v1/authorize", b"/v1/authorize?x=1"), 200),
        (authorize("a", "X: " + "y" * 1_024), 200),
        (authorize("a", "Connection: close"), 200),
        (get("/livez"), 200),
    ],
)
async def test_what_is_not_simply_admitted_is_not_remembered(
    request_bytes: bytes, status: int
) -> None:
    hall = Hall()
    assert await hall.connect().statuses(request_bytes) == [status]
    assert len(hall.site.known_remote) == 0
    assert await hall.connect().statuses(request_bytes) == [status]


async def test_a_wrong_body_behind_a_known_head_is_refused_alike() -> None:
    hall = Hall()
    good, bad = authorize("abc"), authorize("a c")
    [first] = await hall.connect().feed(bad)
    assert await hall.connect().statuses(good) == [200]
    hall.read_nothing_more()
    [again] = await hall.connect().feed(bad)
    assert (again.status, again.body) == (400, first.body)


async def test_callers_that_vary_their_heads_fill_no_memory() -> None:
    hall = Hall(limits=Limits())
    caller, numbers = hall.connect(), iter(range(10**6))
    for _ in range(60):
        heads = [authorize("a", f"X-Request-Id: {next(numbers)}") for _ in range(50)]
        assert await caller.statuses(*heads) == [200] * 50
        assert len(hall.site.known_remote) <= 1_024
    hall.read_nothing_more()
    assert await caller.statuses(heads[-1]) == [200]


async def test_known_and_other_requests_keep_their_order() -> None:
    hall = Hall(limits=Limits())
    caller = hall.connect()
    await caller.feed(authorize("warm") + settle("warm"))
    hall.engine.hold("c1")
    stream = authorize("c1") + get("/livez") + settle("c1") + post("/x", b"") + settle("c2")
    assert await caller.feed(stream) == []
    hall.engine.release("c1")
    answers = await caller.feed()
    assert [answer.status for answer in answers] == [200, 200, 200, 404, 200]
    assert hall.engine.ended[2:] == ["settle c2", "authorize c1", "settle c1"]


async def test_known_requests_beyond_the_room_of_a_connection_wait() -> None:
    hall = Hall()
    caller = hall.connect()
    await caller.feed(authorize("warm!"))
    hall.read_nothing_more()
    hall.engine.hold("stuck")
    assert await caller.feed(authorize("stuck") + authorize("other") * 9) == []
    assert caller.transport.is_paused
    assert hall.engine.began[1:] == ["authorize stuck", *["authorize other"] * 3]
    hall.engine.release("stuck")
    assert await caller.statuses() == [200] * 10
    assert not caller.transport.is_paused


async def test_a_known_request_may_be_cut_anywhere() -> None:
    hall = Hall()
    caller = hall.connect()
    stream = settle("warm") * 2
    assert await caller.statuses(stream) == [200, 200]
    for cut in range(1, len(stream)):
        assert await caller.statuses(stream[:cut], stream[cut:]) == [200, 200], cut


async def test_changed_heads_are_judged_anew() -> None:
    """Whatever byte of a known request changes, the answer is that of a site that knows none."""
    known = authorize("warm", TOKEN)
    hall = Hall(Access(["secret"]))
    assert await hall.connect().statuses(known) == [200]
    for place in range(len(known)):
        for byte in (known[place] ^ 1, known[place] ^ 0x20, 0, 13):
            changed = known[:place] + bytes([byte]) + known[place + 1 :]
            fresh = Hall(Access(["secret"])).connect()
            expected = [(one.status, one.body) for one in await fresh.feed(changed)]
            answers = [(one.status, one.body) for one in await hall.connect().feed(changed)]
            assert answers == expected, changed
