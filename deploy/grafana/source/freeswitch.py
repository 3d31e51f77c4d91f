"""FreeSWITCH: the switches that the agents supervise, and the doors on the hook listener."""

from __future__ import annotations

from deploy.grafana.source.panels import (
    SCOPE,
    Json,
    Query,
    dashboard,
    lines,
    number,
    quantile,
    rate,
)


def freeswitch() -> Json:
    """Return the dashboard."""
    return dashboard(
        "authz-freeswitch",
        "authz: FreeSWITCH",
        "The switches whose calls authz supervises, and the HTTP doors for those it does not.",
        ("Agents", [
            number("Switches", "Named in the settings.", "none",
                   f"max(authz_freeswitch_switches{{{SCOPE}}})", width=6),
            number("Served", "By any of the hosts.", "none",
                   f"sum(authz_freeswitch_served{{{SCOPE}}})", width=6),
            number("Connected", "Of those served.", "none",
                   f"sum(authz_freeswitch_connected{{{SCOPE}}})", width=6),
            number("Calls supervised", "Now.", "none",
                   f"sum(authz_freeswitch_calls{{{SCOPE}}})", width=6),
            lines("Calls supervised by host", "By the agents of each host.", "none",
                  Query(f"sum by (instance) (authz_freeswitch_calls{{{SCOPE}}})", "{{instance}}"),
                  stacked=True),
            lines("Connections", "That came up, and attempts that failed.", "ops",
                  Query(rate("authz_freeswitch_connects_total", "instance"), "{{instance}} up"),
                  Query(rate("authz_freeswitch_failures_total", "instance"),
                        "{{instance}} failed")),
            lines("Waiting calls decided", "abandoned: gone meanwhile, or not to be released.",
                  "ops", Query(rate("authz_freeswitch_decided_total", "outcome"), "{{outcome}}"),
                  Query(rate("authz_freeswitch_settled_total", "job"), "settled")),
            lines("Settles", "Not answered yet; and given up, which must be 0.", "none",
                  Query(f"sum by (instance) (authz_freeswitch_settles_waiting{{{SCOPE}}})",
                        "{{instance}} waiting"),
                  Query("increase(authz_freeswitch_settles_given_up_total"
                        f"{{{SCOPE}}}[1h])", "{{instance}} given up in an hour")),
        ]),
        ("Doors of the hook listener", [
            lines("Requests", "dialplan: mod_xml_curl; cdr: mod_json_cdr.", "reqps",
                  Query(rate("authz_hook_answers_total", "route", "status",
                             only='route=~"dialplan|cdr"'), "{{route}} {{status}}")),
            lines("How long an answer takes", "99th percentile.", "s",
                  Query(quantile("0.99", "authz_hook_answer_seconds", "route",
                                 only='route=~"dialplan|cdr"'), "{{route}}")),
        ]),
    )  # fmt: skip
