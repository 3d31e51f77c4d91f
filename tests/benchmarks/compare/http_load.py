"""A closed-loop HTTP/1.1 load from one thread: a fixed number of calls always under way.

It knows no more of HTTP than it needs (status, Content-Length), and writes its requests before the
clock runs, so that it takes little of the processor from what it measures.
"""

from __future__ import annotations

import itertools
import re
import select
import socket
from collections import deque
from collections.abc import Sequence
from typing import Final, NamedTuple

from benchmarks.compare.adapters import HttpAdapter
from benchmarks.compare.subject import Sample, sample
from benchmarks.recording import CALL_ID

_RECEIVE_BYTES: Final = 1 << 16
_SILENCE_SECONDS_MAX: Final = 10
_CONTENT_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class LoadShape(NamedTuple):
    """How many connections there are, and how many calls are under way on each."""

    connections: int
    pipelined: int

    def __str__(self) -> str:
        if self.pipelined == 1:
            return f"{self.connections} connections"
        return f"{self.connections} connections × {self.pipelined} pipelined"


class _Lane:
    """One connection: what it has received, and what it was asked and has not answered."""

    def __init__(self, host: str, port: int) -> None:
        self.socket = socket.create_connection((host, port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.received = bytearray()
        self.waiting: deque[tuple[str, int]] = deque()

    def answers(self) -> list[tuple[str, int, int, bytes]]:
        """Receive; return (kind, call, status, body) of every answer that is complete."""
        data = self.socket.recv(_RECEIVE_BYTES)
        if not data:
            raise ConnectionError("the server has hung up")
        self.received += data
        complete = []
        start = 0
        while (end := self.received.find(b"\r\n\r\n", start)) >= 0:
            match = _CONTENT_LENGTH.search(self.received, start, end)
            if match is None:
                raise ConnectionError(f"an answer without a length: {bytes(self.received)!r}")
            body_end = end + 4 + int(match[1])
            if body_end > len(self.received):
                break
            status = int(self.received[start + 9 : start + 12])
            body = bytes(self.received[end + 4 : body_end])
            complete.append((*self.waiting.popleft(), status, body))
            start = body_end
        del self.received[:start]
        return complete


class HttpService:
    """A service over HTTP under closed-loop load of one shape."""

    def __init__(
        self,
        name: str,
        address: tuple[str, int],
        adapter: HttpAdapter,
        accounts: Sequence[str],
        shape: LoadShape,
        *,
        service_pids: Sequence[int] = (),
        store_pids: Sequence[int] = (),
    ) -> None:
        self.name = f"{name}, {shape}"
        self._adapter = adapter
        self._accounts = accounts
        self._pipelined = shape.pipelined
        self._service_pids = service_pids
        self._store_pids = store_pids
        self._lanes = {}
        self._poll = select.epoll()
        for _ in range(shape.connections):
            lane = _Lane(*address)
            self._lanes[lane.socket.fileno()] = lane
            self._poll.register(lane.socket.fileno(), select.EPOLLIN)

    def run(self, first: int, calls: int) -> Sample:
        """Lead these calls through authorize and settle."""
        requests = {number: self._requests(number) for number in range(first, first + calls)}
        return sample(
            2 * calls,
            lambda: self._drive(requests),
            service_pids=self._service_pids,
            store_pids=self._store_pids,
        )

    def close(self) -> None:
        """Disconnect."""
        self._poll.close()
        for lane in self._lanes.values():
            lane.socket.close()

    def _requests(self, number: int) -> dict[str, bytes]:
        call_id, account = CALL_ID.format(number), self._accounts[number % len(self._accounts)]
        return {
            "authorize": self._adapter.authorize(call_id, account),
            "settle": self._adapter.settle(call_id, account),
        }

    def _drive(self, requests: dict[int, dict[str, bytes]]) -> None:
        fresh = iter(requests)
        unsettled = len(requests)
        for lane in self._lanes.values():
            begun = itertools.islice(fresh, self._pipelined)
            _send(lane, [("authorize", number) for number in begun], requests)
        while unsettled:
            ready = self._poll.poll(_SILENCE_SECONDS_MAX)
            if not ready:
                raise TimeoutError(f"no answer for {_SILENCE_SECONDS_MAX} s")
            for descriptor, _ in ready:
                lane = self._lanes[descriptor]
                due = []
                for kind, number, status, body in lane.answers():
                    if not self._adapter.succeeded(kind, status, body):
                        raise RuntimeError(f"{self.name}: {kind} answered {status} {body!r}")
                    if kind == "authorize":
                        due.append(("settle", number))
                        continue
                    unsettled -= 1
                    if (another := next(fresh, None)) is not None:
                        due.append(("authorize", another))
                _send(lane, due, requests)


def _send(
    lane: _Lane, due: Sequence[tuple[str, int]], requests: dict[int, dict[str, bytes]]
) -> None:
    if due:
        lane.waiting.extend(due)
        lane.socket.sendall(b"".join([requests[number][kind] for kind, number in due]))
