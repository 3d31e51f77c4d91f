"""A zone's message broker: what is wanted of it, and a connection for as long as anybody wants it.

Lost connections come back with growing pauses. What the broker held for us meanwhile is kept as
long as its queues say; what was delivered and not acknowledged comes again.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import socket
from typing import Any, Final, Protocol

from msgspec import Struct

import authz
from authz import log
from authz.config.kazoo import KazooSettings
from authz.errors import StoreError
from authz.hooks.kazoo import messages
from authz.hooks.kazoo.deliveries import Complaints, Delivery, Handler, Handlers
from authz.hooks.kazoo.encoding import encode_key
from authz.hooks.kazoo.errors import (
    BrokerRefused,
    BrokerUnreachable,
    MalformedMessage,
    PublishUnknown,
)
from authz.hooks.kazoo.messages import Body, Channel, ChannelsAnswer, Header, encode, read_channel
from authz.hooks.kazoo.replies import target_of
from authz.hooks.kazoo.session import Session
from authz.hooks.kazoo.topology import (
    AUTHORIZE_BROADCAST,
    CHANNELS_QUERY,
    RATE_BROADCAST,
    Source,
    queue_plan,
)

APP_NAME: Final = "authz"
_RETRY_SECONDS_MIN: Final = 0.5
_RETRY_SECONDS_MAX: Final = 5.0
#: Before a part of the agent that has failed is told again of the connection.
_TAKE_UP_SECONDS: Final = 2.0
#: Live channels that are read before others get a turn.
_CHANNELS_AT_ONCE: Final = 500
#: Where to send what concerns all, by the message's kind.
_BROADCASTS: Final = {
    messages.AuthorizeAnswer.kind: AUTHORIZE_BROADCAST,
    messages.RateAnswer.kind: RATE_BROADCAST,
}


class BrokerUser(Protocol):
    """A part of the agent that lives on the brokers."""

    def attach(self, broker: KazooBroker) -> None:
        """Say which messages are wanted, before the broker is connected: `consume`."""

    async def on_up(self, broker: KazooBroker) -> None:
        """The broker is connected and delivers; cancelled if it is lost meanwhile.

        Called again after each loss, and after an error. Ended channels may have been missed.
        """

    def on_down(self, broker: KazooBroker) -> None:
        """The connection is lost. Calls go on without us."""

    async def drain(self, limit_seconds: float) -> None:
        """Finish what is under way, at most so long; nothing new is delivered any more."""


class NodeChannels(Struct, frozen=True):
    """The channels of one ecallmgr."""

    node: str
    channels: list[Channel]


class KazooBroker:
    """The broker of one zone; see the module."""

    def __init__(self, zone: str, urls: tuple[str, ...], settings: KazooSettings) -> None:
        """`urls` are tried in turn. Register with `consume`, then `run`."""
        self.zone = zone
        self.settings = settings
        #: How many times a connection came up.
        self.connects = 0
        self.node = settings.node or f"{APP_NAME}@{socket.gethostname()}"
        self._urls = urls
        self._next_url = 0
        self._handlers = Handlers(self)
        self._users: list[BrokerUser] = []
        self._session: Session | None = None
        self._is_draining = False
        self._last_problem = ""
        self._complaints = Complaints()
        self._queries: dict[str, list[NodeChannels]] = {}
        self._handlers.add(Source.ANSWERS, *ChannelsAnswer.kind, self._take_channels)

    @property
    def is_up(self) -> bool:
        """Whether it is connected and delivers."""
        return self._session is not None and not self._session.lost.done()

    # What is wanted.

    def use(self, user: BrokerUser) -> None:
        """Let a part of the agent register, and tell it of connections from now on."""
        self._users.append(user)
        user.attach(self)

    def consume(self, source: Source, category: str, name: str, handler: Handler) -> None:
        """Have a kind of message handled; see `topology.ROUTES` and `deliveries.Handler`."""
        self._handlers.add(source, category, name, handler)

    # What is sent.

    async def reply(self, request: Header, body: Body) -> bool:
        """Answer a request; say whether anybody still waits for it.

        Raises BrokerUnreachable or PublishUnknown.
        """
        target = target_of(request.server_id)
        if target is None:
            return False
        return await self._publish(
            "targeted",
            target.routing_key,
            body,
            msg_id=request.msg_id,
            headers=target.headers,
            is_mandatory=True,
        )

    async def broadcast(self, request: Header, body: Body) -> None:
        """Tell all who follow decisions or rates of an answer; errors as of `reply`."""
        await self._publish("callmgr", _BROADCASTS[body.kind], body, msg_id=request.msg_id)

    async def publish_hangup(self, call_id: str) -> bool:
        """Order konami to hang a call up; False: no konami runs. Errors as of `reply`."""
        return await self._publish(
            "metaflow",
            f"metaflow.action.{encode_key(call_id)}.hangup",
            messages.Metaflow(action="hangup", call_id=call_id),
            is_mandatory=True,
        )

    async def notify(self, body: messages.LowBalance | messages.Topup) -> bool:
        """Tell Kazoo's notifications; False: nobody listens. Errors as of `reply`."""
        key = f"notifications.account.{body.kind[1]}"
        return await self._publish("notifications", key, body, is_mandatory=True)

    async def query_channels(self, seconds: float | None = None) -> list[NodeChannels]:
        """Ask every ecallmgr for its live channels, and return what has come after `seconds`.

        An ecallmgr that is missing has not answered, which says nothing of its calls. Raises
        BrokerUnreachable or PublishUnknown.
        """
        msg_id = _new_id()
        answers = self._queries[msg_id] = []
        try:
            await self._publish(
                "callevt",
                CHANNELS_QUERY,
                messages.ChannelsRequest(active_only=False, fields="all"),
                msg_id=msg_id,
            )
            await asyncio.sleep(self.settings.query_seconds if seconds is None else seconds)
        finally:
            del self._queries[msg_id]
        if not self.is_up:
            raise BrokerUnreachable("the connection was lost before all had answered")
        return answers

    async def _publish(
        self,
        exchange: str,
        routing_key: str,
        body: Body,
        *,
        msg_id: str = "",
        headers: dict[str, str] | None = None,
        is_mandatory: bool = False,
    ) -> bool:
        session = self._session
        if session is None:
            raise BrokerUnreachable(f"the broker of zone {self.zone} is not connected")
        category, name = body.kind
        header = Header(
            event_category=category,
            event_name=name,
            msg_id=msg_id or _new_id(),
            app_name=APP_NAME,
            app_version=authz.__version__,
            node=self.node,
            server_id=session.server_id,
        )
        return await session.publish(
            exchange,
            routing_key,
            encode(header, body),
            headers=headers or {},
            is_mandatory=is_mandatory,
        )

    async def _take_channels(self, delivery: Delivery[ChannelsAnswer]) -> None:
        answers = self._queries.get(delivery.header.msg_id)
        if answers is None:
            return
        channels: list[Channel] = []
        for number, (call_id, fields) in enumerate(delivery.message.channels.items(), 1):
            if number % _CHANNELS_AT_ONCE == 0:
                await asyncio.sleep(0)
            try:
                channels.append(read_channel(call_id, fields))
            except MalformedMessage as error:
                self._complaints.tell("kazoo_channel_malformed", call_id=call_id, error=error)
                # It lives, whatever else it is.
                channels.append(Channel(call_id=call_id))
        answers.append(NodeChannels(delivery.header.node, channels))

    # The connection.

    async def run(self) -> None:
        """Keep a connection until cancelled or drained."""
        pause_seconds = _RETRY_SECONDS_MIN
        try:
            while not self._is_draining:
                if await self._live_once():
                    pause_seconds = _RETRY_SECONDS_MIN
                # Agents that lost a broker together must not come back together.
                await asyncio.sleep(pause_seconds * random.uniform(0.5, 1.0))
                pause_seconds = min(2 * pause_seconds, _RETRY_SECONDS_MAX)
        finally:
            await self._drop("the agent ends")

    async def drain(self, limit_seconds: float) -> None:
        """Take nothing more, and finish what has been taken, at most so long."""
        self._is_draining = True
        if self._session is not None:
            await self._session.stop_consuming()
        await self._handlers.drain(limit_seconds)

    async def close(self) -> None:
        """Let go of the broker, whatever is unfinished."""
        self._is_draining = True
        self._handlers.cancel()
        await self._drop("the agent ends")

    async def _live_once(self) -> bool:
        """Connect and stay until the connection is lost; say whether it came up."""
        url = self._urls[self._next_url % len(self._urls)]
        self._next_url += 1
        try:
            session = await self._open(url)
        except Exception as error:
            # Whatever a library says of a strange peer, it must not end the agent.
            self._report(url, error)
            return False
        if self._is_draining:
            await session.close()
            return False
        # The next try begins with it again: its alternatives are for when it cannot be reached.
        self._next_url -= 1
        self._last_problem = ""
        self.connects += 1
        self._session = session
        log.event("kazoo_connected", zone=self.zone, broker=log.mask_url(url))
        await self._stay(session)
        await self._drop("the connection is given up")
        return True

    async def _stay(self, session: Session) -> None:
        """Have messages delivered, and return when the connection is lost."""
        try:
            # Only now: what waits in the queues is answered by this connection.
            await session.start()
        except BrokerUnreachable as error:
            log.event("kazoo_not_started", level="warning", zone=self.zone, error=error)
            return
        tasks = [asyncio.create_task(self._tell_up(user)) for user in self._users]
        try:
            # Awaited itself, it would be cancelled with us.
            await asyncio.wait([session.lost])
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _open(self, url: str) -> Session:
        queues = {
            source: (
                queue_plan(source, self.settings),
                [] if source is Source.ANSWERS else bindings,
            )
            for source, bindings in self._handlers.wanted().items()
        }
        return await Session.open(url, f"{self.node} {self.zone}", self._handlers.take, queues)

    async def _tell_up(self, user: BrokerUser) -> None:
        """Let a part live on the connection; one that fails tries again as long as that lasts."""
        while True:
            try:
                await user.on_up(self)
            except (BrokerUnreachable, PublishUnknown, StoreError) as error:
                log.event("kazoo_not_taken_up", level="warning", zone=self.zone, error=error)
            except Exception as error:
                log.event("kazoo_not_taken_up", level="error", zone=self.zone, error=error)
            else:
                return
            await asyncio.sleep(_TAKE_UP_SECONDS)

    async def _drop(self, reason: str) -> None:
        session, self._session = self._session, None
        if session is None:
            return
        reason = session.lost.result() if session.lost.done() else reason
        log.event("kazoo_lost", level="warning", zone=self.zone, reason=reason)
        for user in self._users:
            user.on_down(self)
        await session.close()

    def _report(self, url: str, error: Exception) -> None:
        """Log what keeps the broker away, once for as long as it is the same."""
        problem = f"{type(error).__name__}: {error}"
        if problem != self._last_problem:
            self._last_problem = problem
            is_refused = isinstance(error, BrokerRefused)
            name = "kazoo_refused" if is_refused else "kazoo_unreachable"
            where: dict[str, Any] = {"zone": self.zone, "broker": log.mask_url(url)}
            log.event(name, level="error", error=error, **where)


def _new_id() -> str:
    return secrets.token_hex(16)
