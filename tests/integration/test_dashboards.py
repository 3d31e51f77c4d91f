"""A real Prometheus scrapes a real daemon under load: every panel and every rule has data."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from daemons import Daemon
from ports import free_port
from prometheus import Prometheus

from authz.meters.table import METRICS
from deploy.grafana.source.boards import FOLDER, render

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "deploy/prometheus/rules"
DECK = "prefix,price\n1,0.01\n44,0.02\n1900,1.5\n1876,0.3\n870,5\n"
#: Queries that rightly have no answer here, by panel, and why.
EMPTY = {
    "Firing and pending alerts": "nothing is wrong",
    "Memory used": "the own store has no maxmemory",
    "Risky classes against the last hours": "its past is younger than its window of rates",
}
#: Metrics that a daemon does not tell here, and why.
UNTOLD: dict[str, str] = {}
#: How long all queries may take until they have an answer, in tries of a second.
TRIES = 120


def board_files() -> Iterator[dict[str, Any]]:
    for path in sorted(FOLDER.glob("*.json")):
        yield json.loads(path.read_text(encoding="utf-8"))


def queries() -> dict[str, str]:
    """Return every query of every panel, by dashboard, panel and letter."""
    return {
        f"{board['title']} / {panel['title']} / {target['refId']}": target["expr"]
        for board in board_files()
        for panel in board["panels"]
        for target in panel.get("targets", [])
    }


def recorded() -> dict[str, str]:
    """Return the query of every recording rule."""
    groups = yaml.safe_load((RULES / "recording.yml").read_text(encoding="utf-8"))["groups"]
    return {
        f"{rule['record']}{rule.get('labels', '')}": rule["expr"]
        for group in groups
        for rule in group["rules"]
    }


def fill(expression: str) -> str:
    """Return a panel's query with its variables as Grafana would put them."""
    return (
        expression.replace("$job", "authz")
        .replace("$instance", ".*")
        .replace("$__rate_interval", "20s")
    )


def test_the_files_are_those_that_the_source_makes() -> None:
    found = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.json")}
    assert found == render()


def test_panels_are_whole() -> None:
    uids = [board["uid"] for board in board_files()]
    assert len(set(uids)) == len(uids) >= 4
    for board in board_files():
        taken: set[tuple[int, int]] = set()
        for panel in board["panels"]:
            place = panel["gridPos"]
            cells = {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
            assert not cells & taken, panel["title"]
            assert max(x for x, _ in cells) < 24
            taken |= cells
            if panel["type"] != "row":
                assert panel["description"].endswith("."), panel["title"]
                assert panel["fieldConfig"]["defaults"]["unit"]
                assert panel["targets"]


def test_panels_name_only_metrics_that_there_are() -> None:
    names = {re.sub(r"_(bucket|count|sum)$", "", name) for name in METRICS}
    records = {one.partition("{")[0] for one in recorded()}
    for where, query in queries().items():
        for name in re.findall(r"\bauthz[_:][a-zA-Z0-9_:]+", query):
            known = name in records or name in names or name.removesuffix("_bucket") in names
            assert known, f"{where}: {name}"


def test_every_metric_is_on_a_dashboard_or_in_a_rule() -> None:
    rules = "".join(path.read_text(encoding="utf-8") for path in RULES.glob("*.yml"))
    text = rules + "".join(queries().values())
    assert [name for name in METRICS if name not in text] == []


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[Daemon]:
    # Nobody answers there; that the agents tell of it is what is wanted.
    switch = {"name": "fs1", "host": "127.0.0.1", "port": free_port(), "password": "ClueCon"}
    one = Daemon(
        tmp_path / "state",
        "--workers",
        "2",
        AUTHZ_FREESWITCH__SWITCHES=json.dumps([switch]),
    )
    await one.start()
    await one.ready()
    yield one
    assert await one.stop() == 0


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(raise_for_status=True) as session:
        yield session


@pytest.fixture
async def business(daemon: Daemon, http: aiohttp.ClientSession) -> None:
    """A reseller with two customers; one has trunks, one has nothing left."""
    await http.put(f"{daemon.admin}/v1/decks/retail", data=DECK)
    accounts = {
        "acme": {"deck": "retail"},
        "acme-sales": {"parent": "acme", "trunks": {"outbound": 2}},
        "acme-broke": {"parent": "acme"},
    }
    for name, body in accounts.items():
        await http.put(f"{daemon.admin}/v1/accounts/{name}", json=body)
        if name != "acme-broke":
            credit = {"amount": "1000", "kind": "payment", "reference": "first"}
            await http.post(f"{daemon.admin}/v1/accounts/{name}/credits", json=credit)


async def place_calls(daemon: Daemon, http: aiohttp.ClientSession) -> None:
    """Place calls of several classes, some of them in vain, and end them; until cancelled."""
    numbers = (
        "+14155550100",
        "+442071838750",
        "+19005550100",
        "+18765550100",
        "+18005551212",
        "911",
    )
    number = 0
    while True:
        number += 1
        for account in ("acme-sales", "acme-broke"):
            for place, to in enumerate(numbers):
                call = {"call_id": f"c{number}-{place}", "account": account}
                async with http.post(f"{daemon.hook}/v1/authorize", json={**call, "to": to}) as got:
                    allowed = (await got.json())["allowed"]
                if allowed:
                    await http.post(f"{daemon.hook}/v1/reserve", json={**call, "used_seconds": 30})
                    await http.post(f"{daemon.hook}/v1/settle", json={**call, "seconds": 61})
        await asyncio.sleep(0.05)


async def ask(http: aiohttp.ClientSession, prometheus: Prometheus, query: str) -> list[Any]:
    async with http.get(f"{prometheus.url}/api/v1/query", params={"query": query}) as response:
        answer: list[Any] = (await response.json())["data"]["result"]
    return answer


async def until_answered(
    http: aiohttp.ClientSession, prometheus: Prometheus, wanted: dict[str, str]
) -> None:
    """Return when every query has an answer; fail with those that have none."""
    missing = dict(wanted)
    for _ in range(TRIES):
        for name, query in list(missing.items()):
            try:
                if await ask(http, prometheus, query):
                    del missing[name]
            except aiohttp.ClientConnectionError:
                # It has only just been started.
                break
        if not missing:
            return
        await asyncio.sleep(1)
    raise AssertionError(f"no data: {json.dumps(missing, indent=1)}")


async def test_every_panel_and_every_rule_has_data(
    daemon: Daemon, http: aiohttp.ClientSession, business: None, tmp_path: Path
) -> None:
    directory = tmp_path / "prometheus"
    directory.mkdir()
    prometheus = Prometheus(directory, daemon.admin_port)
    calls = asyncio.create_task(place_calls(daemon, http))
    prometheus.start()
    try:
        panels = {
            where: fill(query)
            for where, query in queries().items()
            if where.split(" / ")[1] not in EMPTY
        }
        names = {name: f'{{__name__=~"{name}(_count)?"}}' for name in METRICS if name not in UNTOLD}
        await until_answered(http, prometheus, {**panels, **names, **recorded()})
        for where, query in queries().items():
            # Those left out are at least understood.
            await ask(http, prometheus, fill(query))
            assert where.split(" / ")[1] in EMPTY or where in panels
        async with http.get(f"{prometheus.url}/api/v1/rules") as response:
            groups = (await response.json())["data"]["groups"]
        rules = [rule for group in groups for rule in group["rules"]]
        assert {rule["health"] for rule in rules} == {"ok"}
        firing = [rule["name"] for rule in rules if rule.get("state") == "firing"]
        assert firing == []
    finally:
        calls.cancel()
        await asyncio.gather(calls, return_exceptions=True)
        prometheus.stop()
