"""HTTP/1.1 for switches: one connection, parsed by llhttp, bounded in every dimension."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import cast

import httptools

from authz.hooks import counts
from authz.hooks.messages import Request
from authz.hooks.problems import Problem, from_exception, overloaded
from authz.hooks.routing import Endpoint, allow_header
from authz.hooks.site import Site
from authz_ext.known import KnownHeads
from authz_ext.pipeline import Exchange, Pipeline

#: Headers that decide something here. Each may be there once; the rest is counted and dropped.
_READ_HEADERS = frozenset(
    {
        b"authorization",
        b"content-encoding",
        b"content-length",
        b"content-type",
        b"expect",
        b"host",
        b"transfer-encoding",
    }
)
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
#: The colon, the space and the line end of a header; of a request line a little more.
_HEADER_LINE_OVERHEAD_BYTES = 4
_REQUEST_LINE_OVERHEAD_BYTES = 16
#: Chunk sizes, extensions and trailers may at most double a body.
_FRAMING_FACTOR = 2
#: For callers of whom nothing is ever admitted.
_NOTHING_KNOWN = KnownHeads(0)


class HookProtocol(asyncio.Protocol):
    """One connection of a switch. Method names `on_...` are those llhttp calls."""

    def __init__(self, site: Site, on_closed: Callable[[], None] | None = None) -> None:
        """`on_closed` is called once, when the connection has ended."""
        self._site = site
        self._on_closed = on_closed
        self._limits = site.limits
        self._parser = httptools.HttpRequestParser(self)
        self._pipeline = Pipeline(site, self)
        self._transport: asyncio.Transport | None = None
        #: Callers on a Unix socket have passed its file mode; they need no token.
        self._is_local = False
        self._address_is_allowed = False
        self._known_heads = _NOTHING_KNOWN
        #: Nothing more is parsed: the last request has come, or the client has closed its side.
        self._is_deaf = False
        self._client_has_closed = False
        self._reading_is_paused = False
        self._idle_since = site.now
        self._stalled_since: float | None = None
        self._lingers_until: float | None = None
        self._begin_request()
        self.is_receiving = False

    def _begin_request(self) -> None:
        self.is_receiving = True
        self._received_since = self._site.now
        self._in_head = True
        self._url = b""
        self._headers: dict[bytes, bytes] = {}
        self._headers_count = 0
        self._head_bytes = _REQUEST_LINE_OVERHEAD_BYTES
        self._fed_bytes = 0
        self._body_parts: list[bytes] = []
        self._body_bytes = 0
        self._exchange: Exchange | None = None
        self._owes_continue = False

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a new connection, or turn it away when there are too many."""
        site = self._site
        # uvloop's transports are stream transports without being subclasses of asyncio's.
        self._transport = transport = cast(asyncio.Transport, transport)
        counts.CONNECTIONS.add()
        if len(site.connections) >= self._limits.connections_max or site.draining:
            counts.CONNECTIONS_REFUSED.add()
            self._is_deaf = True
            transport.write(site.heads.render(overloaded().response(), b"", False))
            transport.close()
            return
        site.connections.add(self)
        connected = transport.get_extra_info("socket")
        self._is_local = connected is not None and connected.family == socket.AF_UNIX
        if self._is_local:
            self._known_heads = site.known_local
            return
        # A caller that has already hung up has no name any more.
        peer = transport.get_extra_info("peername") or ("",)
        self._address_is_allowed = site.access.admits_address(peer[0])
        if self._address_is_allowed:
            self._known_heads = site.known_remote

    def connection_lost(self, exc: Exception | None) -> None:
        """Let what is in the engine finish; its answers are dropped."""
        self._is_deaf = True
        self._transport = None
        self._pipeline.close()
        self._site.disconnect(self)
        if self._on_closed is not None:
            self._on_closed()

    def data_received(self, data: bytes) -> None:
        """Parse, unless the last request has already come: then discard."""
        if self._is_deaf:
            return
        if not self.is_receiving:
            data = self._take_plain(data)
            if not data:
                return
        begun = self._exchange_in_progress()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # Nobody has to upgrade (RFC 9110, 7.8): the request is answered as what it is, and
            # on_headers_complete has made it the last one.
            self._is_deaf = True
        except httptools.HttpParserError as error:
            # What came behind the last request is none: reading is regulated as answers go.
            self._pipeline.reports_progress = True
            if not self._is_deaf:
                self._refuse(self._problem_of_parser(error))
            return
        if begun is not None and begun is self._exchange_in_progress():
            self._count_fed_bytes(len(data))
        self._regulate_reading()

    def _take_plain(self, data: bytes) -> bytes:
        """Take the plain requests that the data begins with; return what is left to be parsed.

        Nothing is left after a request that is answered by the end of the connection.
        """
        pipeline, heads, size = self._pipeline, self._known_heads, len(data)
        start = pipeline.take_known(data, 0, heads)
        while start < size and (plain := self._site.plain.read(data, start)) is not None:
            exchange = Exchange()
            try:
                self._admit(exchange, b"POST", plain.url, plain.headers)
            except Problem as problem:
                exchange.response = problem.response()
                if problem.close:
                    self._end_with(exchange)
                    return b""
            request, route = exchange.request, exchange.route
            if request is not None and route is not None:
                request.body = plain.body
                if not request.parameters and not request.query:
                    heads.remember(data[start : plain.end - len(plain.body)], route, request)
            pipeline.append(exchange)
            start = pipeline.take_known(data, plain.end, heads)
        if start < size:
            return data[start:] if start else data
        if pipeline.is_full:
            self._regulate_reading()
        return b""

    def eof_received(self) -> bool:
        """The client sends no more; keep the connection until it has its answers."""
        self._is_deaf = True
        self.is_receiving = False
        self._client_has_closed = True
        self._pipeline.reports_progress = True
        return self._lingers_until is None and not self._pipeline.is_empty

    def pause_writing(self) -> None:
        """The client does not read: hold back answers and further requests."""
        self._stalled_since = self._site.now
        self._pipeline.hold()
        self._regulate_reading()

    def resume_writing(self) -> None:
        """The client reads again."""
        self._stalled_since = None
        self._pipeline.release()
        self._regulate_reading()

    # What llhttp calls, through httptools.

    def on_message_begin(self) -> None:
        """A request line begins."""
        self._begin_request()

    def on_url(self, url: bytes) -> None:
        """A piece of the request target."""
        self._url += url
        if len(self._url) > self._limits.url_bytes_max:
            raise Problem(414, "url_too_long", f"more than {self._limits.url_bytes_max} bytes")
        self._head_bytes += len(url)
        if self._head_bytes > self._limits.header_bytes_max:
            raise self._head_too_large()

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header line, or a trailer, which is counted and ignored."""
        limits = self._limits
        self._headers_count += 1
        if self._headers_count > limits.headers_max:
            raise Problem(431, "too_many_headers", f"more than {limits.headers_max} headers")
        self._head_bytes += len(name) + len(value) + _HEADER_LINE_OVERHEAD_BYTES
        if self._head_bytes > limits.header_bytes_max:
            raise self._head_too_large()
        name = name.lower()
        if name in _READ_HEADERS and self._in_head:
            if name in self._headers:
                raise Problem(400, "malformed_request", f"header {name.decode()} is there twice")
            self._headers[name] = value.strip()

    def on_headers_complete(self) -> None:
        """Route and check the request before its body is read."""
        self._in_head = False
        parser = self._parser
        version = parser.get_http_version()
        if version not in ("1.1", "1.0"):
            raise Problem(505, "http_version", "this server speaks HTTP/1.1 and HTTP/1.0")
        method = parser.get_method()
        upgrades = parser.should_upgrade()
        exchange = self._exchange = Exchange(
            upgrades or not parser.should_keep_alive(), method == b"HEAD", version == "1.0"
        )
        self._check_framing(version, upgrades)
        expects = version == "1.1" and b"expect" in self._headers
        try:
            self._admit(exchange, method, self._url, self._headers)
            if expects:
                self._prepare_continue()
        except Problem as problem:
            if problem.close or expects:
                # A caller that waits for `100 Continue` may or may not send its body now.
                raise
            exchange.response = problem.response()

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self._owes_continue = False
        self._body_bytes += len(body)
        if self._body_bytes > self._limits.body_bytes_max:
            raise self._body_too_large()
        self._body_parts.append(body)

    def on_message_complete(self) -> None:
        """The request is whole: give it to the pipeline."""
        exchange = self._exchange
        assert exchange is not None, "headers were complete before"
        if exchange.request is not None:
            parts = self._body_parts
            exchange.request.body = parts[0] if len(parts) == 1 else b"".join(parts)
        self.is_receiving = False
        self._exchange = None
        if exchange.is_last:
            self._is_deaf = True
        self._pipeline.append(exchange)

    # What the pipeline calls.

    def send(self, data: bytes, is_last: bool) -> None:
        """Write answers; after the last one let the client read it before the socket closes."""
        if self._transport is None or self._transport.is_closing():
            return
        self._transport.write(data)
        self._idle_since = self._site.now
        if is_last:
            self._linger()

    def on_progress(self) -> None:
        """Send what was waiting for its turn, read on, or close if that was all."""
        transport = self._transport
        if transport is None or self._lingers_until is not None:
            return
        if self._pipeline.is_empty:
            if self._client_has_closed or (self._site.draining and not self.is_receiving):
                transport.close()
                return
            self._send_owed_continue()
        self._regulate_reading()

    def abort(self) -> None:
        """Cut the connection."""
        if self._transport is not None:
            self._transport.abort()

    # What the site calls.

    def check_time_limits(self) -> None:
        """Cut or refuse a client that has used up its time."""
        transport, now, limits = self._transport, self._site.now, self._limits
        if transport is None:
            return
        if self._lingers_until is not None:
            if now >= self._lingers_until:
                transport.abort()
        elif self._stalled_since is not None:
            if now - self._stalled_since >= limits.request_seconds:
                counts.TIMEOUTS.add()
                transport.abort()
        elif self.is_receiving:
            late = now - self._received_since >= limits.request_seconds
            if late and not self._reading_is_paused:
                counts.TIMEOUTS.add()
                self._refuse(Problem(408, "request_timeout", "the request did not arrive in time"))
        elif self._pipeline.is_empty and now - self._idle_since >= limits.idle_seconds:
            self._close_idle(transport)

    def drain(self) -> None:
        """Close now if nothing is under way; otherwise the last answer closes."""
        self.on_progress()

    # Steps of the above.

    def _exchange_in_progress(self) -> object | None:
        # The header dictionary is made anew for each request, so that it tells them apart.
        return self._headers if self.is_receiving else None

    def _count_fed_bytes(self, size: int) -> None:
        # llhttp reports a header only when it is whole, and never the framing of chunks: what it
        # swallows meanwhile is bounded here. The read in which a request begins is not counted.
        self._fed_bytes += size
        limits = self._limits
        if self._in_head:
            if self._fed_bytes > limits.header_bytes_max:
                self._refuse(self._head_too_large())
        elif self._fed_bytes > limits.header_bytes_max + limits.body_bytes_max * _FRAMING_FACTOR:
            self._refuse(self._body_too_large())

    def _check_framing(self, version: str, upgrades: bool) -> None:
        """Refuse what two servers might understand differently (RFC 9112, 3.2 and 6.1)."""
        headers = self._headers
        if version == "1.1" and b"host" not in headers:
            raise Problem(400, "malformed_request", "HTTP/1.1 requires a Host header")
        encoding = headers.get(b"transfer-encoding")
        if upgrades and self._announces_body():
            # The parser takes what follows an offer to upgrade for the other protocol.
            raise Problem(501, "upgrade_with_body", "send a body without an Upgrade header")
        if encoding is None:
            return
        if version == "1.0":
            raise Problem(400, "malformed_request", "HTTP/1.0 knows no Transfer-Encoding")
        if encoding.lower() != b"chunked":
            raise Problem(501, "transfer_encoding", "the only transfer coding here is chunked")

    def _admit(
        self, exchange: Exchange, method: bytes, url: bytes, headers: dict[bytes, bytes]
    ) -> None:
        site = self._site
        if not self._is_local and not self._address_is_allowed:
            counts.ACCESS_FAILURES.add()
            raise Problem(403, "address_not_allowed", "this address may not connect", close=True)
        match = site.routes.find(url)
        endpoint = match.endpoints.get(method)
        if endpoint is None:
            raise Problem(
                405,
                "method_not_allowed",
                "this path does not have that method",
                headers=allow_header(match.endpoints),
            )
        exchange.route = endpoint.route
        is_known = self._is_local or endpoint.is_open
        if not is_known and not site.access.admits_authorization(headers.get(b"authorization")):
            counts.ACCESS_FAILURES.add()
            raise Problem(
                401,
                "unauthorized",
                "this listener wants `Authorization: Bearer <token>`",
                headers=b"WWW-Authenticate: Bearer\r\n",
            )
        if int(headers.get(b"content-length", b"0")) > self._limits.body_bytes_max:
            raise self._body_too_large()
        content_type = headers.get(b"content-type", b"")
        if content_type or b"content-encoding" in headers:
            _check_media(endpoint, content_type, headers.get(b"content-encoding", b""))
        exchange.request = Request(match.parameters, match.query, content_type)

    def _prepare_continue(self) -> None:
        headers = self._headers
        if headers[b"expect"].lower() != b"100-continue":
            raise Problem(417, "expectation_failed", "the only expectation here is 100-continue")
        self._owes_continue = self._announces_body()
        self._pipeline.reports_progress = True
        if self._pipeline.is_empty:
            self._send_owed_continue()

    def _announces_body(self) -> bool:
        headers = self._headers
        return b"transfer-encoding" in headers or headers.get(b"content-length", b"0") != b"0"

    def _send_owed_continue(self) -> None:
        if self._owes_continue and self._transport is not None:
            self._owes_continue = False
            self._transport.write(_CONTINUE)

    def _problem_of_parser(self, error: httptools.HttpParserError) -> Problem:
        if isinstance(error, httptools.HttpParserCallbackError):
            cause = error.__context__
            if isinstance(cause, Exception):
                return from_exception(cause, counts.UNMATCHED)
        if isinstance(error, httptools.HttpParserInvalidMethodError):
            allow = allow_header(self._site.routes.methods())
            return Problem(405, "method_not_allowed", "no such method", headers=allow)
        return Problem(400, "malformed_request", f"not HTTP/1.1: {error}")

    def _body_too_large(self) -> Problem:
        limit = self._limits.body_bytes_max
        return Problem(413, "body_too_large", f"more than {limit} bytes", close=True)

    def _head_too_large(self) -> Problem:
        limit = self._limits.header_bytes_max
        return Problem(431, "headers_too_large", f"more than {limit} bytes", close=True)

    def _refuse(self, problem: Problem) -> None:
        """Answer with a problem after all earlier answers, then close."""
        exchange = self._exchange or Exchange()
        exchange.response = problem.response()
        self._end_with(exchange)

    def _end_with(self, exchange: Exchange) -> None:
        exchange.is_last = True
        self._is_deaf = True
        self.is_receiving = False
        self._exchange = None
        self._pipeline.append(exchange)
        self._regulate_reading()

    def _regulate_reading(self) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        should_pause = self._pipeline.is_full and self._lingers_until is None
        if should_pause and not self._reading_is_paused:
            self._reading_is_paused = True
            self._pipeline.reports_progress = True
            transport.pause_reading()
        elif self._reading_is_paused and not should_pause:
            self._reading_is_paused = False
            self._received_since = self._site.now
            transport.resume_reading()

    def _linger(self) -> None:
        # Closing a socket with unread input resets the connection, and the reset may overtake
        # the last answer. So only our side is closed, and what still comes is discarded.
        transport = self._transport
        assert transport is not None, "send() has just written to it"
        self._is_deaf = True
        self._lingers_until = self._site.now + self._limits.linger_seconds
        if self._client_has_closed or not transport.can_write_eof():
            transport.close()
            return
        transport.write_eof()
        self._regulate_reading()

    def _close_idle(self, transport: asyncio.Transport) -> None:
        if transport.get_write_buffer_size():
            # close() would wait for ever for a client that does not read.
            counts.TIMEOUTS.add()
            transport.abort()
        else:
            transport.close()


def _check_media(endpoint: Endpoint, content_type: bytes, content_encoding: bytes) -> None:
    if content_encoding and content_encoding.lower() != b"identity":
        raise Problem(415, "unsupported_media_type", "the body must not be compressed")
    known = endpoint.media_types
    if not known or content_type in known or not content_type:
        return
    if content_type.partition(b";")[0].strip().lower() not in known:
        names = b", ".join(sorted(known))
        raise Problem(
            415,
            "unsupported_media_type",
            f"this path takes {names.decode()}",
            headers=b"Accept: %b\r\n" % names,
        )
