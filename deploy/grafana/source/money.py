"""Money: what accounts have and hold, what is booked, and whether the books are right."""

from __future__ import annotations

from deploy.grafana.source.panels import (
    RED,
    SCOPE,
    YELLOW,
    Json,
    Query,
    dashboard,
    lines,
    number,
    of_store,
    rate,
)


def money() -> Json:
    """Return the dashboard."""
    return dashboard(
        "authz-money",
        "authz: money",
        "Balances, holds and what is booked. Sums come from a census that walks over all accounts "
        "and are of no one moment; the audit proves the books.",
        ("Books", [
            number("Findings of the audit", "Must be 0.", "none",
                   of_store("authz_audit_findings"), ((1, RED),), width=6),
            number("Oldest audit of a bucket", "Since the office began, if never.", "s",
                   f"time() - (max(authz_audit_timestamp_seconds{{{SCOPE}}}) > 0 or "
                   f'min(authz_process_start_time_seconds{{{SCOPE}, process="office"}}))', (),
                   width=6),
            number("Age of the sums below", "Since the last census ended.", "s",
                   f"time() - max(authz_census_timestamp_seconds{{{SCOPE}}})", (), width=6),
            number("Dead letters", "Files of settles that could not be booked.", "none",
                   f"sum(authz_spool_dead_files{{{SCOPE}}})", ((1, RED),), width=6),
        ]),
        ("Accounts", [
            lines("Balances of root accounts", "Real money, in units of the currency.", "none",
                  Query(of_store("authz_balance_units", "level", "currency")
                        .replace(SCOPE, f'{SCOPE}, level="root"'), "{{currency}}")),
            lines("Held and used by open calls", "held is set aside; used is reported and not yet "
                  "booked. Root accounts.", "none",
                  Query(of_store("authz_held_units", "level", "currency")
                        .replace(SCOPE, f'{SCOPE}, level="root"'), "held {{currency}}"),
                  Query(of_store("authz_used_units", "level", "currency")
                        .replace(SCOPE, f'{SCOPE}, level="root"'), "used {{currency}}")),
            lines("Limits of sub-accounts", "The sum of their balances: what they may still spend.",
                  "none",
                  Query(of_store("authz_balance_units", "level", "currency")
                        .replace(SCOPE, f'{SCOPE}, level="sub"'), "{{currency}}")),
            lines("Accounts that need a look", "low: at or below the alert's threshold.", "none",
                  Query(of_store("authz_accounts_in_state", "state"), "{{state}}")),
            lines("Accounts", "Not closed.", "none",
                  Query(of_store("authz_accounts", "level", "currency"),
                        "{{level}} {{currency}}")),
            lines("Decks in force", "And how many of them there are in each process's memory is "
                  "alike unless AuthzDecksDiffer fires.", "none",
                  Query(of_store("authz_decks"), "decks")),
        ]),
        ("Booked", [
            lines("Calls booked", "By how the calling account's own leg paid.", "reqps",
                  Query(rate("authz_settled_calls_total", "billing"), "{{billing}}"),
                  stacked=True),
            lines("Minutes booked", "A minute; by how the calling account's own leg paid.", "none",
                  Query(rate("authz_settled_call_seconds_total", "billing"), "{{billing}}"),
                  stacked=True),
            lines("Calls never hung up", "Orphans a second; they are settled by policy.", "reqps",
                  Query(rate("authz_calls_orphaned_total"), "orphans")),
            lines("Settles that wait", "On disk, for the store.", "none",
                  Query(f"sum by (instance) (authz_spool_waiting{{{SCOPE}}})", "{{instance}}"),
                  Query(f"authz_spool_files{{{SCOPE}}}", "files {{instance}}")),
            lines("Spool on disk", "spool.bytes_max is the most of one process.", "bytes",
                  Query(f"authz_spool_bytes{{{SCOPE}}}", "{{instance}} {{process}}")),
            lines("Accounts that never stood still", "In the last audit: nothing could be said of "
                  "their holds then.", "none",
                  Query(of_store("authz_audit_moving_accounts"), "accounts")),
            lines("Spooled settles that were replayed", "conflict: a dead letter.", "reqps",
                  Query(rate("authz_spool_replays_total", "outcome"), "{{outcome}}")),
        ]),
        ("Events", [
            lines("Events that wait, or were given up", "dead must be 0.", "none",
                  Query(f"max by (channel, state) (authz_deliveries{{{SCOPE}}})",
                        "{{channel}} {{state}}")),
        ]),
        ("Archive", [
            lines("Behind", "Age of the oldest entry of the store that is not archived.", "s",
                  Query(f"max by (stream) (authz_archive_behind_seconds{{{SCOPE}}})",
                        "{{stream}}"), thresholds=((600, YELLOW),)),
            lines("Entries in the store's streams", "The archive takes them away after a while.",
                  "none",
                  Query(of_store("authz_ledger_entries"), "ledger"),
                  Query(of_store("authz_event_entries"), "events"),
                  Query(f"max by (stream) (authz_archive_behind_entries{{{SCOPE}}})",
                        "{{stream}} not archived")),
        ]),
    )  # fmt: skip
