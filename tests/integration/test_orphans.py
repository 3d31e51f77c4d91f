"""Orphans on real stores: who is taken for lost and when, what it costs, and how it comes back."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from audit_helper import assert_clean_audit
from world import UK, US, World

from authz.engine.orphans import Sweeper, claim
from authz.model import Denial, Grant, Trunks
from authz.store import keys
from authz.store.constants import Mark
from authz.store.layouts import CALL_HEAD
from authz.store.records import LedgerEntry, unpack_call, unpack_ledger_entry

FORTY_MINUTES_MS = 2_400_000


@pytest.fixture
async def other(world, any_store_url, tmp_path):
    """A second daemon on the same store."""
    other = await World.start(any_store_url, tmp_path / "other")
    yield other
    await other.close()


async def tag_of(world: World, account: str = "sub") -> str:
    """Return the hash tag of an account's bucket."""
    tag = await world.engine.context.directory.tag_of(account)
    assert tag is not None
    return tag


async def lose(world: World, call_id: str, account: str = "sub") -> bool:
    """Make an orphan of a call at once."""
    member = keys.call_member(account, call_id)
    return await claim(world.engine.context, await tag_of(world, account), member, forced=True)


async def age_lease(world: World, call_id: str, milliseconds: int = FORTY_MINUTES_MS) -> None:
    """Move the end of a call's lease into the past, as if it had been silent so long."""
    tag, member = await tag_of(world), keys.call_member("sub", call_id)
    key = keys.call(tag, "sub", call_id)
    packed = await world.client.execute("GET", key)
    head = CALL_HEAD.unpack(packed)._asdict()
    head["lease_ms"] -= milliseconds
    changed = CALL_HEAD.pack(**head) + packed[CALL_HEAD.size :]
    await world.client.execute("SET", key, changed)
    await world.client.execute("ZADD", keys.leases(tag), head["lease_ms"], member)


async def trust(world: World, *, age_seconds: int = 0) -> None:
    """Stamp the bucket as swept so long ago, with nothing left to wait for."""
    now = int((await world.client.execute("TIME"))[0])
    await world.client.execute(
        "HSET", keys.bucket(await tag_of(world)), "swept_at", now - age_seconds,
        "swept_run", world.client.run_id, "orphans_from", 0,
    )  # fmt: skip


async def entries_of_calls(world: World) -> list[LedgerEntry]:
    """Return the ledger entries of calls, oldest first."""
    entries = await world.client.execute("XRANGE", keys.ledger(await tag_of(world)), "-", "+")
    unpacked = [unpack_ledger_entry(entry_id, fields[1]) for entry_id, fields in entries]
    return [entry for entry in unpacked if entry.kind.label == "call"]


async def numbers(world: World, account: str = "sub") -> tuple[int, ...]:
    """Return what an account's open calls occupy, and its balance."""
    state = await world.state(account)
    return state.calls, state.held, state.used, state.balance


@pytest.mark.parametrize(
    ("policy", "reported", "silent"),
    [
        ("charge_reported", 6_850, 0),
        ("charge_held", 20_550, 0),
        ("release", 0, 0),
    ],
)
async def test_what_an_orphan_costs_is_a_policy(any_store_url, tmp_path, policy, reported, silent):
    world = await World.start(any_store_url, tmp_path, orphan_policy=policy)
    await world.pair()
    await world.granted("c1", UK)
    await world.reserve("c1", 30)
    await world.granted("c2", UK)
    await world.reserve("c2", 0)
    assert await lose(world, "c1")
    assert await numbers(world) == (1, 13_700, 0, 10_000_000 - reported)
    assert await lose(world, "c2")
    assert await numbers(world) == (0, 0, 0, 10_000_000 - reported - silent)
    assert not await lose(world, "c1")
    assert not await lose(world, "never")
    assert (await world.event_names("sub")).count("call.orphaned") == 2
    await assert_clean_audit(world.client)
    await world.close()


async def test_the_switchs_own_settle_corrects_an_orphan_once(world, other):
    await world.pair()
    await world.granted("c1", UK)
    await world.reserve("c1", 30)
    await lose(world, "c1")
    settled = await other.settle("c1", 61)
    assert not settled.duplicate
    assert (settled.legs[0].charged, settled.legs[0].balance) == ("0.013928", "9.986072")
    assert (await world.settle("c1", 61)).duplicate
    first, second = await entries_of_calls(world)
    assert (first.marks, first.seconds, first.legs[0].amount) == (Mark.PROVISIONAL, 30, -6_850)
    assert (second.marks, second.seconds) == (Mark.CORRECTION, 61)
    assert second.legs[0].amount == 6_850 - 13_928
    assert (await world.state("sub")).day_spend == 13_928


async def test_a_settle_of_the_same_seconds_is_final_all_the_same(world):
    await world.pair()
    await world.granted("c1", UK)
    await world.reserve("c1", 30)
    await lose(world, "c1")
    assert not (await world.settle("c1", 30)).duplicate
    assert (await world.settle("c1", 30)).duplicate
    assert [entry.legs[0].amount for entry in await entries_of_calls(world)] == [-6_850, 0]


async def test_an_orphan_is_no_call_to_authorize_again_but_can_be_looked_at(world, other):
    await world.pair()
    await world.granted("c1", UK)
    await world.reserve("c1", 30)
    await lose(world, "c1")
    for daemon in (world, other):
        assert await daemon.denied("c1", UK) == "call_id_conflict"
    state = await other.engine.call("sub", "c1")
    assert (state.state, state.used_seconds, state.legs[0].used) == ("orphan", 30, "0.00685")
    assert state.legs[0].held == "0"
    ttl = await world.client.execute("TTL", keys.call(await tag_of(world), "sub", "c1"))
    assert 86_000 < ttl <= 86_400


async def test_a_reserve_reopens_an_orphan(world, other):
    await world.pair()
    await world.granted("c1", UK)
    await world.reserve("c1", 30)
    before = await numbers(world)
    await lose(world, "c1")
    grant = await other.reserve("c1", 60)
    assert isinstance(grant, Grant)
    assert (grant.seconds, grant.legs[0].held) == (120, "0.0274")
    assert await numbers(world) == (1, 27_400, 13_700, before[3])
    key = keys.call(await tag_of(world), "sub", "c1")
    record = unpack_call(await world.client.execute("GET", key))
    assert record.head.marks == Mark.REOPENED
    assert await world.client.execute("TTL", key) == -1
    assert [(entry.legs[0].amount, entry.marks) for entry in await entries_of_calls(world)] == [
        (-6_850, Mark.PROVISIONAL), (6_850, Mark.PROVISIONAL | Mark.CORRECTION),
    ]  # fmt: skip
    assert (await world.settle("c1", 61)).legs[0].charged == "0.013928"
    assert await world.balance("sub") == 10_000_000 - 13_928


async def test_an_orphan_comes_back_with_the_time_it_was_granted(world):
    await world.pair()
    await world.granted("c1", UK, seconds=7200)
    await world.reserve("c1", 30)
    await lose(world, "c1")
    # The chunk from here would end long before what the switch was promised.
    grant = await world.reserve("c1", 90)
    assert (grant.seconds, grant.final, grant.legs[0].held) == (7200, False, "1.644")
    assert (await world.state("sub")).used == 20_550


async def test_a_late_report_reopens_an_orphan_without_undoing_its_use(world):
    await world.pair()
    await world.granted("c1", UK)
    await world.reserve("c1", 40)
    await lose(world, "c1")
    grant = await world.reserve("c1", 20)
    assert grant.seconds == 100
    assert await numbers(world) == (1, 22_833, 9_133, 10_000_000)
    await lose(world, "c1")
    assert await world.balance("sub") == 10_000_000 - 9_133


async def test_a_ringing_orphan_comes_back_ringing(world):
    await world.pair()
    await world.granted("c1", UK)
    await lose(world, "c1")
    assert (await world.reserve("c1", 0)).seconds == 60
    key = keys.call(await tag_of(world), "sub", "c1")
    assert unpack_call(await world.client.execute("GET", key)).head.reported == 0


async def test_an_orphan_may_be_lost_and_found_again(world, other):
    await world.pair()
    await world.granted("c1", UK)
    for used in (30, 60, 90):
        assert isinstance(await other.reserve("c1", used), Grant)
        assert await lose(world, "c1")
    assert await world.balance("sub") == 10_000_000 - 20_550
    await world.settle("c1", 91)
    assert await world.balance("sub") == 10_000_000 - 20_778


async def test_an_orphan_whose_money_is_gone_is_denied_and_corrected_by_its_settle(world):
    await world.pair("0.02", "10")
    await world.granted("c1", UK)
    await world.reserve("c1", 30)
    await lose(world, "c1")
    await world.granted("c2", UK, seconds=6)
    await world.debit("sub", "0.01", scope="self")
    before = await numbers(world)
    answer = await world.reserve("c1", 60)
    assert isinstance(answer, Denial)
    assert answer.reason == "insufficient_credit"
    assert await numbers(world) == before
    assert (await world.settle("c1", 61)).legs[0].charged == "0.013928"
    await world.settle("c2", 0)
    assert await world.balance("sub") == 20_000 - 10_000 - 13_928


async def test_a_reopened_call_keeps_its_trunk_even_above_the_limit(world):
    await world.pair("0", "0", trunks=Trunks(outbound=1), per_minute=False)
    await world.accounts.patch("master", {"trunks": {"outbound": 1}})
    await world.granted("c1", US)
    await lose(world, "c1")
    assert (await world.state("sub")).trunks_outbound == 0
    await world.granted("c2", US)
    grant = await world.reserve("c1", 30)
    assert (grant.seconds, grant.legs[0].billing) == (None, "trunk")
    assert (await world.state("sub")).trunks_outbound == 2
    for name in ("c1", "c2"):
        await world.settle(name, 60)


async def test_a_reserve_of_an_orphan_of_a_disabled_account_is_denied(world):
    await world.pair()
    await world.granted("c1", UK)
    await lose(world, "c1")
    await world.accounts.patch("sub", {"enabled": False})
    assert (await world.reserve("c1", 30)).reason == "account_disabled"
    assert (await world.state("sub")).calls == 0


async def test_only_a_call_whose_lease_has_run_out_is_lost(world, other):
    await world.pair()
    for name in ("old", "young", "heard"):
        await world.granted(name, UK)
        await world.reserve(name, 30)
    await age_lease(world, "old")
    await age_lease(world, "heard")
    await other.reserve("heard", 40)
    await trust(world)
    report = await other.sweeper.sweep()
    assert (report.orphaned, other.sweeper.orphaned_total) == (1, 1)
    assert [await world.engine.call("sub", name) is not None for name in ("old", "young")]
    assert (await world.engine.call("sub", "old")).state == "orphan"
    assert (await world.engine.call("sub", "young")).state == "open"
    assert (await world.engine.call("sub", "heard")).state == "open"
    event = (await world.events("sub"))[0]
    assert (event["event"], event["call"], event["seconds"]) == ("call.orphaned", "sub:old", "30")


async def test_two_sweepers_lose_a_call_once(world, other):
    await world.pair()
    for number in range(20):
        await world.granted(f"c{number}", UK)
        await age_lease(world, f"c{number}")
    await trust(world)
    reports = [await sweeper.sweep() for sweeper in (world.sweeper, other.sweeper)]
    assert [report.orphaned for report in reports] == [20, 0]
    assert len(await entries_of_calls(world)) == 20


@pytest.mark.parametrize("doubt", ["silence", "restart", "clock"])
async def test_after_a_doubt_nothing_is_lost_until_calls_had_time_to_be_heard(world, doubt):
    await world.pair()
    await world.granted("c1", UK)
    await age_lease(world, "c1")
    sweeper: Any = Sweeper(world.engine.context)
    await trust(world, age_seconds=31 if doubt == "silence" else 0)
    tag = await tag_of(world)
    if doubt == "restart":
        await world.client.execute("HSET", keys.bucket(tag), "swept_run", "another")
    elif doubt == "clock":
        sweeper._clock_offsets_seconds[tag] = 60
    for _ in range(2):
        report = await sweeper.sweep()
        assert (report.orphaned, report.waiting) == (0, 1)
    orphans_from = int(await world.client.execute("HGET", keys.bucket(tag), "orphans_from"))
    now = int((await world.client.execute("TIME"))[0])
    # One chunk and grace.
    assert 88 <= orphans_from - now <= 90
    await world.client.execute("HSET", keys.bucket(tag), "orphans_from", now)
    assert (await sweeper.sweep()).orphaned == 1


async def test_a_restarted_switch_loses_its_own_calls_only(world, other):
    await world.pair()
    for number in range(3):
        await world.granted(f"a{number}", UK, switch="fs1")
    await world.granted("b1", UK, switch="fs2")
    await world.granted("none", UK)
    await world.granted("gone", UK, switch="fs1")
    await world.settle("gone", 10)
    restarted = await other.engine.switch_restarted("fs1")
    assert (restarted.switch, restarted.orphaned) == ("fs1", 3)
    assert (await world.state("sub")).calls == 2
    assert (await other.engine.switch_restarted("fs1")).orphaned == 0
    assert not (await world.settle("a0", 20)).duplicate


async def test_a_lease_without_a_call_is_swept_away(world):
    await world.pair()
    tag = await tag_of(world)
    await world.client.execute("ZADD", keys.leases(tag), 1, keys.call_member("sub", "ghost"))
    await trust(world)
    assert (await world.sweeper.sweep()).orphaned == 0
    assert await world.client.execute("ZCARD", keys.leases(tag)) == 0


async def test_more_calls_than_a_page_are_lost_in_one_pass(world, monkeypatch):
    monkeypatch.setattr("authz.engine.orphans.PAGE_MEMBERS", 7)
    await world.pair()
    for number in range(30):
        await world.granted(f"c{number}", UK)
        await age_lease(world, f"c{number}")
    await trust(world)
    assert (await world.sweeper.sweep()).orphaned == 30
    assert await numbers(world) == (0, 0, 0, 10_000_000)


async def test_a_lease_whose_account_is_closed_is_dropped(world):
    await world.account("solo", deck="retail")
    await world.granted("e1", "911", account="solo")
    await asyncio.gather(*world.engine._tasks)
    tag = await world.engine.context.directory.tag_of("solo")
    member = keys.call_member("solo", "e1")
    assert await world.client.execute("ZSCORE", keys.leases(tag), member) is not None
    await world.accounts.close("solo")
    assert not await claim(world.engine.context, tag, member, forced=True)
    assert await world.client.execute("ZSCORE", keys.leases(tag), member) is None
