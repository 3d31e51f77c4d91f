"""Excused accounts on real stores: a free leg from the question to the settle, and no more."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgspec
import pytest
from audit_helper import assert_clean_audit
from msgspec import Struct
from world import UK, US, World

from authz.engine.excuses import ExcusedAuthorize, ExcusedReserve, ExcusedSettle
from authz.engine.spool_file import SpooledSettle, encode_record
from authz.errors import AccountsChanged, CallUnknown
from authz.model import AuthorizeRequest, Denial, Grant, ReserveRequest, SettleRequest
from authz.reasons import Excuse

SUB = {"sub": Excuse.PAYMENT}
BOTH = {"sub": Excuse.PAYMENT, "master": Excuse.LIMITS}


async def ask(
    world: World, call_id: str, excuses: dict[str, Excuse], to: str = US, **more: Any
) -> Grant | Denial:
    """Ask whether a call of `sub` may start from which these accounts are excused."""
    return await world.engine.authorize(
        ExcusedAuthorize(call_id=call_id, account="sub", to=to, excuses=excuses, **more)
    )


def billings(answer: Grant | Denial) -> list[str]:
    """Return how the legs of a grant are billed, which the answer must be."""
    assert isinstance(answer, Grant), answer
    return [leg.billing for leg in answer.legs]


async def test_a_free_leg_stays_free_until_the_end(world, any_store_url, tmp_path):
    await world.pair(sub="0", per_minute=False)
    answer = await ask(world, "c1", SUB)
    assert billings(answer) == ["free", "per_minute"]
    assert [leg.held for leg in answer.legs] == ["0", "0.005"]
    state = await world.state("sub")
    assert (state.calls, state.calls_national, state.held) == (1, 1, 0)
    # The same again, also by who knows of no excuse, is the same call.
    assert billings(await ask(world, "c1", {})) == ["free", "per_minute"]
    other = await World.start(any_store_url, tmp_path / "other")
    extended = await other.reserve("c1", 45)
    assert billings(extended) == ["free", "per_minute"]
    settled = await other.settle("c1", 70)
    await other.close()
    assert [leg.charged for leg in settled.legs] == ["0", "0.006"]
    assert (await world.balance("sub"), (await world.state("sub")).calls) == (0, 0)
    await assert_clean_audit(world.client)


async def test_nobody_pays_where_all_are_excused(world):
    await world.pair(sub="0", master="0")
    answer = await ask(world, "c1", BOTH, UK)
    assert billings(answer) == ["free", "free"]
    assert (answer.seconds, answer.final) == (None, False)
    settled = await world.settle("c1", 3_600)
    assert [leg.charged for leg in settled.legs] == ["0", "0"]
    await assert_clean_audit(world.client)


async def test_an_excuse_is_of_money_and_not_of_policy(world):
    await world.pair(sub="0", blocked_classes=("international",), max_rate="0.001")
    refused = await ask(world, "c1", SUB, UK)
    assert (refused.reason, refused.account) == ("class_blocked", "sub")
    # A rate is not looked at, be it too dear or missing.
    assert billings(await ask(world, "c2", SUB)) == ["free", "per_minute"]
    await world.account("sub", parent="master", deck="none")
    assert billings(await ask(world, "c3", SUB)) == ["free", "per_minute"]
    await world.account("sub", parent="master", deck="retail", enabled=False)
    for excuses in (SUB, BOTH):
        assert (await ask(world, "c4", excuses)).reason == "account_disabled"
    for call_id in ("c2", "c3"):
        await world.settle(call_id, 0)
    await assert_clean_audit(world.client)


async def test_limits_on_calls_hold_unless_they_are_excused_too(world):
    await world.pair(max_calls=5)
    asked = await asyncio.gather(*(ask(world, f"c{number}", SUB) for number in range(20)))
    assert sum(isinstance(answer, Grant) for answer in asked) == 5
    refused = [answer for answer in asked if isinstance(answer, Denial)]
    assert {answer.reason for answer in refused} == {"max_calls_exceeded"}
    unlimited = {"sub": Excuse.LIMITS}
    assert billings(await ask(world, "more", unlimited)) == ["free", "per_minute"]
    assert (await world.state("sub")).calls == 6
    for answer in asked:
        if isinstance(answer, Grant):
            await world.settle(answer.call_id, 0)
    await world.settle("more", 0)
    await assert_clean_audit(world.client)


async def test_unlimited_calls_use_up_no_calls_per_second(world):
    await world.pair(max_calls_per_second=1)
    for number in range(8):
        await ask(world, f"c{number}", {"sub": Excuse.LIMITS}, UK if number % 2 else US)
    # Those before would have filled the next seconds.
    await world.granted("plain")
    assert await world.denied("next") == "call_rate_exceeded"
    for call_id in (*(f"c{number}" for number in range(8)), "plain"):
        await world.settle(call_id, 0)
    await assert_clean_audit(world.client)


async def test_an_unknown_call_is_adopted_with_its_excuses(world):
    await world.pair(sub="0")
    reserve = ExcusedReserve(
        call_id="c1", account="sub", used_seconds=50, to=US, direction="outbound", excuses=SUB
    )
    assert billings(await world.engine.reserve(reserve)) == ["free", "per_minute"]
    settled = await world.settle("c1", 60)
    assert [leg.charged for leg in settled.legs] == ["0", "0.005"]
    await assert_clean_audit(world.client)


async def test_an_unknown_call_is_settled_with_its_excuses(world):
    await world.pair(sub="0")
    now = world.engine.context.clock.now()
    settle = ExcusedSettle(
        call_id="c1", account="sub", seconds=60, to=US, direction="outbound", ended_at=now,
        excuses=SUB,
    )  # fmt: skip
    for is_duplicate in (False, True):
        answer = await world.engine.settle(settle)
        assert answer.duplicate is is_duplicate
        assert [(leg.billing, leg.charged) for leg in answer.legs] == [
            ("free", "0"), ("per_minute", "0.005"),
        ]  # fmt: skip
    await assert_clean_audit(world.client)


async def test_a_settle_on_disk_keeps_its_excuses(world):
    await world.pair(sub="0")
    now = world.engine.context.clock.now()
    settle = ExcusedSettle(
        call_id="c1", account="sub", seconds=60, to=US, direction="outbound", ended_at=now,
        excuses=SUB,
    )  # fmt: skip
    await world.engine.spool.append(SpooledSettle.of(settle, now))
    await world.engine.replay_spool()
    assert world.engine.spool.depth == 0
    assert (await world.balance("sub"), await world.balance("master")) == (0, 9_995_000)
    await assert_clean_audit(world.client)


def test_a_record_without_excuses_is_one_of_the_hook_api() -> None:
    request = SettleRequest(call_id="c1", account="sub", seconds=1)
    record = encode_record(SpooledSettle.of(request, 0))
    # Its head has checksums, which may hold any byte.
    body = json.loads(record[record.index(b'{"id":') :])
    assert "excuses" not in body["request"]


@pytest.mark.parametrize("kind", [AuthorizeRequest, ReserveRequest, SettleRequest])
def test_the_hook_api_excuses_nobody(kind: type[Struct]) -> None:
    with pytest.raises(msgspec.ValidationError, match="excuses"):
        msgspec.convert({"call_id": "c1", "account": "sub", "excuses": {"sub": 4}}, kind)


async def test_an_excused_orphan_is_settled_and_comes_back_free(world):
    await world.pair(sub="0")
    for call_id in ("ends", "lives"):
        assert billings(await ask(world, call_id, SUB, switch="fs1")) == ["free", "per_minute"]
        assert billings(await world.reserve(call_id, 50)) == ["free", "per_minute"]
    assert (await world.engine.switch_restarted("fs1")).orphaned == 2
    assert ((await world.state("sub")).calls, await world.balance("sub")) == (0, 0)
    assert billings(await world.reserve("lives", 90)) == ["free", "per_minute"]
    assert (await world.state("sub")).calls == 1
    for call_id, seconds in (("ends", 60), ("lives", 120)):
        settled = await world.settle(call_id, seconds)
        assert settled.legs[0].charged == "0"
    assert (await world.balance("sub"), await world.balance("master")) == (0, 9_985_000)
    await assert_clean_audit(world.client)


async def test_excuses_are_found_on_the_accounts_in_force(world):
    await world.pair()
    directory = world.engine.context.directory
    chain = await directory.chain("sub")
    assert billings(await ask(world, "c1", SUB, judged_on=chain)) == ["free", "per_minute"]
    await world.account("sub", parent="master", deck="retail", max_calls=3)
    # As in a process that has not heard of it yet.
    directory._chains.put("sub", chain)
    with pytest.raises(AccountsChanged):
        await ask(world, "c2", SUB, judged_on=chain)
    assert (await world.state("sub")).calls == 1
    with pytest.raises(CallUnknown):
        await world.settle("c2", 1)
    await world.settle("c1", 0)
    await assert_clean_audit(world.client)
