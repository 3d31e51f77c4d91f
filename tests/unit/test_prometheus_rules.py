"""The rules for Prometheus: valid, documented, and every alert fires when it should and only then.

Each case is a small history of series, which promtool feeds to the rules as Prometheus would.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from prometheus import find_program

from authz.meters.kinds import BUCKETS_NS, Kind
from authz.meters.table import METRICS

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "deploy/prometheus"
RULES = sorted((FOLDER / "rules").glob("*.yml"))
#: Series as promtool writes them: `a+bxn` is a, growing by b, n times.
TARGET = 'job="authz",instance="h1"'


class Case(NamedTuple):
    """Series by name and labels, and the minute at which the alert must fire, or not.

    Histories of hours have a sample every `step` minutes only.
    """

    series: dict[str, str]
    minute: int
    fires: bool
    step: int = 1


def counter(name: str, **labels: str) -> str:
    return name + "{" + TARGET + "".join(f',{key}="{value}"' for key, value in labels.items()) + "}"


def decisions(allowed: str, **others: str) -> dict[str, str]:
    """Return a history of authorizes: those allowed, and others by reason or as `degraded`."""
    name, operation = "authz_decisions_total", "authorize"
    series = {counter(name, operation=operation, outcome="allowed", reason="ok"): allowed}
    for word, values in others.items():
        outcome, reason = ("degraded", "ok") if word == "degraded" else ("denied", word)
        series[counter(name, operation=operation, outcome=outcome, reason=reason)] = values
    return series


def latencies(all_of_them: str, fast: str) -> dict[str, str]:
    name = "authz_decision_seconds"
    return {
        counter(f"{name}_count", operation="authorize"): all_of_them,
        counter(f"{name}_bucket", operation="authorize", le="0.005"): fast,
        counter(f"{name}_bucket", operation="authorize", le="+Inf"): all_of_them,
    }


def gauge_pair(name: str, bad: str, well: str, minute: int, **labels: str) -> list[Case]:
    """Return the two cases of a metric of one series."""
    key = counter(name, **labels)
    return [Case({key: bad}, minute, True), Case({key: well}, minute, False)]


def starts(call_class: str, outcome: str, values: str) -> dict[str, str]:
    labels = {"class": call_class, "direction": "outbound", "outcome": outcome}
    return {counter("authz_call_starts_total", **labels): values}


def store_memory(used: int, most: int) -> dict[str, str]:
    return {
        counter("authz_store_memory_bytes"): f"{used}x30",
        counter("authz_store_memory_max_bytes"): f"{most}x30",
    }


def audited(office_started: str, at: str) -> dict[str, str]:
    return {
        counter("authz_process_start_time_seconds", process="office"): office_started,
        counter("authz_audit_timestamp_seconds"): at,
    }


def refused(allowed: str, denied: str) -> dict[str, str]:
    return decisions(allowed, insufficient_credit=denied)


_DAY = 24 * 60
CASES: dict[str, list[Case]] = {
    "AuthzErrorBudgetBurnsFast": [
        Case(decisions("0+600x80", store_unavailable="0+12x80"), 70, True),
        Case(decisions("0+600x80", degraded="0+12x80"), 70, True),
        Case(latencies("0+600x80", "0+588x80"), 70, True),
        # Our callers' own business, and too few of ours.
        Case(decisions("0+600x80", insufficient_credit="0+300x80"), 70, False),
        Case(decisions("0+60000x80", store_unavailable="0+60x80"), 70, False),
        Case(latencies("0+60000x80", "0+59990x80"), 70, False),
    ],
    "AuthzErrorBudgetBurnsSlowly": [
        Case(decisions("0+1000x340", overloaded="0+4x340"), _DAY + 60, True, 5),
        Case(decisions("0+10000x340", overloaded="0+4x340"), _DAY + 60, False, 5),
    ],
    "AuthzOverloaded": gauge_pair("authz_hook_overloaded_total", "0+1x30", "7x30", 15),
    "AuthzEmergencyCallRefused": [
        Case(starts("emergency", "denied", "0x5 1x20"), 8, True),
        Case(starts("emergency", "allowed", "0+1x20"), 8, False),
    ],
    "AuthzCallsWithoutStore": [
        Case(decisions("0+10x30", degraded="0+1x30"), 10, True),
        Case(decisions("0+10x30", degraded="5x30"), 10, False),
    ],
    "AuthzDown": gauge_pair("up", "1x5 0x10", "1x15", 10),
    "AuthzNotScraped": [Case({'up{job="other"}': "1x20"}, 10, True), Case({counter("up"): "1x20"},
                                                                         10, False)],
    "AuthzProcessSilent": [
        *gauge_pair("authz_process_up", "1x10 0x20", "1x30", 15, process="worker-1"),
        # One that the settings do away with is told of no more.
        Case({counter("authz_process_up", process="worker-2"): "1x10 _x20"}, 15, False),
    ],
    "AuthzProcessesCrash": gauge_pair(
        "authz_process_ends_total", "0+1x20", "0x10 1x10", 15, program="worker"
    ),
    "AuthzReloadFailed": gauge_pair(
        "authz_reloads_total", "0x5 1x20", "1x20", 10, outcome="failed"
    ),
    "AuthzFilesRunOut": [
        Case(
            {
                counter("authz_process_open_files", process="worker-1"): f"{files}x20",
                counter("authz_process_open_files_max", process="worker-1"): "1024x20",
            },
            10,
            fires,
        )
        for files, fires in ((900, True), (100, False))
    ],
    "AuthzDecksDiffer": [
        Case(
            {
                counter("authz_decks_digest", process="worker-1"): "281474976710655x10",
                counter("authz_decks_digest", process="worker-2"): f"{digest}x10",
            },
            8,
            fires,
        )
        for digest, fires in ((281474976710654, True), (281474976710655, False))
    ],
    "AuthzTokensGuessed": gauge_pair(
        "authz_access_failures_total", "0+120x30", "0+6x30", 15, listener="admin"
    ),
    "AuthzScrapeIncomplete": gauge_pair(
        "authz_scrape_failures_total", "0+1x30", "0x20 1x10", 20, part="calls"
    ),
    "AuthzStoreDown": [
        *gauge_pair("authz_store_up", "1x5 0x10", "1x15", 8),
        *gauge_pair("authz_store_connected", "1x5 0x10", "1x15", 8, process="worker-1"),
    ],
    "AuthzStoreSlow": [
        Case(
            {
                counter("authz_store_reply_seconds_bucket", le="0.05"): fast,
                counter("authz_store_reply_seconds_bucket", le="0.1"): "0+100x30",
                counter("authz_store_reply_seconds_bucket", le="+Inf"): "0+100x30",
            },
            20,
            fires,
        )
        for fast, fires in (("0+90x30", True), ("0+100x30", False))
    ],
    "AuthzStoreMemoryHigh": [
        Case(store_memory(75, 100), 10, True),
        Case(store_memory(50, 100), 10, False),
        Case(store_memory(50, 0), 10, False),
    ],
    "AuthzStoreNotPersistent": [
        *gauge_pair("authz_store_persistence_ok", "1x5 0x10", "1x15", 10),
        *gauge_pair("authz_store_aof_enabled", "0x15", "1x15", 10),
    ],
    "AuthzStoreRestarted": gauge_pair("authz_store_restarts_total", "0x5 1x20", "3x20", 10),
    "AuthzDiskFills": gauge_pair(
        "authz_state_dir_free_bytes", "1000000000x15", "9000000000x15", 10
    ),
    "AuthzBooksDoNotBalance": gauge_pair("authz_audit_findings", "0x5 2x10", "0x15", 8),
    "AuthzAuditStale": [
        Case(audited("0x120", "0x120"), 2 * _DAY + 120, True, 30),
        Case(audited("0x120", "170000x120"), 2 * _DAY + 120, False, 30),
        # Not yet: the office has just begun.
        Case(audited("170000x120", "0x120"), 2 * _DAY + 120, False, 30),
    ],
    "AuthzSettlesNotKept": gauge_pair(
        "authz_settles_total", "0x5 1x10", "4x15", 8, outcome="not_kept"
    ),
    "AuthzSettlesWait": gauge_pair(
        "authz_spool_waiting", "3x20", "3x5 0x15", 15, process="worker-1"
    ),
    "AuthzDeadLetters": gauge_pair("authz_spool_dead_files", "1x5", "0x5", 3),
    "AuthzManyOrphans": [
        Case(
            {**starts("national", "allowed", "0+100x60"),
             counter("authz_calls_orphaned_total"): orphans},
            40,
            fires,
        )
        for orphans, fires in (("0+10x60", True), ("0+1x60", False))
    ],
    "AuthzRiskyDestinations": [
        Case(starts("premium", "allowed", "0+0x300 0+100x30"), 1560, True, 5),
        Case(starts("international", "allowed", "0+50x330"), 1560, False, 5),
        Case(starts("premium", "denied", "0+0x300 0+100x30"), 1560, False, 5),
    ],
    "AuthzMostCallsRefused": [
        Case(refused("0+100x60", "0+200x60"), 50, True),
        Case(refused("0+100x60", "0+50x60"), 50, False),
        Case(refused("0+1x60", "0+2x60"), 50, False),
    ],
    "AuthzSwitchLost": [
        Case(
            {
                counter("authz_freeswitch_served", process="agents"): "2x20",
                counter("authz_freeswitch_connected", process="agents"): f"{connected}x20",
            },
            10,
            fires,
        )
        for connected, fires in ((1, True), (2, False))
    ],
    "AuthzSwitchCallNotSettled": gauge_pair(
        "authz_freeswitch_settles_given_up_total", "0x5 1x10", "3x15", 10
    ),
    "AuthzDeliveriesDead": gauge_pair(
        "authz_deliveries", "0x5 1x10", "0x15", 10, channel="webhook", state="dead"
    ),
    "AuthzDeliveriesWait": gauge_pair(
        "authz_deliveries", "200x50", "20x50", 40, channel="email", state="pending"
    ),
    "AuthzArchiveDown": gauge_pair("authz_archive_up", "1x5 0x30", "1x35", 25),
    "AuthzArchiveBehind": gauge_pair(
        "authz_archive_behind_seconds", "700x30", "30x30", 20, stream="ledger"
    ),
    "AuthzLedgerForked": gauge_pair(
        "authz_archive_forked_streams", "0x5 1x10", "0x15", 8, stream="ledger"
    ),
}  # fmt: skip


def rules() -> Iterator[dict[str, Any]]:
    for path in RULES:
        for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]:
            yield from group["rules"]


ALERTS = {rule["alert"]: rule for rule in rules() if "alert" in rule}


def promtool(*arguments: str | Path) -> None:
    """Run promtool; fail with all that it says."""
    done = subprocess.run(
        [find_program("promtool"), *map(str, arguments)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_takes_the_configuration() -> None:
    promtool("check", "config", FOLDER / "prometheus.yml")


def test_every_alert_is_tested_both_ways() -> None:
    assert set(CASES) == set(ALERTS)
    for alert, cases in CASES.items():
        assert {case.fires for case in cases} == {True, False}, alert


@pytest.mark.parametrize("step", [1, 5, 30])
def test_alerts_fire_when_they_should_and_only_then(step: int, tmp_path: Path) -> None:
    tests = [
        {
            "interval": f"{step}m",
            "name": f"{alert} {number}",
            "input_series": [
                {"series": series, "values": values} for series, values in case.series.items()
            ],
            "promql_expr_test": [
                {
                    "expr": f'sum(ALERTS{{alertname="{alert}",alertstate="firing"}}) > bool 0'
                    " or vector(0)",
                    "eval_time": f"{case.minute}m",
                    "exp_samples": [{"labels": "{}", "value": int(case.fires)}],
                }
            ],
        }
        for alert, cases in CASES.items()
        for number, case in enumerate(cases)
        if case.step == step
    ]
    document = {
        "rule_files": [str(path) for path in RULES],
        "evaluation_interval": f"{step}m",
        "tests": tests,
    }
    path = tmp_path / "tests.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    promtool("test", "rules", path)


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_leads_to_its_runbook(alert: str) -> None:
    rule = ALERTS[alert]
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert rule["annotations"]["summary"]
    page, _, anchor = rule["annotations"]["runbook"].partition("#")
    headings = re.findall(r"^#+ (.+)$", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE)
    assert anchor == alert.lower()
    assert alert in headings


def test_rules_name_only_metrics_that_there_are() -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    known = {f"{name}{suffix}" for name, one in METRICS.items() for suffix in suffixes(one.kind)}
    for rule in rules():
        named = set(re.findall(r"\bauthz[_:][a-zA-Z0-9_:]+", rule["expr"]))
        assert named - recorded - known == set(), rule["expr"]
        assert named or "up{" in rule["expr"]
        for bound in re.findall(r'le="([0-9.]+)"', rule["expr"]):
            assert round(float(bound) * 1_000_000_000) in BUCKETS_NS


def suffixes(kind: Kind) -> tuple[str, ...]:
    return ("_bucket", "_count", "_sum") if kind is Kind.HISTOGRAM else ("",)
