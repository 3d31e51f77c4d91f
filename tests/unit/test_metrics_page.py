"""The page for Prometheus: what it is made of, and what it does when a part of it fails."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families
from tally import Tally

from authz import meters
from authz.errors import InvariantError, StoreError
from authz.meters.kinds import BUCKETS_NS, Kind
from authz.meters.shared import Row, own_row
from authz.meters.table import COUNTED, METRICS
from authz.metrics import page as page_module
from authz.metrics.docs import markdown
from authz.metrics.host_part import HostPart
from authz.metrics.page import MetricsPage
from authz.metrics.readings import Readings

ROOT = Path(__file__).resolve().parents[2]


class FixedPart:
    """A part that tells, raises or hangs."""

    name = "store"

    def __init__(self, *readings: tuple[Any, ...], error: Exception | None = None) -> None:
        self.reads = 0
        self._readings = readings
        self._error = error

    async def read(self) -> Readings:
        self.reads += 1
        if self._error is not None:
            raise self._error
        readings = Readings()
        for name, value, *labels in self._readings:
            readings.add(name, value, *labels)
        return readings


class HangingPart(FixedPart):
    async def read(self) -> Readings:
        await asyncio.Event().wait()
        raise AssertionError


def row(name: str, counts: dict[tuple[str, ...], int] | None = None, **facts: Any) -> Row:
    """Return a process's row; counts are by name and labels, of a histogram its first bucket."""
    values = [0] * meters.SLOTS
    for (metric, *labels), count in (counts or {}).items():
        values[dict(meters.slots_of(METRICS[metric]))[tuple(labels)]] = count
    return Row(name, 1, 0, facts.get("is_alive", True), values)


def samples(text: str) -> dict[tuple[str, ...], float]:
    """Return the values of a page by name and labels in the order of their names."""
    return {
        (one.name, *(value for _, value in sorted(one.labels.items()))): one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
    }


async def render(rows: list[Row], *parts: Any) -> dict[tuple[str, ...], float]:
    page = await MetricsPage(lambda: rows, parts).render("text/plain")
    return samples(page.body.decode())


async def test_counters_are_summed_and_gauges_told_by_process() -> None:
    orphaned, connections = "authz_calls_orphaned_total", "authz_hook_open_connections"
    found = await render(
        [
            row("worker-1", {(orphaned,): 2, (connections,): 7}),
            row("worker-2", {(orphaned,): 3, (connections,): 5}, is_alive=False),
            row("office", {(orphaned,): 4, (connections,): 9}),
        ]
    )
    assert found[orphaned,] == 9
    assert found[connections, "worker-1"] == 7
    # One does not live any more, the other has no switches.
    assert {key for key in found if key[0] == connections} == {(connections, "worker-1")}


async def test_histograms_accumulate() -> None:
    name = "authz_decision_seconds"
    one = row("worker-1")
    first = dict(meters.slots_of(METRICS[name]))["settle",]
    one.values[first] = 3
    one.values[first + 2] = 4
    one.values[first + len(BUCKETS_NS)] = 1
    one.values[first + len(BUCKETS_NS) + 1] = 2_500_000_000
    found = await render([one, one])
    assert found[f"{name}_bucket", "5e-05", "settle"] == 6
    assert found[f"{name}_bucket", "0.0001", "settle"] == 6
    assert found[f"{name}_bucket", "0.00015", "settle"] == 14
    assert found[f"{name}_bucket", "2.5", "settle"] == 14
    assert found[f"{name}_bucket", "+Inf", "settle"] == 16
    assert found[f"{name}_count", "settle"] == 16
    assert found[f"{name}_sum", "settle"] == 5


async def test_every_counted_series_is_there_from_the_beginning() -> None:
    found = await render([row(name) for name in ("worker-1", "office", "agents", "serve")])
    for metric in COUNTED:
        suffix = "_count" if metric.kind is Kind.HISTOGRAM else ""
        for labels in metric.series or ():
            named = sorted(zip(metric.labels, labels, strict=True))
            key = (f"{metric.name}{suffix}", *(value for _, value in named))
            assert any(one[: len(key)] == key for one in found), key


async def test_a_part_that_fails_leaves_the_others_alone(tally: Tally) -> None:
    well = FixedPart(("authz_live_calls", 5))
    well.name = "calls"
    found = await render([], FixedPart(error=StoreError("away")), well)
    assert found["authz_live_calls",] == 5
    assert tally.of("authz_scrape_failures_total") == {("store",): 1}


async def test_a_part_that_hangs_is_left_out(monkeypatch: pytest.MonkeyPatch, tally: Tally) -> None:
    monkeypatch.setattr(page_module, "_PART_SECONDS", 0.01)
    found = await render([row("office")], HangingPart())
    assert found["authz_calls_orphaned_total",] == 0
    assert tally.of("authz_scrape_failures_total") == {("store",): 1}


async def test_many_who_ask_at_once_are_told_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    # However long twenty pages take here, they are asked for at once.
    monkeypatch.setattr(page_module, "_FRESH_SECONDS", 60)
    part = FixedPart(("authz_decks", 1))
    page = MetricsPage(lambda: [], [part])
    pages = await asyncio.gather(*(page.render("") for _ in range(20)))
    assert len(set(pages)) == 1
    assert part.reads == 1


async def test_the_format_is_the_one_asked_for() -> None:
    page = MetricsPage(lambda: [row("office")], [FixedPart(("authz_build_info", 1, "0.1", "3"))])
    openmetrics = await page.render("application/openmetrics-text;version=1.0.0,text/plain;q=0.5")
    assert openmetrics.content_type.startswith("application/openmetrics-text")
    names = {family.name for family in parse_openmetrics(openmetrics.body.decode())}
    assert {"authz_decisions", "authz_build_info"} < names
    assert openmetrics.body.endswith(b"# EOF\n")
    text = await page.render("*/*")
    assert text.content_type == "text/plain; version=0.0.4; charset=utf-8"


def test_only_what_the_table_has_can_be_read() -> None:
    readings = Readings()
    for name, labels in (
        ("authz_nothing", ()),
        ("authz_calls_orphaned_total", ()),
        ("authz_decks", ("too", "many")),
        ("authz_process_up", ()),
    ):
        with pytest.raises(InvariantError):
            readings.add(name, 1, *labels)


def test_label_values_are_escaped() -> None:
    readings = Readings()
    readings.add("authz_deck_info", 1, 'a"b\\c\nd', "v", "USD")
    (family,) = readings.families()
    assert family.samples[0].labels["deck"] == 'a"b\\c\nd'


async def test_the_host_is_looked_at(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    (spool / "dead").mkdir(parents=True)
    for name in ("a.spool", "b.spool", "b.offset", "dead/c.jsonl"):
        (spool / name).touch()
    rows = [row("office"), row("worker-1", is_alive=False)]
    rows[0] = rows[0]._replace(pid=1 << 22)
    part = HostPart(lambda: [*rows, own_row("serve")], tmp_path, spool)
    found = {
        (one.name, *one.labels.values()): one.value
        for family in (await part.read()).families()
        for one in family.samples
    }
    assert found["authz_spool_files",] == 2
    assert found["authz_spool_dead_files",] == 1
    assert found["authz_state_dir_free_bytes",] > 0
    assert found["authz_process_up", "worker-1"] == 0
    assert found["authz_process_resident_bytes", "serve"] > 1_000_000
    assert 0 < found["authz_process_open_files", "serve"] < 10_000
    # Nothing is told of a process that is gone.
    assert ("authz_process_open_files", "office") not in found


def test_the_documentation_is_of_this_table() -> None:
    assert (ROOT / "docs/metrics.md").read_text(encoding="utf-8") == markdown()
