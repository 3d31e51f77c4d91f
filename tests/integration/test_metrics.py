"""What is counted and surveyed is what happened, on real stores and in a real daemon."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from daemons import Daemon
from prometheus_client.parser import text_string_to_metric_families
from tally import Tally
from world import TOLLFREE, UK, World

from authz.config.metrics import MetricsSettings
from authz.engine import census as census_module
from authz.engine.audit import AuditReport, audit
from authz.engine.census import take_census
from authz.errors import CallUnknown, InvalidInput, SettledDifferently
from authz.metrics.engine_parts import MoneyPart
from authz.metrics.readings import Readings
from authz.metrics.store_parts import CallsPart, StorePart
from authz.metrics.surveys import Surveys
from authz.model import Spooled, Trunks
from authz.store import keys
from authz.store.layouts import ACCOUNT_STATE

#: A daemon's start and a worker's end take a while; a page that never tells fails the test.
TRIES = 1_000


def values(readings: Readings) -> dict[tuple[str, ...], float]:
    """Return readings by name and labels' values."""
    return {
        (one.name, *one.labels.values()): one.value
        for family in readings.families()
        for one in family.samples
    }


# What the engine counts.


async def test_decisions_are_counted_by_outcome_and_reason(world: World, tally: Tally) -> None:
    await world.pair()
    await world.account("broke", deck="retail")
    await world.account("tried", deck="retail", enforce=False)
    await world.granted("c1")
    await world.granted("c2", TOLLFREE)
    await world.granted("c3", "911")
    assert await world.denied("c4", account="broke") == "insufficient_credit"
    await world.granted("c5", account="tried")
    await world.granted("c6", UK, dry_run=True)
    await world.reserve("c1", 40)
    await world.reserve("nothing", 40)
    assert tally.of("authz_decisions_total") == {
        ("authorize", "allowed", "ok"): 3,
        ("authorize", "denied", "insufficient_credit"): 1,
        ("authorize", "unenforced", "insufficient_credit"): 1,
        ("reserve", "allowed", "ok"): 1,
        ("reserve", "denied", "call_unknown"): 1,
    }
    assert tally.of("authz_call_starts_total") == {
        ("national", "outbound", "allowed"): 1,
        ("tollfree", "outbound", "allowed"): 1,
        ("emergency", "outbound", "allowed"): 1,
        ("national", "outbound", "denied"): 1,
        ("national", "outbound", "unenforced"): 1,
    }
    assert tally.observed("authz_decision_seconds", "authorize") == 5
    assert tally.observed("authz_decision_seconds", "reserve") == 2
    assert tally.observed("authz_store_reply_seconds") > 5
    for call_id in ("c1", "c2", "c3"):
        await world.settle(call_id, 0)


async def test_settles_are_counted_by_what_became_of_them(world: World, tally: Tally) -> None:
    await world.pair(trunks=Trunks(outbound=1))
    await world.granted("c1")
    await world.granted("c2", UK)
    await world.settle("c1", 61)
    await world.settle("c1", 61)
    await world.settle("c2", 7)
    with pytest.raises(SettledDifferently):
        await world.settle("c1", 62)
    with pytest.raises(CallUnknown):
        await world.settle("c3", 1)
    with pytest.raises(InvalidInput):
        await world.settle("c4", 1, ended_at="noon")
    assert tally.of("authz_settles_total") == {
        ("booked",): 2,
        ("duplicate",): 1,
        ("settled_differently",): 1,
        ("call_unknown",): 1,
        ("invalid",): 1,
    }
    assert tally.of("authz_settled_calls_total") == {("trunk",): 1, ("per_minute",): 1}
    assert tally.of("authz_settled_call_seconds_total") == {("trunk",): 61, ("per_minute",): 7}
    assert tally.observed("authz_decision_seconds", "settle") == 3


async def test_orphans_are_counted(world: World, tally: Tally) -> None:
    await world.pair()
    await world.granted("c1", switch="fs1")
    await asyncio.sleep(0.01)
    await world.engine.switch_restarted("fs1")
    assert tally.total("authz_calls_orphaned_total") == 1


async def test_what_passes_without_a_store_is_counted_as_such(
    world: World, any_store_url: str, tmp_path: Path, tally: Tally
) -> None:
    await world.pair()
    lonely = await World.start(any_store_url, tmp_path / "lonely")
    await lonely.client.close()
    assert await lonely.denied("c1") == "store_unavailable"
    await lonely.granted("c2", "911")
    await lonely.granted("c3", TOLLFREE)
    await lonely.reserve("c4", 20)
    assert isinstance(await lonely.settle("c3", 5), Spooled)
    assert tally.of("authz_decisions_total") == {
        ("authorize", "denied", "store_unavailable"): 1,
        ("authorize", "allowed", "ok"): 1,
        ("authorize", "degraded", "ok"): 1,
        ("reserve", "degraded", "ok"): 1,
    }
    assert tally.of("authz_settles_total") == {("spooled",): 1}
    assert tally.of("authz_store_errors_total").keys() == {("not_sent",)}
    await lonely.close()


# What is surveyed.


async def test_a_census_adds_up_what_accounts_have(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(census_module, "PAGE", 2)
    await world.pair(sub="4", master="10", trunks=Trunks(outbound=2, inbound=1))
    await world.account("lira", "7.5", currency="TRY", enabled=False, trunks=Trunks(twoway=3))
    await world.account("other", "1", parent="master", deck="retail")
    await world.account("gone", parent="master")
    await world.accounts.close("gone")
    await world.granted("c1")
    await world.granted("c2", UK)
    pauses = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    census = await take_census(world.client, pause)
    states = {name: await world.state(name) for name in ("master", "sub", "other")}
    root, sub = census.purses["root", "USD"], census.purses["sub", "USD"]
    assert (root.accounts, sub.accounts) == (1, 2)
    assert root.balance_micros == 10_000_000
    assert sub.balance_micros == 5_000_000
    assert root.held_micros == states["master"].held > 0
    assert sub.held_micros == states["sub"].held > 0
    assert census.purses["root", "TRY"].balance_micros == 7_500_000
    assert census.states == {"disabled": 1, "low": 0, "exhausted": 0, "recharge_pending": 0}
    assert {name: calls for name, calls in census.class_calls.items() if calls} == {
        "national": 1,
        "international": 1,
    }
    assert census.trunk_calls["sub", "outbound"] == 1
    assert census.trunk_channels["sub", "outbound"] == 2
    assert census.trunk_channels["root", "twoway"] == 3
    assert census.left_out == 0
    assert len(pauses) == 2
    for call_id in ("c1", "c2"):
        await world.settle(call_id, 0)


async def test_a_census_leaves_out_what_it_cannot_read(world: World) -> None:
    await world.account("acme", "10")
    tag = await world.engine.context.directory.tag_of("acme")
    key = keys.account(tag, "acme")
    state = await world.client.execute("HGET", key, "s")
    for field, value in (("s", b"short"), ("c", b"{}}")):
        kept = await world.client.execute("HGET", key, field)
        await world.client.execute("HSET", key, field, value)
        census = await take_census(world.client)
        assert (census.left_out, census.purses) == (1, {})
        await world.client.execute("HSET", key, field, kept)
    assert (await take_census(world.client)).purses["root", "USD"].balance_micros == 10_000_000
    assert await world.client.execute("HGET", key, "s") == state


async def test_the_census_runs_only_while_somebody_asks(world: World) -> None:
    await world.account("acme", "10")
    surveys = Surveys(world.client, MetricsSettings(census_seconds=1), _audit_none)
    part = MoneyPart(surveys)
    work = asyncio.create_task(surveys.take_censuses())
    await asyncio.sleep(0.1)
    assert surveys.census is None
    assert values(await part.read()) == {}
    for _ in range(TRIES):
        if surveys.census is not None:
            break
        await asyncio.sleep(0.05)
    found = values(await part.read())
    assert found["authz_balance_units", "root", "USD"] == 10
    assert found["authz_census_timestamp_seconds",] > 0
    work.cancel()


async def _audit_none(bucket: int) -> AuditReport:
    raise AssertionError


async def test_an_imbalance_is_found_bucket_by_bucket_and_goes_when_it_is_mended(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    await world.account("acme", "10")
    tag = await world.engine.context.directory.tag_of("acme")
    bucket, key = keys.TAGS.index(tag), keys.account(tag, "acme")
    kept = await world.client.execute("HGET", key, "s")
    state = ACCOUNT_STATE.unpack(kept)
    forged = ACCOUNT_STATE.pack(**state._replace(balance=state.balance + 1)._asdict())

    async def audit_bucket(number: int) -> AuditReport:
        return await audit(world.client, [number])

    surveys = Surveys(world.client, MetricsSettings(), audit_bucket)
    await world.client.execute("HSET", key, "s", forged)
    await surveys._audit(bucket)
    assert (surveys.findings, surveys.audited_since) == (1, 0)
    assert "audit_finding" in caplog.text
    await world.client.execute("HSET", key, "s", kept)
    for number in range(keys.BUCKETS):
        await surveys._audit(number)
    assert surveys.findings == 0
    assert surveys.audited_since > 0


async def test_the_store_tells_of_itself(world: World, any_store_url: str) -> None:
    await world.pair()
    await world.granted("c1")
    found = values(await StorePart(world.client).read())
    assert found["authz_store_up",] == 1
    assert found["authz_store_memory_bytes",] > 0
    assert found["authz_store_persistence_ok",] == 1
    assert found["authz_store_commands_total",] > 0
    assert any(key[0] == "authz_store_info" and key[-1] == "master" for key in found)
    calls = values(await CallsPart(world.client).read())
    assert calls["authz_live_calls",] == 1
    assert calls["authz_ledger_entries",] == 2
    lonely = await World.start(any_store_url, world.settings.state_dir / "lonely")
    await lonely.close()
    assert values(await StorePart(lonely.client).read()) == {("authz_store_up",): 0}
    await world.settle("c1", 0)


# A daemon.


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


class Scraped:
    """The page of a daemon, read at will."""

    def __init__(self, daemon: Daemon, http: aiohttp.ClientSession) -> None:
        self._daemon = daemon
        self._http = http

    async def read(self, **headers: str) -> dict[tuple[str, ...], float]:
        """Return the values by name and labels in the order of their names."""
        async with self._http.get(f"{self._daemon.admin}/metrics", headers=headers) as response:
            assert response.status == 200, await response.text()
            text = await response.text()
        return {
            (one.name, *(value for _, value in sorted(one.labels.items()))): one.value
            for family in text_string_to_metric_families(text)
            for one in family.samples
        }

    async def until(self, key: tuple[str, ...], value: float) -> dict[tuple[str, ...], float]:
        """Return the first page on which a figure has this value."""
        for _ in range(TRIES):
            found = await self.read()
            if found.get(key) == value:
                return found
            await asyncio.sleep(0.2)
        raise AssertionError(f"{key} is {found.get(key)}, never {value}")


async def refuse_some(daemon: Daemon, http: aiohttp.ClientSession, calls: int) -> None:
    """Ask for calls of an account that does not exist, each on a connection of its own."""
    for number in range(calls):
        body = {"call_id": f"c{number}", "account": "nobody", "to": "+14155550100"}
        url = f"{daemon.hook}/v1/authorize"
        async with http.post(url, json=body, headers={"Connection": "close"}) as response:
            assert (await response.json())["reason"] == "account_unknown"


async def test_one_page_tells_of_all_workers_and_never_goes_back(
    tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    daemon = Daemon(tmp_path / "state", "--workers", "2")
    await daemon.start()
    try:
        await daemon.ready()
        scraped = Scraped(daemon, http)
        refused = ("authz_decisions_total", "authorize", "denied", "account_unknown")
        await refuse_some(daemon, http, 8)
        for name in ("worker-1", "worker-2", "office", "serve"):
            await scraped.until(("authz_process_up", name), 1)
        before = await scraped.until(refused, 8)
        os.kill(daemon.child("worker-1"), signal.SIGKILL)
        after = await scraped.until(("authz_process_starts_total", "worker-1"), 2)
        assert after[refused] == 8
        assert after["authz_process_ends_total", "worker"] == 1
        await scraped.until(("authz_store_connected", "worker-1"), 1)
        await refuse_some(daemon, http, 4)
        last = await scraped.until(refused, 12)
        assert last["authz_hook_answers_total", "authorize", "2xx"] == 12
        fallen = [
            key
            for key, value in before.items()
            if key[0].endswith(("_total", "_count", "_bucket")) and last[key] < value
        ]
        # The kernel counts the processor's time for each process anew.
        assert {key[0] for key in fallen} <= {"authz_process_cpu_seconds_total"}
    finally:
        await daemon.stop()


async def test_the_page_answers_while_the_store_is_away(
    tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    daemon = Daemon(tmp_path / "state", AUTHZ_ADMIN__TOKEN="of-sixteen-letters-at-least")
    await daemon.start()
    try:
        await daemon.ready()
        scraped = Scraped(daemon, http)
        assert (await scraped.read())["authz_store_up",] == 1
        os.kill(daemon.store_pid, signal.SIGSTOP)
        try:
            found = await scraped.until(("authz_store_up",), 0)
        finally:
            os.kill(daemon.store_pid, signal.SIGCONT)
        assert "authz_live_calls" not in {key[0] for key in found}
        assert found["authz_process_up", "worker-1"] == 1
        found = await scraped.until(("authz_store_up",), 1)
        assert found["authz_scrape_failures_total", "calls"] >= 1
    finally:
        await daemon.stop()


async def status_of(http: aiohttp.ClientSession, daemon: Daemon, **headers: str) -> tuple[int, Any]:
    async with http.get(f"{daemon.admin}/metrics", headers=headers) as response:
        return response.status, response.headers["Content-Type"]


async def check_tokens(http: aiohttp.ClientSession, daemon: Daemon, admin_token: str) -> None:
    """Read the page with a token that may see all accounts, and with one that may see a tree."""
    headers = {"Authorization": f"Bearer {admin_token}"}
    await http.put(f"{daemon.admin}/v1/accounts/acme", json={}, headers=headers)
    for account, status in ((None, 200), ("acme", 403)):
        body = {"name": f"prometheus-{status}", "role": "read", "account": account}
        async with http.post(f"{daemon.admin}/v1/tokens", json=body, headers=headers) as made:
            assert made.status == 201, await made.text()
            token = (await made.json())["token"]
        assert (await status_of(http, daemon, Authorization=f"Bearer {token}"))[0] == status


@pytest.mark.parametrize(("access", "anonymous"), [("host", 200), ("token", 401), ("all", 200)])
async def test_who_may_read_the_page(
    tmp_path: Path, http: aiohttp.ClientSession, access: str, anonymous: int
) -> None:
    token = "of-sixteen-letters-at-least"
    daemon = Daemon(tmp_path / "state", AUTHZ_ADMIN__TOKEN=token, AUTHZ_METRICS__ACCESS=access)
    await daemon.start()
    try:
        await daemon.ready()
        assert (await status_of(http, daemon))[0] == anonymous
        assert (await status_of(http, daemon, Authorization=f"Bearer {token}"))[0] == 200
        wrong = 200 if access == "all" else 401
        assert (await status_of(http, daemon, Authorization="Bearer wrong"))[0] == wrong
        # A name that a web page's owner has made to resolve to this host.
        elsewhere = {"host": 403, "token": 401, "all": 200}[access]
        assert (await status_of(http, daemon, Host="evil.example"))[0] == elsewhere
        if access == "token":
            await check_tokens(http, daemon, token)
    finally:
        await daemon.stop()
