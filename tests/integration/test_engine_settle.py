"""Settle on real stores: exact costs, once, for calls that are known and for those that are not."""

from __future__ import annotations

import asyncio
import datetime as dt

import pytest
import redis
from audit_helper import assert_clean_audit
from world import TOLLFREE, UK, US, PriceList, World, make_row, per_minute

from authz.config.sections import StoreSettings
from authz.errors import CallUnknown, InvalidInput, SettledDifferently
from authz.model import AutoRecharge, Grant, LowBalance, Spooled, Trunks
from authz.money import parse_amount
from authz.reasons import CallClass
from authz.store import keys
from authz.store.constants import Mark
from authz.store.layouts import CALL_HEAD, CALL_LAYOUT_NUMBER, SETTLE
from authz.store.records import LedgerEntry, unpack_ledger_entry
from authz_ext.rating import Rate, Tier


@pytest.fixture
async def other(world, any_store_url, tmp_path):
    """A second daemon on the same store."""
    other = await World.start(any_store_url, tmp_path / "other")
    yield other
    await other.close()


async def entries_of_calls(world: World, account: str = "sub") -> list[LedgerEntry]:
    """Return the ledger entries of calls in an account's bucket, oldest first."""
    tag = await world.engine.context.directory.tag_of(account)
    entries = await world.client.execute("XRANGE", keys.ledger(tag), "-", "+")
    unpacked = [unpack_ledger_entry(entry_id, fields[1]) for entry_id, fields in entries]
    return [entry for entry in unpacked if entry.kind.label == "call"]


async def store_seconds(world: World) -> int:
    """Return the store's time."""
    return int((await world.client.execute("TIME"))[0])


@pytest.mark.parametrize(
    ("price", "increment", "seconds", "cost"),
    [
        ("0.0137", 1, 61, "0.013928"),  # 0.0139283…
        ("0.0137", 1, 1, "0.000228"),  # 0.00022833…
        ("0.0137", 1, 30, "0.00685"),
        ("0.0137", 60, 61, "0.0274"),
        ("0.0137", 6, 61, "0.01507"),
        ("0.000033", 1, 1, "0.000001"),  # 0.00000055, half up
        ("0.000029", 1, 1, "0"),  # 0.00000048…
        ("0.01", 60, 0, "0"),
        ("0", 1, 3600, "0"),
    ],
)
async def test_costs_are_exact_and_rounded_once(world, price, increment, seconds, cost):
    world.decks["retail"] = PriceList({"44": per_minute(price, increment)})
    await world.account("solo", "1", deck="retail")
    await world.granted("c1", UK, account="solo")
    settled = await world.settle("c1", seconds, account="solo")
    assert settled.legs[0].charged == cost
    assert (await world.balance("solo")) == 1_000_000 - parse_amount(cost)


async def test_first_and_following_increments_fees_and_free_seconds(world):
    tiers = [Tier(0, 12_000_000, 60, 30), Tier(30, 12_000_000, 60, 6)]
    rate = Rate(tiers=tiers, connect_fee=50_000, free_seconds=10)
    world.decks["retail"] = PriceList({"44": rate})
    await world.account("solo", "1", deck="retail")
    costs = []
    for number, seconds in enumerate((0, 10, 11, 30, 31, 36, 37)):
        await world.granted(f"c{number}", UK, account="solo")
        settled = await world.settle(f"c{number}", seconds, account="solo")
        costs.append(settled.legs[0].charged)
    assert costs == ["0", "0", "0.056", "0.056", "0.0572", "0.0572", "0.0584"]


async def test_every_leg_is_charged_by_its_own_deck_in_one_entry(world):
    await world.pair("10", "10")
    await world.granted("c1", UK)
    settled = await world.settle("c1", 61, hangup_cause="NORMAL_CLEARING")
    assert (settled.seconds, settled.duplicate) == (61, False)
    assert [(leg.account, leg.billing, leg.charged, leg.balance) for leg in settled.legs] == [
        ("sub", "per_minute", "0.013928", "9.986072"),
        ("master", "per_minute", "0.011", "9.989"),
    ]
    (entry,) = await entries_of_calls(world)
    assert (entry.reference, entry.number, entry.description) == ("c1", UK, "NORMAL_CLEARING")
    assert (entry.seconds, entry.call_class, entry.marks) == (61, CallClass.INTERNATIONAL, 0)
    assert [(leg.account, leg.amount) for leg in entry.legs] == [
        ("sub", -13_928), ("master", -11_000),
    ]  # fmt: skip


async def test_a_call_that_costs_nothing_leaves_an_entry_too(world):
    await world.pair()
    await world.granted("c1", UK)
    assert [leg.charged for leg in (await world.settle("c1", 0)).legs] == ["0", "0"]
    assert [leg.amount for leg in (await entries_of_calls(world))[0].legs] == [0, 0]


async def test_the_same_settle_again_is_a_duplicate_anywhere(world, other):
    await world.pair()
    await world.granted("c1", UK)
    first = await other.settle("c1", 61)
    for daemon in (world, other):
        again = await daemon.settle("c1", 61)
        assert again.duplicate
        assert again.legs == first.legs
        with pytest.raises(SettledDifferently, match="61") as refused:
            await daemon.settle("c1", 62)
        assert refused.value.seconds == 61
    assert len(await entries_of_calls(world)) == 1
    state = await world.engine.call("sub", "c1")
    assert (state.state, state.used_seconds) == ("settled", 61)


async def test_an_overrun_is_booked_below_the_limit_and_told(world):
    await world.pair("0.0137", "10")
    await world.granted("c1", UK)
    settled = await world.settle("c1", 600)
    assert (settled.legs[0].charged, settled.legs[0].balance) == ("0.137", "-0.1233")
    assert await world.event_names("sub") == ["call.overrun", "balance.exhausted"]
    assert await world.denied("c2", UK) == "insufficient_credit"


async def test_a_disabled_account_is_charged_all_the_same(world, other):
    await world.pair()
    await world.granted("c1", UK)
    await other.accounts.patch("sub", {"enabled": False})
    assert (await world.settle("c1", 61)).legs[0].charged == "0.013928"


async def test_a_settle_crosses_thresholds_and_asks_for_a_recharge_once(world):
    recharge = AutoRecharge(threshold="0.97", amount="5")
    await world.pair("1", "10", low_balance=LowBalance("0.95"), auto_recharge=recharge)
    for number in range(5):
        await world.granted(f"c{number}", UK)
        await world.settle(f"c{number}", 60)
    assert await world.event_names("sub") == ["recharge.due", "balance.low"]
    due = (await world.events("sub"))[0]
    assert (due["recharge"], due["amount"], due["balance"]) == ("sub-1", "5000000", "958900")


async def test_mode_credit_raises_a_sub_accounts_limit_at_once(world):
    recharge = AutoRecharge(threshold="0.99", amount="0.5", mode="credit", min_interval_hours=0)
    await world.pair("1", "10", auto_recharge=recharge)
    await world.granted("c1", UK)
    settled = await world.settle("c1", 60)
    assert settled.legs[0].balance == "1.4863"
    assert await world.event_names("sub") == ["recharge.succeeded"]
    assert await world.balance("master") == 10_000_000 - 10_000


async def test_times_are_clamped_between_authorize_and_now(world):
    await world.pair()
    began = await store_seconds(world)
    for number, (answered_at, ended_at) in enumerate([(0, 1), (1 << 39, 1 << 39), (None, None)]):
        await world.granted(f"c{number}", UK)
        await world.settle(f"c{number}", 61, answered_at=answered_at, ended_at=ended_at)
    now = await store_seconds(world)
    assert all(began <= entry.started_at <= now for entry in await entries_of_calls(world))


@pytest.mark.parametrize("moment", ["yesterday", "2026-11-22T10:00:00", -1, 1 << 40])
async def test_a_time_that_is_none_is_invalid_input(world, moment):
    await world.pair()
    with pytest.raises(InvalidInput) as refused:
        await world.settle("c1", 61, answered_at=moment)
    assert refused.value.field == "answered_at"


async def test_an_unknown_call_without_numbers_stays_unknown(world):
    await world.pair()
    ended_at = await store_seconds(world)
    for more in ({}, {"to": UK}, {"to": UK, "direction": "outbound"}, {"ended_at": ended_at}):
        with pytest.raises(CallUnknown):
            await world.settle("c1", 61, **more)
    with pytest.raises(CallUnknown, match="nobody"):
        await world.settle("c1", 61, account="nobody", to=UK, ended_at=ended_at)
    assert await entries_of_calls(world) == []


async def test_an_unknown_call_with_its_numbers_is_charged_once(world, other):
    await world.pair("0", "10")
    ended_at = await store_seconds(world) - 30
    numbers = {"to": UK, "direction": "outbound", "ended_at": ended_at}
    first = await world.settle("c1", 61, **numbers)
    assert [(leg.billing, leg.charged) for leg in first.legs] == [
        ("per_minute", "0.013928"), ("per_minute", "0.011"),
    ]  # fmt: skip
    assert first.legs[0].balance == "-0.013928"
    for daemon, more in ((world, numbers), (other, numbers), (other, {})):
        again = await daemon.settle("c1", 61, **more)
        assert again.duplicate
        assert again.legs == first.legs
    with pytest.raises(SettledDifferently):
        await other.settle("c1", 60, **numbers)
    (entry,) = await entries_of_calls(world)
    assert (entry.marks, entry.started_at) == (Mark.UNKNOWN, ended_at - 61)
    assert await world.denied("c1", UK) == "call_id_conflict"


async def test_when_an_unknown_call_ended_may_be_told_in_words(world):
    await world.pair()
    moment = dt.datetime.fromtimestamp(await store_seconds(world) - 100, dt.UTC)
    await world.settle("c1", 61, to=UK, direction="outbound", ended_at=moment.isoformat())
    (entry,) = await entries_of_calls(world)
    assert entry.started_at == int(moment.timestamp()) - 61


async def test_an_unknown_call_that_ended_too_long_ago_is_not_charged_blindly(world):
    await world.pair()
    old = await store_seconds(world) - 86_400 - 10
    answer = await world.settle("c1", 61, to=UK, direction="outbound", ended_at=old)
    assert answer == Spooled("c1")
    assert await world.client.execute("XLEN", keys.late()) == 1
    assert await world.balance("sub") == 10_000_000


async def test_an_unknown_call_is_billed_on_a_trunk_only_of_its_direction(world):
    world.decks["retail"] = PriceList({"1": per_minute("0.01"), "44": per_minute("0.02")})
    ended_at = await store_seconds(world)

    async def billing(call_id: str, trunks: Trunks, to: str, direction: str) -> str:
        await world.account("solo", deck="retail", trunks=trunks)
        settled = await world.settle(
            call_id, 60, account="solo", to=to, direction=direction, ended_at=ended_at
        )
        return settled.legs[0].billing

    assert await billing("c1", Trunks(outbound=1), US, "outbound") == "trunk"
    assert await billing("c2", Trunks(outbound=1), UK, "outbound") == "per_minute"
    assert await billing("c3", Trunks(outbound=1), US, "inbound") == "per_minute"
    assert await billing("c4", Trunks(inbound=1), US, "outbound") == "per_minute"
    assert await billing("c5", Trunks(inbound=1), US, "inbound") == "trunk"
    assert await billing("c6", Trunks(twoway=1), US, "inbound") == "trunk"
    assert await billing("c7", Trunks(burst=-1), US, "outbound") == "trunk"
    assert await billing("c8", Trunks(twoway=1), TOLLFREE, "outbound") == "free"
    assert await billing("c9", Trunks(), "911", "outbound") == "free"


async def test_an_unknown_tollfree_call_costs_what_a_row_of_its_class_says(world):
    row = make_row("1800", per_minute("0.02"), call_class=CallClass.TOLLFREE)
    world.decks["retail"] = PriceList({"1800": row})
    await world.account("solo", deck="retail")
    settled = await world.settle(
        "c1", 61, account="solo", to=TOLLFREE, direction="outbound",
        ended_at=await store_seconds(world),
    )  # fmt: skip
    assert (settled.legs[0].billing, settled.legs[0].charged) == ("free", "0.04")


async def test_a_hangup_that_overtakes_its_authorize_may_bring_its_numbers(world):
    await world.pair()
    with pytest.raises(CallUnknown):
        await world.settle("c1", 61)
    numbers = {"to": UK, "direction": "outbound", "ended_at": await store_seconds(world)}
    assert (await world.settle("c1", 61, **numbers)).legs[0].charged == "0.013928"
    assert await world.denied("c1", UK) == "call_id_conflict"


async def test_a_call_on_a_trunk_frees_it_and_is_booked_at_zero(world):
    await world.pair("0", "0", trunks=Trunks(outbound=1, burst=1))
    await world.accounts.patch("master", {"trunks": {"outbound": 2}})
    for name in ("c1", "c2"):
        await world.granted(name)
    assert [(await world.settle(name, 99)).legs[0].billing for name in ("c1", "c2")] == [
        "trunk", "burst",
    ]  # fmt: skip
    state = await world.state("sub")
    assert (state.trunks_outbound, state.calls, state.day_spend) == (0, 0, 0)
    assert len(await entries_of_calls(world)) == 2


async def test_an_emergency_call_that_ends_at_once_is_booked_once(world):
    await world.pair()
    await world.granted("e1", "911")
    settled = await world.settle("e1", 20)
    await asyncio.gather(*world.engine._tasks)
    assert [leg.charged for leg in settled.legs] == ["0", "0"]
    assert (await world.settle("e1", 20)).duplicate
    assert len(await entries_of_calls(world)) == 1
    assert (await world.engine.call("sub", "e1")).state == "settled"


async def test_tombstones_are_small_and_go_away(world):
    await world.pair()
    await world.granted("c1", UK)
    await world.settle("c1", 61)
    tag = await world.engine.context.directory.tag_of("sub")
    hour = await store_seconds(world) // 3600
    key = keys.closed_prefix(tag) + b"%d" % hour
    packed = await world.client.execute("HGET", key, keys.call_digest("sub", "c1"))
    assert len(packed) <= 100
    assert 0 < await world.client.execute("TTL", key) <= 26 * 3600
    assert await world.client.execute("EXISTS", keys.call(tag, "sub", "c1")) == 0
    assert await world.client.execute("ZCARD", keys.leases(tag)) == 0


async def test_a_repeat_is_known_in_the_hours_after(world):
    await world.pair()
    await world.granted("c1", UK)
    await world.settle("c1", 61)
    tag = await world.engine.context.directory.tag_of("sub")
    hour = await store_seconds(world) // 3600
    prefix = keys.closed_prefix(tag)
    await world.client.execute("RENAME", prefix + b"%d" % hour, prefix + b"%d" % (hour - 24))
    day = hour // 24
    filters = prefix + b"filter:%d"
    await world.client.execute("RENAME", filters % day, filters % ((hour - 24) // 24))
    assert (await world.settle("c1", 61)).duplicate
    assert await world.denied("c1", UK) == "call_id_conflict"


async def begin_yesterday(world: World, call_id: str, layout: int) -> bytes:
    """Make a call of this layout out of an open one, as if begun a day ago; return its filter.

    The filter is left as its authorize, which enters the call only since that layout, left it.
    """
    tag = await world.engine.context.directory.tag_of("sub")
    key = keys.call(tag, "sub", call_id)
    packed = await world.client.execute("GET", key)
    head = CALL_HEAD.unpack(packed)
    today = await store_seconds(world) // 86_400
    before = keys.closed_filter(tag, today - 1)
    await world.client.execute("RENAME", keys.closed_filter(tag, today), before)
    await world.client.execute("PERSIST", before)
    aged = {"layout": layout, "authorized_us": head.authorized_us - 86_400_000_000}
    packed = CALL_HEAD.pack(**head._replace(**aged)._asdict()) + packed[CALL_HEAD.size :]
    await world.client.execute("SET", key, packed)
    if layout < CALL_LAYOUT_NUMBER:
        await world.client.execute("DEL", before)
    return before


async def lasts(world: World, key: bytes) -> bool:
    """Return whether a key is there and will never go away by itself."""
    return bool(await world.client.execute("TTL", key) == -1)


@pytest.mark.parametrize("layout", [CALL_LAYOUT_NUMBER, CALL_LAYOUT_NUMBER - 1])
async def test_a_call_of_the_day_before_is_known_after_its_end(world, other, layout):
    await world.pair()
    await world.granted("first", UK)
    await world.settle("first", 0)
    await world.granted("c1", UK)
    before = await begin_yesterday(world, "c1", layout)
    await world.settle("c1", 61)
    # As it is on the next day but one: the day of the authorize is no longer looked at.
    await world.client.execute("DEL", before)
    assert (await other.settle("c1", 61)).duplicate
    assert await other.denied("c1", UK) == "call_id_conflict"


async def test_a_call_of_an_older_release_is_known_after_its_end(world, other):
    await world.pair()
    await world.granted("first", UK)
    await world.settle("first", 0)
    await world.granted("c1", UK)
    tag = await world.engine.context.directory.tag_of("sub")
    key = keys.call(tag, "sub", "c1")
    await world.client.execute("SETRANGE", key, 0, bytes([CALL_LAYOUT_NUMBER - 1]))
    await world.client.execute("DEL", keys.closed_filter(tag, await store_seconds(world) // 86_400))
    await world.settle("c1", 61)
    assert (await other.settle("c1", 61)).duplicate
    assert await other.denied("c1", UK) == "call_id_conflict"


@pytest.mark.parametrize("end", ["settle", "orphan", "release"])
async def test_however_a_call_ends_the_filter_of_its_day_goes_away(world, end):
    await world.pair()
    await world.granted("c1", UK, switch="fs1")
    before = await begin_yesterday(world, "c1", CALL_LAYOUT_NUMBER)
    assert await lasts(world, before)
    if end == "settle":
        await world.settle("c1", 61)
    elif end == "orphan":
        assert (await world.engine.switch_restarted("fs1")).orphaned == 1
    else:
        chain = world.engine.context.directory.cached("sub")
        record = await world.client.execute("GET", keys.call(chain.tag, "sub", "c1"))
        numbers = SETTLE.pack(attempt=CALL_HEAD.unpack(record).attempt, closed_hours=24)
        member = keys.call_member("sub", "c1")
        released = await world.engine.context.run(
            "release", chain, "c1", [numbers, b"", member], 1_000
        )
        assert released == [0]
    assert not await lasts(world, before)
    assert 71 * 3600 < await world.client.execute("TTL", before) <= 72 * 3600


async def test_the_filter_of_a_day_on_which_a_call_is_adopted_goes_away(world):
    await world.pair("100", "100")
    adopted = await world.reserve("c1", 90_000, to=UK, switch="fs1")
    assert isinstance(adopted, Grant), adopted
    # It counts as begun on a day before; nothing else happens on this one.
    assert (await world.engine.switch_restarted("fs1")).orphaned == 1
    tag = await world.engine.context.directory.tag_of("sub")
    today = keys.closed_filter(tag, await store_seconds(world) // 86_400)
    assert await world.client.execute("EXISTS", today)
    assert not await lasts(world, today)


async def test_the_filter_of_a_day_on_which_a_call_is_only_repeated_goes_away(world):
    await world.pair()
    await world.granted("c1", UK)
    # Of a call of an older release the day before knows nothing either.
    await begin_yesterday(world, "c1", CALL_LAYOUT_NUMBER - 1)
    await world.granted("c1", UK)
    tag = await world.engine.context.directory.tag_of("sub")
    today = keys.closed_filter(tag, await store_seconds(world) // 86_400)
    assert not await lasts(world, today)
    await world.settle("c1", 61)
    assert await world.denied("c1", UK) == "call_id_conflict"


async def test_a_full_store_takes_settles_and_orphans_and_refuses_new_calls(
    any_store_server, tmp_path
):
    # Denied writes are no outage: deadlines are long, so that only memory decides.
    patient = StoreSettings(decision_deadline_ms=10_000, settle_deadline_ms=10_000)
    world = await World.start(any_store_server.url, tmp_path, store=patient)
    await world.pair()
    for number in range(4):
        await world.granted(f"c{number}", UK, switch="fs1")
    admin = redis.Redis.from_url(any_store_server.url)
    admin.config_set("maxmemory-policy", "noeviction")
    admin.config_set("maxmemory", admin.info("memory")["used_memory"] - 100_000)
    assert await world.denied("late", UK) == "store_full"
    assert not world.engine.outage.is_outage
    settled = await world.settle("c0", 61)
    assert settled.legs[0].charged == "0.013928"
    numbers = {"to": UK, "direction": "outbound", "ended_at": await store_seconds(world)}
    assert (await world.settle("unknown", 61, **numbers)).legs[0].charged == "0.013928"
    with pytest.raises(CallUnknown):
        await world.settle("unheard", 61)
    assert (await world.engine.switch_restarted("fs1")).orphaned == 3
    admin.config_set("maxmemory", 0)
    admin.close()
    assert isinstance(await world.authorize("later", UK), Grant)
    await world.settle("later", 0)
    await assert_clean_audit(world.client)
    await world.close()
