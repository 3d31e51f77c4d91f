"""Refused calls as events: counted in processes, told by the store at most once a minute."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from audit_helper import assert_clean_audit
from helpers import until
from servers import Server
from world import UK, US, World

from authz.engine.denials import prefix_of
from authz.errors import StoreError
from authz.store import keys

DE = "+4930901820"


async def told(world: World, account: str, event: str) -> list[tuple[int, str]]:
    """Return count and reason, or prefixes, of an account's events of that name."""
    return [
        (int(one["count"]), one.get("reason") or one["prefixes"])
        for one in await world.events(account)
        if (one["event"], one["account"]) == (event, account)
    ]


async def a_minute_later(world: World, account: str) -> None:
    """Move the time of an account's last events into the past, and ask the store again."""
    tag = await world.engine.context.directory.tag_of(account)
    key = keys.denials(str(tag), account)
    for field in await world.client.execute("HKEYS", key):
        if field.endswith(b":at"):
            at = int(await world.client.execute("HGET", key, field))
            await world.client.execute("HSET", key, field, at - 60)
    world.engine.denials._asked_from.clear()


async def test_a_minutes_denials_are_one_event(world: World) -> None:
    await world.pair(sub="0")
    for number in range(5):
        assert await world.denied(f"c{number}") == "insufficient_credit"
    await world.engine.denials.flush()
    assert await told(world, "sub", "call.denied") == [(5, "insufficient_credit")]
    for number in range(5, 12):
        await world.denied(f"c{number}")
    await world.engine.denials.flush()
    await world.engine.denials.flush()
    assert len(await told(world, "sub", "call.denied")) == 1
    await a_minute_later(world, "sub")
    await world.engine.denials.flush()
    await world.engine.denials.flush()
    assert await told(world, "sub", "call.denied") == [
        (5, "insufficient_credit"), (7, "insufficient_credit"),
    ]  # fmt: skip


async def test_reasons_and_accounts_are_told_apart(world: World) -> None:
    await world.pair(blocked_classes=("international",))
    await world.accounts.patch("master", {"blocked_prefixes": ["1415"]})
    assert await world.denied("c1", UK) == "class_blocked"
    assert await world.denied("c2", US) == "prefix_blocked"
    await world.authorize("c3", "911")
    await world.authorize("c4", US, account="nobody")
    await world.authorize("c5", US, dry_run=True)
    await world.engine.denials.flush()
    assert await told(world, "sub", "call.denied") == [(1, "class_blocked")]
    assert await told(world, "master", "call.denied") == [(1, "prefix_blocked")]


async def test_a_missing_rate_names_where_the_calls_went(world: World) -> None:
    await world.pair()
    for call_id, number in (("c1", DE), ("c2", DE), ("c3", "+85212345678")):
        assert await world.denied(call_id, number) == "no_rate"
    await world.engine.denials.flush()
    assert await told(world, "sub", "rate.missing") == [(3, "493090,8521234")]
    assert await told(world, "sub", "call.denied") == [(3, "no_rate")]


async def test_what_is_let_through_is_no_denial_but_may_lack_a_rate(world: World) -> None:
    await world.pair(enforce=False)
    grant = await world.granted("c1", DE)
    assert not grant.enforced
    await world.engine.denials.flush()
    assert await world.event_names("sub") == ["rate.missing"]


async def test_processes_share_the_minute_and_lose_no_count(
    any_store_url: str, tmp_path: Path
) -> None:
    worlds = [await World.start(any_store_url, tmp_path / f"w{number}") for number in range(3)]
    await worlds[0].pair(sub="0")
    for turn in range(30):
        await worlds[turn % 3].denied(f"c{turn}")
    await asyncio.gather(*(world.engine.denials.flush() for world in worlds))
    for world in worlds:
        await a_minute_later(world, "sub")
        await world.engine.denials.flush()
    counts = [count for count, _ in await told(worlds[0], "sub", "call.denied")]
    assert sum(counts) == 30
    await assert_clean_audit(worlds[0].client)
    assert len(counts) == 2
    for world in worlds:
        await world.close()


async def test_a_store_that_is_away_costs_no_count(store_server: Server, tmp_path: Path) -> None:
    world = await World.start(store_server.url, tmp_path)
    await world.pair(sub="0")
    await world.denied("c1")
    store_server.store.stop()
    await until(lambda: not world.client.connected)
    with pytest.raises(StoreError):
        await world.engine.denials.flush()
    await asyncio.to_thread(store_server.store.start)
    await until(lambda: world.client.connected)
    await world.engine.denials.flush()
    assert await told(world, "sub", "call.denied") == [(1, "insufficient_credit")]
    await assert_clean_audit(world.client)
    await world.close()


async def test_a_clock_that_was_set_back_silences_nobody(world: World) -> None:
    await world.pair(sub="0")
    await world.denied("c1")
    await world.engine.denials.flush()
    tag = str(await world.engine.context.directory.tag_of("sub"))
    field = "call.denied:insufficient_credit:at"
    key = keys.denials(tag, "sub")
    at = int(await world.client.execute("HGET", key, field))
    await world.client.execute("HSET", key, field, at + 86_400)
    await world.denied("c2")
    await world.engine.denials.flush()
    assert len(await told(world, "sub", "call.denied")) == 2


async def test_a_flood_of_kinds_is_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("authz.engine.denials._PENDING_MAX", 3)
    denials = world.engine.denials
    for number in range(10):
        denials.count(f"a{number}", "no_rate", DE, enforced=True)
    assert denials.dropped == 17
    await denials.flush()
    assert denials.dropped == 0
    denials.count("b", "max_calls_exceeded", DE, enforced=True)
    assert denials.dropped == 0


@pytest.mark.parametrize(
    ("number", "prefix"),
    [
        ("+14155550100", "1415555"),
        ("+4930901820", "493090"),
        ("+4412", "4"),
        ("911", "9"),
        ("", ""),
    ],
)
def test_a_prefix_names_no_subscriber(number: str, prefix: str) -> None:
    assert prefix_of(number) == prefix
