"""The link to a switch: up, down, up again; and who it says the switch is."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from freeswitch.switch_simulator import SwitchSimulator
from helpers import until

from authz.hooks.freeswitch import commands
from authz.hooks.freeswitch.connection import EventSocketConnection
from authz.hooks.freeswitch.events import Event
from authz.hooks.freeswitch.link import LinkOptions, LinkState, SwitchLink

EVERY_LOOP = True


class Handler:
    """Remembers what a link tells."""

    def __init__(self) -> None:
        self.ups: list[str] = []
        self.downs: list[str] = []
        self.events: list[Event] = []
        self.connection: EventSocketConnection | None = None
        self.failures_left = 0
        self.hangs = False
        self.cancelled = 0
        self.fails_at_loss = False

    async def on_up(self, connection: EventSocketConnection, core_uuid: str) -> None:
        """Take the connection, or fail as often as told."""
        self.ups.append(core_uuid)
        self.connection = connection
        if self.failures_left:
            self.failures_left -= 1
            raise ValueError("not today")
        if self.hangs:
            try:
                await asyncio.Event().wait()
            finally:
                self.cancelled += 1

    def on_event(self, event: Event) -> None:
        """Remember an event."""
        self.events.append(event)

    def on_down(self, reason: str) -> None:
        """Remember a loss."""
        self.downs.append(reason)
        if self.fails_at_loss:
            raise ValueError("lost my head")


class Linked:
    """A simulated switch and a link to it."""

    def __init__(self, switch: SwitchSimulator, link: SwitchLink, handler: Handler) -> None:
        self.switch = switch
        self.link = link
        self.handler = handler

    async def until_up(self, times: int = 1) -> None:
        """Wait until the link has come up so often."""
        await until(lambda: len(self.handler.ups) == times and self.link.state is LinkState.UP)


def _options(port: int, **more: object) -> LinkOptions:
    return LinkOptions(
        name="fs1",
        host="127.0.0.1",
        port=port,
        events=("CHANNEL_PARK", "CHANNEL_HANGUP_COMPLETE"),
        retry_seconds_min=0.01,
        retry_seconds_max=0.05,
        **more,  # type: ignore[arg-type]
    )


@contextlib.asynccontextmanager
async def _linked(heartbeat_seconds: float = 20, **more: object) -> AsyncIterator[Linked]:
    switch = await SwitchSimulator.start(speed=20, heartbeat_seconds=heartbeat_seconds)
    handler = Handler()
    link = SwitchLink(_options(switch.port, **more), handler)
    task = asyncio.create_task(link.run())
    yield Linked(switch, link, handler)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert link.state is LinkState.DOWN
    assert link.connection is None
    assert len(handler.downs) == len(handler.ups)
    await switch.close()


async def test_a_link_brings_events_and_takes_commands() -> None:
    async with _linked() as linked:
        await linked.until_up()
        assert linked.handler.ups == [linked.switch.core_uuid]
        leg = linked.switch.call()
        await until(lambda: len(linked.handler.events) == 1)
        assert linked.handler.events[0].unique_id == leg.uuid
        assert linked.link.connection is not None
        assert linked.link.connection is linked.handler.connection
        await linked.link.connection.api(commands.uuid_kill(leg.uuid, "USER_BUSY"))
        await until(lambda: len(linked.handler.events) == 2)
        assert linked.handler.events[1].get("Hangup-Cause") == "USER_BUSY"
        assert linked.link.traffic.events == 2
        assert linked.link.traffic.commands == 4  # the login is one


async def test_a_lost_connection_is_made_again_and_the_switch_is_the_same() -> None:
    async with _linked() as linked:
        for times in range(1, 6):
            await linked.until_up(times)
            linked.switch.drop_connections()
        await linked.until_up(6)
        assert set(linked.handler.ups) == {linked.switch.core_uuid}
        assert linked.link.connects == 6
        assert linked.link.failures == 0


async def test_a_restarted_switch_is_another_one() -> None:
    async with _linked() as linked:
        await linked.until_up()
        before = linked.switch.core_uuid
        await linked.switch.crash()
        await until(lambda: linked.link.failures > 2)
        assert linked.handler.downs
        assert len(linked.handler.ups) == 1
        await linked.switch.restart()
        await linked.until_up(2)
        assert linked.handler.ups == [before, linked.switch.core_uuid]
        assert before != linked.link.core_uuid


async def test_a_shutdown_brings_the_calls_ends_first() -> None:
    async with _linked() as linked:
        await linked.until_up()
        leg = linked.switch.call()
        await linked.switch.shut_down()
        await until(lambda: bool(linked.handler.downs))
        assert linked.handler.downs == ["the switch said goodbye"]
        ends = [one for one in linked.handler.events if one.name == "CHANNEL_HANGUP_COMPLETE"]
        assert [(one.unique_id, one.get("Hangup-Cause")) for one in ends] == [
            (leg.uuid, "SYSTEM_SHUTDOWN")
        ]


async def test_a_refused_link_says_so_and_keeps_trying() -> None:
    async with _linked(password="wrong") as linked:
        await until(lambda: linked.link.failures > 2)
        assert linked.link.state in (LinkState.REFUSED, LinkState.CONNECTING)
        assert linked.handler.ups == []
    async with _linked() as linked:
        linked.switch.is_refusing = True
        linked.switch.drop_connections()
        await until(lambda: linked.link.failures > 2)
        linked.switch.is_refusing = False
        await until(lambda: linked.link.state is LinkState.UP)


async def test_a_silent_switch_is_asked_and_then_given_up() -> None:
    async with _linked(silence_seconds=0.04, command_timeout_seconds=0.05) as linked:
        await linked.until_up()
        # Silent, but answering: the link stays.
        await until(lambda: linked.switch.api.log.count(commands.PROBE) >= 3)
        assert linked.handler.downs == []
        linked.switch.is_silent = True
        await until(lambda: bool(linked.handler.downs))
        assert "silent for 0.04 s" in linked.handler.downs[0]
        linked.switch.wake()
        await linked.until_up(2)


async def test_heartbeats_make_questions_unnecessary() -> None:
    async with _linked(heartbeat_seconds=0.2, silence_seconds=1.0) as linked:
        await linked.until_up()
        await until(lambda: len(linked.handler.events) > 5)
        assert {event.name for event in linked.handler.events} == {"HEARTBEAT"}
        assert commands.PROBE not in linked.switch.api.log


async def test_a_handler_that_holds_events_back_is_no_silent_switch() -> None:
    async with _linked(silence_seconds=0.02, command_timeout_seconds=0.02) as linked:
        await linked.until_up()
        assert linked.handler.connection is not None
        linked.handler.connection.hold_events()
        linked.switch.is_silent = True
        await asyncio.sleep(0.1)
        assert linked.handler.downs == []
        linked.switch.wake()
        linked.handler.connection.release_events()


async def test_a_handler_that_fails_is_asked_again() -> None:
    async with _linked() as linked:
        linked.handler.failures_left = 2
        await linked.until_up(3)
        assert linked.handler.downs == ["the handler gave up: not today"] * 2


async def test_a_handler_that_fails_at_the_loss_does_not_end_the_link() -> None:
    async with _linked() as linked:
        await linked.until_up()
        linked.handler.fails_at_loss = True
        linked.switch.drop_connections()
        await linked.until_up(2)
        linked.handler.fails_at_loss = False


async def test_taking_up_ends_with_the_connection() -> None:
    async with _linked() as linked:
        linked.handler.hangs = True
        await linked.until_up()
        linked.switch.drop_connections()
        await linked.until_up(2)
        assert linked.handler.cancelled == 1


@pytest.mark.parametrize("answer", ["", "-ERR no reply\n"])
async def test_a_switch_without_an_identity_is_not_taken_up(answer: str) -> None:
    async with _linked() as linked:
        await linked.until_up()
        linked.switch.api.answers[commands.CORE_UUID] = answer
        linked.switch.drop_connections()
        await until(lambda: linked.link.failures > 1)
        assert len(linked.handler.ups) == 1
