"""The first look: are calls decided, how fast, and how long will the budget of errors last?"""

from __future__ import annotations

from typing import Final

from deploy.grafana.source.panels import (
    RED,
    SCOPE,
    YELLOW,
    Json,
    Panel,
    Query,
    dashboard,
    heat,
    lines,
    number,
    of_store,
    quantile,
    rate,
    table,
)

_BUDGET: Final = '1 - authz:slo_errors:ratio_rate30d{job="$job", slo="%s"} / 0.001'
_DECISIONS: Final = 'operation=~"authorize|reserve"'
_REFUSED: Final = 'operation="authorize", outcome="denied"'


def overview() -> Json:
    """Return the dashboard."""
    return dashboard(
        "authz-overview",
        "authz: overview",
        "Whether calls are decided, how fast, and what is refused.",
        ("Now", _now()),
        ("Objective: 99.9 % of decisions within 5 ms and not refused by a fault of ours", [
            lines(
                "Burn rate over an hour",
                "1 uses up the budget of 30 days in 30 days; 14.4 in two days. Lines: 1, 6, 14.4.",
                "none",
                Query('authz:slo_errors:ratio_rate1h{job="$job"} / 0.001', "{{slo}}"),
                thresholds=((1, YELLOW), (6, "orange"), (14.4, RED)),
            ),
            lines(
                "Bad decisions",
                "Share of decisions that are too slow, or refused or let through for want of a "
                "store.",
                "percentunit",
                Query('authz:slo_errors:ratio_rate5m{job="$job"}', "{{slo}}"),
            ),
        ]),
        ("Decisions", [
            lines(
                "Decisions by outcome",
                "degraded: let through without the store. unenforced: would have been denied.",
                "reqps",
                Query(rate("authz_decisions_total", "operation", "outcome"),
                      "{{operation}} {{outcome}}"),
                stacked=True,
            ),
            lines(
                "Refusals by reason",
                "Of new and of running calls; docs/reasons.md tells what they mean.",
                "reqps",
                Query(rate("authz_decisions_total", "reason", only='outcome="denied"') + " > 0",
                      "{{reason}}"),
                stacked=True,
            ),
            lines(
                "How long a decision takes",
                "In the engine, the store's answer included.",
                "s",
                *(Query(quantile(share, "authz_decision_seconds", only=_DECISIONS), name)
                  for share, name in (("0.5", "median"), ("0.99", "99 %"), ("0.999", "99.9 %"))),
                thresholds=((0.005, RED),),
            ),
            heat(
                "Decisions by how long they take",
                "Each row is a bucket of authz_decision_seconds.",
                rate("authz_decision_seconds_bucket", "le", only=_DECISIONS),
            ),
            lines(
                "Settles",
                "spooled: the store was away. not_kept must be 0.",
                "reqps",
                Query(rate("authz_settles_total", "outcome"), "{{outcome}}"),
                stacked=True,
            ),
            lines(
                "Answers of the hook API",
                "As switches see them; a denial is 2xx.",
                "reqps",
                Query(rate("authz_hook_answers_total", "route", "status") + " > 0",
                      "{{route}} {{status}}"),
                stacked=True,
            ),
        ]),
        ("Calls", [
            lines(
                "Open calls",
                "Over all daemons of the store.",
                "none",
                Query(of_store("authz_live_calls"), "calls"),
            ),
            table(
                "Firing and pending alerts",
                "Each has a runbook in docs/operations.md.",
                "none",
                'ALERTS{alertname=~"Authz.*"}',
            ),
        ]),
    )  # fmt: skip


def _now() -> list[Panel]:
    refused = f"{rate('authz_decisions_total', only=_REFUSED)} / " + rate(
        "authz_decisions_total", only='operation="authorize"'
    )
    return [
        number("Decisions", "Authorizes and reserves a second.", "reqps",
               rate("authz_decisions_total")),
        number("New calls refused", "Share of authorizes, for whatever reason.", "percentunit",
               refused),
        number("Slowest 1 %", "99th percentile of decisions.", "s",
               quantile("0.99", "authz_decision_seconds", only=_DECISIONS),
               ((0.005, YELLOW), (0.05, RED))),
        number("Budget left: latency", "Of 30 days.", "percentunit", _BUDGET % "latency"),
        number("Budget left: availability", "Of 30 days.", "percentunit",
               _BUDGET % "availability"),
        number("Findings of the audit", "Must be 0.", "none",
               of_store("authz_audit_findings"), ((1, RED),)),
        number("Store", "1: it answers every process.", "none",
               f"min(authz_store_connected{{{SCOPE}}})", ()),
        number("Daemons", "Hosts that Prometheus reaches.", "none",
               f"sum(up{{{SCOPE}}})"),
    ]  # fmt: skip
