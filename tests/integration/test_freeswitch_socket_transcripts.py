"""The agent's outbound socket against what a real FreeSWITCH said on it.

The recorded switch also tells its events to the connection that supervises it, as it always does.
"""

from __future__ import annotations

import asyncio
import ipaddress
from pathlib import Path

import pytest
from freeswitch.agent_stage import AgentStage, agent_stage
from freeswitch.replay import Replay, Script, replay_to, usual_answer
from freeswitch.socket_session import Command
from freeswitch.transcripts import Transcript, load
from world import PriceList, per_minute

from authz.config.freeswitch import LookupRule
from authz.hooks.freeswitch.events import Event, event_of_json, event_of_plain
from authz.hooks.freeswitch.frames import FrameReader
from authz.hooks.freeswitch.outbound import OutboundServer
from authz.hooks.freeswitch.outbound_door import OutboundDoor

_ANYWHERE = PriceList({"": per_minute("0.01")})
_RULES = (LookupRule(account="sub", address="127.0.0.0/8"),)


def events_of(transcript: Transcript) -> list[Event]:
    """Return the events that the switch told on its outbound socket."""
    made = {"text/event-json": event_of_json, "text/event-plain": event_of_plain}
    frames = FrameReader().feed(transcript.said("osock", by_switch=True))
    return [made[one.content_type](one.body) for one in frames if one.content_type in made]


def ordered(recorded_mark: str, said_mark: str) -> Script:
    """Hold the switch back until the agent has given its order instead of the recorded client."""

    def is_optional(recorded: Command) -> bool:
        return recorded.verb != "connect" and recorded_mark not in str(recorded)

    def is_alike(recorded: Command, said: Command) -> bool:
        if recorded.verb == "connect":
            return said.verb == "connect"
        return said_mark in str(said)

    return Script(is_alike, is_optional, usual_answer)


async def replayed(stage: AgentStage, transcript: Transcript, script: Script) -> Replay:
    """Replay a call to the stage's agent."""
    stage.server.link.core_uuid = events_of(transcript)[0].core_uuid
    # The lab's extensions are no numbers of any country.
    stage.world.decks.update(dict.fromkeys(("retail", "wholesale"), _ANYWHERE))
    door = OutboundDoor([stage.server])
    server = OutboundServer(door.take, allow=[ipaddress.ip_network("127.0.0.0/8")])
    await server.start("127.0.0.1", 0)
    try:
        async with asyncio.timeout(90):
            return await replay_to(transcript, script, "127.0.0.1", server.port)
    finally:
        await server.close()


@pytest.mark.parametrize("name", ["03a", "03b", "03n", "03p", "03q"])
async def test_a_released_call_is_charged_by_the_switchs_counters(
    name: str, store_url: str, tmp_path: Path
) -> None:
    transcript = load(name)
    async with agent_stage(store_url, tmp_path, rules=_RULES) as stage:
        replay = await replayed(stage, transcript, ordered("'bridge'", "uuid_transfer"))
        limits = next(str(one) for one in replay.extra if "uuid_setvar_multi" in str(one))
        assert "execute_on_answer=sched_hangup +59 allotted_timeout" in limits
        [leg] = stage.server.agent.legs.all()
        ends = [
            one for one in events_of(transcript)
            if one.name == "CHANNEL_HANGUP_COMPLETE" and one.unique_id == leg.call.uuid
        ]  # fmt: skip
        for event in events_of(transcript):
            stage.server.agent.on_event(event)
        if ends:
            await stage.settled()
            seconds = -(-int(ends[0].variable("billmsec")) // 1000)
            assert await stage.bookings() == [(leg.call.uuid, seconds)]


@pytest.mark.parametrize("name", ["03c", "03d"])
async def test_a_refused_call_costs_nothing(name: str, store_url: str, tmp_path: Path) -> None:
    transcript = load(name)
    async with agent_stage(store_url, tmp_path, rules=_RULES, credit="0") as stage:
        mark = "'respond'" if name == "03c" else "hangup-cause"
        replay = await replayed(stage, transcript, ordered(mark, "respond"))
        assert any("402 Payment Required" in str(one) for one in replay.matched)
        for event in events_of(transcript):
            stage.server.agent.on_event(event)
        assert await stage.bookings() == []
