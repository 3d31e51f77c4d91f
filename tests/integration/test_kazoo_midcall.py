"""Long calls of Kazoo: extended on evidence, cut before their money ends, taken over."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest
from freeswitch.fast_loop import run_fast
from kazoo.simulation import Simulation, simulation
from world import TOLLFREE, UK, US

from authz.model import Trunks
from authz.money import parse_amount


def cost(seconds: int) -> int:
    """Return what the account pays for a call to the United States, in micros."""
    return -(-seconds // 60) * 10_000


async def spent(found: Simulation, before: str = "10") -> int:
    """Return what the account has paid, in micros."""
    return parse_amount(before) - await found.world.balance("sub")


def test_a_long_call_is_extended_to_its_end(
    store_url: str, tmp_path: Path, rng: random.Random
) -> None:
    async def play() -> None:
        async with simulation(store_url, tmp_path, rng) as found:
            assert await found.kazoo.call(600) == 600
            (agent,) = found.kazoo.agents
            assert agent.supervisor.extended >= 9
            assert found.kazoo.hung_up == []
            assert await spent(found) == cost(600)

    run_fast(play())


@pytest.mark.parametrize("credit", ["0.0137", "0.05", "0.1001"])
def test_a_call_ends_before_its_money_does(
    store_url: str, tmp_path: Path, rng: random.Random, credit: str, caplog: Any
) -> None:
    async def play() -> None:
        async with simulation(store_url, tmp_path, rng, sub=credit) as found:
            talked = await found.kazoo.call(3_600, to=UK)
            assert talked is not None
            assert found.kazoo.hung_up == ["call-1"]
            buys = parse_amount(credit) * 60 // 13_700
            assert buys - 4 <= talked <= buys
            assert await found.world.balance("sub") >= 0
            assert caplog.messages.count("kazoo_call_ends_soon") == 1

    run_fast(play())


def test_money_that_comes_in_time_saves_the_call(
    store_url: str, tmp_path: Path, rng: random.Random
) -> None:
    async def play() -> None:
        async with simulation(store_url, tmp_path, rng, sub="0.02") as found:
            call = asyncio.ensure_future(found.kazoo.call(300))
            await asyncio.sleep(100)
            await found.world.credit("sub", "1")
            assert await call == 300
            assert found.kazoo.hung_up == []

    run_fast(play())


def test_a_question_asked_again_in_mid_call_takes_nothing_back(
    store_url: str, tmp_path: Path, rng: random.Random
) -> None:
    async def play() -> None:
        async with simulation(store_url, tmp_path, rng, agents=2) as found:
            call = asyncio.ensure_future(found.kazoo.call(300))
            for seconds in (20, 100, 30):
                await asyncio.sleep(seconds)
                for agent in found.kazoo.agents:
                    # An ecallmgr that has restarted asks about the channels that it finds.
                    await found.kazoo.ask_again("call-1", agent)
                    assert found.kazoo.answers["call-1"].is_authorized
            assert await call == 300
            assert found.kazoo.hung_up == []
            assert await spent(found) == cost(300)

    run_fast(play())


def test_only_calls_that_cannot_be_paid_are_cut(
    store_url: str, tmp_path: Path, rng: random.Random
) -> None:
    async def play() -> None:
        async with simulation(store_url, tmp_path, rng, sub="0.06") as found:
            await found.world.account("sub", parent="master", deck="retail",
                                      trunks=Trunks(outbound=1))  # fmt: skip
            calls = [asyncio.ensure_future(found.kazoo.call(400)) for _ in range(3)]
            calls.append(asyncio.ensure_future(found.kazoo.call(400, to=TOLLFREE)))
            talked = await asyncio.gather(*calls)
            # One rides the trunk, one is free, and two share six minutes.
            assert talked.count(400) == 2
            assert len(found.kazoo.hung_up) == 2
            assert await found.world.balance("sub") >= 0

    run_fast(play())


@pytest.mark.parametrize("chunk_seconds", [5, 10, 25])
def test_short_chunks_are_extended_on_evidence_in_time(
    store_url: str, tmp_path: Path, rng: random.Random, chunk_seconds: int
) -> None:
    async def play() -> None:
        async with simulation(store_url, tmp_path, rng, chunk_seconds=chunk_seconds) as found:
            assert await found.kazoo.call(120) == 120
            assert found.kazoo.hung_up == []
            assert await spent(found) == cost(120)

    run_fast(play())


def test_a_call_on_a_platform_that_was_idle_is_seen_to_live(
    store_url: str, tmp_path: Path, rng: random.Random
) -> None:
    async def play() -> None:
        async with simulation(store_url, tmp_path, rng) as found:
            for idle_seconds in (10, 400):
                await asyncio.sleep(idle_seconds)
                assert await found.kazoo.call(290) == 290
            assert found.kazoo.hung_up == []
            assert await spent(found) == 2 * cost(290)

    run_fast(play())


def test_a_call_that_rings_for_long_is_still_ours(
    store_url: str, tmp_path: Path, rng: random.Random
) -> None:
    async def play() -> None:
        async with simulation(store_url, tmp_path, rng) as found:
            assert await found.kazoo.call(90, ring_seconds=400) == 90
            assert await found.kazoo.call(0, ring_seconds=60) == 0
            assert await spent(found) == cost(90)

    run_fast(play())


def test_without_evidence_a_call_is_not_extended_but_ended(
    store_url: str, tmp_path: Path, rng: random.Random
) -> None:
    async def play() -> None:
        async with simulation(store_url, tmp_path, rng) as found:
            call = asyncio.ensure_future(found.kazoo.call(3_600))
            await asyncio.sleep(30)
            found.kazoo.is_up = False
            await asyncio.sleep(300)
            state = await found.world.engine.call("sub", "call-1")
            assert state is not None
            assert (state.seconds or 0) <= 180
            found.kazoo.is_up = True
            talked = await call
            assert found.kazoo.hung_up
            assert talked is not None
            assert await spent(found) == cost(talked)

    run_fast(play())


def test_another_process_takes_over_the_calls_of_a_dead_one(
    store_url: str, tmp_path: Path, rng: random.Random
) -> None:
    async def play() -> None:
        async with simulation(store_url, tmp_path, rng) as found:
            (first,) = found.kazoo.agents
            call = asyncio.ensure_future(found.kazoo.call(500))
            await asyncio.sleep(1)
            second = found.start_agent()
            await asyncio.sleep(120)
            assert second.supervisor.taken_over == 0
            assert second.book.get("call-1") is not None
            await found.kill_agent(first)
            assert await call == 500
            assert second.supervisor.taken_over == 1
            assert found.kazoo.hung_up == []
            assert await spent(found) == cost(500)

    run_fast(play())


@pytest.mark.parametrize("agents", [1, 3])
def test_duplicates_losses_and_disorder_change_no_bill(
    store_url: str, tmp_path: Path, rng: random.Random, agents: int
) -> None:
    async def play() -> None:
        async with simulation(store_url, tmp_path, rng, agents=agents) as found:
            found.kazoo.copies = 2
            found.kazoo.is_shuffled = True
            wanted = [rng.choice((0, 5, 59, 61, 200, 400)) for _ in range(25)]
            talked = await asyncio.gather(
                *(
                    found.kazoo.call(
                        seconds, direction=rng.choice(("inbound", "outbound")),
                        ring_seconds=rng.uniform(0.5, 60),
                    )
                    for seconds in wanted
                )
            )  # fmt: skip
            assert list(talked) == wanted
            assert found.kazoo.hung_up == []
            assert await spent(found) == sum(map(cost, wanted))
            assert (await found.world.state("sub")).calls == 0
            assert all(len(agent.book) == 0 for agent in found.kazoo.agents)

    run_fast(play())


def test_calls_over_a_crowd_of_processes_that_die(
    store_url: str, tmp_path: Path, rng: random.Random
) -> None:
    async def play() -> None:
        async with simulation(store_url, tmp_path, rng, agents=3) as found:
            calls = [asyncio.ensure_future(found.kazoo.call(rng.randint(200, 500), to=US))
                     for _ in range(12)]  # fmt: skip
            for _ in range(4):
                await asyncio.sleep(rng.uniform(20, 60))
                await found.kill_agent(rng.choice(found.kazoo.agents))
                found.start_agent()
            talked = [seconds or 0 for seconds in await asyncio.gather(*calls)]
            assert await spent(found) == sum(map(cost, talked))
            assert found.kazoo.hung_up == []

    run_fast(play())
