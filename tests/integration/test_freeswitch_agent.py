"""Calls of a simulated FreeSWITCH from the waiting leg to the booked second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from freeswitch.agent_stage import NUMBER, AgentStage
from freeswitch.playing import Play, commands, player

from authz.config.freeswitch import Announcement, LookupRule
from authz.model import AccountConfig

OTHER = "14155550199"
#: One minute costs 0.01 at retail.
ONE_MINUTE = "0.01"


@pytest.fixture
def play(store_url: str, tmp_path: Path) -> Play:
    """What plays a scenario on a stage of its own."""
    return player(store_url, tmp_path)


def test_a_call_is_released_supervised_and_settled(play: Play) -> None:
    async def scenario(stage: AgentStage) -> None:
        stage.callee(NUMBER, hangup_seconds=100.5)
        leg = await stage.ended(stage.call())
        assert leg.cause == "NORMAL_CLEARING"
        assert await stage.bookings() == [(leg.uuid, 101)]
        assert await stage.world.balance("sub") == 10_000_000 - 20_000
        variables = leg.variables
        assert variables["execute_on_answer"] == "sched_hangup +59 allotted_timeout"
        assert (variables["authz_call"], variables["authz_reason"]) == (leg.uuid, "ok")
        assert variables["call_timeout"] == "180"
        # Each extension sets the new timer before it undoes the old one.
        timers = [
            line.split()[0] for line in stage.switch.api.log if line[:7] in ("sched_a", "sched_d")
        ]
        assert timers[:4] == ["sched_api", "sched_del", "sched_api", "sched_del"]

    play(scenario)


def test_the_switch_cuts_a_call_before_the_money_is_gone(play: Play) -> None:
    async def scenario(stage: AgentStage) -> None:
        leg = await stage.ended(stage.call())
        assert leg.cause == "ALLOTTED_TIMEOUT"
        [seconds] = await stage.charged_seconds()
        assert 118 <= seconds <= 120
        assert await stage.world.balance("sub") == 0
        assert len(commands(stage, "uuid_broadcast")) == 1

    play(scenario, credit="0.02")


def test_credit_booked_during_the_last_grant_extends_the_call(play: Play) -> None:
    async def scenario(stage: AgentStage) -> None:
        stage.callee(NUMBER, hangup_seconds=89.5)
        leg = stage.call()
        await stage.until(lambda: leg.is_answered)
        await stage.world.credit("sub", ONE_MINUTE)
        await stage.ended(leg)
        assert leg.cause == "NORMAL_CLEARING"
        # On a busy machine a callee hangs up a little late.
        assert leg.begun_seconds >= 90
        assert await stage.charged_seconds() == [leg.begun_seconds]

    play(scenario, credit=ONE_MINUTE)


def test_a_call_without_credit_is_refused_as_the_reason_says(play: Play) -> None:
    async def scenario(stage: AgentStage) -> None:
        leg = await stage.ended(stage.call())
        assert leg.sip_status == 402
        assert leg.variables["authz_reason"] == "insufficient_credit"
        assert await stage.bookings() == []

    play(scenario, credit="0")


def test_a_refusal_can_be_by_cause(play: Play) -> None:
    async def scenario(stage: AgentStage) -> None:
        leg = await stage.ended(stage.call())
        assert (leg.cause, leg.sip_status) == ("OUTGOING_CALL_BARRED", 403)

    play(scenario, credit="0", refuse_by="hangup")


def test_a_refused_caller_can_hear_why(play: Play) -> None:
    async def scenario(stage: AgentStage) -> None:
        leg = await stage.ended(stage.call())
        assert leg.sip_status == 402
        assert "playback:ivr/no_credit.wav" in commands(stage, "uuid_transfer")[0]

    announcements = (
        Announcement(reason="*", file="ivr/other.wav"),
        Announcement(reason="insufficient_credit", file="ivr/no_credit.wav"),
    )
    play(scenario, credit="0", announcements=announcements)


def test_nobody_pays_for_a_call_that_no_rule_knows(play: Play) -> None:
    async def scenario(stage: AgentStage) -> None:
        leg = await stage.ended(stage.call(account=""))
        assert (leg.sip_status, leg.variables["authz_reason"]) == (403, "account_unknown")

    play(scenario)


def test_a_rule_names_the_account(play: Play) -> None:
    async def scenario(stage: AgentStage) -> None:
        stage.callee(NUMBER, hangup_seconds=4.5)
        leg = await stage.ended(stage.call(account=""))
        assert await stage.bookings() == [(leg.uuid, 5)]

    others = LookupRule(account="s{from_user}", address="127.0.0.1", from_user="ub")
    play(scenario, rules=(others, LookupRule(account="sub", context="authz")))


def test_a_parked_leg_of_another_business_is_left_alone(play: Play) -> None:
    async def scenario(stage: AgentStage) -> None:
        leg = stage.switch.call("1001", context="valet")
        stage.callee(NUMBER, hangup_seconds=4.5)
        await stage.switch.until_ended(stage.call())
        assert leg.is_parked
        assert stage.switch.api.log
        assert not any(leg.uuid in line for line in stage.switch.api.log)
        stage.switch.caller_hangs_up(leg)

    play(scenario)


def test_an_emergency_call_needs_no_account(play: Play) -> None:
    async def scenario(stage: AgentStage) -> None:
        stage.callee("911", hangup_seconds=30)
        leg = await stage.ended(stage.call("911", account=""))
        assert leg.cause == "NORMAL_CLEARING"
        assert "execute_on_answer" not in leg.variables
        assert stage.settler.failed == 0

    play(scenario)


def test_a_call_that_nothing_limits_gives_signs_of_life(play: Play) -> None:
    async def scenario(stage: AgentStage) -> None:
        await stage.world.accounts.put(
            "master", AccountConfig(deck="wholesale", credit_limit="unlimited")
        )
        await stage.world.accounts.put(
            "sub", AccountConfig(parent="master", deck="retail", credit_limit="unlimited")
        )
        stage.callee("18005551212", hangup_seconds=69.5)
        leg = await stage.ended(stage.call("18005551212"))
        assert "execute_on_answer" not in leg.variables
        assert leg.begun_seconds >= 70
        assert await stage.charged_seconds() == [leg.begun_seconds]
        # Nothing was heard of it meanwhile, so the switch was asked.
        assert len(commands(stage, "uuid_dump")) >= 2

    play(scenario, world={"sign_of_life_seconds": 31})


@pytest.mark.parametrize(
    ("callee", "cause"),
    [
        ({"refusal": "USER_BUSY"}, "USER_BUSY"),
        ({"answer_seconds": None}, "NO_ANSWER"),
        ({"answer_seconds": None, "ring_seconds": None}, "NO_ANSWER"),
    ],
)
def test_an_unanswered_call_costs_nothing(play: Play, callee: dict[str, Any], cause: str) -> None:
    async def scenario(stage: AgentStage) -> None:
        stage.callee(NUMBER, **callee)
        leg = await stage.ended(stage.call())
        assert leg.cause == cause
        assert await stage.bookings() == [(leg.uuid, 0)]

    play(scenario, world={"ring_seconds": 20})


def test_early_media_is_not_charged(play: Play) -> None:
    async def scenario(stage: AgentStage) -> None:
        stage.callee(NUMBER, has_early_media=True, answer_seconds=20, hangup_seconds=9.5)
        leg = await stage.ended(stage.call())
        assert await stage.bookings() == [(leg.uuid, 10)]

    play(scenario)


def test_a_caller_who_gives_up_owes_nothing(play: Play) -> None:
    async def scenario(stage: AgentStage) -> None:
        waiting = stage.call()
        stage.switch.caller_hangs_up(waiting)
        stage.callee(NUMBER, answer_seconds=50)
        ringing = stage.call()
        await stage.until(lambda: not ringing.is_parked)
        stage.switch.caller_hangs_up(ringing)
        await stage.ended(waiting)
        await stage.ended(ringing)
        assert await stage.charged_seconds() in ([0], [0, 0])
        assert await stage.world.balance("sub") == 10_000_000

    play(scenario)


def test_another_destination_is_another_call(play: Play) -> None:
    async def scenario(stage: AgentStage) -> None:
        stage.callee(OTHER, answer_seconds=8, hangup_seconds=39.5)
        leg = stage.call()
        await stage.until(lambda: leg.is_answered)
        await stage.until(lambda: stage.switch.clock.now_us() - leg.answered_us > 30_000_000)
        stage.switch.route(leg, OTHER, "authorized")
        await stage.ended(leg)
        (first, first_seconds), second = await stage.bookings()
        assert first == leg.uuid
        assert 30 <= first_seconds <= 33
        assert second == (f"{leg.uuid}#2", 40)

    play(scenario)


def test_another_destination_that_is_refused_ends_the_leg(play: Play) -> None:
    async def scenario(stage: AgentStage) -> None:
        leg = stage.call()
        await stage.until(lambda: leg.is_answered)
        await stage.world.accounts.put(
            "sub",
            AccountConfig(parent="master", deck="retail", blocked_prefixes=("+1415555019",)),
        )
        stage.switch.route(leg, OTHER, "authorized")
        await stage.ended(leg)
        assert leg.cause == "OUTGOING_CALL_BARRED"
        assert [call for call, _ in await stage.bookings()] == [leg.uuid]

    play(scenario)


def test_a_leg_that_waits_again_is_hung_up(play: Play) -> None:
    async def scenario(stage: AgentStage) -> None:
        leg = stage.call(hangup_after_bridge="false")
        await stage.until(lambda: leg.is_answered)
        leg.variables["hangup_after_bridge"] = "false"
        stage.switch.callee_hangs_up(leg)
        await stage.ended(leg)
        assert leg.cause == "NORMAL_CLEARING"
        [(call_id, seconds)] = await stage.bookings()
        assert call_id == leg.uuid
        assert 1 <= seconds <= 30

    play(scenario)
