"""Requests of one connection: worked on side by side, answered in the order they came."""

from __future__ import annotations

import asyncio
from collections import deque

from authz_ext.known cimport KnownHead, KnownHeads
from authz_ext.messages cimport Heads, Request, Response
from authz_ext.meters cimport Counter, monotonic_ns
from authz_ext.prompt cimport Errand
from authz_ext.routes cimport AnswerCounts, Route

cdef bytes CLOSE = b"Connection: close\r\n"
cdef bytes KEEP_ALIVE = b"Connection: keep-alive\r\n"
cdef bytes NO_LINE = b""


cdef class Traffic:
    """What the pipelines of one process share; make it inside the running loop."""

    def __init__(self, *, Py_ssize_t in_flight_max, Py_ssize_t pipelined_max, explain not None,
                 AnswerCounts unmatched not None, Counter overloaded not None,
                 Counter dropped not None):
        self.heads = Heads()
        self._in_flight_max = in_flight_max
        self._pipelined_max = pipelined_max
        self._explain = explain
        self._unmatched = unmatched
        self._overloaded = overloaded
        self._dropped = dropped
        self._loop = asyncio.get_running_loop()
        self._ready = []

    def note_quiet(self):
        """Hear that a draining process may have nothing left to do."""

    cdef leave(self):
        """A request has left the engine."""
        self.in_flight -= 1
        if self.draining and self.in_flight == 0:
            self.note_quiet()

    cdef send_soon(self, Pipeline pipeline):
        # Answers that become ready in one turn of the loop leave in one write a connection.
        self._ready.append(pipeline)
        if len(self._ready) == 1:
            self._loop.call_soon(self.send_ready)

    def send_ready(self):
        """Send what is ready on all connections."""
        cdef Pipeline pipeline
        ready, self._ready = self._ready, []
        for pipeline in ready:
            try:
                pipeline.flush()
            except Exception as failure:
                self._loop.call_exception_handler(
                    {"message": "answers could not be sent", "exception": failure}
                )


cdef class Exchange(Errand):
    """One request and the place of its answer among those of its connection."""

    def __init__(self, bint is_last=False, bint head_only=False, bint is_http_1_0=False):
        self.is_last = is_last
        self._head_only = head_only
        self._is_http_1_0 = is_http_1_0

    cdef ended(self, value, error):
        self._pipeline.take_end(self, value, error)


cdef class Pipeline:
    """The exchanges of one connection.

    At most `pipelined_max` are with the engine; what the connection has read beyond that waits
    here, no more than one read's worth, because a full pipeline pauses reading. Requests of one
    call are worked on one after the other.
    """

    def __init__(self, Traffic traffic not None, connection not None):
        self._traffic = traffic
        self._connection = connection
        self._unanswered = deque()
        self._unstarted = deque()
        self._last_of_call = {}
        self._finished = deque()

    @property
    def is_empty(self):
        """Whether every request so far has been answered."""
        return not self._unanswered

    @property
    def is_full(self):
        """Whether the connection should stop reading."""
        return self._is_held or len(self._unanswered) >= self._traffic._pipelined_max

    def append(self, Exchange exchange not None):
        """Take the next request of the connection, complete or already answered.

        ValueError for one that is neither answered nor admitted.
        """
        if exchange.response is None and (exchange.route is None or exchange.request is None):
            raise ValueError("nothing can be done with a request that was not admitted")
        self.take(exchange)

    cdef take(self, Exchange exchange):
        exchange._pipeline = self
        exchange._began_ns = monotonic_ns()
        self._unanswered.append(exchange)
        if exchange.response is not None:
            self.counts_of(exchange).count(exchange.response.status, exchange._began_ns)
            self.schedule_flush()
        if (
            self._unstarted
            or self._is_held
            or len(self._unanswered) > self._traffic._pipelined_max
        ):
            self._unstarted.append(exchange)
        elif exchange.response is None:
            self.start(exchange)

    def take_known(self, bytes data not None, Py_ssize_t start, KnownHeads heads not None):
        """Take requests as long as their heads are known; return where the first other begins."""
        cdef Exchange exchange
        cdef KnownHead head
        while (head := heads.find(data, start)) is not None:
            exchange = Exchange.__new__(Exchange)
            exchange.route = head.route
            exchange.request = head.request_in(data, start)
            start += head.size + head.body_size
            self.take(exchange)
        return start

    def hold(self):
        """The client does not read its answers: send none and start nothing."""
        self._is_held = True

    def release(self):
        """The client reads again."""
        self._is_held = False
        self.schedule_flush()

    def close(self):
        """The connection is gone. What runs goes on; of the rest only what must complete."""
        cdef Exchange exchange
        cdef list waiting = list(self._unstarted)
        self._is_closed = True
        self._unanswered.clear()
        self._unstarted.clear()
        for exchange in waiting:
            if exchange.response is None and exchange.route._must_complete:
                self.start(exchange)

    cdef start(self, Exchange exchange):
        cdef Route route = exchange.route
        cdef Exchange previous
        cdef Response refusal
        try:
            exchange._payload = route._decode(exchange.request)
        except Exception as error:
            self.finish(exchange, self.explained(exchange, error))
            return
        key = exchange._key = route._order_key(exchange._payload)
        if key is not None:
            previous = <Exchange>self._last_of_call.setdefault(key, exchange)
            if previous is not exchange:
                self._last_of_call[key] = exchange
                previous._successor = exchange
                return
        refusal = self.launch(exchange)
        if refusal is not None:
            self.finish(exchange, refusal)

    cdef Response launch(self, Exchange exchange):
        """Begin the work on a request; return the answer if it is refused instead."""
        cdef Traffic traffic = self._traffic
        cdef Response refusal
        if traffic.in_flight >= traffic._in_flight_max * exchange.route._overload_factor:
            refusal = self.refusal_of(exchange)
            if refusal is not None:
                return refusal
        try:
            exchange._coroutine = exchange.route._answer(exchange._payload)
        except Exception as error:
            return self.explained(exchange, error)
        traffic.in_flight += 1
        # It goes on to where it asks the store, or even to its end, before this returns.
        exchange.go_on()
        return None

    cdef Response refusal_of(self, Exchange exchange):
        """Return what a request is answered under overload; None admits it all the same."""
        cdef Response refusal
        try:
            refusal = exchange.route._when_overloaded(exchange._payload)
        except Exception as error:
            return self.explained(exchange, error)
        if refusal is not None:
            self._traffic._overloaded.count_one()
        return refusal

    cdef explained(self, Exchange exchange, error):
        """Return the answer that tells of an error."""
        return self._traffic._explain(error, exchange.route.name)

    cdef take_end(self, Exchange exchange, result, error):
        """The work on a request has ended, by a result or by an error."""
        cdef Response response
        self._traffic.leave()
        if error is not None and not isinstance(error, Exception):
            # Whoever cancelled it, no answer will come, and the caller must not wait for one.
            self._connection.abort()
            return
        if error is None:
            try:
                response = exchange.route.response_to(result)
            except Exception as failure:
                response = self.explained(exchange, failure)
        else:
            response = self.explained(exchange, error)
        self.finish(exchange, response)

    cdef finish(self, Exchange exchange, Response response):
        cdef Exchange following
        cdef Response refusal
        exchange.response = response
        if self._is_finishing:
            self._finished.append(exchange)
            return
        # What follows may be finished while it is started: a loop, since many may follow.
        self._is_finishing = True
        try:
            while exchange is not None:
                following = self.complete(exchange)
                if following is not None:
                    refusal = self.launch(following)
                    if refusal is not None:
                        following.response = refusal
                        self._finished.append(following)
                exchange = self._finished.popleft() if self._finished else None
        finally:
            self._is_finishing = False

    cdef Exchange complete(self, Exchange exchange):
        """Record an answer; return the request of the same call that may start now."""
        exchange.route._counts.count(exchange.response.status, exchange._began_ns)
        if self._is_closed:
            self._traffic._dropped.count_one()
        else:
            self.schedule_flush()
        if exchange._key is not None and exchange._successor is None:
            del self._last_of_call[exchange._key]
        return exchange._successor

    cdef AnswerCounts counts_of(self, Exchange exchange):
        return self._traffic._unmatched if exchange.route is None else exchange.route._counts

    cdef schedule_flush(self):
        if not self._is_ready:
            self._is_ready = True
            self._traffic.send_soon(self)

    cdef flush(self):
        cdef Traffic traffic = self._traffic
        cdef Exchange exchange
        cdef list pieces = []
        cdef bint is_last = False
        self._is_ready = False
        if self._is_closed or self._is_held:
            return
        while self._unanswered and not is_last:
            exchange = self._unanswered[0]
            if exchange.response is None:
                break
            self._unanswered.popleft()
            is_last = exchange.is_last or (
                traffic.draining and not self._unanswered and not self._connection.is_receiving
            )
            line = CLOSE if is_last else KEEP_ALIVE if exchange._is_http_1_0 else NO_LINE
            pieces.append(traffic.heads.rendered(exchange.response, line, exchange._head_only))
        if pieces:
            self._connection.send(pieces[0] if len(pieces) == 1 else b"".join(pieces), is_last)
        self.start_waiting()
        if self.reports_progress or traffic.draining:
            self._connection.on_progress()

    cdef start_waiting(self):
        cdef Exchange exchange
        while self._unstarted and not self._is_held:
            if len(self._unanswered) - len(self._unstarted) >= self._traffic._pipelined_max:
                return
            exchange = self._unstarted.popleft()
            if exchange.response is None:
                self.start(exchange)
