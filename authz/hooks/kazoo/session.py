"""One connection to a broker: its exchanges, its queues and what is published on it.

Each queue has a channel of its own, whose limit of unacknowledged messages is what keeps a flood
in the broker. A connection that has lost a part of itself (a queue that somebody deleted, a
channel that the broker closed) is given up as a whole, so that there is only one way back.
"""

from __future__ import annotations

import asyncio
import datetime
import logging
import ssl
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, Self

import aio_pika
import aiormq
from aio_pika import exceptions as amqp
from aio_pika.abc import (
    AbstractChannel,
    AbstractConnection,
    AbstractIncomingMessage,
    AbstractQueue,
)
from yarl import URL

from authz import log
from authz.config.broker_url import BrokerUrl, parse_broker_url
from authz.hooks.kazoo.encoding import Microseconds, install_readers
from authz.hooks.kazoo.errors import BrokerRefused, BrokerUnreachable, PublishUnknown
from authz.hooks.kazoo.topology import EXCHANGES, QueuePlan, Source

#: For connecting, and for each declaration after it.
_OPEN_SECONDS: Final = 10.0
_PUBLISH_SECONDS: Final = 5.0
_CLOSE_SECONDS: Final = 3.0
#: A connection without a word for three of these is lost.
_HEARTBEAT_SECONDS: Final = 10

#: They log each lost connection and each vain try at length; we say once what there is to know.
_LIBRARIES: Final = ("aio_pika", "aiormq")

_REFUSALS: Final = (
    amqp.AuthenticationError,
    amqp.ProbableAuthenticationError,
    amqp.ChannelPreconditionFailed,
    aiormq.exceptions.ChannelAccessRefused,
    aiormq.exceptions.ConnectionNotAllowed,
)

Take = Callable[[Source, AbstractIncomingMessage], None]


class Session:
    """An open connection; see the module."""

    def __init__(self, connection: AbstractConnection, take: Take) -> None:
        """Use `open` instead."""
        self._connection = connection
        self._take = take
        self._outgoing: AbstractChannel | None = None
        self._channels: list[AbstractChannel] = []
        self._queues: list[tuple[Source, AbstractQueue]] = []
        self._consumers: list[tuple[AbstractQueue, str]] = []
        #: Done with the reason when the connection can no longer be used.
        self.lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        #: Routing key by which others answer us.
        self.server_id = ""

    @classmethod
    async def open(
        cls,
        url: str,
        name: str,
        take: Take,
        queues: Mapping[Source, tuple[QueuePlan, Sequence[tuple[str, str]]]],
    ) -> Self:
        """Connect and declare. `queues` have their bindings: exchange and routing key.

        Nothing is delivered before `start`. Raises BrokerUnreachable, or BrokerRefused where trying
        again alone will not help.
        """
        install_readers()
        for library in _LIBRARIES:
            logging.getLogger(library).setLevel(logging.CRITICAL)
        session = cls(await _connect(parse_broker_url(url), name), take)
        try:
            async with asyncio.timeout(_OPEN_SECONDS):
                await session._set_up(queues)
        except _REFUSALS as error:
            await session.close()
            raise BrokerRefused(str(error)) from error
        except (amqp.AMQPError, amqp.ChannelInvalidStateError, OSError, RuntimeError) as error:
            await session.close()
            raise BrokerUnreachable(f"{type(error).__name__}: {error}") from error
        except BaseException:
            await session.close()
            raise
        return session

    async def _set_up(
        self, queues: Mapping[Source, tuple[QueuePlan, Sequence[tuple[str, str]]]]
    ) -> None:
        self._connection.close_callbacks.add(self._note_loss)
        self._outgoing = await self._channel(publisher_confirms=True, on_return_raises=True)
        for name, kind in EXCHANGES.items():
            await self._outgoing.declare_exchange(name, kind)
        for source, (plan, bindings) in queues.items():
            queue = await self._declare(plan, bindings)
            self._queues.append((source, queue))
            if source is Source.ANSWERS:
                await queue.bind("targeted", queue.name)
                self.server_id = queue.name

    async def _channel(self, **options: bool) -> AbstractChannel:
        channel = await self._connection.channel(**options)
        channel.close_callbacks.add(self._note_loss)
        self._channels.append(channel)
        underlay = await channel.get_underlay_channel()
        underlay.on_consumer_cancel_callbacks.add(self._note_cancel)
        return channel

    async def _declare(self, plan: QueuePlan, bindings: Sequence[tuple[str, str]]) -> AbstractQueue:
        channel = await self._channel(publisher_confirms=False)
        await channel.set_qos(prefetch_count=plan.prefetch)
        queue = await channel.declare_queue(
            plan.name or None,
            durable=plan.is_durable,
            exclusive=False,
            auto_delete=plan.is_auto_delete,
            arguments=plan.arguments,
        )
        for exchange, routing_key in bindings:
            await queue.bind(exchange, routing_key)
        return queue

    async def start(self) -> None:
        """Have messages delivered from now on. Raises BrokerUnreachable."""
        try:
            async with asyncio.timeout(_OPEN_SECONDS):
                for source, queue in self._queues:
                    tag = await queue.consume(partial(self._receive, source))
                    self._consumers.append((queue, tag))
        except (amqp.AMQPError, amqp.ChannelInvalidStateError, OSError) as error:
            raise BrokerUnreachable(f"{type(error).__name__}: {error}") from error

    async def _receive(self, source: Source, message: AbstractIncomingMessage) -> None:
        self._take(source, message)

    async def publish(
        self,
        exchange: str,
        routing_key: str,
        body: bytes,
        *,
        headers: Mapping[str, str],
        is_mandatory: bool,
    ) -> bool:
        """Publish, and wait for the broker's word; say whether it came to a queue.

        Raises BrokerUnreachable when it was certainly not taken, PublishUnknown otherwise. What
        is not mandatory always counts as delivered.
        """
        channel = self._outgoing
        if channel is None or channel.is_closed or self.lost.done():
            raise BrokerUnreachable("the connection to the broker is lost")
        message = aio_pika.Message(
            body,
            content_type="application/json",
            timestamp=Microseconds.now(datetime.UTC),
            headers=dict(headers),
        )
        target = await channel.get_exchange(exchange, ensure=False)
        try:
            await target.publish(
                message, routing_key, mandatory=is_mandatory, timeout=_PUBLISH_SECONDS
            )
        except amqp.PublishError:
            return False
        except (amqp.AMQPError, amqp.ChannelInvalidStateError, OSError) as error:
            raise PublishUnknown(f"{type(error).__name__}: {error}") from error
        return True

    async def stop_consuming(self) -> None:
        """Take no more messages; those that have come may still be answered."""
        consumers, self._consumers = self._consumers, []
        for queue, tag in consumers:
            try:
                await queue.cancel(tag, timeout=_CLOSE_SECONDS)
            except (amqp.AMQPError, amqp.ChannelInvalidStateError, OSError):
                return

    async def close(self) -> None:
        """Close the connection; what is not acknowledged goes to others."""
        self._note("the connection is closed")
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                # One by one: a connection that closes under its channels leaves tasks behind.
                for channel in self._channels:
                    await channel.close()
                await self._connection.close()
        except Exception as error:
            # Whatever the library says of a dead connection, it must not keep us from the next.
            log.event("kazoo_close_failed", level="debug", error=error)

    def _note_loss(self, _sender: Any, error: BaseException | None) -> None:
        self._note("the broker has closed it" if error is None else str(error))

    def _note_cancel(self, frame: Any) -> None:
        self._note(f"the broker has ended a consumer ({frame.consumer_tag}): its queue is gone")

    def _note(self, reason: str) -> None:
        if not self.lost.done():
            self.lost.set_result(reason)


async def _connect(url: BrokerUrl, name: str) -> AbstractConnection:
    """Connect and log in. Raises BrokerUnreachable, or BrokerRefused as `Session.open`."""
    heartbeat = url.heartbeat_seconds or _HEARTBEAT_SECONDS
    try:
        async with asyncio.timeout(_OPEN_SECONDS):
            # In a thread, since it reads files.
            context = await asyncio.to_thread(_tls_context, url) if url.is_encrypted else None
            return await aio_pika.connect(
                URL(url.address).update_query(heartbeat=heartbeat),
                client_properties={"connection_name": name},
                ssl_context=context,
            )
    except _REFUSALS as error:
        raise BrokerRefused(str(error)) from error
    except (amqp.AMQPError, OSError, ValueError) as error:
        if isinstance(error.__cause__, ssl.SSLCertVerificationError):
            raise BrokerRefused(f"its certificate is not trusted: {error}") from error
        raise BrokerUnreachable(f"{type(error).__name__}: {error}") from error


def _tls_context(url: BrokerUrl) -> ssl.SSLContext:
    """Return what an encrypted connection demands; raise BrokerRefused for a useless file."""
    try:
        context = ssl.create_default_context(cafile=url.ca_file)
    except OSError as error:
        raise BrokerRefused(f"cacertfile {url.ca_file} cannot be used: {error}") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if not url.is_verified:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if url.certificate_file is not None:
        try:
            # A key with a password must not make us wait for somebody who types it.
            context.load_cert_chain(url.certificate_file, url.key_file, password="")
        except OSError as error:
            raise BrokerRefused(
                f"certfile {url.certificate_file} with keyfile {url.key_file} cannot be used: "
                f"{error}"
            ) from error
    return context
