"""Kazoo: the brokers that the agents serve, and what shadow mode finds."""

from __future__ import annotations

from deploy.grafana.source.panels import SCOPE, Json, Query, dashboard, lines, number, rate


def kazoo() -> Json:
    """Return the dashboard."""
    return dashboard(
        "authz-kazoo",
        "authz: Kazoo",
        "Kazoo's questions and events, and how our answers compare with those of jonny5.",
        ("Brokers", [
            number("Zones connected", "Whose broker answers, over all hosts.", "none",
                   f"sum(authz_kazoo_connected{{{SCOPE}}})", width=6),
            lines("Messages", "What was read from the brokers, by the queue it came from.", "ops",
                  Query(rate("authz_kazoo_messages_total", "source"), "{{source}}")),
            lines("Outcomes", "postponed: it comes again; malformed and dropped are lost.", "ops",
                  Query(rate("authz_kazoo_messages_total", "outcome"), "{{outcome}}")),
        ]),
        ("Shadow mode", [
            lines("Answers compared", "By what is asked and what a difference comes from.", "ops",
                  Query(rate("authz_kazoo_shadow_total", "subject", "cause"),
                        "{{subject}} {{cause}}")),
        ]),
    )  # fmt: skip
