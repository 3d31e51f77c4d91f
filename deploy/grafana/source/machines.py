"""Store and workers: the machines that do it."""

from __future__ import annotations

from typing import Final

from deploy.grafana.source.panels import (
    RED,
    SCOPE,
    Json,
    Query,
    dashboard,
    lines,
    number,
    of_store,
    quantile,
    rate,
    table,
)

_SHARES: Final = (("0.5", "median"), ("0.99", "99 %"), ("0.999", "99.9 %"))


def machines() -> Json:
    """Return the dashboard."""
    return dashboard(
        "authz-machines",
        "authz: store and workers",
        "The store's server, the daemon's processes, and the ways between them.",
        ("Store", [
            number("Answers", "1: every process has it.", "none",
                   f"min(authz_store_connected{{{SCOPE}}})"),
            number("Memory used", "Of maxmemory, if it is set; 80 % refuses new calls.",
                   "percentunit",
                   f"max(authz_store_memory_bytes{{{SCOPE}}}) / "
                   f"(max(authz_store_memory_max_bytes{{{SCOPE}}}) > 0)", ((0.7, RED),)),
            number("Log is written", "1: append-only file on.", "none",
                   f"min(authz_store_aof_enabled{{{SCOPE}}})"),
            number("Writing works", "0: the last write or rewrite failed.", "none",
                   f"min(authz_store_persistence_ok{{{SCOPE}}})"),
            number("Replicas", "Connected.", "none", of_store("authz_store_replicas")),
            number("Up for", "Since the server's start.", "s",
                   of_store("authz_store_uptime_seconds")),
            lines("How long the store takes", "From a command's being sent to its reply.", "s",
                  *(Query(quantile(share, "authz_store_reply_seconds"), name)
                    for share, name in _SHARES)),
            lines("Commands", "As the server counts them, of whatever program.", "ops",
                  Query(f"max(rate(authz_store_commands_total{{{SCOPE}}}[$__rate_interval]))",
                        "commands")),
            lines("CPU of the store", "1 is a core; one tree of accounts lives on one core.",
                  "none",
                  Query(f"max(rate(authz_store_cpu_seconds_total{{{SCOPE}}}[$__rate_interval]))",
                        "store")),
            lines("Memory of the store", "And the most it may use, if that is set.", "bytes",
                  Query(of_store("authz_store_memory_bytes"), "used"),
                  Query(of_store("authz_store_memory_max_bytes"), "maxmemory (0: none)")),
            lines("Failed commands", "unknown: sent, and no answer in time.", "ops",
                  Query(rate("authz_store_errors_total", "kind"), "{{kind}}")),
            lines("In flight and waiting", "Commands of each process.", "none",
                  Query(f"authz_store_in_flight{{{SCOPE}}}", "{{instance}} {{process}} in flight"),
                  Query(f"authz_store_queued{{{SCOPE}}}", "{{instance}} {{process}} waiting")),
            lines("Connections", "Opened by our processes, a second; and all that there are.",
                  "none",
                  Query(rate("authz_store_connections_total"), "opened"),
                  Query(of_store("authz_store_clients"), "open")),
            lines("Last fork", "How long the server stood still for it.", "s",
                  Query(of_store("authz_store_fork_seconds"), "fork")),
        ]),
        ("Hook workers", [
            lines("How long an answer takes", "From a request's last byte, waiting in the process "
                  "included.", "s",
                  *(Query(quantile(share, "authz_hook_answer_seconds",
                                   only='route=~"authorize|reserve|settle"'), name)
                    for share, name in _SHARES)),
            lines("By endpoint", "99th percentile.", "s",
                  Query(quantile("0.99", "authz_hook_answer_seconds", "route",
                                 only='route=~"authorize|reserve|settle|dialplan|cdr|call"'),
                        "{{route}}")),
            lines("Open connections", "Of switches.", "none",
                  Query(f"authz_hook_open_connections{{{SCOPE}}}", "{{instance}} {{process}}"),
                  stacked=True),
            lines("In flight", "Requests being decided; hook.in_flight_max is the most.", "none",
                  Query(f"authz_hook_in_flight{{{SCOPE}}}", "{{instance}} {{process}}")),
            lines("Turned away", "Overload, too many connections, clients too slow, gone.", "reqps",
                  Query(rate("authz_hook_overloaded_total"), "overloaded"),
                  Query(rate("authz_hook_connections_refused_total"), "connections refused"),
                  Query(rate("authz_hook_timeouts_total"), "timed out"),
                  Query(rate("authz_hook_answers_dropped_total"), "answers dropped")),
            lines("New connections", "A switch keeps its connections; many are a sign of one that "
                  "does not.", "reqps",
                  Query(rate("authz_hook_connections_total", "instance"), "{{instance}}")),
        ]),
        ("Processes", [
            lines("CPU", "1 is a core.", "none",
                  Query(f"rate(authz_process_cpu_seconds_total{{{SCOPE}}}[$__rate_interval])",
                        "{{instance}} {{process}}"), stacked=True),
            lines("Memory", "Resident.", "bytes",
                  Query(f"authz_process_resident_bytes{{{SCOPE}}}", "{{instance}} {{process}}"),
                  stacked=True),
            lines("Starts, ends, reloads", "ends: unasked.", "none",
                  Query(f"increase(authz_process_starts_total{{{SCOPE}}}[10m])",
                        "{{instance}} {{process}} starts"),
                  Query(f"increase(authz_process_ends_total{{{SCOPE}}}[10m])",
                        "{{instance}} {{program}} ends"),
                  Query(f"increase(authz_reloads_total{{{SCOPE}}}[10m])",
                        "{{instance}} reloads {{outcome}}"),
                  Query(f"increase(authz_store_restarts_total{{{SCOPE}}}[10m])",
                        "{{instance}} store restarts")),
            lines("File descriptors", "Share of those that the process may open.", "percentunit",
                  Query(f"authz_process_open_files{{{SCOPE}}} / "
                        f"authz_process_open_files_max{{{SCOPE}}}", "{{instance}} {{process}}")),
            lines("Free disk", "Where spool and own store write.", "bytes",
                  Query(f"authz_state_dir_free_bytes{{{SCOPE}}}", "{{instance}}")),
            lines("Admin API", "Answers.", "reqps",
                  Query(rate("authz_admin_answers_total", "method", "status") + " > 0",
                        "{{method}} {{status}}"), stacked=True),
            lines("Scrapes", "How long a page takes, and what had to be left out.", "s",
                  Query(f"scrape_duration_seconds{{{SCOPE}}}", "{{instance}}"),
                  Query(f"increase(authz_scrape_failures_total{{{SCOPE}}}[10m])",
                        "{{instance}} without {{part}}")),
            lines("Decks of each process", "1: all processes of the host have the same decks.",
                  "none",
                  Query("count by (instance) (count_values by (instance) "
                        f'("digest", authz_decks_digest{{{SCOPE}}}))', "{{instance}}")),
            table("Versions", "What runs.", "none", f"authz_build_info{{{SCOPE}}}"),
            table("Store servers", "What answers as the store, and in which role.", "none",
                  f"max by (server, version, role) (authz_store_info{{{SCOPE}}})"),
            table("Decks in force", "The beginning of each deck's hash.", "none",
                  f"max by (deck, version, currency) (authz_deck_info{{{SCOPE}}})"),
        ]),
    )  # fmt: skip
