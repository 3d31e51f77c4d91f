"""One kept-alive, pipelined connection of a generator, made again when it is lost."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Any, Final, NamedTuple, Protocol, cast

from loadtest.errors import LoadTestError
from loadtest.plan import Target
from loadtest.wire import AnswerParser

_AGAIN_SECONDS: Final = 0.1
#: Status of a request that got no answer because its connection was lost.
LOST: Final = 0


class Sent(NamedTuple):
    """A request under way. `call` is the caller's own."""

    operation: int
    due_ns: int
    sent_ns: int
    call: Any


class Listener(Protocol):
    """Whoever asks on connections."""

    def on_answer(self, sent: Sent, status: int, body: bytes, now_ns: int) -> None:
        """A request was answered, or its connection lost (status LOST)."""

    def on_answers_end(self) -> None:
        """All answers that came together have been told."""


class Connection(asyncio.Protocol):
    """Requests leave together at `flush`; their answers come in the same order."""

    def __init__(self, target: Target, listener: Listener) -> None:
        self._target = target
        self._listener = listener
        self._outgoing: list[bytes] = []
        self._sent: deque[Sent] = deque()
        self._parser = AnswerParser()
        self._transport: asyncio.Transport | None = None
        self._again: asyncio.Task[None] | None = None
        self._is_closed = False

    @property
    def is_connected(self) -> bool:
        """Whether requests can be sent now."""
        return self._transport is not None

    @property
    def in_flight(self) -> int:
        """How many requests wait for their answers."""
        return len(self._sent)

    async def open(self) -> None:
        """Connect; OSError if nobody listens."""
        loop = asyncio.get_running_loop()
        target = self._target
        if target.unix_path is not None:
            await loop.create_unix_connection(lambda: self, target.unix_path)
        else:
            await loop.create_connection(lambda: self, target.host, target.port)

    def ask(self, sent: Sent, request: bytes) -> bool:
        """Send a request at the next `flush`; say whether it is the first to wait for that.

        The connection must be there.
        """
        self._outgoing.append(request)
        self._sent.append(sent)
        return len(self._outgoing) == 1

    def flush(self) -> None:
        """Send what was asked since the last time, in one write."""
        if self._outgoing and self._transport is not None:
            self._transport.write(b"".join(self._outgoing))
            self._outgoing.clear()

    def give_up(self) -> list[Sent]:
        """Close for good; return the requests that have no answer."""
        self._is_closed = True
        unanswered = list(self._sent)
        self._sent.clear()
        if self._again is not None:
            self._again.cancel()
        if self._transport is not None:
            self._transport.abort()
        return unanswered

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin with nothing read and nothing sent."""
        # uvloop's transports are stream transports without being subclasses of asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=1 << 30)
        self._parser = AnswerParser()

    def data_received(self, data: bytes) -> None:
        """Tell the listener of every answer in it."""
        now_ns = time.monotonic_ns()
        try:
            answers = self._parser.feed(data)
        except LoadTestError:
            if self._transport is not None:
                self._transport.abort()
            return
        listener, sent = self._listener, self._sent
        for status, body in answers:
            if not sent:
                # The server turns us away before we have asked.
                break
            listener.on_answer(sent.popleft(), status, body, now_ns)
        listener.on_answers_end()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell of what will never be answered, and connect again."""
        self._transport = None
        self._outgoing.clear()
        now_ns = time.monotonic_ns()
        lost = list(self._sent)
        self._sent.clear()
        for one in lost:
            self._listener.on_answer(one, LOST, b"", now_ns)
        self._listener.on_answers_end()
        if not self._is_closed:
            self._again = asyncio.get_running_loop().create_task(self._connect_again())

    async def _connect_again(self) -> None:
        while not self._is_closed and self._transport is None:
            await asyncio.sleep(_AGAIN_SECONDS)
            try:
                await self.open()
            except OSError:
                continue
