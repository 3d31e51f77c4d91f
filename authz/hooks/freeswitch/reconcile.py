"""After a connection: what the switch has, against what we and the store believe it has.

The switch replays nothing. Live legs are gone on with, waiting ones decided, and calls that the
store has open and the switch certainly has not are made orphans. That certainty comes from the
switch alone: whoever cannot be reached, or gives an answer that cannot be read, ends no call.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from typing import Final

import msgspec
from msgspec import Struct

from authz import log
from authz.engine.switches import claim_ended, open_calls_of
from authz.hooks.freeswitch import commands
from authz.hooks.freeswitch.agent import InboundDoor, SwitchAgent
from authz.hooks.freeswitch.charged_call import answered_us, left_behind_by, restore_call
from authz.hooks.freeswitch.connection import EventSocketConnection
from authz.hooks.freeswitch.errors import CommandFailed
from authz.hooks.freeswitch.events import Event
from authz.hooks.freeswitch.queries import Channel, dump_channel, show_channels

#: The ids that the agent gives to calls. Others of the same switch came by other ways, whose
#: channels are not found by them.
_CALL_ID: Final = re.compile(
    r"([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})(?:#[0-9]+)?"
)
#: A younger call may not have its channel yet where the switch looks for it.
YOUNG_SECONDS: Final = 5
_DUMPS_AT_A_TIME: Final = 32
#: The answer may be megabytes long.
_LIST_TIMEOUT_SECONDS: Final = 30.0
_SHOW_TASKS: Final = "show tasks as json"


class _Task(Struct):
    """A row of `show tasks`."""

    task_group: str = ""


class _Tasks(Struct):
    """The answer to `show tasks as json`; without tasks it has no rows."""

    row_count: int = 0
    rows: list[_Task] = []


_TASKS: Final = msgspec.json.Decoder(_Tasks)


async def take_up_channels(agent: SwitchAgent, connection: EventSocketConnection) -> None:
    """Go on with the switch's live legs, and have its waiting ones decided.

    Raises SwitchError and ProtocolError.
    """
    channels = await show_channels(connection, _LIST_TIMEOUT_SECONDS)
    groups = await _timer_groups(connection)
    limit = asyncio.Semaphore(_DUMPS_AT_A_TIME)

    async def look(channel: Channel) -> None:
        async with limit:
            await _take_up(agent, connection, channel, groups.get(channel.uuid, []))

    known = {leg.call.uuid for leg in agent.legs.all()}
    shown = {channel.uuid for channel in channels}
    async with asyncio.TaskGroup() as group:
        for channel in channels:
            # A callee's leg is only charged when the caller's has left it behind.
            is_callee = channel.direction != "inbound" and channel.call_uuid in shown
            if channel.uuid in known or not is_callee:
                group.create_task(look(channel))
    await _let_go(agent, connection, known - shown)
    log.event(
        "switch_taken_up", switch=agent.desk.name, channels=len(channels), calls=len(agent.legs)
    )


async def end_missing(agent: SwitchAgent, connection: EventSocketConnection) -> int:
    """Make orphans of the store's open calls that the switch says it has not; return how many.

    Raises SwitchError, ProtocolError and StoreError, and may be tried again.
    """
    context = agent.desk.engine.context
    seconds, micros = await context.client.execute("TIME")
    before_us = int(seconds) * 1_000_000 + int(micros) - YOUNG_SECONDS * 1_000_000
    shown = {one.uuid for one in await show_channels(connection, _LIST_TIMEOUT_SECONDS)}
    ended = 0
    async for call in open_calls_of(context, agent.desk.name):
        match = _CALL_ID.fullmatch(call.call_id)
        if match is None or call.authorized_us > before_us:
            continue
        uuid = match[1]
        if uuid in shown or _is_live(agent, call.call_id) or await _exists(connection, uuid):
            continue
        ended += await claim_ended(context, call.account, call.call_id)
    if ended:
        log.event("missing_calls_orphaned", switch=agent.desk.name, calls=ended)
    return ended


async def _take_up(
    agent: SwitchAgent, connection: EventSocketConnection, channel: Channel, groups: list[str]
) -> None:
    """Go on with a live leg, or have it decided if it waits for that."""
    uuid = channel.uuid
    dump = await dump_channel(connection, uuid)
    if dump is None or agent.legs.has_ended(uuid):
        return
    door = InboundDoor(connection, uuid)
    leg = agent.legs.get(uuid)
    call = restore_call(dump, uuid) if leg is None else leg.call
    if call is not None:
        agent.adopt(call, dump, groups, door)
    elif channel.application == "park" and _is_parked(dump) and agent.decider.is_waiting(dump):
        agent.wait(dump, door)
    else:
        await _take_up_left(agent, connection, dump)


async def _take_up_left(
    agent: SwitchAgent, connection: EventSocketConnection, callee: Event
) -> None:
    """Charge a callee's leg from now on whose paying leg has left it while nobody looked."""
    payer = left_behind_by(callee)
    if payer is None or answered_us(callee) is None:
        return
    if not await _exists(connection, payer.uuid):
        log.event("callee_left_behind", level="warning", call_id=payer.call_id)
        agent.charge_on(payer, callee.unique_id, callee.timestamp_us or 0)


def _is_parked(dump: Event) -> bool:
    return dump.variable("current_application") == "park"


async def _let_go(
    agent: SwitchAgent, connection: EventSocketConnection, uuids: Iterable[str]
) -> None:
    """Forget legs that ended while nobody looked; what they owe is for the store's side below."""
    for uuid in uuids:
        leg = agent.legs.get(uuid)
        if leg is not None and not await _exists(connection, uuid):
            agent.legs.remove(leg.call)


def _is_live(agent: SwitchAgent, call_id: str) -> bool:
    """Return whether a leg is charged under this id, be it one of another uuid."""
    return any(leg.call.call_id == call_id for leg in agent.legs.all())


async def _exists(connection: EventSocketConnection, uuid: str) -> bool:
    return await connection.api(commands.uuid_exists(uuid)) != "false"


async def _timer_groups(connection: EventSocketConnection) -> dict[str, list[str]]:
    """Return the groups of the switch's scheduler in which legs have timers, by the leg's uuid."""
    try:
        answer = await connection.api(_SHOW_TASKS, _LIST_TIMEOUT_SECONDS)
        tasks = _TASKS.decode(answer)
    except (CommandFailed, msgspec.MsgspecError) as error:
        # Without it an old timer may cut a call early; none is ever lost by it.
        log.event("timers_not_listed", level="warning", error=error)
        return {}
    groups: dict[str, list[str]] = {}
    for task in tasks.rows:
        name = task.task_group
        uuid = name.split("-", 2)[2] if name.startswith("authz-") and name.count("-") > 1 else name
        found = groups.setdefault(uuid, [])
        if name not in found:
            found.append(name)
    return groups
