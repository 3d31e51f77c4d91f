"""Many calls at once on one account, one trunk, one id: exactly what is there is given away.

Every race runs with one daemon and with two that share the store, and ends with the audit.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from audit_helper import assert_clean_audit
from world import UK, US, PriceList, World, per_minute

from authz.config.sections import StoreSettings
from authz.engine.orphans import claim
from authz.errors import SettledDifferently
from authz.model import Denial, Grant, Settlement, Trunks
from authz.store import keys

TASKS = 200
#: So many tasks wait for each other on two busy cores: a race is no test of deadlines.
PATIENT = StoreSettings(decision_deadline_ms=10_000, settle_deadline_ms=60_000)


@pytest.fixture(params=[1, 2], ids=["one-daemon", "two-daemons"])
async def worlds(request, store_url, tmp_path):
    """One daemon or two on the same store; every race ends with the audit."""
    made = [
        await World.start(store_url, tmp_path / str(number), store=PATIENT)
        for number in range(request.param)
    ]
    yield made
    await assert_clean_audit(made[0].client)
    for world in made:
        await world.close()


def turns(worlds: list[World], count: int) -> list[tuple[int, World]]:
    """Return (number, daemon) of that many calls, the daemons taking turns."""
    return [(number, worlds[number % len(worlds)]) for number in range(count)]


async def authorize_all(
    worlds: list[World], count: int, to: str = US, **more: Any
) -> list[Grant | Denial]:
    """Ask for that many calls at once."""
    return await asyncio.gather(
        *(world.authorize(f"c{number}", to, **more) for number, world in turns(worlds, count))
    )


def granted(answers: list[Grant | Denial]) -> list[Grant]:
    """Return the calls that may start."""
    return [answer for answer in answers if isinstance(answer, Grant)]


def reasons(answers: list[Grant | Denial]) -> Counter[str]:
    """Return how often each reason was given."""
    return Counter(answer.reason for answer in answers)


async def test_exactly_the_affordable_number_of_calls_is_admitted(worlds):
    first = worlds[0]
    await first.account("solo", "0.375", deck="retail")
    answers = await authorize_all(worlds, TASKS, account="solo")
    assert reasons(answers) == {"ok": 37, "insufficient_credit": TASKS - 37}
    state = await first.state("solo")
    assert (state.held, state.calls) == (370_000, 37)


async def test_all_of_the_money_is_used_to_the_last_whole_increment(worlds):
    first = worlds[0]
    # 6 s cost 0.0013 and 60 s 0.013: 7 does not divide by either.
    first.decks["retail"] = worlds[-1].decks["retail"] = PriceList({"1": per_minute("0.013", 6)})
    await first.account("solo", "1", deck="retail")
    answers = await authorize_all(worlds, TASKS, account="solo")
    state = await first.state("solo")
    assert 1_000_000 - 1_300 < state.held <= 1_000_000
    grants = granted(answers)
    assert sum(grant.seconds for grant in grants) == 769 * 6
    assert all(grant.final or grant.seconds == 60 for grant in grants)
    assert all(grant.seconds % 6 == 0 for grant in grants)


async def test_one_trunk_carries_one_call(worlds):
    first = worlds[0]
    await first.account("solo", per_minute=False, trunks=Trunks(twoway=1), deck="retail")
    for round_number in range(3):
        answers = await asyncio.gather(
            *(
                world.authorize(
                    f"r{round_number}-{number}",
                    account="solo",
                    direction="inbound" if number % 3 else "outbound",
                )
                for number, world in turns(worlds, TASKS)
            )
        )
        assert reasons(answers) == {"ok": 1, "trunks_exhausted": TASKS - 1}
        (winner,) = granted(answers)
        await worlds[-1].settle(winner.call_id, 60, account="solo")
    state = await first.state("solo")
    assert (state.trunks_inbound, state.trunks_outbound, state.balance) == (0, 0, 0)


async def test_a_freed_trunk_goes_to_exactly_one_of_those_who_wait(worlds):
    first = worlds[0]
    await first.account("solo", per_minute=False, trunks=Trunks(outbound=5), deck="retail")
    await authorize_all(worlds, 5, account="solo")

    async def hang_up_and_try(number: int, world: World) -> Grant | Denial:
        if number < 5:
            await world.settle(f"c{number}", 10, account="solo")
        return await world.authorize(f"next{number}", account="solo")

    answers = await asyncio.gather(
        *(hang_up_and_try(number, world) for number, world in turns(worlds, TASKS))
    )
    state = await first.state("solo")
    assert len(granted(answers)) == state.trunks_outbound == state.calls <= 5


async def test_concurrent_calls_are_counted_across_daemons(worlds):
    await worlds[0].pair(max_calls=7)
    answers = await authorize_all(worlds, TASKS)
    assert reasons(answers) == {"ok": 7, "max_calls_exceeded": TASKS - 7}


async def test_one_call_id_is_one_call(worlds):
    first = worlds[0]
    await first.pair()
    answers = await asyncio.gather(
        *(world.authorize("same", UK) for _, world in turns(worlds, TASKS))
    )
    assert len(granted(answers)) == TASKS
    assert len({repr(answer) for answer in answers}) == 1
    state = await first.state("sub")
    assert (state.calls, state.held) == (1, 13_700)
    settled = await asyncio.gather(*(world.settle("same", 61) for _, world in turns(worlds, TASKS)))
    assert Counter(one.duplicate for one in settled) == {False: 1, True: TASKS - 1}
    assert {one.legs[0].charged for one in settled} == {"0.013928"}
    assert await first.balance("sub") == 10_000_000 - 13_928


async def test_one_call_id_settled_with_different_seconds_is_booked_once(worlds):
    first = worlds[0]
    await first.pair()
    await first.granted("same", UK)
    answers = await asyncio.gather(
        *(world.settle("same", 1 + number % 5) for number, world in turns(worlds, TASKS)),
        return_exceptions=True,
    )
    booked = {answer.seconds for answer in answers if isinstance(answer, Settlement)}
    assert len(booked) == 1
    refused = [answer for answer in answers if not isinstance(answer, Settlement)]
    assert all(isinstance(answer, SettledDifferently) for answer in refused)
    assert len(refused) == TASKS - TASKS // 5


async def test_settle_reserve_and_orphan_claim_of_the_same_call(worlds):
    first = worlds[0]
    await first.pair("100", "100")
    calls = 40

    async def race(number: int, world: World) -> list[Any]:
        call_id = f"c{number}"
        await world.granted(call_id, UK)
        await world.reserve(call_id, 20)
        tag = await world.engine.context.directory.tag_of("sub")
        other = worlds[-1]
        return await asyncio.gather(
            claim(world.engine.context, tag, keys.call_member("sub", call_id), forced=True),
            world.reserve(call_id, 40),
            other.reserve(call_id, 41),
            other.settle(call_id, 61),
            claim(other.engine.context, tag, keys.call_member("sub", call_id), forced=True),
            world.reserve(call_id, 42),
            return_exceptions=True,
        )

    outcomes = await asyncio.gather(*(race(*turn) for turn in turns(worlds, calls)))
    for outcome in outcomes:
        assert isinstance(outcome[3], Settlement), outcome
        assert all(not isinstance(answer, BaseException) for answer in outcome)
    for account, charged in (("sub", 13_928), ("master", 11_000)):
        state = await first.state(account)
        assert (state.calls, state.held, state.used) == (0, 0, 0)
        assert state.balance == 100_000_000 - calls * charged
        assert state.day_spend == calls * charged


async def test_credits_race_settles(worlds):
    first = worlds[0]
    await first.account("solo", "1", deck="retail")
    await authorize_all(worlds, 100, account="solo")
    await asyncio.gather(
        *(world.settle(f"c{number}", 61, account="solo") for number, world in turns(worlds, 100)),
        *(world.credit("solo", "0.01") for _, world in turns(worlds, 100)),
    )
    assert await first.balance("solo") == 1_000_000 + 100 * 10_000 - 100 * 20_000


async def test_a_change_of_limits_races_calls(worlds):
    first = worlds[0]
    await first.account("solo", "100", deck="retail", max_calls=50)

    async def change() -> None:
        for limit in (40, 30, 20, 10):
            await worlds[-1].accounts.patch("solo", {"max_calls": limit})

    answers, _ = await asyncio.gather(authorize_all(worlds, TASKS, account="solo"), change())
    state = await first.state("solo")
    assert 10 <= len(granted(answers)) == state.calls <= 50
    assert set(reasons(answers)) == {"ok", "max_calls_exceeded"}


@pytest.mark.parametrize("increment", [1, 6])
async def test_a_thousand_calls_under_a_master_never_hold_more_than_it_has(worlds, increment):
    first = worlds[0]
    for world in worlds:
        world.decks["wholesale"] = PriceList({"44": per_minute("0.013", increment)})
    await first.pair("10", "7")
    answers = await authorize_all(worlds, 1000, UK)
    assert set(reasons(answers)) == {"ok", "insufficient_credit"}
    grants = granted(answers)
    one_increment = -(-13_000 * increment // 60)
    state = await first.state("master")
    assert 7_000_000 - one_increment < state.held <= 7_000_000
    assert (await first.state("sub")).held <= 10_000_000
    await asyncio.gather(*(worlds[-1].settle(grant.call_id, grant.seconds) for grant in grants))
    state = await first.state("master")
    assert (state.held, state.calls) == (0, 0)
    assert 0 <= state.balance < one_increment


async def test_a_thousand_calls_that_run_to_their_end_spend_all_and_no_more(worlds):
    first = worlds[0]
    await first.pair("10", "7")

    async def live(number: int, world: World) -> int:
        answer = await world.authorize(f"c{number}", UK)
        seconds = 0
        while isinstance(answer, Grant):
            seconds = answer.seconds
            answer = await world.reserve(f"c{number}", seconds, seconds=6)
        if seconds:
            await world.settle(f"c{number}", seconds)
        return seconds

    # 700 minutes at 0.01 are all that the master has: most calls are refused, few run longer.
    seconds = await asyncio.gather(*(live(*turn) for turn in turns(worlds, 1000)))
    assert sum(seconds) == 700 * 60
    assert await first.balance("master") == 0
    assert await first.balance("sub") > 0
