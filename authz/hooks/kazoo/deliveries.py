"""What becomes of a message that a queue has delivered: read, handled, and acknowledged or not.

A message is acknowledged when its handler returns, so that a process that dies halfway leaves it
to another one. Handlers are therefore given the same message more than once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from aio_pika.abc import AbstractIncomingMessage
from aio_pika.exceptions import AMQPError, ChannelInvalidStateError, MessageProcessError
from msgspec import Struct

from authz import log, meters
from authz.errors import SpoolFull, StoreError
from authz.hooks.kazoo.encoding import BODY_BYTES_MAX, CHANNELS_BYTES_MAX, decode_body
from authz.hooks.kazoo.errors import KazooError, MalformedMessage
from authz.hooks.kazoo.messages import Header, decode_as, decode_header
from authz.hooks.kazoo.topology import ROUTES, Source

if TYPE_CHECKING:
    from authz.hooks.kazoo.broker import KazooBroker

_M = TypeVar("_M", bound=Struct)

#: Before a message goes back to its queue, which hands it out again at once.
_AGAIN_SECONDS: Final = 1.0
#: Messages that cannot be read are told of so often in so long; the others are only counted.
_COMPLAINTS_MAX: Final = 5
_COMPLAINTS_SECONDS: Final = 60.0
#: Outcomes after which a message goes back to its queue.
_REPEATED: Final = ("postponed", "failed")
#: By source and what became of the message.
_MESSAGES: Final = meters.counters("authz_kazoo_messages_total")
_CONTENT_TYPES: Final = (None, "", "application/json")


class Delivery(Struct, Generic[_M], frozen=True, kw_only=True):
    """A message for a handler."""

    header: Header
    message: _M
    #: Where it came from, and where an answer goes.
    broker: KazooBroker
    source: Source
    #: Whether it has been handed out before, to us or to another process.
    is_redelivered: bool


#: A handler runs to its first `await` in the order in which its queue delivers. A StoreError, a
#: SpoolFull and a KazooError bring the message back later; any other error does once.
Handler = Callable[[Delivery[Any]], Awaitable[None]]


class Complaints:
    """Tells of what is wrong with messages, but not of each in a flood of them."""

    def __init__(self) -> None:
        self._told = 0
        self._untold = 0
        self._began_at = 0.0

    def tell(self, name: str, **fields: Any) -> None:
        """Log an event, unless there were too many of late."""
        now = asyncio.get_running_loop().time()
        if now - self._began_at >= _COMPLAINTS_SECONDS:
            self._began_at, self._told = now, 0
        if self._told >= _COMPLAINTS_MAX:
            self._untold += 1
            return
        self._told += 1
        untold, self._untold = self._untold, 0
        log.event(name, level="warning", untold=untold, **fields)


class Handlers:
    """Who wants which messages, and the work on those that have come."""

    def __init__(self, broker: KazooBroker) -> None:
        self._broker = broker
        self._handlers: dict[tuple[Source, str, str], Handler] = {}
        self._complaints = Complaints()
        self._working: set[asyncio.Task[None]] = set()

    def add(self, source: Source, category: str, name: str, handler: Handler) -> None:
        """Have a kind of message handled from the next connection on."""
        key = source, category, name
        if key not in ROUTES or key in self._handlers:
            raise ValueError(f"{source}: there is no such message, or it is handled: {key}")
        self._handlers[key] = handler

    def wanted(self) -> dict[Source, list[tuple[str, str]]]:
        """Return exchange and routing key of everything wanted, by source."""
        wanted: dict[Source, list[tuple[str, str]]] = {}
        for key in self._handlers:
            route = ROUTES[key]
            wanted.setdefault(key[0], []).append((route.exchange, route.routing_key))
        return wanted

    def take(self, source: Source, message: AbstractIncomingMessage) -> None:
        """Begin to work on a message, in a task that outlives the connection.

        A lost connection must not break off what is being booked.
        """
        task = asyncio.get_running_loop().create_task(self._work(source, message))
        self._working.add(task)
        task.add_done_callback(self._working.discard)

    async def drain(self, limit_seconds: float) -> None:
        """Wait for the work that has begun, at most so long."""
        if self._working:
            await asyncio.wait(self._working, timeout=limit_seconds)

    def cancel(self) -> None:
        """Break off all work; its messages come back to whoever is next."""
        for task in self._working:
            task.cancel()

    async def _work(self, source: Source, message: AbstractIncomingMessage) -> None:
        try:
            delivery = self._read(source, message)
        except Exception as error:
            # Also what a library makes of it: a message that is never acknowledged takes the place
            # of another one for as long as the connection lasts.
            self._complain(source, message, error)
            outcome = "malformed"
        else:
            outcome = await self._handle(delivery)
        _MESSAGES[source.value, outcome].add()
        if outcome in _REPEATED:
            await _give_back(message)
        else:
            await _acknowledge(message)

    async def _handle(self, delivery: Delivery[Struct]) -> str:
        """Have a message handled, and say what became of it: an outcome of the meter."""
        handler = self._handlers.get((delivery.source, *delivery.header.kind))
        if handler is None:
            # A shared queue brings what others have bound it to.
            return "ignored"
        reason: Exception
        try:
            await handler(delivery)
        except (StoreError, SpoolFull, KazooError) as error:
            outcome, reason = "postponed", error
        except Exception as error:
            outcome, reason = ("dropped" if delivery.is_redelivered else "failed"), error
        else:
            return "handled"
        self._complaints.tell(
            f"kazoo_message_{outcome}",
            zone=self._broker.zone,
            source=delivery.source.value,
            message=delivery.header.event_name,
            call_id=getattr(delivery.message, "call_id", None),
            error=reason,
        )
        return outcome

    def _read(self, source: Source, message: AbstractIncomingMessage) -> Delivery[Struct]:
        if message.content_type not in _CONTENT_TYPES:
            raise MalformedMessage(f"content_type: {message.content_type!r} is not JSON")
        bytes_max = CHANNELS_BYTES_MAX if source is Source.ANSWERS else BODY_BYTES_MAX
        text = decode_body(message.body, message.content_encoding, bytes_max)
        header = decode_header(text)
        route = ROUTES.get((source, *header.kind))
        # What nobody here handles may have any form.
        body = decode_as(route.body if route is not None else Struct, text)
        return Delivery(
            header=header,
            message=body,
            broker=self._broker,
            source=source,
            is_redelivered=bool(message.redelivered),
        )

    def _complain(self, source: Source, message: AbstractIncomingMessage, error: Exception) -> None:
        self._complaints.tell(
            "kazoo_message_malformed",
            zone=self._broker.zone,
            source=source.value,
            routing_key=message.routing_key,
            bytes=len(message.body),
            error=error,
        )


async def _acknowledge(message: AbstractIncomingMessage) -> None:
    try:
        await message.ack()
    except (AMQPError, ChannelInvalidStateError, MessageProcessError, OSError):
        # The connection it came by is gone: it comes again.
        return


async def _give_back(message: AbstractIncomingMessage) -> None:
    await asyncio.sleep(_AGAIN_SECONDS)
    try:
        await message.nack(requeue=True)
    except (AMQPError, ChannelInvalidStateError, MessageProcessError, OSError):
        return
