"""A connection to a FreeSWITCH: against the recorded one, and against the simulated one."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator

import pytest
from freeswitch import transcripts
from freeswitch.replay import Hear, ReplayServer, Say, exactly, freely, steps_of, usual_answer
from freeswitch.switch_simulator import SwitchSimulator
from helpers import until

from authz.errors import InvalidInput, ProtocolError
from authz.hooks.freeswitch import commands, queries
from authz.hooks.freeswitch.connection import EventSocketConnection
from authz.hooks.freeswitch.errors import (
    CommandFailed,
    CommandNotSent,
    OutcomeUnknown,
    SwitchRefused,
    SwitchUnreachable,
)
from authz.hooks.freeswitch.events import Event

EVERY_LOOP = True


@pytest.fixture
async def switch() -> AsyncIterator[SwitchSimulator]:
    """A simulated switch, twenty times as fast as a real one."""
    simulator = await SwitchSimulator.start(speed=20)
    yield simulator
    await simulator.close()


async def _connect(port: int, events: list[Event] | None = None) -> EventSocketConnection:
    taken = [] if events is None else events
    return await EventSocketConnection.connect("127.0.0.1", port, "ClueCon", on_event=taken.append)


def _conversations() -> list[tuple[str, str]]:
    """Return the recorded inbound connections that logged in at once."""
    return [
        (name, channel)
        for name in transcripts.event_socket_names()
        for channel in transcripts.load(name).event_sockets
        if transcripts.load(name).said(channel, by_switch=False).startswith(b"auth ClueCon\n\n")
    ]


@pytest.mark.parametrize(("name", "channel"), _conversations())
async def test_every_recorded_conversation_is_led_again(name: str, channel: str) -> None:
    transcript = transcripts.load(name)
    steps = steps_of(transcript, channel)
    events: list[Event] = []
    async with ReplayServer(transcript, exactly(), [channel]) as server:
        connection = await _connect(server.port, events)
        for step in steps:
            if isinstance(step, Hear) and step.command.verb != "auth":
                frame = await connection.request(step.command.data)
                assert frame.reply_text or frame.content_type == "api/response"
        await server.replays[0].finished
        connection.close()
        await connection.lost
        assert server.failures == []
    said = [step.data for step in steps if isinstance(step, Say)]
    assert len(events) == sum(b"Content-Type: text/event" in one[:80] for one in said)


async def test_a_shutdown_as_recorded() -> None:
    transcript = transcripts.load("06c")
    events: list[Event] = []
    script = freely(gates=("auth", "event", "api uuid_transfer", "api shutdown"))
    async with ReplayServer(transcript, script, ["esl"]) as server:
        connection = await _connect(server.port, events)
        await connection.subscribe("CHANNEL_PARK", "CHANNEL_HANGUP_COMPLETE")
        await until(lambda: bool(events))
        uuid = events[0].unique_id
        await connection.api(commands.uuid_transfer(uuid, "1001", "XML", "authorized"))
        assert await connection.api("shutdown") == "+OK"
        assert await connection.lost == "the switch said goodbye"
        assert server.failures == []
    ends = [event for event in events if event.name == "CHANNEL_HANGUP_COMPLETE"]
    assert [event.get("Hangup-Cause") for event in ends] == ["SYSTEM_SHUTDOWN"] * 2


async def test_refusals_and_jobs_as_recorded() -> None:
    transcript = transcripts.load("01a")
    events: list[Event] = []
    script = freely(
        gates=("auth", "nonsense", "api", "bgapi nosuchcmd", "event plain BACKGROUND_JOB"),
        answer=lambda _: None,
    )
    async with ReplayServer(transcript, script, ["esl2"]) as server:
        connection = await _connect(server.port, events)
        with pytest.raises(CommandFailed, match="-ERR command not found"):
            await connection.command(b"nonsense\n\n")
        with pytest.raises(CommandFailed, match="Command not found!") as failure:
            await connection.api("nosuchcmd foo")
        assert not failure.value.is_gone
        assert await connection.api(commands.uuid_exists(_NOBODY)) == "false"
        assert await connection.api("global_getvar hostname") == "vm"
        with pytest.raises(CommandFailed):
            await connection.api("hupall_nope")
        assert server.replays[0].failures == []
        connection.close()
        await connection.lost


_NOBODY = "00000000-0000-0000-0000-000000000000"


async def test_a_wrong_password_as_recorded() -> None:
    script = freely(gates=("auth wrong",))
    async with ReplayServer(transcripts.load("01a"), script, ["esl"]) as server:
        with pytest.raises(SwitchRefused, match="-ERR invalid"):
            await EventSocketConnection.connect("127.0.0.1", server.port, "wrong")


async def test_a_switch_whose_list_lacks_us(switch: SwitchSimulator) -> None:
    switch.is_refusing = True
    with pytest.raises(SwitchRefused, match="Access Denied"):
        await _connect(switch.port)


async def test_nobody_listens(switch: SwitchSimulator) -> None:
    port = switch.port
    await switch.close()
    with pytest.raises(SwitchUnreachable, match=str(port)):
        await _connect(port)


@pytest.mark.parametrize("host", ["a..b", "x" * 300])
async def test_a_host_that_is_none(host: str) -> None:
    with pytest.raises(SwitchUnreachable):
        await EventSocketConnection.connect(host, 8021, "ClueCon")


async def test_a_password_with_a_line_end_is_no_password(switch: SwitchSimulator) -> None:
    with pytest.raises(InvalidInput, match="password"):
        await EventSocketConnection.connect("127.0.0.1", switch.port, "a\n\napi shutdown")
    assert not switch.sessions


async def test_answers_belong_to_commands_by_order(switch: SwitchSimulator) -> None:
    connection = await _connect(switch.port)
    legs = [switch.call(str(1_000 + number)) for number in range(50)]
    questions = [connection.api(commands.uuid_dump(leg.uuid)) for leg in legs]
    questions += [connection.api(f"eval {number}") for number in range(1_000)]
    answers = await asyncio.gather(*questions)
    assert [leg.uuid in answer for leg, answer in zip(legs, answers, strict=False)] == [True] * 50
    assert answers[50:] == [str(number) for number in range(1_000)]
    assert connection.in_flight == connection.queued == 0


async def test_a_background_job_answers_its_caller_alone(switch: SwitchSimulator) -> None:
    events: list[Event] = []
    connection = await _connect(switch.port, events)
    other = await _connect(switch.port)
    await connection.subscribe("BACKGROUND_JOB")
    await other.subscribe("BACKGROUND_JOB")
    answers = await asyncio.gather(
        *(connection.background_api(f"eval {number}") for number in range(100)),
        other.background_api("eval of another"),
    )
    assert answers == [*(str(number) for number in range(100)), "of another"]
    with pytest.raises(CommandFailed, match="nosuchcmd: -ERR nosuchcmd Command not found!"):
        await connection.background_api("nosuchcmd")
    await until(lambda: bool(events))
    assert [event.body for event in events] == ["of another"]


async def test_channels_and_what_they_are(switch: SwitchSimulator) -> None:
    connection = await _connect(switch.port)
    assert await queries.show_channels(connection) == []
    leg = switch.call("1001", "1000", authz_account="acme")
    (row,) = await queries.show_channels(connection)
    assert (row.uuid, row.direction, row.dest, row.caller_number) == (
        leg.uuid,
        "inbound",
        "1001",
        "1000",
    )
    channel = await queries.dump_channel(connection, leg.uuid)
    assert channel is not None
    assert channel.variable("authz_account") == "acme"
    assert await queries.dump_channel(connection, _NOBODY) is None


@pytest.mark.parametrize(
    "answer", ["", "[]", "nonsense", '{"row_count":2,"rows":[{"uuid":"a"}]}', '{"row_count":1}']
)
async def test_an_answer_that_is_no_list_is_not_an_empty_one(
    switch: SwitchSimulator, answer: str
) -> None:
    connection = await _connect(switch.port)
    switch.api.answers[commands.SHOW_CHANNELS] = answer
    with pytest.raises(ProtocolError, match="show channels"):
        await queries.show_channels(connection)


async def test_channels_as_recorded() -> None:
    transcript = transcripts.load("06a")
    script = freely(gates=("auth", "api show channels as json"), answer=usual_answer)
    async with ReplayServer(transcript, script, ["esl2"]) as server:
        connection = await _connect(server.port)
        rows = await queries.show_channels(connection)
        assert len(rows) == 5
        assert {row.callstate for row in rows} == {"ACTIVE", "RINGING"}
        connection.close()


async def test_a_late_answer_is_nobody_elses(switch: SwitchSimulator) -> None:
    connection = await _connect(switch.port)
    switch.is_silent = True
    with pytest.raises(OutcomeUnknown, match="deadline"):
        await connection.api("eval slow", 0.01)
    with pytest.raises(OutcomeUnknown, match="deadline"):
        await connection.background_api("eval slow", 0.01)
    assert connection.in_flight == 2
    switch.wake()
    assert await connection.api("eval next") == "next"
    assert connection.in_flight == 0
    assert connection.traffic.timeouts == 2


async def test_what_is_not_sent_had_no_effect(switch: SwitchSimulator) -> None:
    connection = await _connect(switch.port)
    connection.pause_writing()
    with pytest.raises(CommandNotSent, match="deadline"):
        await connection.api("eval never", 0.01)
    waiting = asyncio.ensure_future(connection.api("eval waiting"))
    await asyncio.sleep(0)
    waiting.cancel()
    connection.resume_writing()
    assert await connection.api("eval next") == "next"
    assert switch.api.log == ["eval next"]


async def test_a_lost_connection_tells_each_command_what_is_known(switch: SwitchSimulator) -> None:
    connection = await _connect(switch.port)
    await connection.subscribe("BACKGROUND_JOB")
    switch.is_silent = True
    sent = asyncio.ensure_future(connection.api("eval sent"))
    job = asyncio.ensure_future(connection.background_api("eval job"))
    await asyncio.sleep(0.01)
    connection.pause_writing()
    unsent = asyncio.ensure_future(connection.api("eval unsent"))
    await asyncio.sleep(0)
    switch.drop_connections()
    outcomes = await asyncio.gather(sent, job, unsent, return_exceptions=True)
    assert [type(one) for one in outcomes] == [OutcomeUnknown, OutcomeUnknown, CommandNotSent]
    assert await connection.lost
    assert not connection.is_open
    with pytest.raises(CommandNotSent):
        await connection.api("eval too late")


async def test_events_are_held_back_and_come_in_order(switch: SwitchSimulator) -> None:
    events: list[Event] = []
    connection = await _connect(switch.port, events)
    await connection.subscribe("CHANNEL_PARK")
    connection.hold_events()
    assert connection.is_paused
    legs = [switch.call() for _ in range(20)]
    # Answers come through, and with them the events before them.
    assert await connection.api("eval one") == "one"
    assert events == []
    legs += [switch.call() for _ in range(20)]
    connection.release_events()
    assert await connection.api("eval two") == "two"
    assert [event.unique_id for event in events] == [leg.uuid for leg in legs]
    assert not connection.is_paused


async def test_a_handler_may_hold_and_release_from_within(switch: SwitchSimulator) -> None:
    taken: list[str] = []
    loop = asyncio.get_running_loop()

    def take(event: Event) -> None:
        taken.append(event.unique_id)
        connection.hold_events()
        loop.call_soon(connection.release_events)

    connection = await EventSocketConnection.connect(
        "127.0.0.1", switch.port, "ClueCon", on_event=take
    )
    await connection.subscribe("CHANNEL_PARK")
    legs = [switch.call() for _ in range(30)]
    await until(lambda: len(taken) == len(legs))
    assert taken == [leg.uuid for leg in legs]


async def test_a_failing_handler_costs_nobody_else_their_event(switch: SwitchSimulator) -> None:
    taken: list[str] = []

    def take(event: Event) -> None:
        taken.append(event.unique_id)
        raise ValueError("no good")

    connection = await EventSocketConnection.connect(
        "127.0.0.1", switch.port, "ClueCon", on_event=take
    )
    await connection.subscribe("CHANNEL_PARK")
    legs = [switch.call() for _ in range(3)]
    assert await connection.api("eval here") == "here"
    assert taken == [leg.uuid for leg in legs]


async def test_an_idle_switch_is_nudged_and_a_busy_one_is_not(switch: SwitchSimulator) -> None:
    connection = await EventSocketConnection.connect(
        "127.0.0.1", switch.port, "ClueCon", nudge_seconds=0.002
    )
    (session,) = switch.sessions
    await until(lambda: session.nudges >= 5)
    assert await connection.api("eval one") == "one"
    connection.close()
    await connection.lost


async def test_a_message_to_a_leg_and_to_a_dead_one(switch: SwitchSimulator) -> None:
    connection = await _connect(switch.port)
    leg = switch.call()
    await connection.execute("respond", "402 Payment Required", uuid=leg.uuid)
    await switch.until_ended(leg)
    assert (leg.sip_status, leg.cause) == (402, "CALL_REJECTED")
    with pytest.raises(CommandFailed, match="invalid session id") as failure:
        await connection.hang_up("USER_BUSY", uuid=leg.uuid)
    assert failure.value.is_gone
    with pytest.raises(CommandFailed) as gone:
        await connection.api(commands.uuid_kill(leg.uuid, "USER_BUSY"))
    assert gone.value.is_gone


async def test_no_deadline_at_all(switch: SwitchSimulator) -> None:
    connection = await _connect(switch.port)
    assert await connection.api("eval patience", math.inf) == "patience"
