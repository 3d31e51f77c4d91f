"""The rows of the table of metrics that the office reads at a scrape, from wherever they are."""

from __future__ import annotations

from typing import Final

from authz.meters.kinds import PREFIX, Kind, Metric, Scope


def _read(name: str, meaning: str, labels: str = "", scope: Scope = Scope.STORE) -> Metric:
    kind = Kind.COUNTER if name.endswith("_total") else Kind.GAUGE
    return Metric(f"{PREFIX}{name}", kind, meaning, tuple(labels.split()), None, scope)


_DAEMON: Final = (
    _read("build_info", "Always 1; the labels say what runs.", "version python", Scope.DAEMON),
    _read("process_up", "1 while the process gives signs of life.", "", Scope.PROCESS),
    _read("process_start_time_seconds", "When the process started (Unix time).", "", Scope.PROCESS),
    _read("process_cpu_seconds_total", "CPU time used by the process.", "", Scope.PROCESS),
    _read("process_resident_bytes", "Memory of the process.", "", Scope.PROCESS),
    _read("process_open_files", "Open file descriptors.", "", Scope.PROCESS),
    _read("process_open_files_max", "Most file descriptors that it may open.", "", Scope.PROCESS),
    _read("spool_files", "Spool files of this host, those of dead processes included.", "",
          Scope.DAEMON),
    _read("spool_dead_files", "Files of settles that could not be booked and wait for an operator.",
          "", Scope.DAEMON),
    _read("state_dir_free_bytes", "Free space where spool and own store write.", "", Scope.DAEMON),
)  # fmt: skip

_STORE: Final = (
    _read("store_up", "1 while the store answers this daemon's office.", "", Scope.DAEMON),
    _read("store_info", "Always 1; the labels say which server answers.", "server version role"),
    _read("store_uptime_seconds", "How long the store's server has been running."),
    _read("store_memory_bytes", "Memory that the store uses."),
    _read("store_memory_max_bytes", "Memory that the store may use; 0: no limit."),
    _read("store_clients", "Connections to the store, of whatever program."),
    _read("store_commands_total", "Commands that the store has run."),
    _read("store_cpu_seconds_total", "CPU time of the store."),
    _read("store_replicas", "Replicas connected to the store."),
    _read("store_aof_enabled", "1 if the store writes an append-only file."),
    _read("store_persistence_ok", "0 if the store's last write, rewrite or snapshot failed."),
    _read("store_fork_seconds", "How long the store stood still for its last fork."),
)

_CALLS: Final = (
    _read("live_calls", "Calls open now, over all buckets."),
    _read("ledger_entries", "Movements in the store's ledger streams, archived or not."),
    _read("event_entries", "Alerts and recharge requests in the store's event streams."),
    _read("decks", "Decks in force."),
    _read("deck_info", "Always 1; version is the beginning of the deck's hash. The first 200 decks "
          "by id.", "deck version currency"),
)  # fmt: skip

_MONEY: Final = (
    _read("census_timestamp_seconds", "When the last walk over all accounts ended (Unix time); the "
          "next eight come from it."),
    _read("accounts", "Accounts that are not closed. level: root or sub.", "level currency"),
    _read("balance_units", "Sum of balances, in units of the currency. Only those of roots are "
          "money; a sub-account's is a limit.", "level currency"),
    _read("held_units", "Sum of what is set aside for open calls.", "level currency"),
    _read("used_units", "Sum of what running calls have reported and is still to be booked.",
          "level currency"),
    _read("accounts_in_state", "Accounts. state: disabled; low (at or below the alert's threshold);"
          " exhausted; recharge_pending.", "state"),
    _read("class_calls", "Open calls by class, as root accounts count them: without outbound "
          "emergency calls.", "class"),
    _read("trunk_calls", "Open calls on accounts' flat-rate trunks.", "level direction"),
    _read("trunk_channels", "Flat-rate channels of accounts. kind: inbound, outbound, twoway.",
          "level kind"),
)  # fmt: skip

_AUDIT: Final = (
    _read("audit_findings", "Findings of the last audit of every bucket; must be 0."),
    _read("audit_moving_accounts", "Accounts that moved during every look of the last audit."),
    _read("audit_timestamp_seconds", "When the bucket audited longest ago was (Unix time); 0: "
          "never."),
)  # fmt: skip

_ARCHIVE: Final = (
    _read("archive_up", "1 while the office archives what the store's streams hold.", "",
          Scope.DAEMON),
    _read("archive_behind_entries", "Entries not yet archived, at least.", "stream", Scope.DAEMON),
    _read("archive_behind_seconds", "Age of the oldest entry not yet archived.", "stream",
          Scope.DAEMON),
    _read("archive_forked_streams", "Streams that an operator must repair; must be 0.", "stream",
          Scope.DAEMON),
)  # fmt: skip

_DELIVERIES: Final = (
    _read("deliveries", "Events on their way to a receiver (pending), or given up (dead).",
          "channel state", Scope.DAEMON),
)  # fmt: skip

READ: Final = (*_DAEMON, *_STORE, *_CALLS, *_MONEY, *_AUDIT, *_ARCHIVE, *_DELIVERIES)
