"""`python -m benchmarks.kazoo_channels`: what a decision on a Kazoo channel takes, by load.

Every live channel was decided by the same agent and is watched by it, on a real store, so that
both hold what a busy cluster's would. A decision is everything between a question's being read
and its answer's being ready: chain, decks, one script for account and reseller, trunk-usage
strings. The broker's part is left out: it does not depend on live channels. The original, measured
in the same way without its database, takes 0.3 ms at none and 612 ms at 50,000.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import math
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from world import World

from authz.config.kazoo import BrokerSettings, KazooSettings
from authz.config.sections import StoreSettings
from authz.hooks.kazoo.agent import KazooAgent
from authz.hooks.kazoo.broker import NodeChannels
from authz.hooks.kazoo.messages import AuthorizeRequest
from authz.store.embedded import EmbeddedStore

_CUSTOMERS: Final = 100
_RESELLERS: Final = 10
_TOGETHER: Final = 100
_NODE: Final = "ecallmgr@node1.example.net"


class _Link:
    """Reaches a broker that is never asked for anything here."""

    zone = "local"
    is_up = True

    async def publish_hangup(self, call_id: str) -> bool:
        """Say that nobody listens."""
        return False

    async def query_channels(self, seconds: float | None = None) -> list[NodeChannels]:
        """Say that nobody answers."""
        return []


_LINK: Final = _Link()


class Figures(NamedTuple):
    """What decisions took with so many live channels, in microseconds."""

    channels: int
    median_us: int
    p99_us: int


@contextlib.asynccontextmanager
async def crowd(url: str, directory: Path) -> AsyncIterator[KazooAgent]:
    """Yield an agent whose customers and resellers can pay for any number of channels."""
    # A machine that has other work must not make refusals of slow answers.
    patient = StoreSettings(decision_deadline_ms=10_000)
    world = await World.start(url, directory, store=patient)
    try:
        for number in range(_RESELLERS):
            await world.account(f"reseller-{number}", "100000", deck="wholesale")
        for number in range(_CUSTOMERS):
            parent = f"reseller-{number % _RESELLERS}"
            await world.account(f"customer-{number}", "10000", parent=parent, deck="retail")
        settings = KazooSettings(brokers=(BrokerSettings(url="amqp://127.0.0.1"),), mode="active")
        agent = KazooAgent(world.engine, settings, "benchmark")
        try:
            yield agent
        finally:
            for call in agent.book:
                agent.supervisor.stop(call)
            await agent.supervisor.drain(1)
    finally:
        await world.close()


async def fill(agent: KazooAgent, channels: int) -> None:
    """Let channels through until there are so many."""
    for first in range(len(agent.book), channels, _TOGETHER):
        numbers = range(first, min(first + _TOGETHER, channels))
        await asyncio.gather(*(decide(agent, f"live-{number}", number) for number in numbers))


async def measure(
    url: str, directory: Path, levels: Sequence[int], decisions: int
) -> list[Figures]:
    """Decide one call after the other at each number of live channels, ascending."""
    async with crowd(url, directory) as agent:
        return [await _at_level(agent, level, decisions) for level in levels]


async def _at_level(agent: KazooAgent, channels: int, decisions: int) -> Figures:
    await fill(agent, channels)
    taken: list[int] = []
    for number in range(decisions):
        call_id = f"at-{channels}-{number}"
        started_ns = time.perf_counter_ns()
        await decide(agent, call_id, number)
        taken.append(time.perf_counter_ns() - started_ns)
    taken.sort()
    last = len(taken) - 1
    return Figures(channels, taken[last // 2] // 1_000, taken[math.ceil(last * 99 / 100)] // 1_000)


async def decide(agent: KazooAgent, call_id: str, number: int) -> None:
    """Let one channel of a customer through; raise RuntimeError if it is refused."""
    customer = number % _CUSTOMERS
    request = AuthorizeRequest(
        call_id=call_id,
        call_direction="outbound",
        caller_id_number="+14158867900",
        request="+442071838750@203.0.113.20",
        custom_channel_vars={
            "Account-ID": f"customer-{customer}",
            "Reseller-ID": f"reseller-{customer % _RESELLERS}",
            "Resource-ID": "carrier",
            "E164-Destination": "+442071838750",
            "Ecallmgr-Node": _NODE,
        },
    )
    answer = await agent.authorizer.decide(request, _NODE, _LINK)
    if not answer.is_authorized:
        raise RuntimeError(f"{call_id} was refused: {answer}")


def report(figures: Sequence[Figures]) -> str:
    """Return the figures as a table."""
    lines = ["live channels   median µs   p99 µs"]
    lines += [f"{one.channels:>13,}   {one.median_us:>9,}   {one.p99_us:>6,}" for one in figures]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure on an embedded store of its own and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--channels", type=int, nargs="+", default=[0, 1_000, 10_000, 50_000])
    parser.add_argument("--decisions", type=int, default=2_000)
    words = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="authz-kazoo-") as name:
        directory = Path(name)
        with EmbeddedStore(directory / "store") as store:
            levels = sorted(words.channels)
            figures = asyncio.run(measure(store.url, directory, levels, words.decisions))
    sys.stdout.write(report(figures) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
