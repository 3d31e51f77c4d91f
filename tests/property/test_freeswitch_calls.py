"""Random calls on a simulated switch with random losses: the books stay right, nobody pays twice.

Every example ends with the audit. What a call owes is what the switch counted, except where its
last event was lost: then it is at most that.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from freeswitch.agent_stage import AgentStage, agent_stage
from freeswitch.fast_loop import run_fast
from freeswitch.legs import Leg
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from servers import DEFAULT_KIND, ServerPool

from authz.hooks.freeswitch import reconcile

OTHER = "14155550199"

Happening = Callable[[AgentStage, Leg], Awaitable[None]]


async def _connection_lost(stage: AgentStage, leg: Leg) -> None:
    stage.switch.drop_connections()


async def _agent_killed(stage: AgentStage, leg: Leg) -> None:
    await stage.kill()
    await stage.start()


async def _event_repeated(stage: AgentStage, leg: Leg) -> None:
    if leg.is_up and leg.is_answered:
        for name in ("CHANNEL_ANSWER", "CHANNEL_BRIDGE", "SESSION_HEARTBEAT"):
            stage.switch.emit(leg, name)


async def _caller_leaves(stage: AgentStage, leg: Leg) -> None:
    if leg.is_up:
        stage.switch.caller_hangs_up(leg)


async def _callee_leaves(stage: AgentStage, leg: Leg) -> None:
    if leg.is_up:
        stage.switch.callee_hangs_up(leg)


async def _sent_elsewhere(stage: AgentStage, leg: Leg) -> None:
    if leg.is_up and leg.is_answered:
        stage.switch.route(leg, OTHER, "authorized")


async def _credit_booked(stage: AgentStage, leg: Leg) -> None:
    await stage.world.credit("sub", "0.02")


async def _another_call(stage: AgentStage, leg: Leg) -> None:
    stage.call(OTHER)


HAPPENINGS: tuple[Happening, ...] = (
    _connection_lost, _agent_killed, _event_repeated, _caller_leaves, _callee_leaves,
    _sent_elsewhere, _credit_booked, _another_call,
)  # fmt: skip


@st.composite
def stories(draw: st.DrawFn) -> list[tuple[int, Happening]]:
    """Return what happens to a call, each after so many milliseconds."""
    happening = st.sampled_from(HAPPENINGS)
    pause_ms = st.one_of(st.integers(0, 400), st.integers(0, 50_000))
    return draw(st.lists(st.tuples(pause_ms, happening), max_size=6))


@pytest.fixture
def grown_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take calls for old enough to be missed: the store's time is the world's, and slow."""
    monkeypatch.setattr(reconcile, "YOUNG_SECONDS", 0)


@pytest.mark.usefixtures("grown_up")
@given(story=stories(), credit=st.sampled_from(["0.01", "0.03", "5"]))
@settings(
    max_examples=25,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_whatever_happens_to_a_call_is_charged_once(
    server_pool: ServerPool, story: list[tuple[int, Happening]], credit: str
) -> None:
    async def scenario(stage: AgentStage) -> None:
        stage.callee(OTHER, hangup_seconds=33)
        leg = stage.call()
        for pause_ms, happening in story:
            await asyncio.sleep(pause_ms / 1000)
            await happening(stage, leg)
        await stage.until(lambda: stage.server.is_connected)
        await asyncio.sleep(5)
        for one in list(stage.switch.legs.values()):
            if one.is_up and one.is_caller:
                stage.switch.caller_hangs_up(one)
        await stage.settled()
        # Whoever ended unseen is missed by the next agent at the latest.
        await stage.kill()
        await stage.start()
        await asyncio.sleep(3)
        await stage.settled()
        await _check(stage, leg)

    async def main() -> None:
        with tempfile.TemporaryDirectory() as directory:
            url = server_pool.get(DEFAULT_KIND).url
            async with agent_stage(url, Path(directory), credit=credit) as stage:
                await scenario(stage)

    run_fast(main())


async def _check(stage: AgentStage, leg: Leg) -> None:
    booked: dict[str, int] = {}
    for call_id, seconds in await stage.bookings():
        # An orphan's provisional entry is followed by what its end was.
        booked[call_id] = seconds
    own = [seconds for call_id, seconds in booked.items() if call_id.startswith(leg.uuid)]
    # Each call of the leg is rounded up for itself.
    assert sum(own) <= leg.billed_us // 1_000_000 + 1 + len(own)
    for account in ("sub", "master"):
        state = await stage.world.state(account)
        assert (state.held, state.calls) == (0, 0)
