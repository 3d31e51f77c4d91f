"""One generator process: places calls when they are due, whatever the server does meanwhile.

Started by `loadtest.fleet`, which writes `Orders` and `Go` to its standard input and reads
`Samples` from its standard output. A stalled server cannot hide: the latency of a request counts
from the moment at which the schedule wanted it sent. Between two due moments the process sleeps.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import heapq
import random
import sys
import time
from collections.abc import Iterator
from itertools import cycle
from typing import Any, Final

import msgspec
import uvloop
from msgspec import Struct

from loadtest.alarm import Alarm
from loadtest.connection import LOST, Connection, Sent
from loadtest.plan import (
    AUTHORIZE,
    EMERGENCY,
    ERROR_PREFIX,
    FRAME,
    OK,
    RESERVE,
    SETTLE,
    SPOOLED,
    Go,
    Orders,
    encode_frame,
)
from loadtest.recorder import Recorder
from loadtest.schedule import NANOS_PER_SECOND, arrivals
from loadtest.templates import COUNTER_DIGITS, POOL_LENGTH_MAX, Template, draw

_REPORT_SECONDS: Final = 0.5
_RING_SECONDS: Final = 20
#: A settle that the server was too busy for is repeated after its Retry-After, so often at most.
_SETTLE_ATTEMPTS_MAX: Final = 10
_RETRY_NS: Final = NANOS_PER_SECOND
#: At the end of the load the parent looks how much CPU time its processes have used.
_LINGER_NS: Final = NANOS_PER_SECOND // 5


#: Failures that do not tell what they are; the others have a reason in their body.
_FAILURES: Final = {LOST: "connection lost", 202: SPOOLED}


class _Decision(Struct, frozen=True, gc=False):
    """What a generator reads of a grant, a denial or a problem."""

    allowed: bool = False
    reason: str = "no reason"
    seconds: int | None = None
    extend_at: int = 0


_decide = msgspec.json.Decoder(_Decision).decode


class _Call:
    """One call as the generator, in the switch's place, sees it."""

    __slots__ = ("attempts", "begun_ns", "connection", "id", "talk_seconds", "template", "used")

    def __init__(self, call_id: bytes, template: Template, connection: Connection, due_ns: int):
        self.id = call_id
        self.template = template
        self.connection = connection
        self.begun_ns = due_ns
        self.talk_seconds = template.talk_seconds
        self.used = 0
        self.attempts = 0


class Generator:
    """Places calls and leads each through its life. The listener of its connections."""

    def __init__(self, orders: Orders, recorder: Recorder) -> None:
        rng = random.Random(orders.seed)
        self._orders = orders
        self._recorder = recorder
        self._id_start = orders.call_id_start.encode()
        call_id_bytes = len(self._id_start) + COUNTER_DIGITS
        self._templates: Iterator[Template] = cycle(
            draw(orders.calls, _pool_length(orders), call_id_bytes, rng)
        )
        self._rng = rng
        self.connections = [Connection(orders.target, self) for _ in range(orders.connections)]
        self._unflushed: list[Connection] = []
        self._connection_turns = cycle(self.connections)
        self._ns_per_call_second = NANOS_PER_SECOND / orders.speed
        self._is_closed_loop = orders.calls_in_flight > 0
        self._calls_placed = 0
        #: Calls that live now.
        self.calls = 0
        #: (due, number, operation, call): what running calls will ask; no call: place the next.
        self._plans: list[tuple[int, int, int, _Call | None]] = []
        self._plans_made = 0
        self._arrivals: Iterator[int] = iter(())
        self._next_arrival_ns: int | None = None
        self._end_ns = 0
        self._deadline_ns = 0
        self.ended = asyncio.Event()

    @property
    def in_flight(self) -> int:
        """How many requests wait for their answers."""
        return sum(connection.in_flight for connection in self.connections)

    def begin(self, start_ns: int) -> None:
        """Run the schedule from this moment of `time.monotonic_ns` on; `ended` is set after it."""
        orders = self._orders
        seconds = orders.closed_seconds + sum(one.seconds for one in orders.stretches)
        self._end_ns = start_ns + int(seconds * NANOS_PER_SECOND)
        self._deadline_ns = self._end_ns + int(orders.drain_seconds * NANOS_PER_SECOND)
        self._arrivals = arrivals(orders.stretches, start_ns, orders.arrivals, self._rng)
        self._next_arrival_ns = next(self._arrivals, None)
        self._alarm = Alarm(self._wake)
        for _ in range(orders.calls_in_flight):
            self._plan(start_ns, AUTHORIZE, None)
        self._arm()

    def close(self) -> None:
        """End at once; what has no answer by now counts as such."""
        now_ns = time.monotonic_ns()
        for connection in self.connections:
            for sent in connection.give_up():
                self._record(sent, f"{ERROR_PREFIX}unanswered", now_ns)
        self._alarm.close()

    # What the connections tell.

    def on_answer(self, sent: Sent, status: int, body: bytes, now_ns: int) -> None:
        """Note an answer and plan what its call does next."""
        call: _Call = sent.call
        if sent.operation == SETTLE:
            if status == 200:
                self._record(sent, OK, now_ns)
                self._end_call(now_ns)
            else:
                self._on_settle_failed(sent, call, status, body, now_ns)
            return
        decision = _read_decision(status, body)
        if decision is None:
            self._record(sent, _failure(status, body), now_ns)
            self._end_call(now_ns, has_failed=True)
        elif decision.allowed:
            self._record(sent, OK, now_ns)
            self._plan_next_step(call, decision, now_ns)
        else:
            self._record(sent, decision.reason, now_ns)
            if sent.operation == RESERVE:
                # As a switch does: no more time, so hang up now.
                call.talk_seconds = call.used
                self._plan(now_ns, SETTLE, call)
            else:
                self._end_call(now_ns)

    def on_answers_end(self) -> None:
        """Send what became due by the answers, and see what is due next."""
        if self.ended.is_set():
            return
        if self._plans and self._plans[0][0] <= time.monotonic_ns():
            self._wake()
        else:
            self._arm()

    # Steps of the above.

    def _wake(self) -> None:
        now_ns = time.monotonic_ns()
        due_ns = self._next_arrival_ns
        while due_ns is not None and due_ns <= now_ns:
            self._place_call(due_ns, now_ns)
            due_ns = self._next_arrival_ns = next(self._arrivals, None)
        plans = self._plans
        while plans and plans[0][0] <= now_ns:
            due_ns, _, operation, call = heapq.heappop(plans)
            self._ask(operation, call, due_ns, now_ns)
        for connection in self._unflushed:
            connection.flush()
        self._unflushed.clear()
        if now_ns >= self._deadline_ns:
            self.ended.set()
        self._arm()

    def _arm(self) -> None:
        """Set the alarm to what is due next; without anything left to do, end."""
        due_ns = self._deadline_ns
        if self._next_arrival_ns is None and not self.calls and not self._plans:
            due_ns = min(due_ns, self._end_ns + _LINGER_NS)
            if time.monotonic_ns() >= due_ns:
                self.ended.set()
                return
        if self._plans:
            due_ns = min(due_ns, self._plans[0][0])
        if self._next_arrival_ns is not None:
            due_ns = min(due_ns, self._next_arrival_ns)
        self._alarm.set(due_ns)

    def _place_call(self, due_ns: int, now_ns: int) -> None:
        self._calls_placed += 1
        call_id = b"%b%08x" % (self._id_start, self._calls_placed)
        call = _Call(call_id, next(self._templates), next(self._connection_turns), due_ns)
        self.calls += 1
        operation = EMERGENCY if call.template.emergency else AUTHORIZE
        self._ask(operation, call, due_ns, now_ns)

    def _ask(self, operation: int, call: _Call | None, due_ns: int, now_ns: int) -> None:
        if call is None:
            self._place_call(due_ns, now_ns)
            return
        template = call.template
        if operation == RESERVE:
            request = template.reserve(call.id, call.used)
        elif operation == SETTLE:
            request = template.settle(call.id, call.talk_seconds)
        else:
            request = template.authorize(call.id)
        sent = Sent(operation, due_ns, now_ns, call)
        if call.connection.is_connected:
            if call.connection.ask(sent, request):
                self._unflushed.append(call.connection)
        else:
            self.on_answer(sent, LOST, b"", now_ns)

    def _plan(self, due_ns: int, operation: int, call: _Call | None) -> None:
        """Ask at that moment; without a call place a new one."""
        self._plans_made += 1
        heapq.heappush(self._plans, (due_ns, self._plans_made, operation, call))

    def _plan_next_step(self, call: _Call, decision: _Decision, now_ns: int) -> None:
        """Extend when the grant says so, or hang up when the talk or the granted time ends."""
        talk_seconds = call.talk_seconds
        if call.template.extends and call.used < decision.extend_at < talk_seconds:
            call.used = second = decision.extend_at
            operation = RESERVE
        else:
            if decision.seconds is not None:
                talk_seconds = call.talk_seconds = min(talk_seconds, decision.seconds)
            operation, second = SETTLE, talk_seconds or _RING_SECONDS
        if self._is_closed_loop:
            self._plan(now_ns, operation, call)
        else:
            self._plan(call.begun_ns + int(second * self._ns_per_call_second), operation, call)

    def _on_settle_failed(
        self, sent: Sent, call: _Call, status: int, body: bytes, now_ns: int
    ) -> None:
        self._record(sent, _failure(status, body), now_ns)
        call.attempts += 1
        if status in (503, LOST) and call.attempts < _SETTLE_ATTEMPTS_MAX:
            self._plan(now_ns + _RETRY_NS, SETTLE, call)
        else:
            self._end_call(now_ns, has_failed=True)

    def _end_call(self, now_ns: int, *, has_failed: bool = False) -> None:
        self.calls -= 1
        if self._is_closed_loop and now_ns < self._end_ns:
            # A server that is away must not make the generator spin.
            self._plan(now_ns + _RETRY_NS if has_failed else now_ns, AUTHORIZE, None)

    def _record(self, sent: Sent, outcome: str, now_ns: int) -> None:
        self._recorder.record(sent.operation, outcome, sent.due_ns, sent.sent_ns, now_ns)


def _pool_length(orders: Orders) -> int:
    if orders.calls_in_flight:
        return POOL_LENGTH_MAX
    planned = sum(one.seconds * one.calls_per_second for one in orders.stretches)
    return min(POOL_LENGTH_MAX, int(planned) + 1)


def _read_decision(status: int, body: bytes) -> _Decision | None:
    """Return what an answer decides, or None if it is no decision."""
    if status != 200:
        return None
    try:
        return _decide(body)
    except msgspec.DecodeError:
        return None


def _failure(status: int, body: bytes) -> str:
    """Return the name of the outcome of a request that failed."""
    if status in _FAILURES:
        return ERROR_PREFIX + _FAILURES[status]
    try:
        reason = _decide(body).reason
    except msgspec.DecodeError:
        reason = "unreadable answer"
    return f"{ERROR_PREFIX}{status} {reason}"


class _Reports(asyncio.Protocol):
    """The pipe to the parent: when it breaks, so does the run."""

    def __init__(self, generator: Generator) -> None:
        self._generator = generator
        self.closed = asyncio.Event()

    def connection_lost(self, exc: Exception | None) -> None:
        """All is told, or the parent is gone and nobody wants to know the rest."""
        self._generator.ended.set()
        self.closed.set()


def _read_message(kind: type[Any]) -> Any:
    """Read one message of the parent; EOFError when it is gone."""
    head = sys.stdin.buffer.read(FRAME.size)
    data = sys.stdin.buffer.read(FRAME.unpack(head)[0]) if len(head) == FRAME.size else b""
    if not data:
        raise EOFError
    return msgspec.msgpack.decode(data, type=kind)


async def _generate(orders: Orders) -> None:
    recorder = Recorder()
    generator = Generator(orders, recorder)
    reports, pipe = await asyncio.get_running_loop().connect_write_pipe(
        lambda: _Reports(generator), sys.stdout.buffer
    )

    def report(state: str) -> None:
        samples = recorder.take(generator.in_flight, generator.calls, state)
        reports.write(encode_frame(samples))

    await asyncio.gather(*(connection.open() for connection in generator.connections))
    # Nothing made per request refers to itself, and a collection would look like a slow server.
    gc.collect()
    gc.freeze()
    gc.disable()
    report("connected")
    generator.begin(_read_message(Go).start_ns)
    while not generator.ended.is_set():
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(generator.ended.wait(), _REPORT_SECONDS)
        report("running")
    generator.close()
    report("ended")
    reports.close()
    await pipe.closed.wait()


def main() -> None:
    """Run until the schedule has ended and its calls with it, or the parent has."""
    with contextlib.suppress(EOFError):
        uvloop.run(_generate(_read_message(Orders)))


if __name__ == "__main__":
    main()
