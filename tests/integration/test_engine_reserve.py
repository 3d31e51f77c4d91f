"""Reserve on real stores: how running calls go on, become final, and are denied."""

from __future__ import annotations

import asyncio

import pytest
from world import TOLLFREE, UK, US, PriceList, World, per_minute

from authz.config.sections import FailureSettings
from authz.model import Denial, Grant, LowBalance, Trunks
from authz.store import keys
from authz.store.records import CallRecord, unpack_call
from authz_ext.rating import Rate, Tier, Window


@pytest.fixture
async def other(world, any_store_url, tmp_path):
    """A second daemon on the same store."""
    other = await World.start(any_store_url, tmp_path / "other")
    yield other
    await other.close()


async def record_of(world: World, call_id: str, account: str = "sub") -> CallRecord:
    """Return the stored record of a call."""
    tag = await world.engine.context.directory.tag_of(account)
    return unpack_call(await world.client.execute("GET", keys.call(tag, account, call_id)))


async def lease_seconds(world: World, call_id: str, account: str = "sub") -> int:
    """Return how long a call is still believed alive, rounded."""
    record = await record_of(world, call_id, account)
    seconds, micros = await world.client.execute("TIME")
    return round((record.head.lease_ms - int(seconds) * 1000 - int(micros) // 1000) / 1000)


async def test_a_chunk_from_what_is_used(world):
    await world.pair()
    await world.granted("c1", UK)
    grant = await world.reserve("c1", 45)
    assert (grant.seconds, grant.final, grant.extend_at) == (105, False, 90)
    assert [leg.held for leg in grant.legs] == ["0.023975", "0.018"]
    state = await world.state("sub")
    assert (state.held, state.used) == (23_975, 10_275)


async def test_never_less_than_already_granted(world):
    await world.pair()
    await world.granted("c1", UK, seconds=600)
    grant = await world.reserve("c1", 45)
    assert (grant.seconds, grant.final) == (600, False)
    assert grant.extend_at == 585
    assert (await world.state("sub")).held == 137_000


async def test_another_daemon_extends_at_the_pinned_rate(world, other):
    await world.pair()
    await world.granted("c1", UK)
    other.decks["retail"] = PriceList({"44": per_minute("9")})
    grant = await other.reserve("c1", 30)
    assert (grant.seconds, grant.legs[0].held, grant.legs[0].rate) == (90, "0.02055", "0.0137")
    assert (await world.reserve("c1", 60)).seconds == 120


async def test_a_report_of_nothing_new_only_renews_the_lease(world, other):
    await world.pair()
    await world.granted("c1", UK)
    first = await world.reserve("c1", 30)
    before = await world.state("sub")
    for used in (30, 29, 0):
        again = await other.reserve("c1", used, seconds=600)
        assert (again.seconds, again.legs) == (first.seconds, first.legs)
    assert await world.state("sub") == before


async def test_a_sign_of_life_while_ringing_keeps_the_time_to_ring(world):
    await world.pair()
    await world.granted("c1", UK)
    assert await lease_seconds(world, "c1") == 180 + 60 + 30
    await world.reserve("c1", 0)
    assert await lease_seconds(world, "c1") == 180 + 60 + 30
    assert (await record_of(world, "c1")).head.reported == 0
    await world.reserve("c1", 20)
    assert await lease_seconds(world, "c1") == 80 - 20 + 30
    await world.granted("t1", TOLLFREE)
    await world.reserve("t1", 10)
    assert await lease_seconds(world, "t1") == 300 + 30


async def test_what_is_left_is_granted_and_final(world):
    await world.pair("0.02", "10")
    await world.granted("c1", UK)
    grant = await world.reserve("c1", 30)
    # 0.02 buys 87 s at 0.0137 a minute; 90 were wanted.
    assert (grant.seconds, grant.final, grant.extend_at) == (87, True, 73)
    grant = await world.reserve("c1", 60)
    assert (grant.seconds, grant.final, grant.extend_at) == (87, True, 81)
    answer = await world.reserve("c1", 87)
    assert isinstance(answer, Denial)
    assert (answer.reason, answer.account, answer.sip_status) == ("insufficient_credit", "sub", 402)


async def test_a_denial_repeated_is_a_denial(world, other):
    await world.pair("0.0137", "10")
    await world.granted("c1", UK)
    for daemon in (world, world, other):
        answer = await daemon.reserve("c1", 60)
        assert isinstance(answer, Denial)
        assert answer.reason == "insufficient_credit"
    assert isinstance(await world.reserve("c1", 20), Denial)


async def test_credit_booked_meanwhile_extends_a_final_call(world):
    await world.pair("0.0137", "10")
    await world.granted("c1", UK)
    assert (await world.reserve("c1", 30)).final
    await world.credit("sub", "1")
    grant = await world.reserve("c1", 45)
    assert (grant.seconds, grant.final) == (105, False)


@pytest.mark.parametrize("period", ["daily", "monthly"])
async def test_a_spend_limit_ends_a_call_by_its_own_name(world, period):
    await world.pair(**{f"{period}_spend_limit": "0.0137"})
    await world.granted("c1", UK)
    assert (await world.reserve("c1", 30)).final
    assert (await world.reserve("c1", 60)).reason == f"{period}_spend_limit"


async def test_the_master_may_be_the_short_one(world):
    await world.pair("10", "0.013")
    await world.granted("c1", UK)
    grant = await world.reserve("c1", 59)
    # 0.013 buys 78 s at 0.01 a minute.
    assert (grant.seconds, grant.final) == (78, True)
    answer = await world.reserve("c1", 78)
    assert (answer.reason, answer.account) == ("insufficient_credit", "master")


async def test_a_disabled_account_refuses_the_next_reserve_and_records_its_use(world, other):
    await world.pair()
    await world.granted("c1", UK, seconds=600)
    await other.accounts.patch("master", {"enabled": False})
    answer = await world.reserve("c1", 30)
    assert (answer.reason, answer.account) == ("account_disabled", "master")
    assert (await world.state("sub")).used == 6_850
    assert (await world.settle("c1", 31)).legs[0].charged == "0.007078"


async def test_a_cap_that_was_lowered_ends_a_call_where_it_was_granted_to(world):
    await world.pair()
    await world.granted("c1", UK, seconds=120)
    await world.accounts.patch("sub", {"max_call_seconds": 60})
    for used in (30, 70, 70):
        grant = await world.reserve("c1", used)
        assert isinstance(grant, Grant)
        assert (grant.seconds, grant.final) == (120, True)
    for _ in range(2):
        assert (await world.reserve("c1", 120)).reason == "max_call_seconds"


async def test_max_call_cost_ends_a_running_call(world):
    await world.pair(max_call_cost="0.0274")
    await world.granted("c1", UK)
    grant = await world.reserve("c1", 100)
    assert (grant.seconds, grant.final) == (120, True)
    assert (await world.reserve("c1", 120)).reason == "max_call_cost"
    assert (await world.settle("c1", 121)).legs[0].charged == "0.027628"


async def test_the_rates_own_greatest_cost_ends_or_frees_the_call(world):
    ending = per_minute("0.6", 1, max_cost=1_000_000, max_cost_action="end")
    freeing = per_minute("0.6", 1, max_cost=1_000_000)
    world.decks["retail"] = PriceList({"44": ending, "49": freeing})
    await world.account("solo", "5", deck="retail")
    grant = await world.granted("c1", UK, account="solo", seconds=600)
    assert (grant.seconds, grant.final, grant.legs[0].held) == (100, True, "1")
    assert (await world.reserve("c1", 100, account="solo")).reason == "max_call_cost"
    # The true cost is booked even so.
    assert (await world.settle("c1", 110, account="solo")).legs[0].charged == "1.1"
    grant = await world.granted("c2", "+4930123456", account="solo", seconds=600)
    assert (grant.seconds, grant.final, grant.legs[0].held) == (600, False, "1")
    assert (await world.settle("c2", 500, account="solo")).legs[0].charged == "1"


async def test_a_trunk_call_stays_one_when_trunks_are_taken_away(world):
    await world.pair("0", "0", trunks=Trunks(outbound=1), per_minute=False)
    await world.accounts.patch("master", {"trunks": {"outbound": 1}})
    await world.granted("c1")
    await world.accounts.patch("sub", {"trunks": {"outbound": 0}})
    grant = await world.reserve("c1", 300)
    assert (grant.seconds, grant.extend_at, grant.legs[0].billing) == (None, 600, "trunk")
    assert (await world.state("sub")).trunks_outbound == 1


async def test_free_seconds_are_held_like_a_priced_increment(world):
    world.decks["retail"] = PriceList({"44": per_minute("0.06", 1, free_seconds=90)})
    await world.account("solo", "1", deck="retail")
    await world.granted("c1", UK, account="solo")
    grant = await world.reserve("c1", 20, account="solo")
    assert (grant.seconds, grant.legs[0].held) == (80, "0.091")
    assert (await world.state("solo")).used == 0
    assert (await world.settle("c1", 90, account="solo")).legs[0].charged == "0"


async def test_windows_price_what_is_used_by_when_it_was(world):
    every_day = 0b1111111
    now = await world.client.execute("TIME")
    minute = int(now[0]) // 60 % 1440
    dear = Window(every_day, minute, (minute + 10) % 1440 or 1440, [Tier(0, 600_000_000, 60, 1)])
    rate = Rate(tiers=[Tier(0, 60_000_000, 60, 1)], windows=[dear])
    world.decks["retail"] = PriceList({"44": rate})
    await world.account("solo", "5", deck="retail")
    grant = await world.granted("c1", UK, account="solo")
    assert grant.legs[0].held == "0.6"
    # Answered before the window opened: yesterday's time is clamped to the authorize.
    settled = await world.settle("c1", 60, account="solo", answered_at=int(now[0]) - 86_400)
    assert settled.legs[0].charged == "0.6"
    ended_at = int(now[0]) - 1200
    settled = await world.settle(
        "c2", 60, account="solo", to=UK, direction="outbound", ended_at=ended_at
    )
    assert settled.legs[0].charged == "0.06"


async def test_an_unknown_call_needs_its_number(world):
    await world.pair()
    assert (await world.reserve("c1", 30)).reason == "call_unknown"
    assert (await world.reserve("c1", 30, account="nobody")).reason == "call_unknown"


async def test_a_reserve_with_a_number_adopts_an_unknown_call(world):
    await world.pair()
    grant = await world.reserve("c1", 90, to=UK)
    assert (grant.seconds, grant.final) == (150, False)
    assert [leg.held for leg in grant.legs] == ["0.03425", "0.025"]
    state = await world.state("sub")
    assert (state.calls, state.used) == (1, 20_550)
    record = await record_of(world, "c1")
    assert (record.head.reported, record.head.used_seconds) == (1, 90)
    seconds, _ = await world.client.execute("TIME")
    assert abs(int(seconds) - 90 - record.head.authorized_us // 1_000_000) <= 1
    assert (await world.reserve("c1", 120)).seconds == 180


async def test_an_adopted_call_must_be_paid_for_too(world):
    await world.pair("0.02", "10")
    grant = await world.reserve("c1", 60, to=UK)
    assert (grant.seconds, grant.final) == (87, True)
    assert (await world.reserve("c2", 60, to=UK)).reason == "insufficient_credit"


async def test_a_call_that_has_ended_is_not_adopted(world, other):
    await world.pair()
    await world.granted("c1", UK)
    await world.settle("c1", 5)
    for daemon in (world, other):
        assert (await daemon.reserve("c1", 6, to=UK)).reason == "call_id_conflict"
    assert (await world.reserve("c1", 6)).reason == "call_unknown"


async def test_an_emergency_call_goes_on_whatever_happens(world, other):
    await world.pair("0", "0", max_call_seconds=60)
    await world.granted("e1", "911")
    await world.granted("e2", "911", account="nobody")
    await asyncio.gather(*world.engine._tasks)
    await world.accounts.patch("sub", {"enabled": False})
    for daemon in (world, other):
        for used in (300, 600):
            grant = await daemon.reserve("e1", used)
            assert isinstance(grant, Grant)
            assert (grant.seconds, grant.final, grant.extend_at) == (None, False, used + 300)
    grant = await world.reserve("e2", 300, account="nobody")
    assert (grant.seconds, grant.class_, grant.extend_at) == (None, "emergency", 600)
    grant = await other.reserve("e3", 300, account="nobody", to="911")
    assert (grant.class_, grant.number) == ("emergency", "911")
    assert [leg.charged for leg in (await world.settle("e1", 700)).legs] == ["0", "0"]


async def test_an_emergency_call_goes_on_without_the_store(any_store_url, tmp_path):
    failure = FailureSettings(on_store_failure_running="deny")
    world = await World.start(any_store_url, tmp_path, failure=failure)
    await world.pair()
    await world.granted("e1", "911")
    await world.granted("c1", UK)
    await asyncio.gather(*world.engine._tasks)
    await world.client.close()
    assert (await world.reserve("c1", 30)).reason == "store_unavailable"
    grant = await world.reserve("e1", 300)
    assert (grant.allowed, grant.seconds, grant.extend_at) == (True, None, 600)
    await world.engine.close()


async def test_where_denials_are_not_enforced_a_call_is_asked_for_again_later(world):
    await world.pair("0", "0", enforce=False)
    await world.granted("c1", UK)
    grant = await world.reserve("c1", 600)
    assert (grant.enforced, grant.reason, grant.extend_at) == (False, "insufficient_credit", 900)


async def test_a_refused_repeat_hides_no_running_call(world):
    await world.pair(enforce=False)
    await world.granted("c1", UK)
    assert not (await world.granted("c1", US)).enforced
    grant = await world.reserve("c1", 30)
    assert (grant.enforced, grant.seconds, grant.number) == (True, 90, UK)


async def test_reported_use_crosses_thresholds_once(world):
    await world.pair("0.05", "10", low_balance=LowBalance("0.03"))
    await world.granted("c1", UK)
    await world.reserve("c1", 60)
    assert await world.event_names("sub") == []
    await world.reserve("c1", 100)
    await world.reserve("c1", 130)
    assert await world.event_names("sub") == ["balance.low"]
    # 0.05 buys 218 s; the switch is late, and the use it reports is more than there is.
    await world.reserve("c1", 219)
    assert await world.event_names("sub") == ["balance.low", "balance.exhausted"]
    await world.credit("sub", "1")
    assert (await world.event_names("sub"))[2:] == ["balance.restored"]
    low = (await world.events("sub"))[0]
    assert (low["balance"], low["threshold"]) == ("27167", "30000")


async def test_a_spend_limit_warns_before_it_is_reached(world):
    await world.pair(daily_spend_limit="0.02")
    await world.granted("c1", UK)
    await world.settle("c1", 75)
    await world.granted("c2", UK, seconds=6)
    await world.settle("c2", 60)
    assert await world.event_names("sub") == [
        "call.overrun", "spend_limit.warning", "call.overrun", "spend_limit.reached",
    ]  # fmt: skip
