"""Authorize on real stores: the order of decisions, a test per reason, grants to the increment."""

from __future__ import annotations

import asyncio

import pytest
from world import RETAIL, TOLLFREE, UK, US, PriceList, World, make_row, per_minute

from authz.errors import CallUnknown
from authz.model import Grant, Trunks
from authz.reasons import CallClass


async def test_a_call_is_held_on_every_leg(world):
    await world.pair("10", "10")
    grant = await world.granted("c1", UK)
    assert (grant.seconds, grant.final, grant.extend_at, grant.ring_seconds) == (60, False, 45, 180)
    assert (grant.class_, grant.number) == ("international", UK)
    leaf, root = grant.legs
    assert (leaf.account, leaf.billing, leaf.rate) == ("sub", "per_minute", "0.0137")
    assert (leaf.held, leaf.available) == ("0.0137", "9.9863")
    assert (root.held, root.available) == ("0.01", "9.99")
    state = await world.state("master")
    assert (state.balance, state.held, state.calls, state.calls_international) == (
        10_000_000, 10_000, 1, 1,
    )  # fmt: skip


async def test_chains_of_one_to_four_accounts(world):
    parent = None
    for depth in range(1, 5):
        name = f"level{depth}"
        await world.account(name, "1", parent=parent, deck="retail")
        grant = await world.granted(f"call{depth}", account=name)
        assert [leg.account for leg in grant.legs] == [
            f"level{level}" for level in range(depth, 0, -1)
        ]
        parent = name
    assert (await world.state("level1")).held == 4 * 10_000
    for depth in range(1, 5):
        await world.settle(f"call{depth}", 61, account=f"level{depth}")
    assert await world.balance("level1") == 1_000_000 - 4 * 20_000


async def test_the_exact_partial_grant_when_the_master_is_short(world):
    await world.pair("10", "0.0105")
    grant = await world.granted("c1", UK, seconds=600)
    # 0.0105 buys 63 s at 0.01 a minute, of which 60 are whole increments of 6 s.
    assert (grant.seconds, grant.final) == (60, True)
    assert grant.legs[1].held == "0.01"
    assert await world.denied("c2", UK) == "insufficient_credit"


async def test_money_is_used_to_the_last_increment(world):
    await world.account("solo", "0.1", deck="retail")
    seconds = []
    for number in range(20):
        answer = await world.authorize(f"c{number}", UK, account="solo", seconds=100)
        if not isinstance(answer, Grant):
            break
        seconds.append(answer.seconds)
    # 0.0137 a minute in seconds: 100 s cost 0.022833; four fit, then 37 s of the rest.
    assert seconds == [100, 100, 100, 100, 37]
    assert (await world.state("solo")).held <= 100_000


async def test_an_unknown_account_is_denied(world):
    answer = await world.authorize("c1", account="nobody")
    assert (answer.reason, answer.account, answer.sip_status) == ("account_unknown", "nobody", 403)


@pytest.mark.parametrize("disabled", ["sub", "master"])
async def test_a_disabled_account_anywhere_denies(world, disabled):
    await world.pair()
    await world.accounts.patch(disabled, {"enabled": False})
    answer = await world.authorize("c1")
    assert (answer.reason, answer.account) == ("account_disabled", disabled)
    await world.accounts.patch(disabled, {"enabled": True})
    assert (await world.authorize("c1")).allowed


async def test_a_change_made_elsewhere_is_seen_at_once(world, any_store_url, tmp_path):
    await world.pair()
    await world.granted("c1")
    other = await World.start(any_store_url, tmp_path)
    await other.accounts.patch("sub", {"enabled": False})
    await other.close()
    assert await world.denied("c2") == "account_disabled"


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"blocked_classes": ("international",)}, "class_blocked"),
        ({"blocked_prefixes": ("44",)}, "prefix_blocked"),
        ({"blocked_prefixes": ("44",), "allowed_prefixes": ("+44",)}, "prefix_blocked"),
        ({"allowed_prefixes": ("1", "49")}, "prefix_not_allowed"),
        ({"max_rate": "0.0136"}, "rate_too_high"),
    ],
)
async def test_the_destination_policy_of_each_account(world, config, reason):
    await world.pair(**config)
    assert await world.denied("c1", UK) == reason
    assert (await world.authorize("in", UK, direction="inbound")).allowed
    await world.settle("in", 0)


async def test_the_longer_of_blocked_and_allowed_prefix_decides(world):
    await world.pair(blocked_prefixes=("44",), allowed_prefixes=("4420",))
    assert (await world.authorize("c1", "+442071838750")).allowed
    assert await world.denied("c2", "+441611234567") == "prefix_blocked"


async def test_a_blocked_deck_row_denies_on_trunks_too(world):
    row = make_row("1415", per_minute("0"), blocked=True)
    world.decks["retail"] = PriceList({"1": per_minute("0.01"), "1415": row})
    await world.pair(trunks=Trunks(outbound=5))
    assert await world.denied("c1", US) == "rate_blocked"


async def test_calls_per_second_let_a_burst_of_one_second_pass(world):
    await world.pair(max_calls_per_second=3)
    answers = [await world.authorize(f"c{number}") for number in range(5)]
    reasons = [answer.reason for answer in answers]
    assert reasons[:3] == ["ok"] * 3
    assert reasons[3:] == ["call_rate_exceeded"] * 2
    await asyncio.sleep(0.4)
    assert (await world.authorize("later")).allowed


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"max_calls_per_second": 0}, "call_rate_exceeded"),
        ({"max_calls": 0}, "max_calls_exceeded"),
        ({"max_calls_by_class": {"national": 0}}, "max_class_calls_exceeded"),
        ({"max_call_seconds": 0}, "max_call_seconds"),
        ({"max_call_cost": "0.0099"}, "max_call_cost"),
    ],
)
async def test_a_limit_of_nothing_allows_nothing(world, config, reason):
    await world.pair(**config)
    assert await world.denied("c1") == reason
    assert await world.denied("c2") == reason


async def test_concurrent_calls_are_limited_on_every_leg(world):
    await world.account("master", "10", deck="wholesale", max_calls=3)
    await world.account("sub", "10", parent="master", deck="retail", max_calls=2)
    await world.account("other", "10", parent="master", deck="retail")
    await world.granted("c1")
    await world.granted("c2")
    answer = await world.authorize("c3")
    assert (answer.reason, answer.account) == ("max_calls_exceeded", "sub")
    await world.granted("c3", account="other")
    answer = await world.authorize("c4", account="other")
    assert (answer.reason, answer.account) == ("max_calls_exceeded", "master")
    await world.settle("c1", 0)
    await world.granted("c4", account="other")


async def test_calls_of_a_class_are_limited_by_themselves(world):
    await world.pair(max_calls_by_class={"international": 1})
    await world.granted("c1", UK)
    assert await world.denied("c2", UK) == "max_class_calls_exceeded"
    await world.granted("c3", US)


async def test_tollfree_needs_no_credit_and_emergency_nothing_at_all(world):
    await world.pair("0", "0")
    await world.accounts.patch("sub", {"max_calls": 1})
    grant = await world.granted("t1", TOLLFREE)
    assert (grant.seconds, grant.class_, grant.legs[0].billing) == (None, "tollfree", "free")
    assert await world.denied("t2", TOLLFREE) == "max_calls_exceeded"
    await world.accounts.patch("sub", {"enabled": False})
    for number in ("911", "112", "933", "999", "988", "711"):
        assert (await world.granted(f"e{number}", number)).class_ == "emergency"
    assert (await world.granted("unknown", "911", account="nobody")).allowed
    assert await world.denied("t3", TOLLFREE) == "account_disabled"


async def test_an_emergency_call_is_recorded_and_settled_without_a_charge(world):
    await world.pair("0", "0")
    await world.granted("e1", "911")
    await asyncio.gather(*world.engine._tasks)
    state = await world.engine.call("sub", "e1")
    assert (state.state, state.class_) == ("open", "emergency")
    assert (await world.state("sub")).calls == 0
    settled = await world.settle("e1", 90)
    assert [leg.charged for leg in settled.legs] == ["0", "0"]


async def test_inbound_tollfree_is_not_free_and_rides_no_trunk(world):
    world.decks["retail"] = PriceList({"1800": per_minute("0")})
    await world.account(
        "solo", deck="retail", trunks=Trunks(inbound=5), trunk_classes=("tollfree",)
    )
    assert await world.denied("c1", TOLLFREE, account="solo", direction="inbound") == (
        "insufficient_credit"
    )
    await world.credit("solo", "0.000001")
    grant = await world.granted("c2", TOLLFREE, account="solo", direction="inbound")
    assert grant.legs[0].billing == "per_minute"


async def test_a_free_rate_needs_no_credit(world):
    world.decks["retail"] = PriceList({"1": per_minute("0")})
    await world.account("solo", deck="retail")
    await world.debit("solo", "5")
    grant = await world.granted("c1", account="solo")
    assert (grant.seconds, grant.legs[0].rate) == (None, "0")


async def test_free_seconds_still_need_credit_for_one_priced_increment(world):
    world.decks["retail"] = PriceList({"1": per_minute("0.06", 1, free_seconds=120)})
    await world.account("solo", "0.1", deck="retail")
    assert await world.denied("c1", account="solo") == "insufficient_credit"
    await world.credit("solo", "0.021")
    grant = await world.granted("c2", account="solo")
    assert (grant.seconds, grant.legs[0].held) == (60, "0.121")


async def test_without_a_deck_row_there_is_no_rate(world):
    await world.pair()
    assert await world.denied("c1", "+4930123456") == "no_rate"


async def test_a_deck_of_another_currency_serves_nobody(world):
    world.decks["euro"] = PriceList({"1": per_minute("0.01")}, currency="EUR")
    await world.account("solo", "10", deck="euro")
    assert await world.denied("c1", account="solo") == "no_rate"


async def test_an_account_without_a_deck_uses_its_parents(world):
    await world.account("master", "10", deck="wholesale")
    await world.account("sub", "10", parent="master")
    grant = await world.granted("c1")
    assert [leg.rate for leg in grant.legs] == ["0.005", "0.005"]


async def test_only_trunks_when_per_minute_is_off(world):
    await world.account("solo", "10", deck="retail", per_minute=False, trunks=Trunks(outbound=1))
    await world.granted("c1", account="solo")
    answer = await world.authorize("c2", account="solo")
    assert answer.reason == "trunks_exhausted"
    assert await world.denied("c3", UK, account="solo") == "trunks_exhausted"
    await world.settle("c1", 30, account="solo")
    await world.granted("c4", account="solo")
    assert (await world.event_names("solo")).count("trunks.exhausted") == 1


@pytest.mark.parametrize(
    ("trunks", "calls", "billings"),
    [
        (Trunks(outbound=1, twoway=1), "ooo", ["trunk", "trunk", None]),
        (Trunks(inbound=1, outbound=1), "oio", ["trunk", "trunk", None]),
        (Trunks(twoway=2), "oii", ["trunk", "trunk", None]),
        (Trunks(outbound=1, burst=1), "ooo", ["trunk", "burst", None]),
        (Trunks(outbound=1, burst=-1), "oooo", ["trunk", "burst", "burst", "burst"]),
        (Trunks(inbound=1), "o", [None]),
    ],
)
async def test_trunks_by_direction_two_way_and_burst(world, trunks, calls, billings):
    await world.account("solo", deck="retail", trunks=trunks)
    directions = {"o": "outbound", "i": "inbound"}
    given = []
    for number, letter in enumerate(calls):
        answer = await world.authorize(f"c{number}", account="solo", direction=directions[letter])
        given.append(answer.legs[0].billing if isinstance(answer, Grant) else None)
    assert given == billings


async def test_a_trunk_call_costs_nothing_and_nothing_limits_it(world):
    await world.account("master", "0", trunks=Trunks(outbound=2), deck="wholesale")
    await world.account("sub", parent="master", trunks=Trunks(outbound=2), deck="retail")
    grant = await world.granted("c1")
    assert (grant.seconds, grant.extend_at) == (None, 300)
    settled = await world.settle("c1", 3600)
    assert [leg.charged for leg in settled.legs] == ["0", "0"]


async def test_one_leg_on_a_trunk_the_other_by_the_minute(world):
    await world.account("master", "1", deck="wholesale")
    await world.account("sub", parent="master", trunks=Trunks(outbound=2), deck="retail")
    grant = await world.granted("c1")
    assert [leg.billing for leg in grant.legs] == ["trunk", "per_minute"]
    settled = await world.settle("c1", 60)
    assert [leg.charged for leg in settled.legs] == ["0", "0.005"]


async def test_a_rows_own_class_counts_for_trunks_and_blocks_of_its_leg_alone(world):
    row = make_row("1", per_minute("0.01"), call_class=CallClass.PREMIUM)
    world.decks["retail"] = PriceList({"1": row})
    await world.account("solo", "1", deck="retail", trunks=Trunks(outbound=1))
    grant = await world.granted("c1", account="solo")
    assert (grant.class_, grant.legs[0].billing) == ("national", "per_minute")


async def test_a_row_that_says_tollfree_is_charged_without_a_hold(world):
    row = make_row("1800", per_minute("0.02"), call_class=CallClass.TOLLFREE)
    world.decks["retail"] = PriceList({"1": per_minute("0.01"), "1800": row})
    await world.account("solo", deck="retail")
    grant = await world.granted("c1", TOLLFREE, account="solo")
    assert (grant.legs[0].billing, grant.legs[0].held) == ("free", "0")
    settled = await world.settle("c1", 90, account="solo")
    assert (settled.legs[0].charged, settled.legs[0].balance) == ("0.04", "-0.04")


async def test_credit_limits(world):
    await world.account("solo", deck="retail", credit_limit="0.02")
    assert (await world.granted("c1", account="solo", seconds=120)).legs[0].available == "0"
    await world.account("boundless", deck="retail", credit_limit="unlimited")
    grant = await world.granted("c2", account="boundless", seconds=7200)
    assert (grant.seconds, grant.legs[0].available) == (7200, None)


@pytest.mark.parametrize("period", ["daily", "monthly"])
async def test_spend_limits_count_what_is_held_too(world, period):
    limit = {f"{period}_spend_limit": "0.03"}
    await world.account("solo", "10", deck="retail", **limit)
    await world.granted("c1", account="solo")
    await world.settle("c1", 60, account="solo")
    await world.granted("c2", account="solo")
    grant = await world.granted("c3", account="solo", seconds=600)
    assert (grant.seconds, grant.final) == (60, True)
    assert await world.denied("c4", account="solo") == f"{period}_spend_limit"


async def test_a_grant_ends_at_max_call_seconds(world):
    await world.pair(max_call_seconds=90)
    assert (await world.granted("c1", seconds=600)).seconds == 90
    grant = await world.reserve("c1", 45)
    assert (grant.seconds, grant.final) == (90, True)
    assert (await world.reserve("c1", 90)).reason == "max_call_seconds"


async def test_a_grant_ends_at_max_call_cost(world):
    await world.pair(max_call_cost="0.02")
    grant = await world.granted("c1", seconds=600)
    assert (grant.seconds, grant.final) == (120, True)


async def test_min_first_seconds(world):
    await world.pair("0.03", "10", min_first_seconds=240)
    assert await world.denied("c1") == "insufficient_credit"
    await world.credit("sub", "0.01")
    assert (await world.granted("c2")).seconds == 240


async def test_the_answer_of_an_open_call_is_repeated(world):
    await world.pair()
    first = await world.granted("c1", switch="fs1")
    again = await world.granted("c1", switch="fs1")
    assert again == first
    assert (await world.state("sub")).calls == 1
    for change in ({"to": UK}, {"switch": "fs2"}, {"direction": "inbound"}):
        assert await world.denied("c1", **{"switch": "fs1", **change}) == "call_id_conflict"


async def test_a_closed_call_id_is_never_used_again(world):
    await world.pair()
    await world.granted("c1")
    await world.settle("c1", 5)
    assert await world.denied("c1") == "call_id_conflict"


async def test_the_same_call_id_of_two_accounts_is_two_calls(world):
    await world.pair()
    await world.account("other", "1", deck="retail")
    await world.granted("c1")
    await world.granted("c1", account="other")


async def test_a_hangup_that_overtakes_its_authorize_ends_the_call(world):
    await world.pair()
    with pytest.raises(CallUnknown, match="no call c1"):
        await world.settle("c1", 0)
    assert await world.denied("c1") == "call_ended"


async def test_a_dry_run_writes_nothing(world):
    await world.pair()
    before = await world.state("sub")
    answer = await world.granted("c1", dry_run=True)
    assert answer.dry_run
    assert await world.state("sub") == before
    assert await world.engine.call("sub", "c1") is None
    assert (await world.authorize("c2", "+4930123456", dry_run=True)).dry_run


async def test_an_account_that_is_not_enforced_lets_denied_calls_pass(world):
    await world.pair("0", "0", enforce=False)
    grant = await world.granted("c1")
    assert (grant.enforced, grant.reason) == (False, "insufficient_credit")
    settled = await world.settle("c1", 61)
    assert [leg.charged for leg in settled.legs] == ["0.02", "0.0055"]


async def test_a_ported_number_is_rated_at_its_routing_number(world):
    await world.pair()
    grant = await world.granted("c1", US, rate_number=UK)
    assert (grant.number, grant.class_, grant.legs[0].rate) == (US, "national", "0.0137")


async def test_a_full_memory_denies_only_paid_calls(world):
    await world.pair()
    world.engine.context.memory_full = True
    assert await world.denied("c1") == "store_full"
    await world.granted("c2", TOLLFREE)


async def test_rates_are_those_of_the_authorize(world):
    await world.pair()
    await world.granted("c1")
    world.decks["retail"] = PriceList({"1": per_minute("5")})
    settled = await world.settle("c1", 61)
    assert settled.legs[0].charged == "0.02"
    world.decks["retail"] = RETAIL
