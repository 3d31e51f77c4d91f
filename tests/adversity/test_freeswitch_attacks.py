"""What callers, switches and chance may do to an agent; every story ends with the audit."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from freeswitch.agent_stage import NUMBER, AgentStage
from freeswitch.playing import Play, player

OTHER = "14155550199"


@pytest.fixture
def play(store_url: str, tmp_path: Path) -> Play:
    """What plays a scenario on a stage of its own."""
    return player(store_url, tmp_path)


def test_ten_transfers_in_a_row_are_eleven_calls(play: Play) -> None:
    async def scenario(stage: AgentStage) -> None:
        leg = stage.call()
        await stage.talked(leg, 5)
        for number in range(10):
            stage.switch.route(leg, f"141555501{number + 10}", "authorized")
            await asyncio.sleep(4)
        stage.switch.caller_hangs_up(leg)
        await stage.ended(leg)
        booked = await stage.bookings()
        assert [call for call, _ in booked] == [
            leg.uuid, *(f"{leg.uuid}#{number}" for number in range(2, 12)),
        ]  # fmt: skip
        # Each is rounded up for itself; between them it rings.
        assert 40 <= sum(seconds for _, seconds in booked) <= leg.billed_us // 1_000_000 + 11

    play(scenario)


def test_an_attended_transfer_of_two_charged_legs_is_charged_twice(play: Play) -> None:
    async def scenario(stage: AgentStage) -> None:
        callees = []
        legs = (stage.call(), stage.call(OTHER))
        for leg in legs:
            await stage.talked(leg, 10)
        for leg in legs:
            callee = leg.other
            assert callee is not None
            callees.append(callee)
            leg.variables["last_bridge_to"] = callee.uuid
            leg.other = callee.other = None
        for leg in legs:
            stage.switch.hang_up(leg, "ATTENDED_TRANSFER")
        await stage.until(lambda: all("authz_leg" in one.variables for one in callees))
        await asyncio.sleep(100)
        for callee in callees:
            stage.switch.hang_up(callee, "NORMAL_CLEARING")
        await stage.settled()
        booked = dict(await stage.bookings())
        assert set(booked) == {one for leg in legs for one in (leg.uuid, f"{leg.uuid}#2")}
        assert all(100 <= booked[f"{leg.uuid}#2"] <= 103 for leg in legs)

    play(scenario)


@pytest.mark.parametrize("is_killed", [False, True])
def test_a_callee_left_behind_while_nobody_looks_is_charged_on(play: Play, is_killed: bool) -> None:
    async def scenario(stage: AgentStage) -> None:
        leg = stage.call()
        await stage.talked(leg, 10)
        callee = leg.other
        assert callee is not None
        # As the example's dialplan exports it.
        callee.variables["authz_paid_by"] = f"{leg.uuid} sub outbound {NUMBER}"
        stage.switch.is_refusing = True
        stage.switch.drop_connections()
        await stage.until(lambda: not stage.server.is_connected)
        if is_killed:
            await stage.kill()
        leg.other = callee.other = None
        stage.switch.hang_up(leg, "ATTENDED_TRANSFER")
        stage.switch.is_refusing = False
        if is_killed:
            await stage.start()
        await stage.until(lambda: "authz_leg" in callee.variables)
        await asyncio.sleep(100)
        assert callee.is_up
        assert stage.switch.scheduler.tasks
        stage.switch.hang_up(callee, "NORMAL_CLEARING")
        await stage.settled()
        booked = dict(await stage.bookings())
        assert 100 <= booked[f"{leg.uuid}#2"] <= 103

    play(scenario)


def test_a_switch_that_refuses_all_commands_ends_its_calls_by_itself(play: Play) -> None:
    async def scenario(stage: AgentStage) -> None:
        talking = stage.call()
        await stage.talked(talking, 5)
        stage.switch.api.answer_to_all = "-ERR no reply\n"
        waiting = stage.call()
        await asyncio.sleep(100)
        assert talking.cause == "ALLOTTED_TIMEOUT"
        assert waiting.is_up
        stage.switch.api.answer_to_all = None
        # It was authorized and must not wait for ever: it is killed once that can be had.
        await stage.ended(waiting)
        assert waiting.sip_status == 503
        booked = dict(await stage.bookings())
        assert 57 <= booked[talking.uuid] <= 60
        assert booked[waiting.uuid] == 0

    play(scenario)


@pytest.mark.parametrize("account", ["sub ", "sub\nsendmsg", "${system(id)}", "sub;x=y", "'sub'"])
def test_an_account_that_is_none_pays_for_nothing(play: Play, account: str) -> None:
    async def scenario(stage: AgentStage) -> None:
        leg = await stage.ended(stage.call(account=account))
        assert leg.sip_status == 403
        assert await stage.bookings() == []

    play(scenario)


@pytest.mark.parametrize(
    "number",
    ["1415 5550100", "14155550100\n\napi hupall", "14155550100'", "1415;5550100", "911 ", "1" * 300,
     "14155550100 XML default", "14155550100\x00", "1415${system(id)}", ""],
)  # fmt: skip
def test_a_number_that_is_none_reaches_nobody(play: Play, number: str) -> None:
    async def scenario(stage: AgentStage) -> None:
        leg = await stage.ended(stage.call(number))
        assert leg.sip_status == 484
        assert not any("uuid_transfer" in line or "hupall" in line for line in stage.switch.api.log
                       if "respond" not in line)  # fmt: skip
        assert sum(seconds for _, seconds in await stage.bookings()) == 0

    play(scenario)


@pytest.mark.parametrize("destination", ["${system(id)}", "1001 XML 'x", "'", "1;2"])
def test_a_destination_that_is_none_is_not_gone_to(play: Play, destination: str) -> None:
    async def scenario(stage: AgentStage) -> None:
        leg = await stage.ended(stage.call(authz_destination=destination))
        assert leg.sip_status == 484
        assert await stage.bookings() == [(leg.uuid, 0)]

    play(scenario)


@pytest.mark.parametrize("counter", ["-5", "99999999999999999", "9999999999", "x", ""])
def test_a_counter_that_no_call_can_have_loses_no_call(play: Play, counter: str) -> None:
    async def scenario(stage: AgentStage) -> None:
        leg = stage.call()
        await stage.talked(leg, 7)
        leg.variables["billmsec"] = counter
        stage.switch.caller_hangs_up(leg)
        await stage.ended(leg)
        assert await stage.bookings() == [(leg.uuid, leg.begun_seconds)]

    play(scenario)


def test_counters_below_what_was_reported_are_what_is_charged(play: Play) -> None:
    async def scenario(stage: AgentStage) -> None:
        leg = stage.call()
        await stage.talked(leg, 70)
        leg.answered_us += 60_000_000
        stage.switch.caller_hangs_up(leg)
        await stage.ended(leg)
        assert await stage.bookings() == [(leg.uuid, leg.begun_seconds)]

    play(scenario)


@pytest.mark.parametrize("hours", [-5, 5])
def test_a_switch_whose_clock_differs_by_hours_is_charged_alike(play: Play, hours: int) -> None:
    async def scenario(stage: AgentStage) -> None:
        await stage.switch.crash()
        stage.switch.clock._epoch_us += hours * 3_600_000_000
        await stage.switch.restart()
        await stage.until(lambda: not stage.server.is_connected)
        await stage.until(lambda: stage.server.is_connected)
        stage.callee(NUMBER, hangup_seconds=99.5)
        leg = await stage.ended(stage.call())
        assert leg.cause == "NORMAL_CLEARING"
        assert await stage.bookings() == [(leg.uuid, 100)]

    play(scenario)
