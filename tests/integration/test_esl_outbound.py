"""The outbound socket: what was recorded, and what happens when we are slow, full or gone."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import AsyncIterator

import pytest
from freeswitch import transcripts
from freeswitch.replay import freely, replay_to
from freeswitch.switch_simulator import Callee, Door, SwitchSimulator
from helpers import until

from authz.hooks.freeswitch.errors import CommandFailed
from authz.hooks.freeswitch.events import Event
from authz.hooks.freeswitch.outbound import OutboundCall, OutboundHandler, OutboundServer

EVERY_LOOP = True

_LOCAL = (ipaddress.ip_network("127.0.0.0/8"),)


@pytest.fixture
async def switch() -> AsyncIterator[SwitchSimulator]:
    """A simulated switch, twenty times as fast as a real one."""
    simulator = await SwitchSimulator.start(speed=20)
    yield simulator
    await simulator.close()


async def _serve(handler: OutboundHandler, **more: object) -> OutboundServer:
    options = {"allow": _LOCAL, **more}
    server = OutboundServer(handler, **options)  # type: ignore[arg-type]
    await server.start("127.0.0.1", 0)
    return server


async def _refuse(call: OutboundCall) -> None:
    await call.execute("respond", "402 Payment Required", event_lock=True)


async def test_a_refusal_as_recorded() -> None:
    calls: list[OutboundCall] = []

    async def refuse(call: OutboundCall) -> None:
        calls.append(call)
        await _refuse(call)

    server = await _serve(refuse)
    script = freely(gates=("connect", "sendmsg"))
    replay = await replay_to(transcripts.load("03c"), script, "127.0.0.1", server.port)
    assert replay.failures == []
    assert [one.line for one in replay.matched] == ["connect", "sendmsg"]
    (call,) = calls
    assert not call.is_synchronous
    assert call.has_full_control
    assert call.channel.get("Caller-Destination-Number").startswith("20")
    await server.close()


async def test_a_synchronous_call_as_recorded() -> None:
    events: list[Event] = []

    async def lead(call: OutboundCall) -> None:
        assert call.is_synchronous
        call.connection.on_event = events.append
        await call.my_events()
        cut = "execute_on_answer=sched_hangup +3 allotted_timeout"
        await call.execute("set", "authz_id=sess-11", event_lock=True)
        await call.execute("set", cut, event_lock=True)
        await call.execute("bridge", "sofia/internal/5001@127.0.0.1:5090", event_lock=True)
        await call.connection.lost

    server = await _serve(lead)
    script = freely(gates=("connect", "myevents", "sendmsg"))
    replay = await replay_to(transcripts.load("03n"), script, "127.0.0.1", server.port)
    assert replay.failures == []
    await until(lambda: server.connections == 0)
    # A waiting dialplan tells of the answer when the call is over: nobody can lead one by that.
    answer = [step for step in replay.told if b"+OK\n" in step.data][-1]
    told_later = replay.told[replay.told.index(answer) :]
    assert any(b"Event-Name: CHANNEL_ANSWER" in step.data for step in told_later)
    # And without lingering nobody hears of the end.
    names = [event.name for event in events]
    assert "CHANNEL_ANSWER" in names
    assert "CHANNEL_HANGUP_COMPLETE" not in names
    await server.close()


async def test_lingering_brings_the_end_as_recorded() -> None:
    events: list[Event] = []

    async def lead(call: OutboundCall) -> None:
        call.connection.on_event = events.append
        await call.linger(5)
        await call.my_events()
        await call.execute("set", "authz_id=sess-9", event_lock=True)
        await until(lambda: events[-1].name == "CHANNEL_HANGUP_COMPLETE")

    server = await _serve(lead)
    script = freely(gates=("connect", "linger", "myevents"))
    replay = await replay_to(transcripts.load("03a"), script, "127.0.0.1", server.port)
    assert replay.failures == []
    await until(lambda: server.connections == 0)
    ends = [event for event in events if event.name == "CHANNEL_HANGUP_COMPLETE"]
    assert [event.integer_variable("billusec") for event in ends] == [3_020_029]
    await server.close()


async def test_a_refused_call_never_rings(switch: SwitchSimulator) -> None:
    server = await _serve(_refuse)
    leg = await switch.until_ended(switch.call(door=Door(socket=("127.0.0.1", server.port))))
    assert (leg.sip_status, leg.cause) == (402, "CALL_REJECTED")
    await until(lambda: server.connections == 0)
    assert (server.served, server.failed, server.turned_away) == (1, 0, 0)
    await server.close()


async def test_a_call_is_transferred_and_answered(switch: SwitchSimulator) -> None:
    switch.callees["1001"] = Callee(hangup_seconds=2)

    async def lead(call: OutboundCall) -> None:
        await call.execute("set", "authz_account=acme")
        await call.connection.api(f"uuid_transfer {call.uuid} 1001 XML authorized")

    server = await _serve(lead)
    leg = await switch.until_ended(switch.call(door=Door(socket=("127.0.0.1", server.port))))
    assert leg.is_answered
    assert leg.billed_us >= 1_900_000
    assert leg.variables["authz_account"] == "acme"
    await server.close()


async def _fail(call: OutboundCall) -> None:
    raise ValueError("no idea")


async def _return(call: OutboundCall) -> None:
    return None


async def _abort(call: OutboundCall) -> None:
    call.connection.abort("gone")


@pytest.mark.parametrize("handler", [_fail, _return, _abort])
async def test_a_dialplan_that_waits_goes_on_without_us(
    switch: SwitchSimulator, handler: OutboundHandler
) -> None:
    server = await _serve(handler)
    leg = await switch.until_ended(switch.call(door=Door(socket=("127.0.0.1", server.port))))
    assert (leg.sip_status, leg.cause) == (503, "NORMAL_TEMPORARY_FAILURE")
    await until(lambda: server.connections == 0)
    await server.close()


async def test_nobody_listens_and_the_dialplan_goes_on(switch: SwitchSimulator) -> None:
    server = await _serve(_refuse)
    port = server.port
    await server.close()
    leg = await switch.until_ended(switch.call(door=Door(socket=("127.0.0.1", port))))
    assert leg.sip_status == 503


async def test_a_stranger_is_turned_away(switch: SwitchSimulator) -> None:
    server = await _serve(_refuse, allow=(ipaddress.ip_network("192.0.2.0/24"),))
    leg = await switch.until_ended(switch.call(door=Door(socket=("127.0.0.1", server.port))))
    assert leg.sip_status == 503
    assert (server.served, server.turned_away) == (0, 1)
    await server.close()


async def test_more_calls_than_there_is_room_for_go_back_at_once(switch: SwitchSimulator) -> None:
    gate = asyncio.Event()

    async def wait(call: OutboundCall) -> None:
        await gate.wait()
        await _refuse(call)

    server = await _serve(wait, connections_max=5)
    door = Door(socket=("127.0.0.1", server.port))
    legs = [switch.call(door=door) for _ in range(20)]
    await until(lambda: server.turned_away == 15)
    gate.set()
    for leg in legs:
        await switch.until_ended(leg)
    assert sorted(leg.sip_status for leg in legs) == [402] * 5 + [503] * 15
    await server.close()


async def test_who_says_nothing_is_given_up() -> None:
    server = await _serve(_refuse, connect_timeout_seconds=0.05)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    assert await reader.readuntil(b"\n\n") == b"connect\n\n"
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await reader.readexactly(1)
    assert (server.served, server.failed) == (0, 1)
    writer.close()
    await server.close()


async def test_a_connection_that_is_no_call_is_given_up() -> None:
    server = await _serve(_refuse)
    for answer in (
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n\n\n",
        b"Content-Type: command/reply\nReply-Text: +OK\n\n",
        b"Content-Type: command/reply\nContent-Length: -5\n\n",
        b"Content-Type: auth/request\n\n" * 3 + b"Content-Type: command/reply\n\n",
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        await reader.readuntil(b"\n\n")
        writer.write(answer)
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)
        writer.close()
    assert (server.served, server.failed) == (0, 4)
    await server.close()


async def test_a_caller_who_leaves_ends_the_wait(switch: SwitchSimulator) -> None:
    taken: list[OutboundCall] = []

    async def wait(call: OutboundCall) -> None:
        taken.append(call)
        await call.connection.lost

    server = await _serve(wait)
    leg = switch.call(door=Door(socket=("127.0.0.1", server.port)))
    await until(lambda: bool(taken))
    switch.caller_hangs_up(leg)
    await until(lambda: server.connections == 0)
    assert leg.sip_status == 487
    await server.close()


async def test_without_full_control_there_is_no_api(switch: SwitchSimulator) -> None:
    failures: list[CommandFailed] = []

    async def lead(call: OutboundCall) -> None:
        assert not call.has_full_control
        try:
            await call.kill("USER_BUSY")
        except CommandFailed as error:
            failures.append(error)
        await call.connection.hang_up("USER_BUSY")

    server = await _serve(lead)
    door = Door(socket=("127.0.0.1", server.port), has_full_control=False)
    leg = await switch.until_ended(switch.call(door=door))
    assert leg.sip_status == 486
    assert len(failures) == 1
    await server.close()


async def test_closing_the_server_gives_every_call_back(switch: SwitchSimulator) -> None:
    async def wait(call: OutboundCall) -> None:
        await call.connection.lost

    server = await _serve(wait)
    door = Door(socket=("127.0.0.1", server.port))
    legs = [switch.call(door=door) for _ in range(10)]
    await until(lambda: server.connections == 10)
    await server.close()
    for leg in legs:
        assert (await switch.until_ended(leg)).sip_status == 503
