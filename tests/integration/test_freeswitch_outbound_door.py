"""Waiting calls that come by the outbound socket, and legs that are left behind by transfers."""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from freeswitch.agent_stage import NUMBER, AgentStage, Door
from freeswitch.playing import Play, player

from authz.config.freeswitch import Announcement
from authz.hooks.freeswitch.outbound import OutboundServer
from authz.hooks.freeswitch.outbound_door import OutboundDoor


@pytest.fixture
def play(store_url: str, tmp_path: Path) -> Play:
    """What plays a scenario on a stage of its own."""
    return player(store_url, tmp_path)


@contextlib.asynccontextmanager
async def outbound(stage: AgentStage) -> AsyncIterator[tuple[str, int]]:
    """Yield the address of an outbound socket whose calls the stage's agent decides."""
    door = OutboundDoor([stage.server])
    server = OutboundServer(door.take, allow=[ipaddress.ip_network("127.0.0.0/8")])
    await server.start("127.0.0.1", 0)
    try:
        yield ("127.0.0.1", server.port)
    finally:
        await server.close()


@pytest.mark.parametrize("is_async", [False, True])
def test_a_call_by_the_socket_is_released_and_supervised(play: Play, is_async: bool) -> None:
    async def scenario(stage: AgentStage) -> None:
        stage.callee(NUMBER, hangup_seconds=69.5)
        async with outbound(stage) as address:
            leg = await stage.ended(stage.call(door=Door(socket=address, is_async=is_async)))
        assert leg.cause == "NORMAL_CLEARING"
        assert await stage.bookings() == [(leg.uuid, 70)]

    play(scenario)


@pytest.mark.parametrize("is_async", [False, True])
def test_a_call_by_the_socket_is_refused(play: Play, is_async: bool) -> None:
    async def scenario(stage: AgentStage) -> None:
        async with outbound(stage) as address:
            leg = await stage.ended(stage.call(door=Door(socket=address, is_async=is_async)))
        assert leg.sip_status == 402

    play(scenario, credit="0")


def test_a_refused_caller_hears_why_by_the_socket_too(play: Play) -> None:
    async def scenario(stage: AgentStage) -> None:
        async with outbound(stage) as address:
            leg = await stage.ended(stage.call(door=Door(socket=address)))
        assert leg.sip_status == 402

    play(scenario, credit="0", announcements=(Announcement(reason="*", file="ivr/no.wav"),))


def test_without_supervision_the_dialplan_refuses_the_call(play: Play) -> None:
    async def scenario(stage: AgentStage) -> None:
        async with outbound(stage) as address:
            stage.switch.is_refusing = True
            stage.switch.drop_connections()
            await stage.until(lambda: not stage.server.is_connected)
            leg = stage.call(door=Door(socket=address))
            await stage.switch.until_ended(leg)
            assert leg.sip_status == 503
            stage.switch.is_refusing = False
            await stage.until(lambda: stage.server.is_connected)
        assert await stage.bookings() == []

    play(scenario)


def test_a_socket_without_full_control_is_left_to_the_dialplan(play: Play) -> None:
    async def scenario(stage: AgentStage) -> None:
        async with outbound(stage) as address:
            door = Door(socket=address, has_full_control=False)
            leg = await stage.ended(stage.call(door=door))
        assert leg.sip_status == 503
        assert await stage.bookings() == []

    play(scenario)


def test_a_leg_answered_before_its_decision_pays_from_the_callees_answer(play: Play) -> None:
    async def scenario(stage: AgentStage) -> None:
        stage.callee(NUMBER, answer_seconds=15, hangup_seconds=99.5)
        leg = stage.call(authz_account="", account="", door=Door())
        leg.variables["authz_account"] = "sub"
        stage.switch.caller_hangs_up(leg)
        waiting = stage.switch.call(NUMBER, context="ivr")
        stage.switch.answer(waiting)
        await stage.until(lambda: waiting.is_answered)
        waiting.variables["authz_account"] = "sub"
        stage.switch.park(waiting)
        await stage.ended(waiting)
        assert waiting.cause == "NORMAL_CLEARING"
        booked = dict(await stage.bookings())
        assert booked[waiting.uuid] in (100, 101)

    play(scenario)


def test_the_callee_of_a_transfer_is_charged_on(play: Play) -> None:
    async def scenario(stage: AgentStage) -> None:
        leg = stage.call()
        await stage.talked(leg, 10)
        callee = leg.other
        assert callee is not None
        # The caller has sent its callee to somebody else and leaves: the callee talks on.
        leg.variables["last_bridge_to"] = callee.uuid
        leg.other = callee.other = None
        stage.switch.hang_up(leg, "ATTENDED_TRANSFER")
        await stage.until(lambda: bool(callee.variables.get("authz_leg")))
        assert callee.variables["authz_call"] == f"{leg.uuid}#2"
        await stage.talked(callee, 100)
        stage.switch.hang_up(callee, "NORMAL_CLEARING")
        await stage.settled()
        first, second = await stage.bookings()
        assert first[0] == leg.uuid
        assert second[0] == f"{leg.uuid}#2"
        assert 85 <= second[1] <= 95

    play(scenario)
