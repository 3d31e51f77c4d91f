"""Kazoo's broker is killed, refuses us, or loses our queues: we come back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from kazoo.ecallmgr import Ecallmgr
from kazoo.stage import Recorder, User, running, settings_for
from processes import until
from rabbitmq import RabbitServer

from authz.hooks.kazoo.broker import KazooBroker
from authz.hooks.kazoo.deliveries import Delivery
from authz.hooks.kazoo.errors import BrokerUnreachable, KazooError, PublishUnknown
from authz.hooks.kazoo.messages import AuthorizeAnswer, AuthorizeRequest
from authz.hooks.kazoo.topology import Source

AUTHORIZE = (Source.REQUESTS, "authz", "authz_req")
DESTROY = (Source.HANGUPS, "call_event", "CHANNEL_DESTROY")


@pytest.fixture
async def ecallmgr(rabbit_server: RabbitServer) -> AsyncIterator[Ecallmgr]:
    """A node of Kazoo's."""
    node = await Ecallmgr.connect(rabbit_server.url)
    yield node
    await node.close()


def broker_of(*urls: str, **changes: Any) -> KazooBroker:
    return KazooBroker("local", urls, settings_for(*urls, **changes))


async def test_a_broker_that_dies_is_found_again(
    rabbit_server: RabbitServer, caplog: pytest.LogCaptureFixture
) -> None:
    user = User()
    recorder = Recorder()
    recorder.go_on.clear()
    broker = broker_of(rabbit_server.url)
    broker.use(user)
    broker.consume(*DESTROY, recorder)
    async with running(broker):
        ecallmgr = await Ecallmgr.connect(rabbit_server.url)
        await ecallmgr.tell("CHANNEL_DESTROY", "c1")
        await until(lambda: len(recorder.deliveries) == 1)
        rabbit_server.kill()
        await until(lambda: user.downs == 1)
        with pytest.raises(KazooError):
            await broker.publish_hangup("c1")
        # What has begun is finished, whoever is there to hear of it.
        recorder.go_on.set()
        await until(lambda: recorder.finished == 1)
        rabbit_server.start()
        await until(lambda: user.ups == 2)
        await ecallmgr.close()
        ecallmgr = await Ecallmgr.connect(rabbit_server.url)
        await ecallmgr.tell("CHANNEL_DESTROY", "c2")
        await until(lambda: recorder.finished == 2)
        await ecallmgr.close()
    assert (broker.connects, user.ups, user.downs) == (2, 2, 2)
    # The libraries below have nothing to add to what we say of it.
    assert {one.name for one in caplog.records} == {"authz"}


async def test_a_broker_that_dies_while_we_answer_gets_the_answer_later(
    rabbit_server: RabbitServer,
) -> None:
    outcomes: list[str] = []
    recorder = Recorder()

    async def answer(delivery: Delivery[AuthorizeRequest]) -> None:
        await recorder(delivery)
        body = AuthorizeAnswer(call_id="c", is_authorized=True, soft_limit=False)
        try:
            outcomes.append(str(await delivery.broker.reply(delivery.header, body)))
        except KazooError as error:
            outcomes.append(type(error).__name__)
            raise

    broker = broker_of(rabbit_server.url)
    broker.consume(*AUTHORIZE, answer)
    recorder.go_on.clear()
    ecallmgr = await Ecallmgr.connect(rabbit_server.url)
    async with running(broker):
        question = ecallmgr.question("authz/authz_req")
        await ecallmgr.publish("callmgr", "authz.authorize", question)
        await until(lambda: len(recorder.deliveries) == 1)
        rabbit_server.kill()
        recorder.go_on.set()
        await until(lambda: len(outcomes) == 1)
        rabbit_server.start()
        await until(lambda: broker.is_up and broker.connects == 2)
        await ecallmgr.close()
        # The broker has forgotten its questions; the next one is answered.
        ecallmgr = await Ecallmgr.connect(rabbit_server.url)
        assert (await ecallmgr.ask("authz/authz_req"))["Is-Authorized"] is True
        await ecallmgr.close()
    assert outcomes in (["BrokerUnreachable", "True"], ["PublishUnknown", "True"])


async def test_what_a_dying_broker_may_have_taken_is_said_to_be_unknown(
    rabbit_server: RabbitServer,
) -> None:
    broker = broker_of(rabbit_server.url)
    async with running(broker):
        with rabbit_server.frozen():
            orders = [asyncio.create_task(broker.publish_hangup(f"c{one}")) for one in range(3)]
            query = asyncio.create_task(broker.query_channels(0))
            _, pending = await asyncio.wait(orders, timeout=0.2)
            assert len(pending) == 3
        outcomes = await asyncio.gather(*orders, query, return_exceptions=True)
        assert {type(one) for one in outcomes} <= {PublishUnknown, BrokerUnreachable}


async def test_a_queue_that_is_deleted_is_declared_again(
    rabbit_server: RabbitServer, ecallmgr: Ecallmgr
) -> None:
    user, recorder = User(), Recorder()
    broker = broker_of(rabbit_server.url)
    broker.use(user)
    broker.consume(*DESTROY, recorder)
    async with running(broker):
        # A queue that is deleted while we begin to take from it lets us begin anew, unheard.
        await until(lambda: user.ups == 1)
        await ecallmgr.channel.queue_delete("authz_hangups")
        await until(lambda: user.ups == 2)
        await ecallmgr.tell("CHANNEL_DESTROY", "c1")
        await until(lambda: recorder.finished == 1)


async def test_a_queue_that_others_declare_otherwise_is_waited_for(
    rabbit_server: RabbitServer, ecallmgr: Ecallmgr, caplog: pytest.LogCaptureFixture
) -> None:
    await ecallmgr.channel.declare_queue("jonny5_listener")
    broker = broker_of(rabbit_server.url)
    broker.consume(*AUTHORIZE, Recorder())
    async with running(broker, is_awaited=False):
        await until(lambda: "kazoo_refused" in caplog.messages)
        assert not broker.is_up
        [record] = [one for one in caplog.records if one.getMessage() == "kazoo_refused"]
        assert "jonny5_listener" in str(vars(record))
        await ecallmgr.channel.queue_delete("jonny5_listener")
        await until(lambda: broker.is_up)


async def test_of_a_zones_brokers_the_first_that_answers_is_used(
    rabbit_server: RabbitServer, ecallmgr: Ecallmgr, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    refusing = rabbit_server.url.replace("guest:guest", "guest:hidden-word")
    broker = broker_of("amqp://127.0.0.1:1/", refusing, rabbit_server.url)
    async with running(broker):
        assert await broker.query_channels(0) == []
    told = [one for one in caplog.records if one.getMessage().startswith("kazoo_")]
    assert [one.getMessage() for one in told] == [
        "kazoo_unreachable",
        "kazoo_refused",
        "kazoo_connected",
        "kazoo_lost",
    ]
    assert "hidden-word" not in str([vars(one) for one in told])


@pytest.mark.parametrize(
    "greeting", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\0" * 64, b"AMQP", b""]
)
async def test_a_peer_that_is_no_broker_is_not_taken_for_one(
    greeting: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(8)
        writer.write(greeting)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    broker = broker_of(f"amqp://127.0.0.1:{port}/")
    async with server, running(broker, is_awaited=False):
        await until(lambda: bool({"kazoo_unreachable", "kazoo_refused"} & set(caplog.messages)))
        assert not broker.is_up


async def test_a_part_that_fails_does_not_take_the_broker_with_it(
    rabbit_server: RabbitServer, ecallmgr: Ecallmgr, caplog: pytest.LogCaptureFixture
) -> None:
    user, recorder = User(), Recorder()
    user.is_broken = True
    broker = broker_of(rabbit_server.url)
    broker.use(user)
    broker.consume(*DESTROY, recorder)
    async with running(broker):
        await ecallmgr.tell("CHANNEL_DESTROY", "c1")
        await until(lambda: recorder.finished == 1)
        assert "kazoo_not_taken_up" in caplog.messages
        user.is_broken = False
        await until(lambda: user.ups == 2)
        assert broker.connects == 1
