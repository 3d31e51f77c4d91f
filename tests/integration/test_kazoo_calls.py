"""Lives of Kazoo's calls through a real broker: booked once, extended, cut in time, found again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from freeswitch.switch_simulator import SwitchSimulator
from kazoo.agent_stage import KazooStage, kazoo_stage
from kazoo.ecallmgr import Ecallmgr
from rabbitmq import RabbitServer
from servers import Server
from world import TOLLFREE, UK, US

from authz.config.freeswitch import FreeswitchSettings, SwitchSettings
from authz.config.sections import StoreSettings
from authz.hooks.freeswitch.serving import SwitchServer
from authz.hooks.freeswitch.settling import Settler
from authz.hooks.kazoo.encoding import to_gregorian
from authz.store.switches import HangupRequest, SwitchBoard, request_hangup

#: Of the price list: 0.0137 a minute by the second, so that this buys four seconds and no more.
FOUR_SECONDS = "0.000914"
#: As Kazoo's events name its FreeSWITCH.
FS = "freeswitch@fs1.example.net"


@pytest.fixture
async def stage(
    store_url: str, rabbit_server: RabbitServer, tmp_path: Path
) -> AsyncIterator[KazooStage]:
    async with kazoo_stage(store_url, rabbit_server, tmp_path) as stage:
        yield stage


def channel(answer: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Return a channel as an ecallmgr lists it that has been answered for a minute."""
    return {
        "account_id": answer["Account-ID"],
        "account_billing": answer["Account-Billing"],
        "reseller_id": answer["Reseller-ID"],
        "reseller_billing": answer["Reseller-Billing"],
        "direction": answer["Call-Direction"],
        "answered": True,
        "elapsed_s": 60,
        "destination": US,
        **more,
    }


async def orphans(stage: KazooStage) -> int:
    """Let the ecallmgr be asked twice for its channels; return how many calls it had no more."""
    for _ in range(2):
        await stage.agent.surveyor.survey(stage.broker)
    return stage.agent.surveyor.missed


async def test_a_call_from_question_to_bill(stage: KazooStage) -> None:
    await stage.world.pair()
    answer = await stage.ask("c1@10.0.0.1")
    for name in ("CHANNEL_CREATE", "CHANNEL_ANSWER", "CHANNEL_BRIDGE"):
        await stage.tell(name, answer)
    call = stage.agent.book.get("c1@10.0.0.1")
    assert call is not None
    await stage.until(lambda: call.answered_at is not None)
    assert call.switch == "freeswitch@fs1.example.net"
    await stage.end(answer, 61)
    assert await stage.charges("sub") == [("c1@10.0.0.1", 61, 20_000)]
    assert await stage.charges("master") == [("c1@10.0.0.1", 61, 5_500)]
    assert len(stage.agent.book) == 0


async def test_an_unanswered_call_is_released(stage: KazooStage) -> None:
    await stage.world.pair()
    answer = await stage.ask("c1")
    assert (await stage.world.state("sub")).held > 0
    await stage.end(answer, 0, Hangup_Cause="NO_ANSWER")
    assert (await stage.world.state("sub")).held == 0
    assert [micros for _, _, micros in await stage.charges("sub")] == [0]


async def test_an_end_told_twice_or_differently_is_booked_once(stage: KazooStage) -> None:
    await stage.world.pair()
    answer = await stage.ask("c1")
    await stage.tell("CHANNEL_ANSWER", answer)
    for seconds in (60, 60, 75):
        await stage.tell("CHANNEL_DESTROY", answer, Billing_Seconds=seconds)
    await stage.until(lambda: stage.agent.settler.settled == 2 and stage.agent.settler.failed == 1)
    assert await stage.charges("sub") == [("c1", 60, 10_000)]


async def test_ends_that_bear_less_or_other_than_the_call_are_booked_as_it_was_let_through(
    stage: KazooStage,
) -> None:
    await stage.world.pair()
    await stage.world.account("stranger", "10", parent="master", deck="retail")
    bare, renamed = await stage.ask("bare"), await stage.ask("renamed")
    for answer in (bare, renamed):
        await stage.tell("CHANNEL_ANSWER", answer)
    for name, fields in (
        ("bare", {"Custom_Channel_Vars": {}, "Caller_ID_Number": 7, "Request": None}),
        ("renamed", {"Custom_Channel_Vars": {"Account-ID": "stranger", "Resource-ID": "r"}}),
    ):
        await stage.ecallmgr.tell("CHANNEL_DESTROY", name, Billing_Seconds=61, **fields)
        await stage.ecallmgr.tell("CHANNEL_DESTROY", name, Billing_Seconds=61, **fields)
    await stage.until(lambda: stage.agent.settler.settled == 4)
    assert sorted(await stage.charges("sub")) == [("bare", 61, 20_000), ("renamed", 61, 20_000)]
    assert await stage.charges("stranger") == []
    assert await stage.open_calls("master") == 0
    # Another account's call of the same id is another call, whoever remembers the first one.
    world = stage.world
    await world.authorize("bare", account="stranger")
    stranger = {**bare, "Account-ID": "stranger"}
    await stage.end(stranger, 30)
    assert await stage.charges("stranger") == [("bare", 30, 10_000)]


@pytest.mark.parametrize("said", [None, -5])
async def test_an_end_that_does_not_say_how_long_is_not_taken_for_no_talk(
    stage: KazooStage, said: int | None
) -> None:
    await stage.world.pair()
    talking, ringing, refused = [await stage.ask(name) for name in ("talking", "ringing", "other")]
    await stage.tell("CHANNEL_ANSWER", talking)
    call = stage.agent.book.get("talking")
    await stage.until(lambda: call is not None and call.answered_at is not None)
    refused = {**refused, "Account-Billing": "limits_enforced",
               "Reseller-Billing": "limits_enforced"}  # fmt: skip
    for answer in (talking, ringing, refused):
        await stage.tell("CHANNEL_DESTROY", answer, Billing_Seconds=said)
    await stage.until(lambda: stage.agent.settler.failed == 1 and stage.agent.settler.settled == 2)
    assert await stage.open_calls("sub") == 1
    # A better word may still come; else the call is an orphan, charged for what it was seen to use.
    await stage.end(talking, 61)
    assert ("talking", 61, 20_000) in await stage.charges("sub")


async def test_a_switch_that_its_ecallmgr_loses_and_finds_again(stage: KazooStage) -> None:
    await stage.world.pair()
    answer = await stage.ask("c1")
    await stage.tell("CHANNEL_ANSWER", answer)
    call = stage.agent.book.get("c1")
    assert call is not None
    await stage.until(lambda: call.answered_at is not None)
    call.began_at -= 60
    # Even with a duration: the call may well go on, and its first end is the last word.
    await stage.tell("CHANNEL_DISCONNECTED", answer, Billing_Seconds=30)
    assert await orphans(stage) == 1
    assert await stage.open_calls("sub") == 0
    stage.channels["c1"] = channel(answer)
    await stage.tell("CHANNEL_CONNECTED", answer)
    await stage.agent.surveyor.survey(stage.broker)
    await stage.until(lambda: stage.agent.supervisor.taken_over == 1)
    assert await stage.open_calls("sub") == 1
    await stage.end(answer, 121)
    charges = await stage.charges("sub")
    assert sum(micros for _, _, micros in charges) == 30_000
    assert await stage.world.balance("sub") == 10_000_000 - 30_000


async def test_events_after_an_end_wake_nothing(stage: KazooStage) -> None:
    await stage.world.pair()
    answer = await stage.ask("c1")
    await stage.end(answer, 10)
    for name in ("CHANNEL_ANSWER", "CHANNEL_BRIDGE", "CHANNEL_CREATE"):
        await stage.tell(name, answer)
    await stage.ask("c2")
    assert stage.agent.book.get("c1") is None
    await stage.end({**answer, "Call-ID": "c2"}, 0)


async def test_a_call_let_through_unasked_is_paid_all_the_same(stage: KazooStage) -> None:
    await stage.world.pair(discounts={"national": Decimal(15)})
    # ecallmgr waited in vain, and let it pass: no word of billing is on the channel.
    unasked = {"Call-ID": "c1", "Call-Direction": "outbound"}
    await stage.end(unasked, 60)
    assert await stage.charges("sub") == [("c1", 60, 8_500)]
    assert await stage.charges("master") == [("c1", 60, 5_000)]


async def test_channels_that_nobody_asks_about_cost_nothing(stage: KazooStage) -> None:
    await stage.world.pair()
    onnet = {"Call-ID": "c1", "Call-Direction": "outbound"}
    await stage.tell("CHANNEL_DESTROY", onnet, Billing_Seconds=60, variables={"Resource_ID": ""})
    refused = {**onnet, "Call-ID": "c2", "Account-Billing": "limits_enforced",
               "Reseller-Billing": "limits_enforced"}  # fmt: skip
    await stage.tell("CHANNEL_DESTROY", refused, Billing_Seconds=60)
    await stage.tell("CHANNEL_DISCONNECTED", {**onnet, "Call-ID": "c3"}, Billing_Seconds=0)
    answer = await stage.ask("c4")
    await stage.end(answer, 6)
    assert [call_id for call_id, _, _ in await stage.charges("sub")] == ["c4"]


async def test_a_call_is_hung_up_before_its_money_ends(
    stage: KazooStage, caplog: pytest.LogCaptureFixture
) -> None:
    await stage.world.pair(sub=FOUR_SECONDS)
    poor = await stage.ask("poor", UK)
    await stage.tell("CHANNEL_ANSWER", poor, UK)
    order = await asyncio.wait_for(stage.ecallmgr.hangups.get(), 20)
    assert (order["Action"], order["Call-ID"]) == ("hangup", "poor")
    assert (order["Event-Category"], order["Event-Name"]) == ("metaflow", "action")
    assert caplog.messages.count("kazoo_call_ends_soon") == 1
    await stage.end(poor, 4, UK)
    assert await stage.charges("sub") == [("poor", 4, 913)]
    assert await stage.world.balance("sub") >= 0


async def test_only_the_call_that_cannot_be_paid_is_hung_up(stage: KazooStage) -> None:
    await stage.world.pair(sub="0.0237")
    paid = await stage.ask("paid", UK)
    poor = await stage.ask("poor", UK)
    call = stage.agent.book.get("poor")
    assert call is not None
    assert call.granted_seconds is not None
    assert (paid["Is-Authorized"], poor["Is-Authorized"]) == (True, True)
    # As if it had talked for nearly as long as it may.
    age = call.granted_seconds - 1
    assert age < 60
    for one in (paid, poor):
        await stage.tell("CHANNEL_ANSWER", one, UK)
    await stage.until(lambda: call.answered_at is not None)
    stage.agent.supervisor.stop(call)
    stage.agent.book.add(call)
    call.answered_at = asyncio.get_running_loop().time() - age
    stage.agent.supervisor._plan(call)
    order = await asyncio.wait_for(stage.ecallmgr.hangups.get(), 20)
    assert order["Call-ID"] == "poor"
    assert stage.ecallmgr.hangups.empty()
    await stage.end(poor, age, UK)
    await stage.end(paid, 20, UK)


@pytest.mark.parametrize("told", ["elapsed", "timestamp"])
async def test_a_restarted_agent_finds_its_calls_again(stage: KazooStage, told: str) -> None:
    await stage.world.pair()
    answer = await stage.ask("c1")
    gone = await stage.ask("c2")
    await stage.tell("CHANNEL_ANSWER", answer)
    stage.channels["c1"] = channel(answer)
    if told == "timestamp":
        began_at = to_gregorian(int(time.time()) - 60)
        stage.channels["c1"] |= {"elapsed_s": None, "timestamp": began_at}
    await stage.restart_agent()
    await stage.until(lambda: stage.agent.book.get("c1") is not None)
    call = stage.agent.book.get("c1")
    assert call is not None
    # Nobody else has extended it, so the process that found it does.
    await stage.until(lambda: call.is_own)
    await stage.until(lambda: (call.granted_seconds or 0) > 60)
    assert stage.agent.supervisor.taken_over == 1
    await stage.end(answer, 62)
    await stage.end(gone, 0)
    assert ("c1", 62, 20_000) in await stage.charges("sub")


async def test_ends_that_come_while_nobody_listens_are_booked_later(stage: KazooStage) -> None:
    await stage.world.pair()
    answer = await stage.ask("c1")
    await stage.kill_agent()
    await stage.tell("CHANNEL_DESTROY", answer, Billing_Seconds=60)
    stage._start_agent()
    await stage.until(lambda: stage.agent.settler.settled == 1)
    assert await stage.charges("sub") == [("c1", 60, 10_000)]


async def test_a_call_whose_end_was_lost_is_an_orphan(stage: KazooStage) -> None:
    await stage.world.pair()
    answers = [await stage.ask(f"c{number}") for number in range(3)]
    for answer in answers:
        await stage.tell("CHANNEL_ANSWER", answer)
    calls = [stage.agent.book.get(f"c{number}") for number in range(3)]
    await stage.until(lambda: all(one is not None and one.answered_at for one in calls))
    stage.channels["c0"] = channel(answers[0])
    # So young, a call may only be missing from an answer that was on its way.
    assert await orphans(stage) == 0
    for one in calls[:2]:
        assert one is not None
        one.began_at -= 60
    assert await orphans(stage) == 1
    assert (await stage.world.state("sub")).calls == 2
    # Its true end, however late, corrects what was booked.
    await stage.end(answers[1], 60)
    assert ("c1", 60, 10_000) in await stage.charges("sub")
    for answer in (answers[0], answers[2]):
        await stage.end(answer, 1)


async def test_an_ecallmgr_that_does_not_answer_ends_no_call(stage: KazooStage) -> None:
    await stage.world.pair()
    answer = await stage.ask("c1", Ecallmgr_Node="ecallmgr@elsewhere")
    call = stage.agent.book.get("c1")
    assert call is not None
    call.began_at -= 60
    assert await orphans(stage) == 0
    await stage.end(answer, 0, variables={"Ecallmgr_Node": "ecallmgr@elsewhere"})


async def test_the_stores_calls_that_an_ecallmgr_has_no_more(stage: KazooStage) -> None:
    await stage.world.pair()
    await stage.ask("c1")
    await stage.ask("c2", Ecallmgr_Node="ecallmgr@elsewhere")
    await stage.kill_agent()
    context = stage.world.engine.context
    context.clock.correct(int(time.time()) + 60)
    stage._start_agent()
    await stage.until(lambda: stage.agent.surveyor.missed == 1)
    assert await stage.open_calls("sub") == 1
    await stage.world.settle("c2", 0)
    context.clock.correct(int(time.time()))


async def test_a_broker_that_dies_while_calls_talk_are_decided_and_are_booked(
    store_url: str, rabbit_server: RabbitServer, tmp_path: Path, store_server: Server
) -> None:
    patient = StoreSettings(decision_deadline_ms=10_000, settle_deadline_ms=10_000)
    async with kazoo_stage(store_url, rabbit_server, tmp_path, world={"store": patient}) as stage:
        await stage.world.pair()
        talking, ended = await stage.ask("talking"), await stage.ask("ended")
        for answer in (talking, ended):
            await stage.tell("CHANNEL_ANSWER", answer)
        # Until its ecallmgr has waited in vain, the channel that is asked about rings.
        stage.channels |= {"talking": channel(talking), "asked": {"answered": False}}
        call = stage.agent.book.get("talking")
        await stage.until(lambda: call is not None and call.answered_at is not None)
        working = stage.broker._handlers._working
        await stage.until(lambda: not working)
        os.kill(store_server.store.pid, signal.SIGSTOP)
        await stage.tell("CHANNEL_DESTROY", ended, Billing_Seconds=61)
        question = stage.ecallmgr.question(
            "authz/authz_req", Call_ID="asked", Custom_Channel_Vars=stage.variables()
        )
        await stage.ecallmgr.publish("callmgr", "authz.authorize", question)
        await stage.until(lambda: len(working) == 2)
        rabbit_server.kill()
        await stage.until(lambda: not stage.broker.is_up)
        os.kill(store_server.store.pid, signal.SIGCONT)
        # What has begun is finished. Nobody hears of it.
        await stage.until(lambda: stage.agent.settler.settled == 1 and "asked" in stage.known)
        rabbit_server.start()
        await stage.reconnect()
        await stage.until(lambda: stage.broker.is_up)
        survey = await stage.agent.surveyor.survey(stage.broker)
        assert set(survey.channels) == {"talking", "asked"}
        # The end is told again, and what was not answered in time is ended by its ecallmgr.
        await stage.end(ended, 61)
        await stage.end({**ended, "Call-ID": "asked"}, 0)
        await stage.end(talking, 120)
        told = [("ended", 61), ("asked", 0), ("talking", 120)]
        for account, paid in (("sub", (20_000, 0, 20_000)), ("master", (5_500, 0, 10_000))):
            expected = [(*one, micros) for one, micros in zip(told, paid, strict=True)]
            assert await stage.charges(account) == expected
        assert (await stage.world.state("sub")).held == 0


async def test_a_call_that_an_operator_ends(stage: KazooStage) -> None:
    await stage.world.pair()
    answer = await stage.ask("c1")
    request = HangupRequest("sub", "c1")
    await request_hangup(stage.world.client, stage.ecallmgr.node, request)
    order = await asyncio.wait_for(stage.ecallmgr.hangups.get(), 20)
    assert order["Call-ID"] == "c1"
    await stage.end(answer, 0)


async def test_messages_that_make_no_sense_end_nobody(stage: KazooStage) -> None:
    await stage.world.pair()
    strange = [
        {"Call-ID": "", "Call-Direction": "outbound", "Account-Billing": "per_minute"},
        {"Call-ID": "c" * 230, "Call-Direction": "outbound"},
        {"Call-ID": "with blank", "Call-Direction": "sideways", "Account-ID": "../etc"},
        {"Call-ID": "c1", "Call-Direction": "outbound", "Account-ID": "sub\n"},
    ]
    for one in strange:
        for name in ("CHANNEL_ANSWER", "CHANNEL_DESTROY"):
            await stage.tell(name, one, Billing_Seconds=-5)
        await stage.ecallmgr.tell("CHANNEL_DESTROY", one["Call-ID"], Billing_Seconds=10**12,
                                  Timestamp=to_gregorian(-10**10))  # fmt: skip
    long = await stage.ask("c" * 300)
    assert long["Is-Authorized"] is False
    answer = await stage.ask("c9")
    await stage.end(answer, 60)
    assert ("c9", 60, 10_000) in await stage.charges("sub")


@contextlib.asynccontextmanager
async def kazoos_switch(stage: KazooStage) -> AsyncIterator[SwitchSimulator]:
    """Yield Kazoo's FreeSWITCH, which the FreeSWITCH agent serves under Kazoo's name for it."""
    switch = await SwitchSimulator.start()
    address = SwitchSettings(name=FS, host="127.0.0.1", port=switch.port)
    engine = stage.world.engine
    server = SwitchServer(address, FreeswitchSettings(), engine, Settler(engine), "owner")
    work = asyncio.create_task(server.run())
    try:
        await stage.until(lambda: server.is_connected)
        yield switch
        await server.drain(5)
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        await switch.close()


async def test_a_switch_of_ours_ends_the_call_and_konami_does_without_it(
    store_url: str, rabbit_server: RabbitServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with kazoo_stage(store_url, rabbit_server, tmp_path, hangup_by="switch") as stage:
        await stage.world.pair(sub=FOUR_SECONDS)
        async with kazoos_switch(stage) as switch:
            # Two channels of Kazoo's, in a context that is none of ours: one has to end.
            poor = switch.call(uuid="poor@10.0.0.1", context="context_2")
            other = switch.call(uuid="other", context="context_2")
            answer = await stage.ask("poor@10.0.0.1", UK)
            await stage.tell("CHANNEL_ANSWER", answer, UK)
            assert (await switch.until_ended(poor)).uuid == "poor@10.0.0.1"
            assert other.uuid in switch.legs
            assert stage.ecallmgr.hangups.empty()
            await stage.end(answer, 4, UK)
        # Its switch is served by nobody any more.
        await stage.world.credit("sub", FOUR_SECONDS)
        answer = await stage.ask("c2", UK)
        await stage.tell("CHANNEL_ANSWER", answer, UK)
        order = await asyncio.wait_for(stage.ecallmgr.hangups.get(), 20)
        assert order["Call-ID"] == "c2"
        assert "kazoo_switch_unserved" in caplog.messages
        await stage.end(answer, 4, UK)
        seconds = [(call_id, talked) for call_id, talked, _ in await stage.charges("sub")]
        assert seconds == [("poor@10.0.0.1", 4), ("c2", 4)]


async def test_a_way_to_end_calls_that_is_closed_is_not_the_only_one(
    store_url: str, rabbit_server: RabbitServer, tmp_path: Path, store_server: Server
) -> None:
    async with kazoo_stage(store_url, rabbit_server, tmp_path, hangup_by="switch") as stage:
        await stage.world.pair()
        answer = await stage.ask("c1")
        await stage.tell("CHANNEL_ANSWER", answer)
        call = stage.agent.book.get("c1")
        assert call is not None
        await stage.until(lambda: bool(call.switch))
        orders, hangups = stage.ecallmgr.hangups, stage.agent.hangups
        # Somebody serves the switch and cannot reach it: the second time konami is asked, too.
        board = SwitchBoard(stage.world.client, FS, "deaf")
        assert await board.hold(60)
        for attempt in (1, 2):
            call.hangups = attempt
            await hangups.hang_up(call)
            assert await board.take_requests() == [HangupRequest("sub", "c1")]
        assert (await asyncio.wait_for(orders.get(), 20))["Call-ID"] == "c1"
        assert orders.empty()
        # Without the store nobody can be asked by it.
        call.hangups = 1
        os.kill(store_server.store.pid, signal.SIGSTOP)
        try:
            await hangups.hang_up(call)
            assert (await asyncio.wait_for(orders.get(), 20))["Call-ID"] == "c1"
        finally:
            os.kill(store_server.store.pid, signal.SIGCONT)
        await stage.end(answer, 6)


async def test_without_konami_a_switch_of_ours_ends_the_call(
    stage: KazooStage, caplog: pytest.LogCaptureFixture
) -> None:
    await stage.world.pair(sub=FOUR_SECONDS)
    # Nobody listens to orders any more.
    await stage.ecallmgr.close()
    stage.ecallmgr = await Ecallmgr.connect(stage.settings.brokers[0].url)
    async with kazoos_switch(stage) as switch:
        poor = switch.call(uuid="poor", context="context_2")
        answer = await stage.ask("poor", UK)
        await stage.tell("CHANNEL_ANSWER", answer, UK)
        await switch.until_ended(poor)
        assert "kazoo_konami_missing" in caplog.messages
        await stage.end(answer, 4, UK)
    assert await stage.charges("sub") == [("poor", 4, 913)]


async def test_ends_are_kept_on_disk_while_the_store_is_away(
    stage: KazooStage, store_server: Server
) -> None:
    await stage.world.pair(metadata={"kazoo.resource_types": "sms"})
    plain = await stage.ask("c1")
    excused = await stage.ask("c2", Resource_Type="sms")
    free = await stage.ask("c3", TOLLFREE)
    os.kill(store_server.store.pid, signal.SIGSTOP)
    try:
        await stage.end(plain, 60)
        # Nobody who decided it lives any more: what it was told says who pays.
        stage.agent.book.end("c2")
        stage.agent.book._ended.clear()
        await stage.end(excused, 60, variables={"Resource-Type": "sms"})
        await stage.end(free, 60, TOLLFREE)
    finally:
        os.kill(store_server.store.pid, signal.SIGCONT)
    engine = stage.world.engine
    assert engine.spool.depth == 3
    async with asyncio.timeout(90):
        while engine.spool.depth:
            await engine.replay_spool()
            await asyncio.sleep(0.1)
    charges = sorted(await stage.charges("sub"))
    assert charges == [("c1", 60, 10_000), ("c2", 60, 0), ("c3", 60, 0)]
    assert sum(micros for _, _, micros in await stage.charges("master")) == 10_000
    assert await stage.open_calls("master") == 0


async def test_calls_that_jonny5_let_through_are_taken_in(stage: KazooStage) -> None:
    await stage.world.pair(max_calls=1)
    jonnys = {
        "Call-ID": "c1", "Call-Direction": "outbound", "Account-ID": "sub", "Reseller-ID": "master",
        "Account-Billing": "per_minute", "Reseller-Billing": "per_minute",
    }  # fmt: skip
    stage.channels["c1"] = channel(jonnys)
    # It has excused the account from this one, whose reseller pays.
    excused = {**jonnys, "Call-ID": "c2", "Account-Billing": "limits_disabled"}
    stage.channels["c2"] = channel(excused)
    await stage.agent.surveyor.survey(stage.broker)
    await stage.until(lambda: stage.agent.supervisor.taken_over == 2)
    assert await stage.open_calls("sub") == 2
    assert await stage.open_calls("master") == 2
    await stage.end(jonnys, 70)
    await stage.end(excused, 60)
    assert await stage.charges("sub") == [("c1", 70, 20_000), ("c2", 60, 0)]
    assert await stage.charges("master") == [("c1", 70, 6_000), ("c2", 60, 5_000)]
    assert await stage.open_calls("master") == 0


async def test_a_call_taken_in_that_cannot_be_paid_is_left_alone(
    stage: KazooStage, caplog: pytest.LogCaptureFixture
) -> None:
    await stage.world.pair(sub="0")
    jonnys = {
        "Call-ID": "c1", "Call-Direction": "outbound", "Account-ID": "sub", "Reseller-ID": "master",
        "Account-Billing": "per_minute", "Reseller-Billing": "per_minute",
    }  # fmt: skip
    stage.channels["c1"] = channel(jonnys)
    await stage.agent.surveyor.survey(stage.broker)
    await stage.until(lambda: "kazoo_call_not_taken_in" in caplog.messages)
    assert stage.ecallmgr.hangups.empty()
    await stage.end(jonnys, 60)
    assert await stage.world.balance("sub") == -10_000
