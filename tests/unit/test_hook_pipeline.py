"""Order, concurrency and bounds of the requests of one connection."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from hook_double import (
    Answer,
    MemoryTransport,
    OrderedEngine,
    authorize,
    get,
    new_server,
    parse_answers,
    post,
    settle,
)
from tally import Tally

from authz.hooks.http import HookProtocol
from authz.hooks.messages import Limits
from authz.hooks.server import HookServer
from authz_ext.pipeline import Exchange

LIMITS = Limits(pipelined_max=4, in_flight_max=2, connections_max=2)


class Line:
    """One connection in memory."""

    def __init__(self, server: HookServer) -> None:
        self.server = server
        self.closed = 0
        self.protocol: HookProtocol = server.protocol(self._count_closed)
        self.transport = MemoryTransport()
        self.protocol.connection_made(self.transport)

    def _count_closed(self) -> None:
        self.closed += 1

    async def feed(self, data: bytes) -> list[Answer]:
        """Deliver data; return all answers so far, once nothing moves any more."""
        self.protocol.data_received(data)
        return await self.settle_down()

    async def settle_down(self) -> list[Answer]:
        """Return all answers so far, once nothing moves any more."""
        for _ in range(12):
            await asyncio.sleep(0)
        return parse_answers(bytes(self.transport.written))


@pytest.fixture
def engine() -> OrderedEngine:
    return OrderedEngine()


@pytest.fixture
async def server(engine: OrderedEngine) -> AsyncIterator[HookServer]:
    server = new_server(engine, limits=LIMITS)
    yield server
    server.close()


@pytest.fixture
async def line(server: HookServer) -> Line:
    return Line(server)


def ids(answers: list[Answer]) -> list[str]:
    return [json.loads(answer.body).get("call_id", "") for answer in answers]


async def test_answers_keep_the_order_of_requests(line: Line, engine: OrderedEngine) -> None:
    engine.hold("slow")
    assert await line.feed(authorize("slow") + authorize("quick")) == []
    assert engine.ended == ["authorize quick"]
    engine.release("slow")
    assert ids(await line.settle_down()) == ["slow", "quick"]


async def test_answers_of_one_turn_leave_in_one_write(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes: list[int] = []
    write = line.transport.write
    monkeypatch.setattr(line.transport, "write", lambda data: (writes.append(1), write(data)))
    assert len(await line.feed(authorize("a") + authorize("b"))) == 2
    assert len(writes) == 1


async def test_requests_of_one_call_are_worked_on_in_turn(
    line: Line, engine: OrderedEngine
) -> None:
    engine.hold("c1")
    await line.feed(authorize("c1") + settle("c1") + settle("c2"))
    assert engine.began == ["authorize c1", "settle c2"]
    engine.release("c1")
    answers = await line.settle_down()
    assert ids(answers) == ["c1", "c1", "c2"]
    assert engine.ended == ["settle c2", "authorize c1", "settle c1"]


async def test_a_wrong_request_does_not_stop_those_behind_it(line: Line) -> None:
    wrong = post("/v1/authorize", b"{")
    answers = await line.feed(wrong + authorize("a") + authorize("broken") + authorize("b"))
    assert [answer.status for answer in answers] == [400, 200, 500, 200]


async def test_a_full_pipeline_stops_reading_and_goes_on_later(
    line: Line, engine: OrderedEngine
) -> None:
    engine.hold("stuck")
    stream = authorize("stuck") + b"".join(get("/livez") for _ in range(9))
    assert await line.feed(stream) == []
    assert line.transport.is_paused
    engine.release("stuck")
    assert len(await line.settle_down()) == 10
    assert not line.transport.is_paused


async def test_answers_that_are_there_at_once_take_no_place_of_requests_that_wait(
    line: Line, engine: OrderedEngine
) -> None:
    engine.hold("stuck")
    known = [authorize("stuck"), *(authorize(f"c{number}") for number in range(9))]
    stream = b"".join(known) + get("/nowhere") * 9 + settle("last")
    assert await line.feed(stream) == []
    assert line.transport.is_paused
    engine.release("stuck")
    statuses = [answer.status for answer in await line.settle_down()]
    assert statuses == [200] * 10 + [404] * 9 + [200]
    assert not line.transport.is_paused


async def test_what_waits_and_is_answered_already_does_not_outlive_the_connection(
    line: Line, engine: OrderedEngine
) -> None:
    line.protocol.pause_writing()
    await line.feed(get("/nowhere") + authorize("new") + get("/nowhere") + settle("old"))
    line.protocol.connection_lost(None)
    await line.settle_down()
    assert engine.began == ["settle old"]


async def test_a_full_pipeline_stops_reading_what_comes_behind_the_last_request(
    line: Line, engine: OrderedEngine
) -> None:
    engine.hold("stuck")
    last = authorize("last", "Connection: close")
    stream = authorize("first") + authorize("stuck") * 3 + last + authorize("ignored")
    assert ids(await line.feed(stream)) == ["first"]
    assert line.transport.is_paused
    engine.release("stuck")
    assert ids(await line.settle_down()) == ["first", *["stuck"] * 3, "last"]
    assert not line.transport.is_paused


async def test_a_client_that_does_not_read_is_not_worked_for(
    line: Line, engine: OrderedEngine
) -> None:
    line.protocol.pause_writing()
    assert line.transport.is_paused
    assert await line.feed(authorize("a")) == []
    assert engine.began == []
    line.protocol.resume_writing()
    assert ids(await line.settle_down()) == ["a"]
    assert not line.transport.is_paused


async def test_overload_denies_new_calls_but_no_emergency(
    server: HookServer, line: Line, engine: OrderedEngine, tally: Tally
) -> None:
    other = Line(server)
    for call_id in ("h1", "h2"):
        engine.hold(call_id)
    await other.feed(authorize("h1") + authorize("h2"))
    answers = await line.feed(authorize("new") + authorize("help", to="911"))
    denial, grant = (json.loads(answer.body) for answer in answers)
    assert [answer.status for answer in answers] == [200, 200]
    assert (denial["allowed"], denial["reason"], denial["sip_status"]) == (False, "overloaded", 503)
    assert denial["hangup_cause"] == "SWITCH_CONGESTION"
    assert grant["allowed"]
    assert tally.total("authz_hook_overloaded_total") == 1


async def test_running_calls_have_twice_the_room(
    server: HookServer, line: Line, engine: OrderedEngine
) -> None:
    other = Line(server)
    for call_id in ("h1", "h2", "s1", "s2"):
        engine.hold(call_id)
    await other.feed(authorize("h1") + authorize("h2") + settle("s1") + settle("s2"))
    assert server.in_flight == 4
    [answer] = await line.feed(settle("s3"))
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert json.loads(answer.body)["reason"] == "overloaded"
    engine.release("s1")
    await other.settle_down()
    assert [answer.status for answer in await line.feed(settle("s3"))] == [503, 200]


async def test_a_settle_completes_though_its_switch_is_gone(
    server: HookServer, line: Line, engine: OrderedEngine, tally: Tally
) -> None:
    engine.hold("c1")
    await line.feed(authorize("c1") + settle("c1"))
    line.protocol.connection_lost(None)
    engine.release("c1")
    await line.settle_down()
    assert engine.ended == ["authorize c1", "settle c1"]
    assert (server.in_flight, server.connections, line.closed) == (0, 0, 1)
    assert tally.total("authz_hook_answers_dropped_total") == 2


async def test_of_waiting_requests_only_settles_outlive_the_connection(
    line: Line, engine: OrderedEngine
) -> None:
    line.protocol.pause_writing()
    await line.feed(authorize("new") + settle("old") + authorize("newer"))
    line.protocol.connection_lost(None)
    await line.settle_down()
    assert engine.began == ["settle old"]


async def test_a_cancelled_request_cuts_the_connection(
    server: HookServer, line: Line, engine: OrderedEngine
) -> None:
    engine.hold("c1")
    await line.feed(authorize("c1"))
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    await line.settle_down()
    assert line.transport.is_closing()
    assert server.in_flight == 0


async def test_too_many_connections_are_turned_away(
    server: HookServer, line: Line, tally: Tally
) -> None:
    Line(server)
    refused = Line(server)
    [answer] = await refused.settle_down()
    assert answer.status == 503
    assert refused.transport.is_closing()
    refused.protocol.connection_lost(None)
    assert (server.connections, tally.total("authz_hook_connections_refused_total")) == (2, 1)


async def test_draining_closes_with_the_last_answer(
    server: HookServer, line: Line, engine: OrderedEngine
) -> None:
    idle = Line(server)
    engine.hold("b")
    await line.feed(authorize("a") + authorize("b"))
    drained = asyncio.create_task(server.drain(60))
    await line.settle_down()
    assert idle.transport.is_closing()
    assert not line.transport.is_closing()
    engine.release("b")
    first, last = await line.settle_down()
    assert "connection" not in first.headers
    assert last.headers["connection"] == "close"
    assert line.transport.has_eof
    line.protocol.connection_lost(None)
    idle.protocol.connection_lost(None)
    assert await drained == 0


async def test_draining_waits_for_a_request_that_has_begun(server: HookServer, line: Line) -> None:
    request = authorize("a")
    await line.feed(request[:40])
    drained = asyncio.create_task(server.drain(60))
    await line.settle_down()
    [answer] = await line.feed(request[40:])
    assert (answer.status, answer.headers["connection"]) == (200, "close")
    line.protocol.connection_lost(None)
    assert await drained == 0


async def test_draining_is_bounded(
    server: HookServer, line: Line, engine: OrderedEngine, caplog: pytest.LogCaptureFixture
) -> None:
    engine.hold("stuck")
    await line.feed(authorize("stuck"))
    assert await server.drain(0) == 1
    assert line.transport.is_closing()
    assert "hook_drain_timed_out" in caplog.text
    engine.release("stuck")
    line.protocol.connection_lost(None)
    await line.settle_down()
    assert server.in_flight == 0


async def test_answers_are_counted_by_route_and_status(
    server: HookServer, line: Line, tally: Tally
) -> None:
    await line.feed(authorize("a") + authorize("unknown") + get("/nowhere") + get("/livez"))
    assert tally.of("authz_hook_answers_total") == {
        ("authorize", "2xx"): 1,
        ("authorize", "4xx"): 1,
        ("unmatched", "4xx"): 1,
        ("livez", "2xx"): 1,
    }


async def test_a_long_line_of_requests_of_one_call_follows_the_first(engine: OrderedEngine) -> None:
    server = new_server(engine, limits=Limits(pipelined_max=1_000))
    line = Line(server)
    engine.hold("c1")
    assert await line.feed(authorize("c1") + settle("c1") * 900) == []
    engine.release("c1")
    answers = await line.settle_down()
    assert [answer.status for answer in answers] == [200] * 901
    assert engine.ended == ["authorize c1", *["settle c1"] * 900]
    server.close()


async def test_a_connection_that_cannot_be_written_to_does_not_stop_the_others(
    server: HookServer, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    other = Line(server)
    monkeypatch.setattr(line.transport, "write", lambda _data: 1 // 0)
    line.protocol.data_received(authorize("a"))
    assert ids(await other.feed(authorize("b"))) == ["b"]
    assert [type(context["exception"]) for context in told] == [ZeroDivisionError]


async def test_what_fails_around_the_work_is_a_failure_like_any(
    engine: OrderedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "authorize", lambda _request: 1 // 0)
    monkeypatch.setattr(engine, "reserve", lambda _request: asyncio.sleep(0, object()))
    server = new_server(engine)
    line = Line(server)
    reserve = post("/v1/reserve", b'{"call_id":"c1","account":"acme","used_seconds":1}')
    answers = await line.feed(authorize("a") + reserve + settle("b"))
    assert [answer.status for answer in answers] == [500, 500, 200]
    assert server.in_flight == 0
    server.close()


async def test_a_request_that_was_not_admitted_is_not_taken(line: Line) -> None:
    pipeline = line.protocol._pipeline
    with pytest.raises(ValueError, match="not admitted"):
        pipeline.append(Exchange())
    assert pipeline.is_empty
