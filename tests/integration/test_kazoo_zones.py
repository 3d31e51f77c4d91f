"""Kazoo's brokers in several zones, and behind TLS, on a real RabbitMQ."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from audit_helper import assert_clean_audit
from kazoo.ecallmgr import Ecallmgr
from kazoo.stage import running, settings_for
from processes import until
from rabbitmq import RabbitServer
from world import US, World

from authz.config.kazoo import BrokerSettings, KazooSettings
from authz.hooks.kazoo.agent import KazooAgent
from authz.hooks.kazoo.broker import KazooBroker
from authz.hooks.kazoo.serving import KazooServer


class Zone:
    """One zone of a cluster: its ecallmgr and what that has."""

    def __init__(self, ecallmgr: Ecallmgr) -> None:
        self.ecallmgr = ecallmgr
        self.channels: dict[str, dict[str, Any]] = {}

    async def ask(self, call_id: str) -> dict[str, Any]:
        """Ask about a channel of `sub`."""
        return await self.ecallmgr.ask(
            "authz/authz_req", Call_ID=call_id, Custom_Channel_Vars=self.variables
        )

    @property
    def variables(self) -> dict[str, str]:
        """A carrier leg's Custom-Channel-Vars."""
        return {
            "Account-ID": "sub", "Reseller-ID": "master", "Resource-ID": "carrier",
            "E164-Destination": US, "Ecallmgr-Node": self.ecallmgr.node,
        }  # fmt: skip

    async def tell(self, name: str, call_id: str, **fields: Any) -> None:
        """Tell of a channel that was let through by the minute."""
        words = {"Account-Billing": "per_minute", "Reseller-Billing": "per_minute"}
        variables = {**self.variables, **words}
        self.channels[call_id] = {"Account-ID": "sub", "Answered": True, **words}
        await self.ecallmgr.tell(name, call_id, Custom_Channel_Vars=variables, **fields)


@pytest.fixture
async def world(store_url: str, tmp_path: Path) -> AsyncIterator[World]:
    world = await World.start(store_url, tmp_path)
    await world.pair()
    yield world
    await assert_clean_audit(world.client)
    await world.close()


@contextlib.asynccontextmanager
async def zone_of(url: str) -> AsyncIterator[Zone]:
    """Yield a zone whose konami and ecallmgr listen."""
    zone = Zone(await Ecallmgr.connect(url))
    await zone.ecallmgr.serve_channels(zone.channels)
    await zone.ecallmgr.serve_metaflow()
    yield zone
    await zone.ecallmgr.close()


@contextlib.asynccontextmanager
async def serving(world: World, **zones: str) -> AsyncIterator[KazooAgent]:
    """Yield an agent that serves all zones, by name."""
    brokers = tuple(BrokerSettings(url=url, zone=name) for name, url in zones.items())
    settings = KazooSettings(brokers=brokers, mode="active", query_seconds=1)
    agent = KazooAgent(world.engine, settings, "test")
    server = KazooServer(settings, [agent])
    task = asyncio.create_task(server.run())
    try:
        await until(lambda: any(broker.is_up for broker in server.brokers))
        yield agent
        await server.drain(5)
    finally:
        await server.close()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_every_zone_is_answered_ordered_and_asked_by_its_own_broker(
    world: World, rabbit_server: RabbitServer
) -> None:
    urls = {"west": rabbit_server.url, "east": rabbit_server.other_url}
    async with (
        zone_of(urls["west"]) as west,
        zone_of(urls["east"]) as east,
        serving(world, **urls) as agent,
    ):
        for zone, call_id in ((west, "c-west"), (east, "c-east")):
            answer = await zone.ask(call_id)
            assert answer["Is-Authorized"] is True
            await zone.tell("CHANNEL_ANSWER", call_id)
        calls = [agent.book.get("c-west"), agent.book.get("c-east")]
        await until(lambda: all(one is not None and one.answered_at for one in calls))
        links = [one.link for one in calls if one is not None]
        assert [link.zone for link in links] == ["west", "east"]
        # A zone's answer says nothing of the calls of another one.
        for one, link in zip(calls, links, strict=True):
            assert one is not None
            one.began_at -= 60
            for _ in range(2):
                survey = await agent.surveyor.survey(link)
                assert list(survey.channels) == [one.call_id]
        assert agent.surveyor.missed == 0
        for one, zone in zip(calls, (west, east), strict=True):
            assert one is not None
            await agent.hangups.hang_up(one)
            order = await asyncio.wait_for(zone.ecallmgr.hangups.get(), 20)
            assert order["Call-ID"] == one.call_id
        assert west.ecallmgr.hangups.empty()
        # An event that was relayed to the other zone as well is one end.
        await west.tell("CHANNEL_DESTROY", "c-west", Billing_Seconds=60)
        for zone in (west, east):
            await zone.tell("CHANNEL_DESTROY", "c-east", Billing_Seconds=61)
        await until(lambda: agent.settler.settled == 3)
        assert await world.balance("sub") == 10_000_000 - 10_000 - 20_000
        assert (await world.state("master")).calls == 0


async def test_a_zone_that_is_away_keeps_no_other_one_waiting(
    world: World, rabbit_server: RabbitServer
) -> None:
    urls = {"west": "amqp://127.0.0.1:1/", "east": rabbit_server.other_url}
    async with zone_of(urls["east"]) as east, serving(world, **urls) as agent:
        assert (await east.ask("c1"))["Is-Authorized"] is True
        await east.tell("CHANNEL_DESTROY", "c1", Billing_Seconds=60)
        await until(lambda: agent.settler.settled == 1)


def encrypted(server: RabbitServer, host: str = "127.0.0.1", **options: str) -> str:
    """Return the URL of the node's encrypted listener, files by their names."""
    files = {name: value for name, value in options.items() if value}
    query = "&".join(f"{name}={value}" for name, value in files.items())
    return f"amqps://guest:guest@{host}:{server.tls_port}/?{query}"


async def test_an_encrypted_broker_is_served(world: World, rabbit_server: RabbitServer) -> None:
    home = rabbit_server.home
    url = encrypted(
        rabbit_server,
        cacertfile=f"{home}/ca.pem",
        certfile=f"{home}/client.pem",
        keyfile=f"{home}/client.key",
    )
    async with zone_of(rabbit_server.url) as zone, serving(world, local=url) as agent:
        assert (await zone.ask("c1"))["Is-Authorized"] is True
        await zone.tell("CHANNEL_DESTROY", "c1", Billing_Seconds=60)
        await until(lambda: agent.settler.settled == 1)


@pytest.mark.parametrize(
    ("host", "options", "said"),
    [
        ("127.0.0.1", {}, "CERTIFICATE_VERIFY_FAILED"),
        # The certificate is for the address.
        ("localhost", {"cacertfile": "ca.pem"}, "CERTIFICATE_VERIFY_FAILED"),
        ("127.0.0.1", {"cacertfile": "none.pem"}, "none.pem cannot be used"),
        ("127.0.0.1", {"cacertfile": "server.key"}, "server.key cannot be used"),
        (
            "127.0.0.1",
            {"cacertfile": "ca.pem", "certfile": "client.pem", "keyfile": "server.key"},
            "client.pem with keyfile",
        ),
    ],
)
async def test_who_cannot_be_trusted_is_told_nothing(
    rabbit_server: RabbitServer,
    caplog: pytest.LogCaptureFixture,
    host: str,
    options: dict[str, str],
    said: str,
) -> None:
    files = {name: f"{rabbit_server.home}/{value}" for name, value in options.items()}
    url = encrypted(rabbit_server, host, **files)
    broker = KazooBroker("local", (url,), settings_for(url))
    async with running(broker, is_awaited=False):
        await until(lambda: "kazoo_refused" in caplog.messages)
        assert not broker.is_up
    [record] = [one for one in caplog.records if one.getMessage() == "kazoo_refused"]
    shown = str(vars(record))
    assert said in shown
    assert "guest:guest" not in shown
    # Who says so is served without a look at the certificate.
    if not options:
        url = encrypted(rabbit_server, verify="verify_none")
        async with running(KazooBroker("local", (url,), settings_for(url))) as broker:
            assert await broker.query_channels(0) == []
