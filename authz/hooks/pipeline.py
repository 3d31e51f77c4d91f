"""Requests of one connection: worked on side by side, answered in the order they came."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol

from authz import meters
from authz.hooks import counts
from authz.hooks.messages import OrderKey, Payload, Request, Response
from authz.hooks.problems import from_exception
from authz.hooks.routing import Endpoint
from authz.hooks.site import Site
from authz_ext.prompt import send_off

_CLOSE = b"Connection: close\r\n"
_KEEP_ALIVE = b"Connection: keep-alive\r\n"
UNMATCHED = "unmatched"


class Exchange:
    """One request and the place of its answer among those of its connection."""

    __slots__ = (
        "began_ns",
        "endpoint",
        "head_only",
        "is_http_1_0",
        "is_last",
        "key",
        "payload",
        "request",
        "response",
        "successor",
    )

    def __init__(
        self, is_last: bool = False, head_only: bool = False, is_http_1_0: bool = False
    ) -> None:
        self.endpoint: Endpoint | None = None
        self.request: Request | None = None
        #: When the request was complete (`meters.now_ns`).
        self.began_ns = 0
        self.payload: Payload = None
        self.key: OrderKey = None
        #: The next request of the same call on this connection.
        self.successor: Exchange | None = None
        self.response: Response | None = None
        self.is_last = is_last
        self.head_only = head_only
        self.is_http_1_0 = is_http_1_0

    @property
    def route(self) -> str:
        """The label under which the answer is counted."""
        return UNMATCHED if self.endpoint is None else self.endpoint.name


class Connection(Protocol):
    """What the pipeline needs of the connection it answers on."""

    @property
    def is_receiving(self) -> bool:
        """Whether a further request has begun to arrive."""

    def send(self, data: bytes, is_last: bool) -> None:
        """Write answers; after the last one nothing is read or written any more."""

    def on_progress(self) -> None:
        """Some answers have been sent, so there may be room for more requests."""

    def abort(self) -> None:
        """Cut the connection."""


class Pipeline:
    """The exchanges of one connection.

    At most `pipelined_max` are with the engine; what the connection has read beyond that waits
    here, no more than one read's worth, because a full pipeline pauses reading. Requests of one
    call are worked on one after the other.
    """

    def __init__(self, site: Site, connection: Connection) -> None:
        self._site = site
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._started_max = site.limits.pipelined_max
        #: In order of arrival; the unstarted ones are its last or already answered.
        self._unanswered: deque[Exchange] = deque()
        self._unstarted: deque[Exchange] = deque()
        self._last_of_call: dict[OrderKey, Exchange] = {}
        #: Answers that wait to be taken in while another one is.
        self._finished: deque[tuple[Exchange, Response]] = deque()
        self._is_finishing = False
        self._flush_scheduled = False
        self._is_held = False
        self._is_closed = False

    @property
    def is_empty(self) -> bool:
        """Whether every request so far has been answered."""
        return not self._unanswered

    @property
    def is_full(self) -> bool:
        """Whether the connection should stop reading."""
        return self._is_held or len(self._unanswered) >= self._started_max

    def append(self, exchange: Exchange) -> None:
        """Take the next request of the connection, complete or already answered."""
        exchange.began_ns = meters.now_ns()
        self._unanswered.append(exchange)
        if exchange.response is not None:
            counts.count_answer(exchange.route, exchange.response.status, exchange.began_ns)
            self._schedule_flush()
        elif self._unstarted or self._is_held or len(self._unanswered) > self._started_max:
            self._unstarted.append(exchange)
        else:
            self._start(exchange)

    def hold(self) -> None:
        """The client does not read its answers: send none and start nothing."""
        self._is_held = True

    def release(self) -> None:
        """The client reads again."""
        self._is_held = False
        self._schedule_flush()

    def close(self) -> None:
        """The connection is gone. What runs goes on; of the rest only what must complete."""
        self._is_closed = True
        waiting = [one for one in self._unstarted if one.endpoint and one.endpoint.must_complete]
        self._unanswered.clear()
        self._unstarted.clear()
        for exchange in waiting:
            self._start(exchange)

    def _start(self, exchange: Exchange) -> None:
        endpoint, request = exchange.endpoint, exchange.request
        assert endpoint is not None, "only routed requests are started"
        assert request is not None, "a routed request has its words"
        try:
            exchange.payload = endpoint.decode(request)
        except Exception as error:
            self._finish(exchange, from_exception(error, endpoint.name).response())
            return
        key = exchange.key = endpoint.order_key(exchange.payload)
        if key is not None:
            previous = self._last_of_call.get(key)
            self._last_of_call[key] = exchange
            if previous is not None:
                previous.successor = exchange
                return
        refusal = self._launch(exchange, endpoint)
        if refusal is not None:
            self._finish(exchange, refusal)

    def _launch(self, exchange: Exchange, endpoint: Endpoint) -> Response | None:
        site = self._site
        if len(site.running) >= site.limits.in_flight_max * endpoint.overload_factor:
            try:
                refusal = endpoint.when_overloaded(exchange.payload)
            except Exception as error:
                return from_exception(error, endpoint.name).response()
            if refusal is not None:
                counts.OVERLOADED.add()
                return refusal
        site.running.add(exchange)
        # It goes on to where it asks the store, or even to its end, before this returns.
        send_off(endpoint.answer(exchange.payload), self._ended, exchange)
        return None

    def _ended(
        self, exchange: Exchange, response: Response | None, error: BaseException | None
    ) -> None:
        self._site.leave(exchange)
        if response is None:
            if not isinstance(error, Exception):
                # Whoever cancelled it, no answer will come, and the caller must not wait for one.
                self._connection.abort()
                return
            response = from_exception(error, exchange.route).response()
        self._finish(exchange, response)

    def _finish(self, exchange: Exchange, response: Response) -> None:
        self._finished.append((exchange, response))
        if self._is_finishing:
            return
        # What follows may be finished while it is started: a loop, since many may follow.
        self._is_finishing = True
        try:
            while self._finished:
                following = self._complete(*self._finished.popleft())
                if following is not None:
                    assert following.endpoint is not None, "only routed requests have a key"
                    refusal = self._launch(following, following.endpoint)
                    if refusal is not None:
                        self._finished.append((following, refusal))
        finally:
            self._is_finishing = False

    def _complete(self, exchange: Exchange, response: Response) -> Exchange | None:
        """Record an answer; return the request of the same call that may start now."""
        exchange.response = response
        counts.count_answer(exchange.route, response.status, exchange.began_ns)
        if self._is_closed:
            counts.ANSWERS_DROPPED.add()
        else:
            self._schedule_flush()
        if exchange.key is not None and exchange.successor is None:
            del self._last_of_call[exchange.key]
        return exchange.successor

    def _schedule_flush(self) -> None:
        # Answers that become ready in one turn of the loop leave in one write.
        if not self._flush_scheduled:
            self._flush_scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_scheduled = False
        if self._is_closed or self._is_held:
            return
        site, unanswered, pieces, is_last = self._site, self._unanswered, [], False
        while unanswered and not is_last:
            exchange = unanswered[0]
            if exchange.response is None:
                break
            unanswered.popleft()
            is_last = exchange.is_last or (
                site.draining and not unanswered and not self._connection.is_receiving
            )
            line = _CLOSE if is_last else _KEEP_ALIVE if exchange.is_http_1_0 else b""
            pieces.append(site.heads.render(exchange.response, line, exchange.head_only))
        if pieces:
            self._connection.send(b"".join(pieces), is_last)
        self._start_waiting()
        self._connection.on_progress()

    def _start_waiting(self) -> None:
        while self._unstarted and not self._is_held:
            if len(self._unanswered) - len(self._unstarted) >= self._started_max:
                return
            self._start(self._unstarted.popleft())
