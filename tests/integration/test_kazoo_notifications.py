"""Kazoo's notifications hear of low balances and recharges through a real RabbitMQ."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aio_pika
import pytest
from alerting import Office, open_office
from audit_helper import assert_clean_audit
from kazoo.ecallmgr import Ecallmgr
from kazoo.stage import running, settings_for
from rabbitmq import RabbitServer
from world import World

from authz.events.messages import Told
from authz.hooks.kazoo.broker import KazooBroker
from authz.hooks.kazoo.encoding import to_gregorian
from authz.hooks.kazoo.notifications import KazooNotifications, kazoo_outlets, notification_of

ACCOUNT = "4f1c0de2a9b84d7e9a5b6c7d8e9f0a1b"


@pytest.fixture
async def world(store_url: str, tmp_path: Path) -> AsyncIterator[World]:
    world = await World.start(store_url, tmp_path)
    yield world
    await assert_clean_audit(world.client)
    await world.close()


@pytest.fixture
async def told(rabbit_server: RabbitServer) -> AsyncIterator[asyncio.Queue[dict[str, Any]]]:
    """What an application that listens to notifications is told, with its routing key."""
    ecallmgr = await Ecallmgr.connect(rabbit_server.url)
    queue = await ecallmgr.channel.declare_queue(exclusive=True)
    await queue.bind("notifications", "notifications.account.*")
    found: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def take(message: aio_pika.abc.AbstractIncomingMessage) -> None:
        found.put_nowait({**json.loads(message.body), "key": message.routing_key})

    await queue.consume(take, no_ack=True)
    yield found
    await ecallmgr.close()


@pytest.fixture
async def office(
    world: World, rabbit_server: RabbitServer, tmp_path: Path
) -> AsyncIterator[Office]:
    (outlet,) = kazoo_outlets(settings_for(rabbit_server.url))
    async with open_office(world, tmp_path, None, outlets=(outlet,)) as office:
        work = asyncio.create_task(outlet.run())
        yield office
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)


async def test_a_low_balance_is_told_in_units(
    office: Office, told: asyncio.Queue[dict[str, Any]]
) -> None:
    office.start()
    await office.fall_low(ACCOUNT)
    (row,) = await office.settled("delivered")
    assert (row.channel, row.target) == ("kazoo", "local")
    message = await told.get()
    assert message["key"] == "notifications.account.low_balance"
    assert (message["Event-Category"], message["Event-Name"]) == ("notification", "low_balance")
    assert (message["Account-ID"], message["Current-Balance"]) == (ACCOUNT, 40_000)
    assert told.empty()


async def test_accounts_that_are_not_kazoos_are_not_told_of(office: Office) -> None:
    office.start()
    await office.fall_low("acme")
    assert await office.rows() == []


async def test_what_nobody_hears_is_told_later(office: Office, rabbit_server: RabbitServer) -> None:
    office.start()
    await office.fall_low(ACCOUNT)
    (row,) = await office.failed()
    assert row.state == "pending"
    ecallmgr = await Ecallmgr.connect(rabbit_server.url)
    queue = await ecallmgr.channel.declare_queue(exclusive=True)
    await queue.bind("notifications", "notifications.account.low_balance")
    await office.settled("delivered")
    assert await queue.get(no_ack=True)
    await ecallmgr.close()


async def test_a_broker_that_is_away_is_waited_for(rabbit_server: RabbitServer) -> None:
    broker = KazooBroker("local", (rabbit_server.url,), settings_for(rabbit_server.url))
    outlet = KazooNotifications(broker)
    event = Told("evt_1", "balance.low", ACCOUNT, 1_774_800_000, {"balance": "4.32109"}, "USD")
    result = await outlet.send(event)
    assert (result.verdict, "not connected" in result.error) == ("failed", True)
    async with running(broker):
        assert (await outlet.send(event)).error == "nobody listens to Kazoo's notifications"


def test_only_an_active_agent_tells() -> None:
    url = "amqp://guest@127.0.0.1"
    assert kazoo_outlets(settings_for(url, mode="shadow")) == ()
    assert kazoo_outlets(settings_for(url, notifications=False)) == ()
    assert kazoo_outlets(settings_for()) == ()


def test_recharges_are_topups() -> None:
    facts = {"recharge": "r1", "amount": "25.5", "balance": "29.5"}
    done = notification_of(Told("e", "recharge.succeeded", ACCOUNT, 1_774_800_000, facts, "USD"))
    assert bytes(done.amount) == b"25.5"
    assert (done.success, done.timestamp) == (True, to_gregorian(1_774_800_000))
    failed = notification_of(
        Told("e", "recharge.failed", ACCOUNT, 1, {**facts, "detail": "card expired"}, "USD")
    )
    assert (failed.success, failed.response) == (False, "card expired")


async def test_an_event_without_its_facts_is_refused_for_good() -> None:
    outlet = KazooNotifications(KazooBroker("local", (), settings_for()))
    for facts in ({}, {"balance": "much"}):
        result = await outlet.send(Told("e", "balance.low", ACCOUNT, 1, facts, None))
        assert result.verdict == "refused"
