"""The simulated FreeSWITCH does what the recorded one did: the same events, in the same order."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable

import pytest
from freeswitch import transcripts
from freeswitch.legs import Leg
from freeswitch.switch_simulator import Callee, Door, SwitchSimulator
from helpers import until

from authz.hooks.freeswitch import commands
from authz.hooks.freeswitch.connection import EventSocketConnection
from authz.hooks.freeswitch.errors import CommandFailed
from authz.hooks.freeswitch.events import Event, event_of_frame
from authz.hooks.freeswitch.frames import FrameReader

_EVENTS = (
    "CHANNEL_CREATE", "CHANNEL_PARK", "CHANNEL_UNPARK", "CHANNEL_ANSWER", "CHANNEL_BRIDGE",
    "CHANNEL_UNBRIDGE", "CHANNEL_HANGUP", "CHANNEL_HANGUP_COMPLETE", "CHANNEL_PROGRESS",
    "CHANNEL_PROGRESS_MEDIA", "CHANNEL_ORIGINATE", "CHANNEL_OUTGOING", "CHANNEL_DESTROY",
    "SESSION_HEARTBEAT",
)  # fmt: skip


class Scene:
    """A simulated switch, a connection to it, and all its events."""

    def __init__(self, switch: SwitchSimulator, connection: EventSocketConnection) -> None:
        self.switch = switch
        self.connection = connection
        self.events: list[Event] = []
        connection.on_event = self.events.append

    async def api(self, line: str) -> str:
        """Run an api command."""
        return await self.connection.api(line)

    async def until_told(self, leg: Leg) -> None:
        """Wait until the switch has told all of a call."""
        await self.switch.until_ended(leg)
        await self.api("strepoch")

    def told(self, name: str, leg: str = "inbound") -> list[Event]:
        """Return the events of a name and a kind of leg."""
        return [one for one in self.events if one.name == name and one.get("Call-Direction") == leg]


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    """A switch twenty times as fast as a real one, and a client that hears all."""
    switch = await SwitchSimulator.start(speed=20)
    connection = await EventSocketConnection.connect("127.0.0.1", switch.port, "ClueCon")
    await connection.subscribe(*_EVENTS)
    yield Scene(switch, connection)
    connection.close()
    await switch.close()


def _recorded(prefix: str) -> list[Event]:
    said = transcripts.load(prefix).said("esl", by_switch=True)
    read = FrameReader().feed(said)
    events = [event_of_frame(one) for one in read if one.content_type.startswith("text/event")]
    return [event for event in events if event.name in _EVENTS]


def _order(events: list[Event]) -> list[str]:
    """Return names with legs; what ends a call comes in any order, and is sorted."""
    names = [f"{event.name} {event.get('Call-Direction')}" for event in events]
    first = next((n for n, name in enumerate(names) if name.startswith("CHANNEL_HANGUP")), None)
    return names if first is None else names[:first] + sorted(names[first:])


async def _refused(scene: Scene) -> Leg:
    leg = scene.switch.call()
    await scene.api(commands.uuid_kill(leg.uuid, "OUTGOING_CALL_BARRED"))
    return leg


async def _cut_by_timer(scene: Scene) -> Leg:
    leg = scene.switch.call()
    cut = "sched_hangup +4 allotted_timeout"
    await scene.api(commands.uuid_setvar(leg.uuid, "execute_on_answer", cut))
    await scene.api(commands.uuid_transfer(leg.uuid, "1001", "XML", "authorized"))
    return leg


async def _hung_up_by_callee(scene: Scene) -> Leg:
    scene.switch.callees["1077"] = Callee(hangup_seconds=2)
    leg = scene.switch.call("1077")
    await scene.api(commands.uuid_transfer(leg.uuid, "1077", "XML", "authorized"))
    return leg


async def _busy(scene: Scene) -> Leg:
    scene.switch.callees["1086"] = Callee(ring_seconds=None, refusal="USER_BUSY")
    leg = scene.switch.call("1086")
    await scene.api(commands.uuid_transfer(leg.uuid, "1086", "XML", "authorized"))
    return leg


async def _early_media(scene: Scene) -> Leg:
    scene.switch.callees["1083"] = Callee(has_early_media=True, answer_seconds=0.5)
    leg = scene.switch.call("1083")
    await scene.api(commands.uuid_transfer(leg.uuid, "1083", "XML", "authorized"))
    await until(lambda: leg.is_answered)
    await scene.api(commands.uuid_kill(leg.uuid, "ALLOTTED_TIMEOUT"))
    return leg


async def _unanswered(scene: Scene) -> Leg:
    scene.switch.callees["1099"] = Callee(answer_seconds=None)
    leg = scene.switch.call("1099")
    await scene.api(commands.uuid_setvar(leg.uuid, "call_timeout", "2"))
    await scene.api(commands.uuid_transfer(leg.uuid, "1099", "XML", "authorized"))
    return leg


@pytest.mark.parametrize(
    ("prefix", "lead"),
    [
        ("02b", _refused),
        ("01c", _cut_by_timer),
        ("01i", _hung_up_by_callee),
        ("01l", _busy),
        ("01n", _early_media),
        ("01o", _unanswered),
    ],
)
async def test_a_call_goes_as_recorded(
    scene: Scene, prefix: str, lead: Callable[[Scene], object]
) -> None:
    leg = await lead(scene)  # type: ignore[misc]
    await scene.until_told(leg)
    recorded = _recorded(prefix)
    assert _order(scene.events) == _order(recorded)
    for name in ("CHANNEL_PARK", "CHANNEL_ANSWER", "CHANNEL_BRIDGE", "CHANNEL_HANGUP_COMPLETE"):
        for direction in ("inbound", "outbound"):
            ours = scene.told(name, direction)
            theirs = [
                one
                for one in recorded
                if one.name == name and one.get("Call-Direction") == direction
            ]
            assert [one.get("Hangup-Cause") for one in ours] == [
                one.get("Hangup-Cause") for one in theirs
            ]
            for our, their in zip(ours, theirs, strict=True):
                # What was set, how media went and what SIP said differ from call to call.
                missing = {name for name in their if not _IS_OF_THE_CALL.match(name)} - set(our)
                assert missing == set()


_IS_OF_THE_CALL = re.compile(
    r"variable_(rtp|authz|sip|last_bridge|bridge|proto_specific|originat|export_vars"
    r"|transfer_history|call_timeout|video|text|audio|remote|local|advertised|switch_m_sdp"
    r"|ep_codec|DIALSTATUS|early|hold|last_sent|signal_bond|current_application_data"
    r"|execute_on_answer|waitsec|wait|flow_|progress_media|caller_id)|Event-UUID"
)


async def test_the_coarse_timer_cuts_where_a_real_one_does(scene: Scene) -> None:
    legs, asked_us = [], []
    for _ in range(20):
        leg = scene.switch.call()
        legs.append(leg)
        await scene.api(commands.uuid_transfer(leg.uuid, "1001", "XML", "authorized"))
        await until(lambda leg=leg: leg.is_answered)  # type: ignore[misc]
        asked_us.append(scene.switch.clock.now_us())
        await scene.api(commands.sched_hangup(2, leg.uuid))
    for leg, moment_us in zip(legs, asked_us, strict=True):
        await scene.until_told(leg)
        # A second early at most, less a step of the clock.
        assert leg.hangup_us - moment_us > 980_000
        assert leg.cause == "ALLOTTED_TIMEOUT"
        (end,) = [one for one in scene.told("CHANNEL_HANGUP_COMPLETE") if one.unique_id == leg.uuid]
        assert end.integer_variable("billmsec") == (leg.billed_us + 500) // 1_000


async def test_the_earliest_timer_wins_and_deleting_undoes_all(scene: Scene) -> None:
    leg = scene.switch.call()
    for seconds in (40, 20, 60):
        await scene.api(commands.sched_hangup(seconds, leg.uuid))
    due = scene.switch.scheduler.due_of(leg.uuid)
    # A second of the switch may have passed between two of them.
    assert [(one - due[0] + 5) // 10 for one in due] == [0, 2, 4]
    assert await scene.api(commands.sched_kill(90, "own", leg.uuid)) == "+OK Added: 6"
    assert await scene.api(commands.sched_del(leg.uuid)) == "+OK Deleted: 3"
    assert await scene.api(commands.sched_del(leg.uuid)) == "+OK Deleted: 0"
    assert len(scene.switch.scheduler) == 1
    assert await scene.api("sched_hangup 30 " + leg.uuid) == "+OK"
    await scene.until_told(leg)
    assert leg.cause == "ALLOTTED_TIMEOUT"


async def test_a_leg_that_comes_back_to_park_says_nothing(scene: Scene) -> None:
    scene.switch.callees["1077"] = Callee(hangup_seconds=1)
    leg = scene.switch.call("1077")
    await scene.connection.execute("bridge", "sofia/internal/1077@127.0.0.1:5090", uuid=leg.uuid)
    await until(lambda: bool(scene.told("CHANNEL_UNBRIDGE")))
    assert leg.is_up
    assert leg.is_parked
    assert len(scene.told("CHANNEL_PARK")) == 1
    await scene.api(commands.uuid_kill(leg.uuid, "NORMAL_CLEARING"))
    await scene.until_told(leg)


async def test_a_transfer_in_mid_call_ends_one_callee_and_finds_another(scene: Scene) -> None:
    leg = scene.switch.call()
    await scene.api(commands.uuid_transfer(leg.uuid, "1001", "XML", "authorized"))
    await until(lambda: leg.bridged_us > 0)
    answered_us = leg.answered_us
    await scene.api(commands.uuid_transfer(leg.uuid, "1002", "XML", "authorized"))
    await until(lambda: len(scene.told("CHANNEL_BRIDGE")) == 2)
    assert len(scene.told("CHANNEL_ANSWER")) == 1
    assert leg.answered_us == answered_us
    assert scene.told("CHANNEL_BRIDGE")[1].get("Caller-Destination-Number") == "1002"
    assert len(scene.told("CHANNEL_HANGUP_COMPLETE", "outbound")) == 1
    scene.switch.caller_hangs_up(leg)
    await scene.until_told(leg)


async def test_a_waiting_call_is_not_kept_for_ever(scene: Scene) -> None:
    leg = scene.switch.call(door=Door(park_timeout_seconds=1))
    await scene.until_told(leg)
    assert (leg.cause, leg.sip_status) == ("SERVICE_UNAVAILABLE", 480)


async def test_causes_are_seen_as_measured(scene: Scene) -> None:
    measured = {
        "OUTGOING_CALL_BARRED": (403, "OUTGOING_CALL_BARRED"),
        "CALL_REJECTED": (603, "CALL_REJECTED"),
        "NO_SUCH_CAUSE": (480, "NORMAL_CLEARING"),
        "21": (603, "CALL_REJECTED"),
        "402": (480, "UNKNOWN"),
    }
    for word, seen in measured.items():
        leg = scene.switch.call()
        await scene.api(commands.uuid_kill(leg.uuid, word))
        await scene.until_told(leg)
        assert (leg.sip_status, leg.cause) == seen


async def test_an_announcement_then_a_refusal(scene: Scene) -> None:
    leg = scene.switch.call()
    line = commands.uuid_transfer_inline(
        leg.uuid, [("pre_answer", ""), ("playback", "no_money.wav"), ("respond", "402 No")]
    )
    await scene.api(line)
    await scene.until_told(leg)
    assert (leg.sip_status, leg.cause) == (402, "CALL_REJECTED")


async def test_variables_reach_the_callee_only_when_exported(scene: Scene) -> None:
    leg = scene.switch.call()
    await scene.api(commands.uuid_setvar_multi(leg.uuid, {"authz_a": "1", "authz_b": "2"}))
    await scene.api(commands.uuid_setvar(leg.uuid, "export_vars", "authz_a"))
    await scene.api(commands.uuid_transfer(leg.uuid, "1001", "XML", "authorized"))
    await until(lambda: bool(scene.told("CHANNEL_OUTGOING", "outbound")))
    (outgoing,) = scene.told("CHANNEL_OUTGOING", "outbound")
    assert outgoing.variable("authz_a") == "1"
    assert "variable_authz_b" not in outgoing
    assert await scene.api(f"uuid_getvar {leg.uuid} authz_b") == "2"
    assert await scene.api(f"uuid_getvar {leg.uuid} nope") == "_undef_"


async def test_plain_events_are_lossy_as_recorded() -> None:
    switch = await SwitchSimulator.start()
    events: list[Event] = []
    connection = await EventSocketConnection.connect(
        "127.0.0.1", switch.port, "ClueCon", on_event=events.append
    )
    await connection.command(b"event plain CHANNEL_PARK\n\n")
    switch.call(authz_q='it\'s "q" ; , | & %41 +plus ünï 100%')
    await connection.api("strepoch")
    assert events[0].variable("authz_q") == 'it\'s "q" ; , | & A +plus ünï 100%'
    with pytest.raises(CommandFailed, match="no keywords supplied"):
        await connection.command(b"event plain NOSUCH_EVENT\n\n")
    connection.close()
    await switch.close()


async def test_a_thousand_calls_at_once(scene: Scene) -> None:
    # A thousand calls may stay parked for a while; the switch must not give them up.
    patient = Door(park_timeout_seconds=10_000)
    legs = [scene.switch.call(str(1_000 + number), door=patient) for number in range(1_000)]
    await asyncio.gather(
        *(scene.api(commands.uuid_kill(leg.uuid, "CALL_REJECTED")) for leg in legs)
    )
    await scene.until_told(legs[-1])
    assert len(scene.told("CHANNEL_PARK")) == len(scene.told("CHANNEL_HANGUP_COMPLETE")) == 1_000
    assert scene.switch.legs == {}
    assert len(scene.switch.scheduler) == 0
