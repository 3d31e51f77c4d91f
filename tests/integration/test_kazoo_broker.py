"""Kazoo's messages through a real RabbitMQ: who gets what, who is answered, what is repeated."""

from __future__ import annotations

import asyncio
import gzip
import json
import secrets
from collections.abc import AsyncIterator
from typing import Any

import aio_pika
import pytest
from aio_pika.exceptions import ChannelPreconditionFailed
from kazoo.ecallmgr import Ecallmgr
from kazoo.stage import Recorder, running, settings_for
from processes import until
from rabbitmq import RabbitServer
from tally import Tally

from authz.errors import NotExecuted
from authz.hooks.kazoo.broker import KazooBroker
from authz.hooks.kazoo.deliveries import Delivery
from authz.hooks.kazoo.encoding import BODY_BYTES_MAX
from authz.hooks.kazoo.errors import BrokerUnreachable
from authz.hooks.kazoo.messages import AuthorizeAnswer, AuthorizeRequest, Channel
from authz.hooks.kazoo.topology import ROUTES, Source

AUTHORIZE = (Source.REQUESTS, "authz", "authz_req")
CREATE = (Source.EVENTS, "call_event", "CHANNEL_CREATE")
DESTROY = (Source.HANGUPS, "call_event", "CHANNEL_DESTROY")
EVERY_LOOP = True


@pytest.fixture
async def ecallmgr(rabbit_server: RabbitServer) -> AsyncIterator[Ecallmgr]:
    """A node of Kazoo's."""
    node = await Ecallmgr.connect(rabbit_server.url)
    yield node
    await node.close()


def broker_of(server: RabbitServer, **changes: Any) -> KazooBroker:
    return KazooBroker("local", (server.url,), settings_for(server.url, **changes))


async def allow(delivery: Delivery[AuthorizeRequest]) -> None:
    """Answer a question with yes, to the asker and to all."""
    call = delivery.message
    answer = AuthorizeAnswer(
        call_id=call.call_id, is_authorized=True, soft_limit=False, account_billing="per_minute"
    )
    await delivery.broker.reply(delivery.header, answer)
    await delivery.broker.broadcast(delivery.header, answer)


async def test_a_question_is_answered_to_the_asker_and_told_to_all(
    rabbit_server: RabbitServer, ecallmgr: Ecallmgr
) -> None:
    broker = broker_of(rabbit_server, node="authz@here")
    broker.consume(*AUTHORIZE, allow)
    async with running(broker):
        question = ecallmgr.question("authz/authz_req", Call_ID="c1@10.0.0.1")
        waiting = ecallmgr.expect(question["Msg-ID"])
        await ecallmgr.publish("callmgr", "authz.authorize", question)
        answer = await waiting
        assert answer["Msg-ID"] == question["Msg-ID"]
        assert (answer["Event-Category"], answer["Event-Name"]) == ("authz", "authz_resp")
        assert answer["Is-Authorized"] is True
        assert answer["Call-ID"] == "c1@10.0.0.1"
        assert answer["App-Name"] == "authz"
        assert answer["App-Version"]
        assert answer["Node"] == "authz@here"
        assert "" not in answer.values()
        assert await ecallmgr.broadcasts.get() == answer


async def test_an_answer_goes_to_the_process_that_a_pid_names(
    rabbit_server: RabbitServer, ecallmgr: Ecallmgr
) -> None:
    broker = broker_of(rabbit_server)
    broker.consume(*AUTHORIZE, allow)
    async with running(broker):
        await ecallmgr.ask("authz/authz_req", server_id=f"pid://<0.7.1>/{ecallmgr.server_id}")
        assert ecallmgr.headers["Deliver-To-PID"] == "<0.7.1>"


async def test_an_answer_that_nobody_waits_for_is_known(
    rabbit_server: RabbitServer, ecallmgr: Ecallmgr
) -> None:
    routed: list[bool] = []

    async def answer(delivery: Delivery[AuthorizeRequest]) -> None:
        body = AuthorizeAnswer(call_id="c", is_authorized=True, soft_limit=False)
        routed.append(await delivery.broker.reply(delivery.header, body))

    broker = broker_of(rabbit_server)
    broker.consume(*AUTHORIZE, answer)
    async with running(broker):
        for server_id in ("gone", None, "pid://nobody", ecallmgr.server_id):
            question = ecallmgr.question("authz/authz_req") | {"Server-ID": server_id}
            if server_id is None:
                del question["Server-ID"]
            await ecallmgr.publish("callmgr", "authz.authorize", question)
        await until(lambda: len(routed) == 4)
        assert sorted(routed) == [False, False, False, True]


async def test_queues_are_declared_as_kazoo_declares_them(
    rabbit_server: RabbitServer, ecallmgr: Ecallmgr
) -> None:
    broker = broker_of(rabbit_server)
    broker.consume(*AUTHORIZE, Recorder())
    broker.consume(Source.RATES, "rate", "req", Recorder())
    kazoos = {"x-max-length": 100, "x-message-ttl": 60_000}
    async with running(broker):
        for name in ("jonny5_listener", "hotornot_listener"):
            await ecallmgr.channel.declare_queue(
                name, durable=False, auto_delete=True, arguments=kazoos
            )
        connection = await aio_pika.connect(rabbit_server.url)
        channel = await connection.channel()
        with pytest.raises(ChannelPreconditionFailed):
            await channel.declare_queue("jonny5_listener", auto_delete=True)
        await connection.close()


async def test_a_shared_question_goes_to_one_and_an_event_to_all(
    rabbit_server: RabbitServer, ecallmgr: Ecallmgr
) -> None:
    questions, events = [Recorder(), Recorder()], [Recorder(), Recorder()]
    brokers = [broker_of(rabbit_server), broker_of(rabbit_server)]
    for broker, question, event in zip(brokers, questions, events, strict=True):
        broker.consume(*AUTHORIZE, question)
        broker.consume(*CREATE, event)
    async with running(brokers[0]), running(brokers[1]):
        for number in range(20):
            document = ecallmgr.question("authz/authz_req", Call_ID=f"c{number}")
            await ecallmgr.publish("callmgr", "authz.authorize", document)
            await ecallmgr.tell("CHANNEL_CREATE", f"c{number}")
        await until(lambda: all(len(one.deliveries) == 20 for one in events))
        await until(lambda: sum(len(one.deliveries) for one in questions) == 20)
        assert all(one.deliveries for one in questions)
        everything = [f"c{number}" for number in range(20)]
        assert all(one.call_ids == everything for one in events)


async def test_every_kind_of_message_arrives(
    rabbit_server: RabbitServer, ecallmgr: Ecallmgr
) -> None:
    broker = broker_of(rabbit_server)
    recorders = {}
    for key in ROUTES:
        if key[0] is not Source.ANSWERS:
            recorders[key] = Recorder()
            broker.consume(*key, recorders[key])
    examples = {
        "authz_req": "authz/authz_req",
        "balance_check_req": "authz/balance_check_req",
        "req": "rate/req",
        "authz_resp": "authz/authz_resp",
        "resp": "rate/resp",
    }
    async with running(broker):
        told = set()
        for source, category, name in recorders:
            if category != "call_event":
                route = ROUTES[source, category, name]
                document = ecallmgr.question(examples[name])
                await ecallmgr.publish(route.exchange, route.routing_key, document)
            elif name not in told:
                told.add(name)
                await ecallmgr.tell(name, "c1@host")
        await until(lambda: all(one.finished == 1 for one in recorders.values()))
        for (_, category, name), recorder in recorders.items():
            assert recorder.deliveries[0].header.kind == (category, name)


async def test_malformed_messages_are_dropped_and_the_next_is_served(
    rabbit_server: RabbitServer,
    ecallmgr: Ecallmgr,
    caplog: pytest.LogCaptureFixture,
    tally: Tally,
) -> None:
    broker = broker_of(rabbit_server)
    broker.consume(*AUTHORIZE, allow)
    good = ecallmgr.question("authz/authz_req")
    text = json.dumps(good).encode()
    async with running(broker):
        for body, properties in (
            (b"", {}),
            (b"\xff\xfe", {}),
            (text[:-1], {}),
            (b"[" * 50_000, {}),
            (json.dumps({**good, "Call-ID": 5}).encode(), {}),
            (json.dumps({**good, "Call-ID": ["x"]}).encode(), {}),
            (json.dumps({**good, "Event-Name": None}).encode(), {}),
            (text, {"content_type": "application/erlang"}),
            (text, {"content_encoding": "deflate"}),
            (gzip.compress(b" " * (BODY_BYTES_MAX + 1)), {"content_encoding": "gzip"}),
            (b" " * (BODY_BYTES_MAX + 1), {}),
        ):
            await ecallmgr.publish("callmgr", "authz.authorize", body, **properties)
        # What is bound to the queue but means nothing to us.
        stranger = {**good, "Event-Name": "authz_something", "Call-ID": 5}
        await ecallmgr.publish("callmgr", "authz.authorize", stranger)
        assert (await ecallmgr.ask("authz/authz_req"))["Is-Authorized"] is True
        compressed = ecallmgr.question("authz/authz_req")
        waiting = ecallmgr.expect(compressed["Msg-ID"])
        await ecallmgr.publish(
            "callmgr",
            "authz.authorize",
            gzip.compress(json.dumps(compressed).encode()),
            content_encoding="gzip",
        )
        assert (await waiting)["Is-Authorized"] is True
        assert broker.connects == 1
        await broker.drain(20)
    # A flood is not told of message by message.
    assert caplog.messages.count("kazoo_message_malformed") == 5
    assert tally.of("authz_kazoo_messages_total") == {
        ("requests", "malformed"): 11,
        ("requests", "ignored"): 1,
        ("requests", "handled"): 2,
    }


async def test_a_message_is_repeated_while_the_store_is_away(
    rabbit_server: RabbitServer, ecallmgr: Ecallmgr
) -> None:
    recorder = Recorder()
    recorder.errors = [NotExecuted("down"), NotExecuted("down")]
    broker = broker_of(rabbit_server)
    broker.consume(*DESTROY, recorder)
    async with running(broker):
        await ecallmgr.tell("CHANNEL_DESTROY", "c1")
        await until(lambda: recorder.finished == 1)
        assert [one.is_redelivered for one in recorder.deliveries] == [False, True, True]


async def test_a_message_that_breaks_its_handler_twice_is_dropped(
    rabbit_server: RabbitServer, ecallmgr: Ecallmgr, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = Recorder()
    recorder.errors = [ValueError("a defect"), ValueError("a defect")]
    broker = broker_of(rabbit_server)
    broker.consume(*DESTROY, recorder)
    async with running(broker):
        await ecallmgr.tell("CHANNEL_DESTROY", "c1")
        await until(lambda: len(recorder.deliveries) == 2)
        await ecallmgr.tell("CHANNEL_DESTROY", "c2")
        await until(lambda: recorder.finished == 1)
        assert recorder.call_ids == ["c1", "c1", "c2"]
    assert "kazoo_message_dropped" in caplog.messages


async def test_what_a_process_has_not_finished_goes_to_another(
    rabbit_server: RabbitServer, ecallmgr: Ecallmgr
) -> None:
    first, second = Recorder(), Recorder()
    first.go_on.clear()
    dying, other = broker_of(rabbit_server), broker_of(rabbit_server)
    dying.consume(*DESTROY, first)
    other.consume(*DESTROY, second)
    async with running(dying):
        await ecallmgr.tell("CHANNEL_DESTROY", "c1")
        await until(lambda: len(first.deliveries) == 1)
    async with running(other):
        await until(lambda: second.finished == 1)
        assert second.deliveries[0].is_redelivered
    assert first.finished == 0


async def test_hangups_wait_for_a_day_while_none_of_us_runs(
    rabbit_server: RabbitServer, ecallmgr: Ecallmgr
) -> None:
    before, after = Recorder(), Recorder()
    broker = broker_of(rabbit_server)
    broker.consume(*DESTROY, before)
    async with running(broker):
        await ecallmgr.tell("CHANNEL_DESTROY", "c1")
        await until(lambda: before.finished == 1)
    for number in range(150):
        await ecallmgr.tell("CHANNEL_DESTROY", f"late-{number}")
    broker = broker_of(rabbit_server)
    broker.consume(*DESTROY, after)
    async with running(broker):
        await until(lambda: after.finished == 150)
    assert after.call_ids == [f"late-{number}" for number in range(150)]


async def test_a_flood_stays_in_the_broker(rabbit_server: RabbitServer, ecallmgr: Ecallmgr) -> None:
    recorder = Recorder()
    recorder.go_on.clear()
    broker = broker_of(rabbit_server, deciding_max=5)
    broker.consume(*AUTHORIZE, recorder)
    broker.consume(*CREATE, events := Recorder())
    async with running(broker):
        for number in range(40):
            document = ecallmgr.question("authz/authz_req", Call_ID=f"c{number}")
            await ecallmgr.publish("callmgr", "authz.authorize", document)
        # A later event comes through, so the questions have had their time.
        await ecallmgr.tell("CHANNEL_CREATE", "other")
        await until(lambda: events.finished == 1)
        assert len(recorder.deliveries) == 5
        recorder.go_on.set()
        await until(lambda: recorder.finished == 40)
        assert recorder.call_ids == [f"c{number}" for number in range(40)]


async def test_a_hangup_is_ordered_of_konami(
    rabbit_server: RabbitServer, ecallmgr: Ecallmgr
) -> None:
    broker = broker_of(rabbit_server)
    async with running(broker):
        assert not await broker.publish_hangup("c1@10.0.0.1")
        await ecallmgr.serve_metaflow()
        assert await broker.publish_hangup("c1@10.0.0.1")
        order = await ecallmgr.hangups.get()
    assert (order["Event-Category"], order["Event-Name"]) == ("metaflow", "action")
    assert (order["Action"], order["Call-ID"]) == ("hangup", "c1@10.0.0.1")
    assert {"App-Name", "App-Version", "Msg-ID"} <= set(order)


async def test_every_node_is_asked_for_its_channels(
    rabbit_server: RabbitServer, ecallmgr: Ecallmgr
) -> None:
    other = await Ecallmgr.connect(rabbit_server.url)
    await ecallmgr.serve_channels(
        {"c1": {"Account-ID": "a", "Answered": True}, "broken": {"Timestamp": "x"}}
    )
    await other.serve_channels({})
    broker = broker_of(rabbit_server)
    async with running(broker):
        answers = {one.node: one.channels for one in await broker.query_channels(0.5)}
    await other.close()
    assert set(answers) == {ecallmgr.node, other.node}
    assert answers[other.node] == []
    channel, broken = answers[ecallmgr.node]
    assert broken == Channel(call_id="broken")
    assert (channel.call_id, channel.account_id, channel.is_answered) == ("c1", "a", True)


async def test_shadow_mode_shares_no_queue_with_jonny5(
    rabbit_server: RabbitServer, ecallmgr: Ecallmgr
) -> None:
    recorder = Recorder()
    broker = broker_of(rabbit_server, mode="shadow")
    broker.consume(*AUTHORIZE, recorder)
    broker.consume(*DESTROY, recorder)
    jonny5 = await ecallmgr.channel.declare_queue(
        "jonny5_listener",
        auto_delete=True,
        arguments={"x-max-length": 100, "x-message-ttl": 60_000},
    )
    await jonny5.bind("callmgr", "authz.authorize")
    async with running(broker):
        await ecallmgr.publish(
            "callmgr", "authz.authorize", ecallmgr.question("authz/authz_req", Call_ID="c1")
        )
        await ecallmgr.tell("CHANNEL_DESTROY", "c1")
        await until(lambda: recorder.finished == 2)
        message = await jonny5.get()
        assert json.loads(message.body)["Call-ID"] == "c1"
    await jonny5.delete(if_empty=False)


async def test_draining_finishes_what_has_begun_and_leaves_the_rest(
    rabbit_server: RabbitServer, ecallmgr: Ecallmgr
) -> None:
    recorder, successor = Recorder(), Recorder()
    recorder.go_on.clear()
    broker = broker_of(rabbit_server)
    broker.consume(*DESTROY, recorder)
    async with running(broker):
        await ecallmgr.tell("CHANNEL_DESTROY", "begun")
        await until(lambda: len(recorder.deliveries) == 1)
        draining = asyncio.create_task(broker.drain(20))
        await asyncio.sleep(0)
        recorder.go_on.set()
        await draining
        assert recorder.finished == 1
        await ecallmgr.tell("CHANNEL_DESTROY", "later")
    broker = broker_of(rabbit_server)
    broker.consume(*DESTROY, successor)
    async with running(broker):
        await until(lambda: successor.finished == 1)
    assert successor.call_ids == ["later"]
    assert recorder.call_ids == ["begun"]


async def test_without_a_connection_nothing_is_sent() -> None:
    broker = KazooBroker("local", ("amqp://127.0.0.1:1/",), settings_for("amqp://127.0.0.1:1/"))
    with pytest.raises(BrokerUnreachable):
        await broker.publish_hangup(secrets.token_hex(4))
    with pytest.raises(BrokerUnreachable):
        await broker.query_channels()


async def test_questions_that_waited_for_us_are_answered_at_once(
    rabbit_server: RabbitServer, ecallmgr: Ecallmgr, tally: Tally
) -> None:
    queue = await ecallmgr.channel.declare_queue(
        "jonny5_listener",
        auto_delete=True,
        arguments={"x-max-length": 100, "x-message-ttl": 60_000},
    )
    await queue.bind("callmgr", "authz.authorize")
    questions = [ecallmgr.question("authz/authz_req", Call_ID=f"c{one}") for one in range(50)]
    waiting = [ecallmgr.expect(question["Msg-ID"]) for question in questions]
    for question in questions:
        await ecallmgr.publish("callmgr", "authz.authorize", question)
    broker = broker_of(rabbit_server)
    broker.consume(*AUTHORIZE, allow)
    async with running(broker):
        answers = await asyncio.gather(*waiting)
        await broker.drain(20)
    assert [answer["Call-ID"] for answer in answers] == [f"c{one}" for one in range(50)]
    assert tally.of("authz_kazoo_messages_total") == {("requests", "handled"): 50}
