"""One generator process: places calls when they are due, whatever the server does meanwhile.

Started by `loadtest.fleet`, which writes `Orders` and `Go` to its standard input and reads
`Samples` from its standard output. A stalled server cannot hide: the latency of a request counts
from the moment at which the schedule wanted it sent. Between two due moments the process sleeps.
"""

from __future__ import annotations

import contextlib
import gc
import os
import random
import select
import sys
import time
from array import array
from typing import Any, Final

import msgspec

from loadtest.caller import Caller
from loadtest.drafts import Drafts
from loadtest.plan import FRAME, Go, Orders, Samples, encode_frame
from loadtest.recorder import Recorder
from loadtest.schedule import NANOS_PER_SECOND, arrivals
from loadtest.templates import COUNTER_DIGITS, POOL_LENGTH_MAX, draw

_REPORT_NS: Final = NANOS_PER_SECOND // 2


class Generator:
    """The calls of some orders, from their drafts to their end."""

    def __init__(self, orders: Orders, recorder: Recorder) -> None:
        rng = random.Random(orders.seed)
        id_start = orders.call_id_start.encode()
        pool = draw(orders.calls, _pool_length(orders), len(id_start) + COUNTER_DIGITS, rng)
        self._orders = orders
        #: All moments are drawn before the run: what happens in it cannot change them.
        self._offsets = array("q", arrivals(orders.stretches, 0, orders.arrivals, rng))
        self.caller = Caller(
            Drafts(pool, id_start),
            recorder,
            orders.target,
            lines=orders.connections,
            ns_per_call_second=NANOS_PER_SECOND / orders.speed,
            is_closed_loop=orders.calls_in_flight > 0,
        )

    def begin(self, start_ns: int) -> None:
        """Let the schedule begin at this moment of `time.monotonic_ns`; the caller must be open."""
        orders = self._orders
        seconds = orders.closed_seconds + sum(one.seconds for one in orders.stretches)
        end_ns = start_ns + int(seconds * NANOS_PER_SECOND)
        self.caller.begin(
            array("q", [start_ns + offset for offset in self._offsets]),
            end_ns,
            end_ns + int(orders.drain_seconds * NANOS_PER_SECOND),
            start_ns,
            orders.calls_in_flight,
        )


def _pool_length(orders: Orders) -> int:
    if orders.calls_in_flight:
        return POOL_LENGTH_MAX
    planned = sum(one.seconds * one.calls_per_second for one in orders.stretches)
    return min(POOL_LENGTH_MAX, int(planned) + 1)


class _Parent:
    """The two pipes: what the parent says, and what it is told without waiting for it."""

    def __init__(self) -> None:
        self._output = sys.stdout.fileno()
        self._untold = bytearray()
        self._caller: Caller | None = None

    def hear(self, kind: type[Any]) -> Any:
        """Return its next message; EOFError when it is gone."""
        head = sys.stdin.buffer.read(FRAME.size)
        data = sys.stdin.buffer.read(FRAME.unpack(head)[0]) if len(head) == FRAME.size else b""
        if not data:
            raise EOFError
        return msgspec.msgpack.decode(data, type=kind)

    def watch_by(self, caller: Caller) -> None:
        """From now on be told by this caller's `run` of what happens to the pipes."""
        self._caller = caller
        os.set_blocking(self._output, False)
        # The parent has no more to say: all that can come is its end.
        caller.watch(sys.stdin.fileno(), select.EPOLLIN)
        caller.watch(self._output, 0)

    def tell(self, samples: Samples) -> None:
        """Tell it what was measured, as soon as it takes that."""
        self._untold += encode_frame(samples)
        self.go_on_telling()

    def go_on_telling(self) -> None:
        """Tell what the pipe has room for; BrokenPipeError when the parent is gone."""
        with contextlib.suppress(BlockingIOError):
            while self._untold:
                del self._untold[: os.write(self._output, self._untold)]
        if self._caller is not None:
            self._caller.watch(self._output, select.EPOLLOUT if self._untold else 0)

    def on_events(self, happened: list[tuple[int, int]]) -> None:
        """React to what `Caller.run` returned; EOFError when the parent is gone."""
        for descriptor, events in happened:
            if descriptor != self._output or events & ~select.EPOLLOUT:
                raise EOFError
            self.go_on_telling()

    def tell_the_rest(self) -> None:
        """Wait until it has taken all."""
        os.set_blocking(self._output, True)
        self.go_on_telling()


def _generate(parent: _Parent) -> None:
    recorder = Recorder()
    generator = Generator(parent.hear(Orders), recorder)
    caller = generator.caller

    def report(state: str) -> None:
        parent.tell(recorder.take(caller.in_flight, caller.calls, state))

    caller.open()
    # Nothing made per request refers to itself, and a collection would look like a slow server.
    gc.collect()
    gc.freeze()
    gc.disable()
    report("connected")
    generator.begin(parent.hear(Go).start_ns)
    parent.watch_by(caller)
    report_ns = time.monotonic_ns()
    while not caller.has_ended:
        report_ns += _REPORT_NS
        while not caller.has_ended and time.monotonic_ns() < report_ns:
            parent.on_events(caller.run(report_ns))
        report("running")
    caller.close()
    report("ended")
    parent.tell_the_rest()


def main() -> None:
    """Run until the schedule has ended and its calls with it, or the parent has."""
    with contextlib.suppress(EOFError, BrokenPipeError, KeyboardInterrupt):
        _generate(_Parent())


if __name__ == "__main__":
    main()
