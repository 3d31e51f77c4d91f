"""Calls of a switch whose store hangs or is gone: what callers see, and that nothing is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from freeswitch.agent_stage import NUMBER, SWITCH, AgentStage, agent_stage
from freeswitch.fast_loop import FastLoop, run_fast
from proxy import Proxy
from servers import Server
from world import World

from authz.config.sections import FailureSettings
from authz.hooks.freeswitch.serving import SwitchServer
from authz.store import keys
from authz.store.client import StoreClient

_HANGS = "hangs"
_GONE = "is gone"
_WAIT_SECONDS = 90


class Away:
    """The way of one process to the store, which can be lost."""

    def __init__(self, stage: AgentStage, proxy: Proxy, how: str) -> None:
        self._stage = stage
        self._proxy = proxy
        self._how = how

    async def lose(self) -> None:
        """Let the store hang, or be gone; only decisions under way still wait for it."""
        _loop().skip_time(unless=lambda: _is_deciding(self._stage.world.client))
        if self._how == _HANGS:
            self._proxy.requests.hold()
        else:
            await self._proxy.refuse()

    async def find(self) -> None:
        """Have the store back, and what waits in the spool booked, as a process does it."""
        stage = self._stage
        _loop().skip_time(unless=stage.is_busy)
        if self._how == _HANGS:
            self._proxy.requests.release()
        else:
            await self._proxy.listen()
        await stage.until(lambda: stage.world.client.connected)
        async with asyncio.timeout(_WAIT_SECONDS):
            while stage.world.engine.spool.depth:
                await stage.world.engine.replay_spool()
                await asyncio.sleep(0.2)


def _is_deciding(client: StoreClient) -> bool:
    """Return whether a script call is waited for: its deadline is a time of the world."""
    connection = client._connection
    if connection is None:
        return False
    lines = (connection._queued, connection._in_flight)
    return any(command.script is not None for line in lines for command in line.open())


Scenario = Callable[[AgentStage, Away], Awaitable[None]]
Play = Callable[..., None]


def _loop() -> FastLoop:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, FastLoop)
    return loop


@pytest.fixture(params=[_HANGS, _GONE])
def play(request: pytest.FixtureRequest, store_server: Server, tmp_path: Path) -> Play:
    """What plays a scenario on a stage whose way to the store can be lost."""
    path = store_server.url.removeprefix("unix://").partition("?")[0]

    def play(scenario: Scenario, **how: Any) -> None:
        async def main() -> None:
            async with Proxy(path) as proxy, agent_stage(proxy.url, tmp_path, **how) as stage:
                await scenario(stage, Away(stage, proxy, request.param))

        run_fast(main())

    return play


def test_a_talk_goes_on_and_a_new_call_is_refused(play: Play) -> None:
    async def scenario(stage: AgentStage, away: Away) -> None:
        stage.callee("911", hangup_seconds=4.5)
        stage.callee(NUMBER, hangup_seconds=99.5)
        talking = stage.call()
        await stage.talked(talking, 10)
        await away.lose()
        waiting, emergency = stage.call(), stage.call("911")
        for leg in (waiting, emergency, talking):
            await stage.switch.until_ended(leg)
        assert waiting.sip_status == 503
        assert (emergency.cause, talking.cause) == ("NORMAL_CLEARING", "NORMAL_CLEARING")
        await stage.settled()
        await away.find()
        booked = dict(await stage.bookings())
        assert booked[talking.uuid] == 100
        assert booked.get(waiting.uuid, 0) == 0

    play(scenario)


def test_a_call_answered_meanwhile_is_charged_from_its_answer(play: Play) -> None:
    async def scenario(stage: AgentStage, away: Away) -> None:
        stage.callee(NUMBER, answer_seconds=20, hangup_seconds=69.5)
        leg = stage.call()
        await stage.until(lambda: not leg.is_parked)
        await away.lose()
        await stage.switch.until_ended(leg)
        assert leg.cause == "NORMAL_CLEARING"
        await stage.settled()
        await away.find()
        assert await stage.bookings() == [(leg.uuid, 70)]

    play(scenario)


def test_a_call_that_ends_meanwhile_is_booked_later(play: Play) -> None:
    async def scenario(stage: AgentStage, away: Away) -> None:
        leg = stage.call()
        await stage.talked(leg, 10)
        await away.lose()
        stage.switch.caller_hangs_up(leg)
        await stage.ended(leg)
        await away.find()
        assert await stage.bookings() == [(leg.uuid, -(-leg.billed_us // 1_000_000))]

    play(scenario)


def test_a_store_lost_at_the_decision_costs_nobody_anything(play: Play) -> None:
    async def scenario(stage: AgentStage, away: Away) -> None:
        stage.callee(NUMBER, hangup_seconds=9.5)
        leg = stage.call()
        await away.lose()
        await stage.switch.until_ended(leg)
        await stage.settled()
        await away.find()
        assert sum(seconds for _, seconds in await stage.bookings()) == (
            10 if leg.is_answered else 0
        )
        following = await stage.ended(stage.call())
        assert (following.uuid, 10) in await stage.bookings()

    play(scenario)


def test_a_talk_that_may_not_be_extended_ends_by_its_timer(play: Play) -> None:
    async def scenario(stage: AgentStage, away: Away) -> None:
        leg = stage.call()
        await stage.talked(leg, 10)
        await away.lose()
        await stage.switch.until_ended(leg)
        assert leg.cause == "ALLOTTED_TIMEOUT"
        await stage.settled()
        await away.find()
        [(call_id, seconds)] = await stage.bookings()
        assert call_id == leg.uuid
        assert 58 <= seconds <= 60

    play(scenario, world={"failure": FailureSettings(on_store_failure_running="deny")})


def test_who_alone_has_lost_the_store_lets_go_once_another_serves(
    store_server: Server, play: Play, tmp_path: Path
) -> None:
    async def scenario(stage: AgentStage, away: Away) -> None:
        other = await World.start(store_server.url, tmp_path / "other")
        first, stage.world.engine = stage.world.engine, other.engine
        second: SwitchServer = stage.new_server()
        stage.world.engine = first
        stage.callee(NUMBER, hangup_seconds=149.5)
        leg = stage.call()
        await stage.talked(leg, 10)
        await away.lose()
        _loop().skip_time(
            unless=lambda: (
                _is_deciding(stage.world.client)
                or bool(other.client.in_flight or other.client.queued)
            )
        )
        # What the store keeps for the first: its time is not that of this loop.
        await other.client.execute("DEL", keys.switch_lease(SWITCH))
        task = asyncio.get_running_loop().create_task(second.run())
        await stage.until(lambda: second.is_connected)
        await stage.until(lambda: not stage.server.is_served)
        stage.switch.drop_connections()
        waiting = stage.call()
        await stage.switch.until_ended(waiting)
        assert waiting.cause == "NORMAL_CLEARING"
        await stage.switch.until_ended(leg)
        assert leg.cause == "NORMAL_CLEARING"
        await stage.until(lambda: not second.agent.legs.all() and not stage.settler.waiting)
        await second.drain(5)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await away.find()
        assert sorted(await stage.bookings()) == sorted([(leg.uuid, 150), (waiting.uuid, 150)])
        await other.close()

    play(scenario)
