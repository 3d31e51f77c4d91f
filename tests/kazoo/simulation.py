"""Calls of Kazoo that last minutes, on a loop that skips the waiting, with a real engine and store.

`SimulatedKazoo` stands on the agent's side of the broker: it has channels, asks about them, tells
of them, and ends those that it is ordered to. What RabbitMQ does with messages is proved elsewhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import secrets
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import msgspec
from audit_helper import assert_clean_audit
from freeswitch.fast_loop import FastLoop
from world import US, World

from authz.config.kazoo import KazooSettings
from authz.hooks.kazoo.agent import KazooAgent
from authz.hooks.kazoo.broker import KazooBroker, NodeChannels
from authz.hooks.kazoo.deliveries import Delivery
from authz.hooks.kazoo.encoding import to_gregorian
from authz.hooks.kazoo.errors import BrokerUnreachable
from authz.hooks.kazoo.messages import (
    AuthorizeAnswer,
    AuthorizeRequest,
    CallEvent,
    Channel,
    Header,
)
from authz.hooks.kazoo.topology import Source

NODE = "ecallmgr@sim.example.net"


class SimulatedKazoo:
    """An ecallmgr and its broker, for one or several agents."""

    def __init__(self, rng: random.Random) -> None:
        self.zone = "local"
        self.is_up = True
        self.agents: list[KazooAgent] = []
        #: How events reach each agent: every one is told so often, and in which order.
        self.copies = 1
        self.is_shuffled = False
        self.channels: dict[str, Channel] = {}
        self.hung_up: list[str] = []
        self.answers: dict[str, AuthorizeAnswer] = {}
        self._questions: dict[str, AuthorizeRequest] = {}
        self._ends: dict[str, asyncio.Event] = {}
        self._rng = rng
        self._numbers = itertools.count(1)

    # What a broker does for the agent.

    async def publish_hangup(self, call_id: str) -> bool:
        """End a channel, as konami does."""
        if not self.is_up:
            raise BrokerUnreachable("the broker is away")
        self.hung_up.append(call_id)
        if call_id in self._ends:
            self._ends[call_id].set()
        return True

    async def query_channels(self, seconds: float | None = None) -> list[NodeChannels]:
        """Return the channels of the only ecallmgr."""
        await asyncio.sleep(2)
        if not self.is_up:
            raise BrokerUnreachable("the broker is away")
        return [
            NodeChannels(NODE, [msgspec.structs.replace(one) for one in self.channels.values()])
        ]

    async def reply(self, request: Header, body: AuthorizeAnswer) -> bool:
        """Take an answer."""
        self.answers[body.call_id] = body
        return True

    async def broadcast(self, request: Header, body: AuthorizeAnswer) -> None:
        """Tell nobody else."""

    # What happens on the switch.

    async def call(
        self, seconds: float, *, to: str = US, direction: str = "outbound", account: str = "sub",
        ring_seconds: float = 3,
    ) -> int | None:  # fmt: skip
        """Place a call whose parties want to talk for so long, 0 if nobody answers.

        Returns for how long they did, None if it was refused.
        """
        call_id = f"call-{next(self._numbers)}"
        variables = {
            "Account-ID": account, "Reseller-ID": "master", "Resource-ID": "carrier",
            "E164-Destination": to, "Ecallmgr-Node": NODE,
        }  # fmt: skip
        question = AuthorizeRequest(
            call_id=call_id, call_direction=direction, custom_channel_vars=variables
        )
        self._questions[call_id] = question
        await self.ask_again(call_id, self._rng.choice(self.agents))
        answer = self.answers[call_id]
        if not (answer.is_authorized or answer.soft_limit):
            return None
        variables |= {
            "Account-Billing": answer.account_billing, "Reseller-Billing": answer.reseller_billing
        }  # fmt: skip
        channel = self.channels[call_id] = Channel(
            call_id=call_id, call_direction=direction, destination=to, account_id=account,
            account_billing=answer.account_billing, reseller_id="master",
            reseller_billing=answer.reseller_billing,
        )  # fmt: skip
        event = CallEvent(
            call_id=call_id, call_direction=direction, custom_channel_vars=variables,
            timestamp=to_gregorian(int(time.time())), billing_seconds=0,
        )  # fmt: skip
        await self._live(channel, event, seconds, ring_seconds)
        return event.billing_seconds

    async def ask_again(self, call_id: str, agent: KazooAgent) -> None:
        """Ask about a channel, as it was asked about before; the answer is in `answers`."""
        await agent.take_authorize(self._delivery("authz_req", self._questions[call_id]))

    async def _live(
        self, channel: Channel, event: CallEvent, seconds: float, ring_seconds: float
    ) -> None:
        loop = asyncio.get_running_loop()
        ended = self._ends[channel.call_id] = asyncio.Event()
        began_at = loop.time()
        await self._tell("CHANNEL_CREATE", event)
        await asyncio.sleep(ring_seconds)
        if seconds:
            answered_at = loop.time()
            channel.is_answered = True
            await self._tell("CHANNEL_ANSWER", event)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), seconds)
            # As a switch counts: whole seconds, half up.
            event.billing_seconds = int(loop.time() - answered_at + 0.5)
        channel.elapsed_seconds = int(loop.time() - began_at)
        del self.channels[channel.call_id], self._ends[channel.call_id]
        await self._tell("CHANNEL_DESTROY", event)
        agent = self._rng.choice(self.agents)
        for _ in range(self.copies):
            await agent.take_hangup(self._delivery("CHANNEL_DESTROY", event))

    async def _tell(self, name: str, event: CallEvent) -> None:
        told = [agent for agent in self.agents for _ in range(self.copies)]
        if self.is_shuffled:
            self._rng.shuffle(told)
        takers = {
            "CHANNEL_ANSWER": KazooAgent.take_answer,
            "CHANNEL_DESTROY": KazooAgent.take_end,
        }
        for agent in told:
            if self.is_shuffled and name != "CHANNEL_DESTROY" and self._rng.random() < 0.2:
                continue  # lost
            take = takers.get(name, KazooAgent.take_sign_of_life)
            await take(agent, self._delivery(name, event))

    def _delivery(self, name: str, message: Any) -> Delivery[Any]:
        header = Header(event_category="", event_name=name, msg_id=secrets.token_hex(4), node=NODE)
        return Delivery(
            header=header,
            message=message,
            broker=cast(KazooBroker, self),
            source=Source.EVENTS,
            is_redelivered=False,
        )


class Simulation:
    """Agents over one store that serve one simulated Kazoo."""

    def __init__(self, world: World, kazoo: SimulatedKazoo, settings: KazooSettings) -> None:
        self.world = world
        self.kazoo = kazoo
        self._settings = settings
        self._tasks: dict[KazooAgent, list[asyncio.Task[None]]] = {}

    def start_agent(self) -> KazooAgent:
        """Start one more process's agent."""
        agent = KazooAgent(self.world.engine, self._settings, secrets.token_hex(4))
        loop = asyncio.get_running_loop()
        link = cast(KazooBroker, self.kazoo)
        self._tasks[agent] = [loop.create_task(agent.surveyor.run(link))]
        self.kazoo.agents.append(agent)
        return agent

    async def kill_agent(self, agent: KazooAgent) -> None:
        """End a process's agent without a word."""
        self.kazoo.agents.remove(agent)
        for call in agent.book:
            agent.supervisor.stop(call)
        for task in self._tasks.pop(agent):
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def close(self) -> None:
        """End all of them."""
        for agent in list(self.kazoo.agents):
            await self.kill_agent(agent)


@contextlib.asynccontextmanager
async def simulation(
    url: str, directory: Path, rng: random.Random, *, agents: int = 1, sub: str = "10", **world: Any
) -> AsyncIterator[Simulation]:
    """Yield agents with `sub` under `master`; the audit is their end. Needs a FastLoop."""
    business = await World.start(url, directory, **world)
    await business.pair(sub=sub, master="1000")
    found = Simulation(business, SimulatedKazoo(rng), KazooSettings(mode="active"))
    loop = asyncio.get_running_loop()
    assert isinstance(loop, FastLoop)
    client = business.client
    loop.skip_time(unless=lambda: bool(client.in_flight or client.queued))
    try:
        for _ in range(agents):
            found.start_agent()
        yield found
        await assert_clean_audit(client)
    finally:
        await found.close()
        await business.close()
