"""Kazoo's decision order through a real broker: who is let through, in which words, at what price.

Section 1.2 and the table of section 1.11 of the contract, and the defects of section 6 done right.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from kazoo.agent_stage import KazooStage, kazoo_stage
from rabbitmq import RabbitServer
from servers import Server
from world import TOLLFREE, UK, US, PriceList

from authz.errors import InvariantError
from authz.model import Trunks
from authz_ext.rating import Rate, Tier

CARIBBEAN = "+18765550100"
DID = "+14155550199"


@pytest.fixture
async def stage(
    store_url: str, rabbit_server: RabbitServer, tmp_path: Path
) -> AsyncIterator[KazooStage]:
    async with kazoo_stage(store_url, rabbit_server, tmp_path) as stage:
        yield stage


def words(answer: dict[str, Any]) -> tuple[bool, str, str]:
    """Return whether a channel is authorized, and what its two legs are called."""
    return answer["Is-Authorized"], answer["Account-Billing"], answer["Reseller-Billing"]


REFUSED = (False, "limits_enforced", "limits_enforced")


async def test_two_twoway_trunks_carry_two_calls_and_not_a_third(stage: KazooStage) -> None:
    await stage.world.account("master", trunks=Trunks(burst=-1))
    await stage.world.account("sub", parent="master", trunks=Trunks(twoway=2), per_minute=False)
    answers = [
        await stage.ask("c1"),
        await stage.ask("c2", direction="inbound"),
        await stage.ask("c3"),
    ]
    assert [answer["Is-Authorized"] for answer in answers] == [True, True, False]
    assert words(answers[0]) == (True, "flat_rate", "flat_rate_burst")
    usages = [one["Custom-Channel-Vars"]["Account-Trunk-Usage"] for one in answers]
    assert usages == ["0/0/2/0/0/0", "0/0/2/0/0/1", "0/0/2/0/1/1"]
    assert answers[0]["Custom-Channel-Vars"]["Reseller-Trunk-Usage"] == "0/0/0/-1/0/0"
    # A channel that is freed is usable at once, whichever way it went.
    await stage.end(answers[1], 30)
    again = await stage.ask("c4")
    assert again["Is-Authorized"] is True
    for answer in (answers[0], again):
        await stage.end(answer, 61)
    assert [micros for _, _, micros in await stage.charges("sub")] == [0, 0, 0]


async def test_trunks_are_counted_when_all_ask_at_once(stage: KazooStage) -> None:
    await stage.world.account("master", trunks=Trunks(burst=-1))
    await stage.world.account("sub", parent="master", trunks=Trunks(twoway=3), per_minute=False)
    answers = await asyncio.gather(*(stage.ask(f"c{number}") for number in range(20)))
    assert sum(answer["Is-Authorized"] for answer in answers) == 3
    for answer in answers:
        if answer["Is-Authorized"]:
            await stage.end(answer, 5)


async def test_two_daemons_share_the_questions_and_no_trunk_twice(
    stage: KazooStage, store_url: str, rabbit_server: RabbitServer, tmp_path: Path
) -> None:
    await stage.world.account("master", trunks=Trunks(burst=-1))
    await stage.world.account("sub", parent="master", trunks=Trunks(twoway=4), per_minute=False)
    async with kazoo_stage(store_url, rabbit_server, tmp_path / "other") as other:
        answers = await asyncio.gather(*(stage.ask(f"c{number}") for number in range(40)))
        let_through = [answer for answer in answers if answer["Is-Authorized"]]
        assert len(let_through) == 4
        assert len(stage.agent.book) + len(other.agent.book) >= 4
        for answer in let_through:
            await stage.tell("CHANNEL_DESTROY", answer, Billing_Seconds=30)
        booked = stage.agent.settler, other.agent.settler
        await stage.until(lambda: sum(one.settled for one in booked) == 4)
        assert await stage.open_calls("sub") == 0


@pytest.mark.parametrize(
    ("to", "direction", "poor", "trunks", "rich"),
    [
        (TOLLFREE, "outbound", "limits_disabled", "limits_disabled", "limits_disabled"),
        (TOLLFREE, "inbound", None, None, "per_minute"),
        ("+18335551212", "inbound", None, None, "per_minute"),
        ("911", "outbound", "limits_disabled", "limits_disabled", "limits_disabled"),
        ("988", "outbound", "limits_disabled", "limits_disabled", "limits_disabled"),
        (US, "outbound", None, "flat_rate", "per_minute"),
        (US, "inbound", None, "flat_rate", "per_minute"),
        (UK, "outbound", None, None, "per_minute"),
        ("+19005550100", "outbound", None, None, "per_minute"),
        (CARIBBEAN, "outbound", None, None, "per_minute"),
    ],
)
async def test_who_may_call_with_what(
    stage: KazooStage, to: str, direction: str, poor: str | None, trunks: str | None, rich: str
) -> None:
    world = stage.world
    await world.account("master", "100", deck="wholesale")
    await world.account("poor", parent="master", deck="retail")
    await world.account("trunks", parent="master", deck="retail", trunks=Trunks(twoway=5))
    await world.account("rich", "10", parent="master", deck="retail")
    for account, word in (("poor", poor), ("trunks", trunks), ("rich", rich)):
        answer = await stage.ask(f"c-{account}", to, direction, Account_ID=account)
        assert answer["Is-Authorized"] is (word is not None)
        assert answer["Account-Billing"] == (word or "limits_enforced")
        assert answer["Soft-Limit"] is False
        if word is not None:
            await stage.end(answer, 0, to)


async def test_each_leg_pays_at_its_own_decks_price(stage: KazooStage) -> None:
    await stage.world.pair()
    answer = await stage.ask("c1", UK, Outbound_Flags="fax")
    assert words(answer) == (True, "per_minute", "per_minute")
    assert (answer["Account-ID"], answer["Reseller-ID"]) == ("sub", "master")
    variables = answer["Custom-Channel-Vars"]
    assert (variables["To"], variables["Outbound-Flags"]) == (UK, "fax")
    await stage.end(answer, 67, UK)
    # 67 s at 0.0137 by the second; 72 s at 0.01 by six.
    assert await stage.charges("sub") == [("c1", 67, 15_298)]
    assert await stage.charges("master") == [("c1", 67, 12_000)]


async def test_no_money_anywhere_and_who_is_short(stage: KazooStage) -> None:
    await stage.world.pair(sub="10", master="0")
    answer = await stage.ask("c1", UK)
    assert words(answer) == REFUSED
    assert (await stage.ask("c2", UK, Account_ID="nobody-known"))["Is-Authorized"] is False
    assert (await stage.ask("c3", UK, Account_ID=""))["Is-Authorized"] is False
    assert (await stage.ask("c4", "", E164_Destination=""))["Is-Authorized"] is False
    emergency = await stage.ask("c5", "911", Account_ID="")
    assert emergency["Is-Authorized"] is True


async def test_credit_is_held_and_not_only_looked_at(stage: KazooStage) -> None:
    await stage.world.pair(sub="0.05", master="10")
    answers = await asyncio.gather(*(stage.ask(f"c{number}") for number in range(20)))
    let_through = [answer for answer in answers if answer["Is-Authorized"]]
    assert len(let_through) == 5
    for answer in let_through:
        await stage.end(answer, 60)
    assert await stage.world.balance("sub") == 0


async def test_an_account_that_is_its_own_reseller(stage: KazooStage) -> None:
    await stage.world.account("own", "1", deck="retail", trunks=Trunks(outbound=1))
    first = await stage.ask("c1", Account_ID="own", Reseller_ID="own")
    second = await stage.ask("c2", Account_ID="own", Reseller_ID="own")
    # A free trunk is used although there is credit; the second call is paid.
    assert words(first) == (True, "flat_rate", "limits_disabled")
    assert words(second) == (True, "per_minute", "limits_disabled")
    await stage.end(first, 60)
    await stage.end(second, 60)
    assert await stage.charges("own") == [("c1", 60, 0), ("c2", 60, 10_000)]


async def test_hard_limits_let_emergencies_through(stage: KazooStage) -> None:
    await stage.world.pair(max_calls=0)
    assert words(await stage.ask("c1")) == (False, "hard_limit", "limits_enforced")
    emergency = await stage.ask("c2", "911")
    assert words(emergency) == (True, "limits_disabled", "limits_disabled")
    await stage.end(emergency, 10, "911")
    await stage.world.account("master", deck="wholesale", max_calls=1)
    await stage.world.account("sub", parent="master", deck="retail")
    first = await stage.ask("c3")
    assert words(await stage.ask("c4")) == (False, "limits_enforced", "hard_limit")
    await stage.end(first, 0)


async def test_a_question_repeated_is_one_call(stage: KazooStage) -> None:
    await stage.world.pair(max_calls=1)
    first = await stage.ask("c1")
    # Its number comes in another spelling, from ecallmgr's second question.
    again = await stage.ask("c1", "14155550100")
    assert words(first) == words(again) == (True, "per_minute", "per_minute")
    assert await stage.open_calls("sub") == 1
    await stage.end(first, 6)


async def test_exempt_resource_types_make_the_leg_free(stage: KazooStage) -> None:
    world = stage.world
    await world.pair(sub="0", max_calls=1, metadata={"kazoo.resource_types": "sms, video"})
    answer = await stage.ask("c1", Resource_Type="sms")
    assert words(answer) == (True, "limits_disabled", "per_minute")
    assert words(await stage.ask("c1", Resource_Type="sms")) == words(answer)
    assert await stage.open_calls("sub") == 1
    # Limits on calls hold for it (1.2, step 2).
    full = await stage.ask("c2", Resource_Type="sms")
    assert words(full) == (False, "hard_limit", "limits_enforced")
    await stage.end(answer, 60, variables={"Resource-Type": "sms"})
    assert await stage.charges("sub") == [("c1", 60, 0)]
    assert await stage.charges("master") == [("c1", 60, 5_000)]
    await world.account("master", deck="wholesale", metadata={"kazoo.resource_types": "sms"})
    free = await stage.ask("c3", Resource_Type="sms")
    assert words(free) == (True, "limits_disabled", "limits_disabled")
    assert await stage.open_calls("master") == 1
    await stage.end(free, 60, variables={"Resource-Type": "sms"})
    await world.account("sub", parent="master", deck="retail", enabled=False,
                        metadata={"kazoo.resource_types": "sms"})  # fmt: skip
    assert words(await stage.ask("c4", Resource_Type="sms")) == REFUSED


async def test_only_a_reseller_is_excused(stage: KazooStage) -> None:
    await stage.world.pair(master="0")
    await stage.world.account(
        "master", deck="wholesale", max_calls=1, metadata={"kazoo.enabled": "false"}
    )
    answers = [await stage.ask(f"c{number}", UK) for number in range(2)]
    # Limits that are off do not count its calls either (1.2, step 0).
    assert [words(one) for one in answers] == [(True, "per_minute", "limits_disabled")] * 2
    assert await stage.open_calls("master") == 2
    await stage.end(answers[0], 67, UK)
    await stage.end(answers[1], 0, UK)
    assert await stage.charges("sub") == [("c0", 67, 15_298), ("c1", 0, 0)]
    assert await stage.charges("master") == [("c0", 67, 0), ("c1", 0, 0)]


async def test_limits_that_are_off(stage: KazooStage) -> None:
    rules = json.dumps({".": 0})
    await stage.world.pair(
        sub="0",
        max_calls=0,
        max_calls_per_second=0,
        metadata={"kazoo.enabled": "false", "kazoo.inbound_channels_per_did": rules},
    )
    answer = await stage.ask("c1", UK)
    assert words(answer) == (True, "limits_disabled", "per_minute")
    inbound = await stage.ask("c2", DID, "inbound")
    assert words(inbound) == (True, "limits_disabled", "per_minute")
    await stage.end(answer, 6, UK)
    await stage.end(inbound, 0, DID)
    assert await stage.charges("sub") == [("c1", 6, 0), ("c2", 0, 0)]
    assert [micros for _, _, micros in await stage.charges("master")] == [1_000, 0]


async def test_an_account_is_excused_from_its_next_call_on(stage: KazooStage) -> None:
    world = stage.world
    await world.pair(sub="0")
    assert words(await stage.ask("c1")) == REFUSED
    # Another process changes the account; this one still has it as it was.
    chain = await world.engine.context.directory.chain("sub")
    await world.account("sub", parent="master", deck="retail", metadata={"kazoo.enabled": "false"})
    world.engine.context.directory._chains.put("sub", chain)
    answer = await stage.ask("c2")
    assert words(answer) == (True, "limits_disabled", "per_minute")
    await stage.end(answer, 6)


async def test_a_soft_limit_lets_pass_what_its_own_account_refuses(stage: KazooStage) -> None:
    world = stage.world
    await world.pair(sub="0", metadata={"kazoo.soft_limit_outbound": "true"})
    answer = await stage.ask("c1")
    assert words(answer) == (False, "limits_enforced", "per_minute")
    assert answer["Soft-Limit"] is True
    # The same question once more, as the store remembers it.
    again = await stage.ask("c1")
    assert (words(again), again["Soft-Limit"]) == (words(answer), True)
    await stage.end(answer, 60)
    assert await stage.charges("sub") == [("c1", 60, 0)]
    assert await stage.charges("master") == [("c1", 60, 5_000)]
    # Not the other direction, not the reseller's refusal, and no flag on what is in order.
    inbound = await stage.ask("c2", direction="inbound")
    assert (inbound["Is-Authorized"], inbound["Soft-Limit"]) == (False, False)
    await world.credit("sub", "1")
    fine = await stage.ask("c3")
    assert (fine["Is-Authorized"], fine["Soft-Limit"]) == (True, False)
    await stage.end(fine, 0)
    await world.debit("sub", "1", scope="self")
    await world.account("master", deck="wholesale", max_calls=0)
    refused = await stage.ask("c4")
    assert (refused["Is-Authorized"], refused["Soft-Limit"]) == (False, False)


async def test_only_denied_calls_are_told_as_denied(stage: KazooStage) -> None:
    world = stage.world
    rules = json.dumps({r"^\+1415": 0})
    await world.pair(
        sub="0",
        metadata={"kazoo.soft_limit_outbound": "true", "kazoo.inbound_channels_per_did": rules},
    )
    passed = await stage.ask("c1")
    assert passed["Soft-Limit"] is True
    # Its missing rate is told, which the soft limit does not make up for.
    unrated = await stage.ask("c2", "+33142685300")
    assert unrated["Soft-Limit"] is False
    refused = [await stage.ask("c3", direction="inbound", to="+16505550100"),
               await stage.ask("c4", direction="inbound", to=DID)]  # fmt: skip
    assert not any(one["Is-Authorized"] or one["Soft-Limit"] for one in refused)
    await world.account("lax", "1", parent="master", deck="retail", enforce=False,
                        metadata={"kazoo.inbound_channels_per_did": rules})  # fmt: skip
    lax = await stage.ask("c5", DID, "inbound", Account_ID="lax")
    assert lax["Is-Authorized"] is True
    await world.engine.denials.flush()
    told = [
        (one["event"], one["account"], one.get("reason", ""), int(one["count"]))
        for one in await world.events("sub")
        if one["event"] in ("call.denied", "rate.missing")
    ]
    assert sorted(told) == [
        ("call.denied", "master", "no_rate", 1),
        ("call.denied", "sub", "insufficient_credit", 1),
        ("call.denied", "sub", "max_calls_exceeded", 1),
        ("rate.missing", "master", "", 1),
        ("rate.missing", "sub", "", 1),
    ]
    await stage.end(passed, 6)
    await stage.end(lax, 6, DID)


async def test_a_soft_limit_opens_no_blocked_destination(stage: KazooStage) -> None:
    await stage.world.pair(
        blocked_classes=("international",), metadata={"kazoo.soft_limit_outbound": "true"}
    )
    answer = await stage.ask("c1", UK)
    assert (answer["Is-Authorized"], answer["Soft-Limit"]) == (False, False)


async def test_a_resellers_soft_limit_lets_its_account_pay(stage: KazooStage) -> None:
    soft = {"kazoo.soft_limit_outbound": "true"}
    await stage.world.account("master", deck="wholesale", metadata=soft)
    await stage.world.account("sub", "10", parent="master", deck="retail", max_calls=1)
    answer = await stage.ask("c1")
    assert words(answer) == (False, "per_minute", "limits_enforced")
    assert answer["Soft-Limit"] is True
    # Its own account's refusal stands.
    full = await stage.ask("c2")
    assert (words(full), full["Soft-Limit"]) == ((False, "hard_limit", "limits_enforced"), False)
    await stage.end(answer, 60)
    assert await stage.charges("sub") == [("c1", 60, 10_000)]
    assert await stage.charges("master") == [("c1", 60, 0)]
    await stage.world.account("sub", parent="master", deck="retail", max_calls=0, metadata=soft)
    both = await stage.ask("c3")
    assert (words(both), both["Soft-Limit"]) == ((False, "hard_limit", "limits_enforced"), True)
    await stage.end(both, 60)
    assert await stage.open_calls("sub") == 0


async def test_calls_of_one_number_are_limited(stage: KazooStage) -> None:
    rules = json.dumps({r"^\+1415": 2, r"^\+1416": -1, r"^\+1417": 0})
    await stage.world.pair(metadata={"kazoo.inbound_channels_per_did": rules})
    answers = await asyncio.gather(
        *(stage.ask(f"c{number}", DID, "inbound") for number in range(6))
    )
    let_through = [one for one in answers if one["Is-Authorized"]]
    assert len(let_through) == 2
    assert {one["Account-Billing"] for one in answers if one not in let_through} == {"hard_limit"}
    # A repeat has its place; a denial by the engine gives its place back.
    again = await stage.ask(let_through[0]["Call-ID"], DID, "inbound")
    assert again["Is-Authorized"] is True
    await stage.end(let_through[0], 3, DID)
    freed = await stage.ask("d1", DID, "inbound")
    assert freed["Is-Authorized"] is True
    assert (await stage.ask("d2", "+14175550100", "inbound"))["Is-Authorized"] is False
    others = [
        await stage.ask("d3", "+14165550100", "inbound"),
        await stage.ask("d4", DID, "outbound"),
    ]
    assert [one["Is-Authorized"] for one in others] == [True, True]
    for answer in (let_through[1], freed):
        await stage.end(answer, 3, DID)
    await stage.end(others[0], 3, "+14165550100")
    await stage.end(others[1], 3, DID)


async def test_mobile_devices_have_a_rate_of_their_own(
    store_url: str, rabbit_server: RabbitServer, tmp_path: Path
) -> None:
    number = "+447700900000"
    async with kazoo_stage(store_url, rabbit_server, tmp_path, mobile_rate_number=number) as stage:
        await stage.world.pair()
        answer = await stage.ask("c1", Authorizing_Type="mobile")
        assert words(answer) == (True, "per_minute", "per_minute")
        await stage.end(answer, 60)
        assert [micros for _, _, micros in await stage.charges("sub")] == [13_700]


async def test_rates_in_kazoos_units(stage: KazooStage) -> None:
    await stage.world.pair()
    rate = await stage.ecallmgr.ask(
        "rate/req", To_DID=UK, Account_ID="sub", Call_ID="c1", Direction="outbound"
    )
    assert rate["Rate"] == "137"
    assert rate["Pvt-Cost"] == "100"
    assert (rate["Rate-Increment"], rate["Rate-Minimum"]) == (1, "1")
    assert (rate["Rate-NoCharge-Time"], rate["Surcharge"]) == (0, "0")
    assert (rate["Prefix"], rate["Ratedeck-ID"], rate["Rate-ID"]) == ("44", "retail", "retail-44")
    assert (await stage.ecallmgr.broadcasts.get())["Rate"] == "137"
    none = await stage.ecallmgr.ask("rate/req", To_DID="+33142685300", Account_ID="sub")
    assert "Rate" not in none
    # An account without a ratedeck has its reseller's.
    await stage.world.account("bare", "1", parent="master")
    reseller = await stage.ecallmgr.ask("rate/req", To_DID=UK, Account_ID="bare")
    assert (reseller["Ratedeck-ID"], reseller["Rate"]) == ("wholesale", "100")
    named = await stage.ecallmgr.ask(
        "rate/req", To_DID=UK, Account_ID=None, Ratedeck_ID="wholesale"
    )
    assert (named["Rate"], named["Base-Cost"]) == ("100", "10")
    assert "Pvt-Cost" not in named


async def test_discounts_by_class_are_told_and_charged_leg_by_leg(stage: KazooStage) -> None:
    await stage.world.pair(
        discounts={"international": Decimal("12.5"), "national": Decimal(10)}
    )  # fmt: skip
    told = await stage.ecallmgr.ask("rate/req", To_DID=UK, Account_ID="sub", Call_ID="c1")
    # Prices are those of the deck: ecallmgr's channel bears both.
    assert (told["Rate"], told["Pvt-Cost"], told["Base-Cost"]) == ("137", "100", "2")
    assert told["Discount-Percentage"] == "12.5"
    told = await stage.ecallmgr.ask("rate/req", To_DID=US, Account_ID="sub", Call_ID="c1")
    assert told["Discount-Percentage"] == 10
    told = await stage.ecallmgr.ask("rate/req", To_DID=US, Account_ID="master", Call_ID="c1")
    assert "Discount-Percentage" not in told
    answer = await stage.ask("c1", to=UK)
    assert words(answer) == (True, "per_minute", "per_minute")
    await stage.end(answer, 61, UK)
    assert await stage.charges("sub") == [("c1", 61, 13_928 - 1_741)]
    assert await stage.charges("master") == [("c1", 61, 11_000)]


async def test_a_discounted_call_costs_what_kazoo_charges(stage: KazooStage) -> None:
    rate = Rate(
        tiers=[Tier(0, 13_700_000, 60, 60), Tier(60, 13_700_000, 60, 6)],
        connect_fee=500, rounding_mode="down", rounding_decimals=4,
    )  # fmt: skip
    stage.world.decks["retail"] = PriceList({"44": rate})
    await stage.world.pair(discounts={"international": Decimal(15)})
    answer = await stage.ask("c1", to=UK)
    await stage.end(answer, 90, UK)
    # trunc(5 + 137 + 5 * 13.7) = 210 units; trunc(0.15 * 210) = 31 of them are not paid.
    assert await stage.charges("sub") == [("c1", 90, 17_900)]


async def test_balances_count_what_calls_have_used(stage: KazooStage) -> None:
    world = stage.world
    await world.pair(sub="0.01", master="10")
    await world.account("off", metadata={"kazoo.enabled": "false"})
    await world.account("free", credit_limit="unlimited")
    accounts = ["sub", "master", "off", "free", "not-ours"]
    answer = await stage.ask("c1")
    check = await stage.ecallmgr.ask("authz/balance_check_req", Accounts=accounts)
    # All of its credit is held for a call that runs: no reason to end that.
    assert check["Balances"] == dict.fromkeys(accounts, True)
    await stage.end(answer, 61)
    check = await stage.ecallmgr.ask("authz/balance_check_req", Accounts=accounts)
    assert check["Balances"] == dict.fromkeys(accounts, True) | {"sub": False}


@pytest.mark.parametrize("seconds", [0, 61])
async def test_a_hangup_that_overtakes_its_question(stage: KazooStage, seconds: int) -> None:
    await stage.world.pair()
    ended = {"Call-ID": "c1", "Call-Direction": "outbound"}
    # ecallmgr has waited in vain: refused the channel, or let it talk.
    await stage.tell("CHANNEL_DESTROY", ended, Billing_Seconds=seconds)
    await stage.until(lambda: stage.agent.book.has_ended("c1"))
    late = await stage.ask("c1")
    assert late["Is-Authorized"] is False
    for name in ("CHANNEL_CREATE", "CHANNEL_ANSWER"):
        await stage.tell(name, late)
    if seconds:
        await stage.end(ended, seconds)
    assert await stage.open_calls("sub") == 0
    assert (await stage.world.state("sub")).held == 0
    charges = [("c1", 61, 20_000)] if seconds else []
    assert await stage.charges("sub") == charges


async def test_without_the_store_only_what_must_passes(
    stage: KazooStage, store_server: Server
) -> None:
    await stage.world.pair()
    os.kill(store_server.store.pid, signal.SIGSTOP)
    try:
        assert (await stage.ask("c1"))["Is-Authorized"] is False
        assert (await stage.ask("c2", "911"))["Is-Authorized"] is True
        assert (await stage.ask("c3", TOLLFREE))["Is-Authorized"] is True
        # No word of a balance: by `false` every call of the account would end.
        check = stage.ecallmgr.question("authz/balance_check_req", Accounts=["sub", "master"])
        unanswered = stage.ecallmgr.expect(check["Msg-ID"])
        await stage.ecallmgr.publish("callmgr", "authz.balance_check", check)
        assert (await stage.ask("c4"))["Is-Authorized"] is False
    finally:
        os.kill(store_server.store.pid, signal.SIGCONT)
    # Until the store has answered a probe nobody is told of a balance.
    await stage.until(lambda: stage.world.client.connected)
    later = await stage.ecallmgr.ask("authz/balance_check_req", Accounts=["sub", "master"])
    assert later["Balances"] == {"sub": True, "master": True}
    assert not unanswered.done()


async def test_no_fault_of_ours_keeps_anybody_from_an_emergency_number(
    stage: KazooStage, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stage.world.pair()

    async def broken(request: object) -> None:
        raise InvariantError("a defect")

    monkeypatch.setattr(stage.world.engine, "authorize", broken)
    answer = await stage.ask("c1", "911")
    assert words(answer) == (True, "limits_disabled", "limits_disabled")
    assert "kazoo_emergency_unrecorded" in caplog.messages
    assert words(await stage.ask("c2")) == REFUSED


async def test_a_fault_of_ours_lets_nobody_through(
    stage: KazooStage, caplog: pytest.LogCaptureFixture
) -> None:
    await stage.world.pair()
    context = stage.world.engine.context
    tag = await context.directory.tag_of("sub")
    key = f"authz:{{{tag}}}:account:sub"
    config = await stage.world.client.execute("HGET", key, "c")
    await stage.world.client.execute("HSET", key, "c", "no JSON")
    context.directory.forget_all()
    assert words(await stage.ask("c1")) == REFUSED
    assert "kazoo_not_decided" in caplog.messages
    emergency = await stage.ask("c2", "911")
    assert words(emergency) == (True, "limits_disabled", "limits_disabled")
    await stage.world.client.execute("HSET", key, "c", config)
