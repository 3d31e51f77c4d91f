"""An ecallmgr as the broker sees it: asks, tells of channels, and takes the answers."""

from __future__ import annotations

import asyncio
import datetime
import json
import secrets
from pathlib import Path
from typing import Any, Final, Self

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractIncomingMessage

from authz.hooks.kazoo.encoding import Microseconds, encode_key, install_readers
from authz.hooks.kazoo.topology import EXCHANGES

#: Valid messages by name, from the contract.
EXAMPLES: Final[dict[str, dict[str, Any]]] = json.loads(
    (Path(__file__).parents[1] / "data" / "kazoo_messages.json").read_text()
)["messages"]
_ANSWER_SECONDS: Final = 90


class Ecallmgr:
    """One node. `answers` has what it was answered, `broadcasts` what all were told."""

    def __init__(self, connection: AbstractConnection, channel: AbstractChannel) -> None:
        """Use `connect` instead."""
        self._connection = connection
        self.channel = channel
        self.node = f"ecallmgr@{secrets.token_hex(4)}.example.net"
        self.server_id = f"{self.node}-<0.1923.0>-{secrets.token_hex(4)}"
        self._answers: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self.broadcasts: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        #: Orders of hang-ups; there only after `serve_metaflow`.
        self.hangups: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        #: AMQP headers of the last answer.
        self.headers: dict[str, Any] = {}

    @classmethod
    async def connect(cls, url: str) -> Self:
        """Connect and wait for answers and broadcasts."""
        install_readers()
        connection = await aio_pika.connect(url)
        channel = await connection.channel()
        for name, kind in EXCHANGES.items():
            await channel.declare_exchange(name, kind)
        self = cls(connection, channel)
        await self._listen("targeted", self.server_id, self._take_answer)
        for key in ("authz.authorize.broadcast", "rate.resp.broadcast"):
            await self._listen("callmgr", key, self._put(self.broadcasts))
        return self

    async def serve_metaflow(self) -> None:
        """Take hang-up orders from now on, as konami does."""
        await self._listen("metaflow", "metaflow.action.#", self._put(self.hangups))

    async def serve_notifications(self) -> asyncio.Queue[dict[str, Any]]:
        """Listen to notifications from now on, as teletype does; return what comes, in order."""
        found: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        await self._listen("notifications", "notifications.account.*", self._put(found))
        return found

    async def serve_channels(self, channels: dict[str, dict[str, Any]]) -> None:
        """Answer questions for live channels with these, as they are when asked."""

        async def answer(message: AbstractIncomingMessage) -> None:
            request = json.loads(message.body)
            body = {"Channels": channels, "Msg-ID": request["Msg-ID"]}
            document = self._document("call_event", "query_channels_resp", body)
            await self.publish("targeted", request["Server-ID"], document)

        await self._listen("callevt", "call.status_req.channels", answer)

    async def ask(
        self, example: str, *, server_id: str | None = None, **fields: Any
    ) -> dict[str, Any]:
        """Send a question like an example, changed by `fields`, and return its answer."""
        document = self.question(example, server_id=server_id, **fields)
        answer = self.expect(document["Msg-ID"])
        keys = {
            "authz_req": "authz.authorize",
            "balance_check_req": "authz.balance_check",
            "req": "rate.req",
        }
        await self.publish("callmgr", keys[document["Event-Name"]], document)
        async with asyncio.timeout(_ANSWER_SECONDS):
            return await answer

    def question(
        self, example: str, *, server_id: str | None = None, **fields: Any
    ) -> dict[str, Any]:
        """Return a question like an example; `Call_ID=…` stands for `Call-ID`, None removes."""
        document = dict(EXAMPLES[example])
        document |= {
            "Server-ID": server_id or self.server_id,
            "Node": self.node,
            "Msg-ID": secrets.token_hex(8),
        }
        document |= {name.replace("_", "-"): value for name, value in fields.items()}
        return {name: value for name, value in document.items() if value is not None}

    def expect(self, msg_id: str) -> asyncio.Future[dict[str, Any]]:
        """Return what will be the answer to a message."""
        return self._answers.setdefault(msg_id, asyncio.get_running_loop().create_future())

    async def tell(self, name: str, call_id: str, **fields: Any) -> None:
        """Tell all of an event of a channel, like its example."""
        example = EXAMPLES.get(f"call/event {name}", EXAMPLES["call/event CHANNEL_DESTROY"])
        document = dict(example) | {"Event-Name": name, "Call-ID": call_id, "Node": self.node}
        document |= {name.replace("_", "-"): value for name, value in fields.items()}
        await self.publish(
            "callevt",
            f"call.{name}.{encode_key(call_id)}",
            {name: value for name, value in document.items() if value is not None},
            headers={"call-id": call_id},
        )

    async def publish(
        self,
        exchange: str,
        routing_key: str,
        document: dict[str, Any] | bytes,
        **properties: Any,
    ) -> None:
        """Publish as Kazoo does: JSON, with a timestamp in microseconds."""
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        message = aio_pika.Message(
            body,
            **{
                "content_type": "application/json",
                "timestamp": Microseconds.now(datetime.UTC),
                **properties,
            },
        )
        target = await self.channel.get_exchange(exchange, ensure=False)
        await target.publish(message, routing_key, mandatory=False)

    async def close(self) -> None:
        """Leave the broker."""
        await self.channel.close()
        await self._connection.close()

    def _document(self, category: str, name: str, body: dict[str, Any]) -> dict[str, Any]:
        return {
            "Event-Category": category,
            "Event-Name": name,
            "App-Name": "ecallmgr",
            "App-Version": "5.0.0",
            "Node": self.node,
            **body,
        }

    async def _listen(self, exchange: str, key: str, take: Any) -> None:
        queue = await self.channel.declare_queue(auto_delete=True, exclusive=False)
        await queue.bind(exchange, key)
        await queue.consume(take, no_ack=True)

    async def _take_answer(self, message: AbstractIncomingMessage) -> None:
        document = json.loads(message.body)
        self.headers = dict(message.headers)
        answer = self.expect(document["Msg-ID"])
        if not answer.done():
            answer.set_result(document)

    def _put(self, queue: asyncio.Queue[dict[str, Any]]) -> Any:
        async def put(message: AbstractIncomingMessage) -> None:
            queue.put_nowait(json.loads(message.body))

        return put
