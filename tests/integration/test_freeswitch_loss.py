"""What becomes of calls when the connection, the agent or the switch is lost."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from freeswitch.agent_stage import NUMBER, AgentStage
from freeswitch.playing import Play, commands, player

from authz.admin.hangups import hang_up, hang_up_tree
from authz.engine.switches import claim_ended
from authz.errors import CallUnknown
from authz.hooks.freeswitch import reconcile


@pytest.fixture
def play(store_url: str, tmp_path: Path) -> Play:
    """What plays a scenario on a stage of its own."""
    return player(store_url, tmp_path)


@pytest.fixture
def grown_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take calls for old enough to be missed: the store's time is the world's, and slow."""
    monkeypatch.setattr(reconcile, "YOUNG_SECONDS", 0)


async def reconnected(stage: AgentStage) -> None:
    """Wait until a lost connection is back."""
    await stage.until(lambda: not stage.server.is_connected)
    await stage.until(lambda: stage.server.is_connected)


def test_a_call_goes_on_when_the_connection_was_lost(play: Play) -> None:
    async def scenario(stage: AgentStage) -> None:
        stage.callee(NUMBER, hangup_seconds=99.5)
        leg = stage.call()
        await stage.talked(leg, 20)
        stage.switch.drop_connections()
        await reconnected(stage)
        await stage.ended(leg)
        assert leg.cause == "NORMAL_CLEARING"
        assert await stage.bookings() == [(leg.uuid, 100)]

    play(scenario)


@pytest.mark.parametrize("seconds", [5, 70])
def test_a_new_agent_goes_on_with_the_calls_of_a_dead_one(play: Play, seconds: int) -> None:
    async def scenario(stage: AgentStage) -> None:
        stage.callee(NUMBER, hangup_seconds=129.5)
        leg = stage.call()
        await stage.talked(leg, seconds)
        await stage.kill()
        await stage.start()
        await stage.ended(leg)
        assert leg.cause == "NORMAL_CLEARING"
        assert await stage.bookings() == [(leg.uuid, 130)]
        assert len(stage.switch.scheduler.due_of(leg.uuid)) == 0

    play(scenario)


@pytest.mark.usefixtures("grown_up")
def test_a_call_without_an_agent_ends_by_the_switchs_timer(play: Play) -> None:
    async def scenario(stage: AgentStage) -> None:
        leg = stage.call()
        await stage.talked(leg, 5)
        await stage.kill()
        await stage.switch.until_ended(leg)
        assert leg.cause == "ALLOTTED_TIMEOUT"
        assert leg.billed_us <= 60_000_000
        await stage.start()
        await stage.until(lambda: stage.server.is_connected)
        # Its last event is lost: what the store knows of it is charged by the policy of orphans.
        await asyncio.sleep(30)
        assert [call for call, _ in await stage.bookings()] == [leg.uuid]

    play(scenario)


def test_waiting_and_ringing_calls_are_found_again(play: Play) -> None:
    async def scenario(stage: AgentStage) -> None:
        stage.callee(NUMBER, answer_seconds=40, hangup_seconds=19.5)
        ringing = stage.call()
        await stage.until(lambda: not ringing.is_parked)
        await stage.kill()
        stage.callee("14155550177", hangup_seconds=9.5)
        waiting = stage.call("14155550177")
        await asyncio.sleep(1)
        assert waiting.is_parked
        await stage.start()
        await stage.ended(waiting)
        await stage.ended(ringing)
        assert sorted(await stage.bookings()) == sorted([(waiting.uuid, 10), (ringing.uuid, 20)])

    play(scenario)


@pytest.mark.usefixtures("grown_up")
def test_a_call_ended_unseen_is_an_orphan_at_once(play: Play) -> None:
    async def scenario(stage: AgentStage) -> None:
        leg = stage.call()
        await stage.talked(leg, 50)
        await stage.kill()
        stage.switch.caller_hangs_up(leg)
        await stage.start()
        await stage.until(lambda: stage.server.is_connected)
        await asyncio.sleep(20)
        [(call_id, seconds)] = await stage.bookings()
        assert call_id == leg.uuid
        assert 45 <= seconds <= 60
        assert "call.orphaned" in await stage.world.event_names("sub")

    play(scenario)


def test_a_switch_that_cannot_be_reached_still_has_its_calls(play: Play) -> None:
    async def scenario(stage: AgentStage) -> None:
        leg = stage.call()
        await stage.talked(leg, 10)
        stage.switch.is_refusing = True
        stage.switch.drop_connections()
        await asyncio.sleep(20)
        assert await stage.bookings() == []
        stage.switch.is_refusing = False
        stage.switch.caller_hangs_up(leg)
        await stage.until(lambda: stage.server.is_connected)

    play(scenario)


def test_a_restarted_switch_has_no_calls_of_before(play: Play) -> None:
    async def scenario(stage: AgentStage) -> None:
        leg = stage.call()
        await stage.talked(leg, 50)
        await stage.switch.crash()
        await stage.switch.restart()
        await reconnected(stage)
        await asyncio.sleep(10)
        assert [call for call, _ in await stage.bookings()] == [leg.uuid]
        stage.callee(NUMBER, hangup_seconds=4.5)
        following = await stage.ended(stage.call())
        assert (following.uuid, 5) in await stage.bookings()

    play(scenario)


def test_a_shut_down_switch_says_how_its_calls_ended(play: Play) -> None:
    async def scenario(stage: AgentStage) -> None:
        leg = stage.call()
        await stage.talked(leg, 7)
        await stage.switch.shut_down()
        await stage.settled()
        [(call_id, seconds)] = await stage.bookings()
        assert call_id == leg.uuid
        assert 7 <= seconds <= 10
        await stage.switch.restart()

    play(scenario)


def test_one_process_serves_a_switch_and_another_stands_by(play: Play) -> None:
    async def scenario(stage: AgentStage) -> None:
        standby = stage.new_server()
        task = asyncio.get_running_loop().create_task(standby.run())
        await asyncio.sleep(5)
        assert not standby.is_served
        stage.callee(NUMBER, hangup_seconds=99.5)
        leg = stage.call()
        await stage.talked(leg, 10)
        await stage.server.drain(5)
        await stage.until(lambda: standby.is_connected)
        assert not stage.server.is_served
        stage.server = standby
        await stage.ended(leg)
        assert await stage.bookings() == [(leg.uuid, 100)]
        await standby.drain(5)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    play(scenario)


def test_an_operator_ends_a_call(play: Play) -> None:
    async def scenario(stage: AgentStage) -> None:
        leg = stage.call()
        await stage.talked(leg, 5)
        asked = await hang_up(stage.world.engine.context, "sub", leg.uuid)
        assert (asked.asked, asked.switch) == (True, "fs-sim")
        await stage.ended(leg)
        [(call_id, seconds)] = await stage.bookings()
        assert call_id == leg.uuid
        assert seconds < 30
        with pytest.raises(CallUnknown):
            await hang_up(stage.world.engine.context, "sub", leg.uuid)

    play(scenario)


def test_an_operator_ends_all_calls_of_a_tree(play: Play) -> None:
    async def scenario(stage: AgentStage) -> None:
        legs = [stage.call() for _ in range(5)]
        for leg in legs:
            await stage.talked(leg, 2)
        ended = await hang_up_tree(stage.world.engine.context, "master")
        assert (ended.calls, ended.not_asked) == (5, 0)
        for leg in legs:
            await stage.ended(leg)
        assert len(await stage.bookings()) == 5

    play(scenario)


def test_a_call_whose_switch_nobody_serves_becomes_an_orphan(play: Play) -> None:
    async def scenario(stage: AgentStage) -> None:
        leg = stage.call()
        await stage.talked(leg, 5)
        await stage.kill()
        context = stage.world.engine.context
        asked = await hang_up(context, "sub", leg.uuid)
        assert (asked.asked, asked.switch) == (False, "fs-sim")
        state = await stage.world.engine.call("sub", leg.uuid)
        assert state is not None
        assert state.lease_until == asked.orphan_at
        # As if the ten seconds were over, for the store has a time of its own.
        assert await claim_ended(context, "sub", leg.uuid)
        await stage.start()
        stage.switch.caller_hangs_up(leg)
        await stage.ended(leg)
        # The switch's last word is what counts.
        assert (await stage.bookings())[-1] == (leg.uuid, leg.begun_seconds)

    play(scenario)


def test_too_many_waiting_calls_are_refused_but_never_an_emergency(play: Play) -> None:
    async def scenario(stage: AgentStage) -> None:
        stage.callee("911", hangup_seconds=4.5)
        stage.callee(NUMBER, hangup_seconds=4.5)
        legs = [stage.call() for _ in range(20)]
        emergency = stage.call("911")
        for leg in legs:
            await stage.ended(leg)
        await stage.ended(emergency)
        assert emergency.cause == "NORMAL_CLEARING"
        refused = [leg for leg in legs if leg.sip_status == 503]
        assert refused
        assert {leg.variables["authz_reason"] for leg in refused} == {"overloaded"}
        assert len(await stage.bookings()) == len(legs) - len(refused) + 1

    play(scenario, deciding_max=1)


def test_repeated_and_late_events_change_nothing(play: Play) -> None:
    async def scenario(stage: AgentStage) -> None:
        stage.callee(NUMBER, hangup_seconds=9.5)
        leg = stage.call()
        stage.switch.emit(leg, "CHANNEL_PARK")
        await stage.talked(leg, 1)
        for name in ("CHANNEL_ANSWER", "CHANNEL_BRIDGE", "CHANNEL_ANSWER"):
            stage.switch.emit(leg, name)
        await stage.ended(leg)
        for name in ("CHANNEL_PARK", "CHANNEL_ANSWER", "CHANNEL_HANGUP_COMPLETE"):
            stage.switch.emit(leg, name)
        await asyncio.sleep(5)
        assert await stage.bookings() == [(leg.uuid, 10)]
        assert len(commands(stage, "uuid_transfer")) == 1

    play(scenario)


@pytest.mark.parametrize("command", ["uuid_setvar_multi", "uuid_transfer"])
@pytest.mark.parametrize("is_done", [False, True])
def test_a_decision_cut_off_halfway_is_made_again(play: Play, command: str, is_done: bool) -> None:
    async def scenario(stage: AgentStage) -> None:
        stage.callee(NUMBER, hangup_seconds=9.5)
        run, cut = stage.switch.api.run, []

        def cut_off(line: str) -> str:
            if line.startswith(command) and not cut:
                cut.append(line)
                answer = run(line) if is_done else ""
                stage.switch.drop_connections()
                return answer
            return run(line)

        stage.switch.api.run = cut_off
        leg = await stage.ended(stage.call())
        assert cut
        assert await stage.bookings() == [(leg.uuid, 10)]

    play(scenario)


def test_a_refusal_cut_off_halfway_is_made_good(play: Play) -> None:
    async def scenario(stage: AgentStage) -> None:
        run, cut = stage.switch.api.run, []

        def cut_off(line: str) -> str:
            if line.startswith("uuid_setvar ") and not cut:
                cut.append(line)
                stage.switch.drop_connections()
                return ""
            return run(line)

        stage.switch.api.run = cut_off
        leg = await stage.ended(stage.call())
        assert cut
        assert not leg.is_answered
        assert await stage.bookings() == []

    play(scenario, credit="0")
