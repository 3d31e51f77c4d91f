"""The agent against what a real FreeSWITCH said: the commands it gives, and what it books.

The recorded switch goes on as soon as the agent has released the call, so that all that happened
in seconds comes at once. Money is compared with the switch's own counters in its last event.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from audit_helper import assert_clean_audit
from freeswitch.replay import ReplayServer, Script, usual_answer
from freeswitch.socket_session import Command
from freeswitch.transcripts import Note, Transcript, load
from world import World

from authz.config.freeswitch import FreeswitchSettings, LookupRule, SwitchSettings
from authz.hooks.freeswitch.events import Event, event_of_json, event_of_plain
from authz.hooks.freeswitch.frames import FrameReader
from authz.hooks.freeswitch.serving import SwitchServer
from authz.hooks.freeswitch.settling import Settler
from authz.store.constants import Kind
from authz.store.records import unpack_ledger_entry

#: Transcripts of calls that waited and were released, one or several.
RELEASED = (
    "01b", "01c", "01d", "01e", "01g", "01h", "01i", "01k", "01l", "01m", "01n", "01o",
    "09a", "09d", "09f", "09g", "09h", "09k", "09l",
)  # fmt: skip
#: Those of calls that ended while they waited, and those that were refused.
NEVER_RELEASED = ("01j", "01p")
REFUSED = ("02a", "02b", "02c", "02d", "02e", "02f")


def events_of(transcript: Transcript) -> list[Event]:
    """Return all events that the switch told on its first event socket."""
    reader = FrameReader()
    events = []
    channel = transcript.event_sockets[0]
    for frame in reader.feed(transcript.said(channel, by_switch=True)):
        if frame.content_type == "text/event-json":
            events.append(event_of_json(frame.body))
        elif frame.content_type == "text/event-plain":
            events.append(event_of_plain(frame.body))
    return events


def hangups(transcript: Transcript) -> dict[str, Event]:
    """Return the last event of every leg that waited, by its uuid."""
    events = events_of(transcript)
    parked = {event.unique_id for event in events if event.name == "CHANNEL_PARK"}
    return {
        event.unique_id: event
        for event in events
        if event.name == "CHANNEL_HANGUP_COMPLETE" and event.unique_id in parked
    }


def seconds_of(hangup: Event) -> int:
    """Return what the switch's counters make of a talk."""
    return -(-int(hangup.variable("billmsec", "0")) // 1000)


class FirstOrder:
    """Holds the switch back until the agent has subscribed, and given each leg its order.

    `recorded` are marks of commands by which the recording client released or refused a leg,
    `said` is a mark of what the agent says for it.
    """

    def __init__(self, recorded: tuple[str, ...], said: str) -> None:
        self._recorded = recorded
        self._said = said
        self._given: set[str] = set()

    def script(self) -> Script:
        """Return the script of one connection."""
        return Script(self._is_alike, self._is_optional, usual_answer)

    def _leg(self, command: Command) -> str:
        if not any(mark in str(command) for mark in self._recorded):
            return ""
        found = re.search(r"[0-9a-f]{8}-[0-9a-f-]{27}", command.line)
        return found[0] if found else ""

    def _is_optional(self, recorded: Command) -> bool:
        leg = self._leg(recorded)
        return recorded.verb != "event" and (not leg or leg in self._given)

    def _is_alike(self, recorded: Command, said: Command) -> bool:
        if recorded.verb == "event":
            return said.verb == "event"
        leg = self._leg(recorded)
        is_order = self._said in str(said) and leg in said.line
        if is_order:
            self._given.add(leg)
        return is_order


def released() -> Script:
    """Wait for the release of every leg."""
    marks = ("uuid_transfer", "execute-app-name': 'bridge'", "uuid_broadcast")
    return FirstOrder(marks, "uuid_transfer").script()


def refused() -> Script:
    """Wait for the refusal of every leg."""
    return FirstOrder(("uuid_kill", "respond", "hangup-cause"), "respond").script()


class Recording:
    """The agent connected to a recorded switch."""

    def __init__(self, world: World, replays: ReplayServer) -> None:
        self.world = world
        self._replays = replays
        self.settler = Settler(world.engine)
        settings = FreeswitchSettings(
            contexts=("public",),
            rules=(LookupRule(account="sub", context="public"),),
        )
        address = SwitchSettings(name="fs-lab", host="127.0.0.1", port=replays.port)
        self.server = SwitchServer(address, settings, world.engine, self.settler, "recording")

    @property
    def said(self) -> list[str]:
        """All commands of the agent."""
        return [str(one) for replay in self._replays.replays for one in replay.extra] + [
            str(one) for replay in self._replays.replays for one in replay.matched
        ]

    async def play(self) -> None:
        """Let the agent serve the switch until the recording is over and all is settled."""
        task = asyncio.get_running_loop().create_task(self.server.run())
        try:
            async with asyncio.timeout(90):
                while True:
                    replays = self._replays.replays
                    is_over = bool(replays) and all(one.finished.done() for one in replays)
                    legs = self.server.agent.legs
                    if is_over and not len(legs) and not self.settler.waiting:
                        break
                    await asyncio.sleep(0.02)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await self.settler.drain(5)

    async def bookings(self) -> dict[str, int]:
        """Return the seconds booked by call id."""
        tag = await self.world.engine.context.directory.tag_of("sub")
        entries = await self.world.client.execute("XRANGE", f"authz:{{{tag}}}:ledger", "-", "+")
        found = [unpack_ledger_entry(entry_id, fields[1]) for entry_id, fields in entries]
        return {one.reference: one.seconds for one in found if one.kind == Kind.CALL}


@contextlib.asynccontextmanager
async def recorded(
    url: str, directory: Path, transcript: Transcript, script: Script, credit: str = "10"
) -> AsyncIterator[Recording]:
    """Yield the agent on a recording; the audit is its end."""
    # The connection stays, whatever the recording client did with it.
    staying = transcript._replace(
        items=tuple(item for item in transcript.items if not isinstance(item, Note))
    )
    world = await World.start(url, directory)
    try:
        await world.pair(sub=credit)
        async with ReplayServer(staying, script, [staying.event_sockets[0]]) as replays:
            yield Recording(world, replays)
        await assert_clean_audit(world.client)
    finally:
        await world.close()


@pytest.mark.parametrize("name", RELEASED)
async def test_a_released_call_is_charged_by_the_switchs_counters(
    name: str, store_url: str, tmp_path: Path
) -> None:
    transcript = load(name)
    expected = {uuid: seconds_of(event) for uuid, event in hangups(transcript).items()}
    assert expected
    async with recorded(store_url, tmp_path, transcript, released()) as recording:
        await recording.play()
        assert await recording.bookings() == expected
        for uuid in expected:
            limits = next(one for one in recording.said if f"uuid_setvar_multi {uuid}" in one)
            assert "execute_on_answer=sched_hangup +59 allotted_timeout" in limits
            assert any(f"uuid_transfer {uuid}" in one for one in recording.said)


@pytest.mark.parametrize("name", NEVER_RELEASED)
async def test_a_call_that_ends_while_it_waits_costs_nothing(
    name: str, store_url: str, tmp_path: Path
) -> None:
    async with recorded(store_url, tmp_path, load(name), FirstOrder((), "").script()) as recording:
        await recording.play()
        assert set((await recording.bookings()).values()) <= {0}


@pytest.mark.parametrize("name", REFUSED)
async def test_a_refused_call_costs_nothing(name: str, store_url: str, tmp_path: Path) -> None:
    async with recorded(store_url, tmp_path, load(name), refused(), credit="0") as recording:
        await recording.play()
        assert await recording.bookings() == {}
        assert any("respond" in one and "402 Payment Required" in one for one in recording.said)


async def test_a_transferred_call_is_two_calls(store_url: str, tmp_path: Path) -> None:
    transcript = load("09c")
    [(uuid, hangup)] = hangups(transcript).items()
    bridges: list[Any] = [
        event
        for event in events_of(transcript)
        if event.name in ("CHANNEL_BRIDGE", "CHANNEL_UNBRIDGE") and event.unique_id == uuid
    ]
    answered, left, bridged = (event.timestamp_us for event in bridges[:3])
    ended = hangup.integer_variable("end_uepoch") or 0
    async with recorded(store_url, tmp_path, transcript, released()) as recording:
        await recording.play()
        assert await recording.bookings() == {
            uuid: -((answered - left) // 1_000_000),
            f"{uuid}#2": -((bridged - ended) // 1_000_000),
        }


@pytest.mark.parametrize("name", ["06c", "06d"])
async def test_a_shutdown_ends_calls_as_its_events_say(
    name: str, store_url: str, tmp_path: Path
) -> None:
    transcript = load(name)
    expected = {uuid: seconds_of(event) for uuid, event in hangups(transcript).items()}
    async with recorded(store_url, tmp_path, transcript, released()) as recording:
        await recording.play()
        assert await recording.bookings() == expected


async def test_a_call_sent_to_an_extension_without_rate_ends_there(
    store_url: str, tmp_path: Path
) -> None:
    transcript = load("09b")
    [(uuid, _)] = hangups(transcript).items()
    async with recorded(store_url, tmp_path, transcript, released()) as recording:
        await recording.play()
        # Its callee had talked for 2.5 s; `topup`, where it was sent to, is no number.
        assert await recording.bookings() == {uuid: 3}
