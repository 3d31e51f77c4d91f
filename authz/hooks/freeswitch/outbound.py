"""The outbound socket: FreeSWITCH connects to us, one connection for one waiting call.

`socket <host>:<port> full` in a dialplan hands a call over within a millisecond or two. Without the
word `async` the dialplan waits, and goes on with its next action when the connection ends, so that
a call which nobody decides can be refused there: whoever is not served is simply hung up on.
"""

from __future__ import annotations

import asyncio
import ipaddress
import math
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from authz import log
from authz.hooks.freeswitch import commands
from authz.hooks.freeswitch.connection import COMMAND_TIMEOUT_SECONDS, EventSocketConnection
from authz.hooks.freeswitch.errors import SwitchError, SwitchUnreachable
from authz.hooks.freeswitch.events import Event, event_of_headers

CONNECTIONS_MAX: Final = 2_000
CONNECT_TIMEOUT_SECONDS: Final = 5.0

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class OutboundCall:
    """A call that a switch handed over, and the connection that came with it.

    `channel` holds what the call is, its variables included. The connection speaks of this one
    leg; where it has the control `full` it also runs api commands, `uuid_kill` among them.
    """

    __slots__ = ("channel", "connection")

    def __init__(self, connection: EventSocketConnection, channel: Event) -> None:
        self.connection = connection
        self.channel = channel

    @property
    def uuid(self) -> str:
        """The leg's uuid."""
        return self.channel.unique_id

    @property
    def is_synchronous(self) -> bool:
        """Whether the dialplan waits, and each answer until its application has ended."""
        return self.channel.get("Socket-Mode") != "async"

    @property
    def has_full_control(self) -> bool:
        """Whether the dialplan said `full`, without which api commands are refused."""
        return self.channel.get("Control") == "full"

    async def execute(
        self, application: str, argument: str = "", *, event_lock: bool = False
    ) -> None:
        """Run a dialplan application and wait for its answer, for as long as the call lasts.

        See `is_synchronous` for when that comes, and `commands.execute` for the lock.
        """
        await self.connection.execute(
            application, argument, event_lock=event_lock, timeout_seconds=math.inf
        )

    async def kill(self, cause: str) -> None:
        """Hang the leg up at once, also behind a locked application. Needs full control."""
        await self.connection.api(commands.uuid_kill(self.uuid, cause))

    async def linger(self, seconds: int) -> None:
        """Have the hang-up's events sent before the connection closes."""
        await self.connection.command(commands.linger(seconds))

    async def my_events(self) -> None:
        """Have the leg's events sent to the connection's `on_event`."""
        await self.connection.command(commands.my_events())

    async def leave(self) -> None:
        """Give the call back to the dialplan, which goes on with its next action.

        There is no `resume`: on a synchronous socket it makes the switch hang up.
        """
        if self.connection.is_open:
            await self.connection.command(commands.EXIT)


OutboundHandler = Callable[[OutboundCall], Awaitable[None]]


class OutboundServer:
    """Accepts calls from switches; see the module.

    `handler` is awaited once for every call; when it returns or fails, the call goes back to the
    dialplan. Only addresses in `allow` are served, at most `connections_max` at a time, and none
    that keeps silent for longer than `connect_timeout_seconds`.
    """

    def __init__(
        self,
        handler: OutboundHandler,
        *,
        allow: Sequence[Network],
        connections_max: int = CONNECTIONS_MAX,
        connect_timeout_seconds: float = CONNECT_TIMEOUT_SECONDS,
        command_timeout_seconds: float = COMMAND_TIMEOUT_SECONDS,
    ) -> None:
        self._handler = handler
        self._allow = tuple(allow)
        self._connections_max = connections_max
        self._connect_timeout_seconds = connect_timeout_seconds
        self._command_timeout_seconds = command_timeout_seconds
        self._server: asyncio.Server | None = None
        self._calls: set[asyncio.Task[None]] = set()
        #: How many calls were handed over, turned away, and lost before they said what they are.
        self.served = 0
        self.turned_away = 0
        self.failed = 0

    @property
    def connections(self) -> int:
        """How many calls are with us."""
        return len(self._calls)

    @property
    def port(self) -> int:
        """Where the server listens. Raises RuntimeError before `start`."""
        if self._server is None:
            raise RuntimeError("the server is not started")
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def start(self, host: str, port: int) -> None:
        """Listen. Raises OSError if that cannot be."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._protocol, host, port)

    async def listen(self, listener: socket.socket) -> None:
        """Accept on a listening socket, which is ours from now on."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._protocol, sock=listener)

    def pause(self) -> None:
        """Accept nothing more; the calls that are with us stay."""
        if self._server is not None:
            self._server.close()
            self._server = None

    async def close(self) -> None:
        """Accept nothing more and give every call back to its dialplan."""
        if self._server is not None:
            self._server.close()
        for task in tuple(self._calls):
            task.cancel()
        await asyncio.gather(*self._calls, return_exceptions=True)

    def _protocol(self) -> EventSocketConnection:
        return _Accepted(self._accept, self._command_timeout_seconds)

    def _accept(self, connection: EventSocketConnection) -> None:
        peer = connection.peer
        if not self._is_allowed(peer):
            self._turn_away(connection, "its address is not allowed")
        elif len(self._calls) >= self._connections_max:
            self._turn_away(connection, f"{self._connections_max} calls are connected")
        else:
            task = asyncio.get_running_loop().create_task(self._serve(connection))
            self._calls.add(task)
            task.add_done_callback(self._calls.discard)
            # Not in the task itself: one that is cancelled before its first step runs nothing.
            task.add_done_callback(lambda _: connection.close())

    def _turn_away(self, connection: EventSocketConnection, reason: str) -> None:
        self.turned_away += 1
        log.event("outbound_turned_away", level="warning", peer=connection.peer, reason=reason)
        connection.abort(reason)

    def _is_allowed(self, peer: str) -> bool:
        try:
            address = ipaddress.ip_address(peer.partition("%")[0])
        except ValueError:
            return False
        mapped = getattr(address, "ipv4_mapped", None)
        return any((mapped or address) in network for network in self._allow)

    async def _serve(self, connection: EventSocketConnection) -> None:
        try:
            call = await self._greet(connection)
        except SwitchError as error:
            self.failed += 1
            log.event("outbound_failed", level="warning", peer=connection.peer, error=error)
            connection.abort("no call was handed over")
            return
        self.served += 1
        try:
            await self._handler(call)
            await call.leave()
        except SwitchError as error:
            # The caller hung up, or the switch went away: no fault of the handler.
            log.event("outbound_ended", level="debug", uuid=call.uuid, error=error)
        except Exception as error:
            log.event("outbound_handler_failed", level="error", uuid=call.uuid, error=error)

    async def _greet(self, connection: EventSocketConnection) -> OutboundCall:
        frame = await connection.request(commands.CONNECT, self._connect_timeout_seconds)
        channel = event_of_headers(frame)
        if not channel.unique_id:
            raise SwitchUnreachable(f"no channel in the answer: {frame.reply_text[:80]!r}")
        return OutboundCall(connection, channel)


class _Accepted(EventSocketConnection):
    """A connection that tells the server of itself."""

    def __init__(
        self,
        on_accepted: Callable[[EventSocketConnection], None],
        command_timeout_seconds: float,
    ) -> None:
        super().__init__(command_timeout_seconds=command_timeout_seconds)
        self._on_accepted = on_accepted

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start, or be turned away: called by the event loop."""
        super().connection_made(transport)
        self._on_accepted(self)
