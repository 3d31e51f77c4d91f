"""Trunks and fraud: where calls go, what is refused, and what is not as it was yesterday."""

from __future__ import annotations

from typing import Final

from deploy.grafana.source.panels import (
    RED,
    SCOPE,
    YELLOW,
    Json,
    Query,
    dashboard,
    lines,
    of_store,
    rate,
    table,
)

_STARTS: Final = "authz_call_starts_total"


def fraud() -> Json:
    """Return the dashboard."""
    return dashboard(
        "authz-fraud",
        "authz: trunks and fraud",
        "Where calls go and what is refused. Accounts are not named here: the admin API's usage by "
        "class names them.",
        ("Destinations", [
            lines("Calls let through, by class", "Each new call, both directions.", "reqps",
                  Query(rate(_STARTS, "class", only='outcome!="denied"'), "{{class}}"),
                  stacked=True),
            lines("Calls refused, by class", "For whatever reason.", "reqps",
                  Query(rate(_STARTS, "class", only='outcome="denied"'), "{{class}}"),
                  stacked=True),
            lines("Risky classes against the last hours",
                  "Above 4 AuthzRiskyDestinations fires, if it lasts. Empty before there is a past "
                  "of 10 minutes.", "none",
                  Query('authz:risky_starts:rate15m{job="$job"} / (avg_over_time('
                        'authz:risky_starts:rate15m{job="$job"}[1d]) > 0)', "{{class}}"),
                  thresholds=((2, YELLOW), (4, RED))),
            lines("Open calls by class", "As root accounts count them.", "none",
                  Query(of_store("authz_class_calls", "class"), "{{class}}"), stacked=True),
        ]),
        ("Refusals", [
            table("Reasons in the last hour", "Of new and of running calls.", "none",
                  f'sort_desc(sum by (operation, reason) (increase(authz_decisions_total{{{SCOPE}, '
                  'outcome="denied"}[1h])) > 0)'),
            lines("Limits reached", "Refusals by a limit that an account has.", "reqps",
                  Query(rate("authz_decisions_total", "reason",
                             only='outcome="denied", reason=~"max_.*|call_rate_exceeded|.*_limit"'),
                        "{{reason}}")),
            lines("Short of money", "Refusals for want of credit or a free trunk.", "reqps",
                  Query(rate("authz_decisions_total", "reason",
                             only='outcome="denied", reason=~"insufficient_credit|'
                                  'trunks_exhausted"'), "{{reason}}")),
            lines("Emergency and toll-free calls", "Always let through.", "reqps",
                  Query(rate(_STARTS, "class", "outcome", only='class=~"emergency|tollfree"'),
                        "{{class}} {{outcome}}")),
            lines("Wrong or missing tokens", "Somebody who guesses shows here.", "reqps",
                  Query(rate("authz_access_failures_total", "listener"), "{{listener}}")),
        ]),
        ("Trunks", [
            lines("Calls on trunks", "Over all accounts; a call counts at each level that has a "
                  "trunk for it.", "none",
                  Query(of_store("authz_trunk_calls", "level", "direction"),
                        "{{level}} {{direction}}")),
            lines("Channels", "What accounts have.", "none",
                  Query(of_store("authz_trunk_channels", "level", "kind"), "{{level}} {{kind}}")),
            lines("How calls pay", "By the calling account's own leg; burst: above its channels.",
                  "reqps",
                  Query(rate("authz_settled_calls_total", "billing"), "{{billing}}"),
                  stacked=True),
        ]),
    )  # fmt: skip
