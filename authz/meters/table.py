"""The one table of metrics: every name, meaning, label and unit that authz publishes.

Names follow Prometheus: base units (seconds, bytes), `_total` for what only grows. Money is in
units of its currency, in gauges only. No label ever carries an account, a number or a call.
docs/metrics.md is generated from here, and the tests of rules and dashboards know no other name.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from authz.meters.kinds import PREFIX, Kind, Metric, Scope, Series, one_of
from authz.meters.table_read import READ
from authz.reasons import BILLING_OF, CLASSES, DIRECTIONS, REASONS

OK: Final = "ok"
#: Endpoints of the hook listener that have a label of their own; the rest counts as `other`.
ROUTES: Final = (
    "authorize", "reserve", "settle", "call", "switch_restarted", "dialplan", "cdr",
    "livez", "readyz", "unmatched", "other",
)  # fmt: skip
OPERATIONS: Final = ("authorize", "reserve", "settle")
STATUSES: Final = ("2xx", "4xx", "5xx")
#: What the office reads at a scrape, part by part.
PARTS: Final = ("host", "store", "calls", "decks", "money", "audit", "archive", "deliveries")
#: Kinds of child process.
PROGRAMS: Final = ("worker", "office", "agents")
#: Queues of the Kazoo agent, and what becomes of what they deliver.
KAZOO_SOURCES: Final = ("requests", "rates", "hangups", "events", "answers")
KAZOO_OUTCOMES: Final = ("handled", "ignored", "malformed", "postponed", "failed", "dropped")
#: What a difference in shadow mode comes from: see hooks/kazoo/comparison.py.
SHADOW_CAUSES: Final = (
    "same", "account", "limits", "load", "credit", "allotment", "defect", "rate", "unanswered",
    "other",
)  # fmt: skip
_REFUSALS: Final = tuple(name for name in REASONS if name != OK)


def _decisions() -> Iterator[tuple[str, ...]]:
    for operation in ("authorize", "reserve"):
        yield operation, "allowed", OK
        yield operation, "degraded", OK
        for outcome in ("denied", "unenforced"):
            for reason in _REFUSALS:
                yield operation, outcome, reason


def _counter(
    name: str, meaning: str, labels: str = "", series: Series = ((),), scope: Scope = Scope.DAEMON
) -> Metric:
    return Metric(
        f"{PREFIX}{name}_total", Kind.COUNTER, meaning, tuple(labels.split()), series, scope
    )


def _seconds(name: str, meaning: str, labels: str = "", series: Series = ((),)) -> Metric:
    return Metric(f"{PREFIX}{name}_seconds", Kind.HISTOGRAM, meaning, tuple(labels.split()), series)


def _gauge(name: str, meaning: str, *programs: str) -> Metric:
    return Metric(
        f"{PREFIX}{name}", Kind.GAUGE, meaning, scope=Scope.PROCESS, programs=programs or PROGRAMS
    )


_DECISIONS: Final = (
    _counter(
        "decisions",
        "Decisions on calls. outcome: allowed; degraded (allowed without the store); denied; "
        "unenforced (would have been denied). reason: docs/reasons.md.",
        "operation outcome reason",
        tuple(_decisions()),
    ),
    _counter(
        "call_starts",
        "Authorizes by class of number, direction and outcome (as in decisions).",
        "class direction outcome",
        one_of(CLASSES, DIRECTIONS, ("allowed", "degraded", "denied", "unenforced")),
    ),
    _seconds(
        "decision",
        "Time from the engine's getting a request to its answer, the store's included.",
        "operation",
        one_of(OPERATIONS),
    ),
    _counter(
        "settles",
        "Settles. outcome: booked; duplicate; spooled (store away); settled_differently, "
        "call_unknown and invalid (refused); not_kept (neither booked nor spooled).",
        "outcome",
        one_of(("booked", "duplicate", "spooled", "settled_differently", "call_unknown",
                "invalid", "not_kept")),
    ),
    _counter(
        "settled_calls",
        "Calls booked, by how the calling account's own leg paid.",
        "billing",
        one_of(one.label for one in BILLING_OF),
    ),
    _counter(
        "settled_call_seconds",
        "Seconds of the calls booked, by how the calling account's own leg paid.",
        "billing",
        one_of(one.label for one in BILLING_OF),
    ),
    _counter("calls_orphaned", "Calls whose lease ran out, or whose switch restarted."),
)  # fmt: skip

_STORE: Final = (
    _seconds("store_reply", "Time from a command's being sent to its reply."),
    _counter(
        "store_errors",
        "Commands that failed. kind: not_sent; refused (not executed); unknown (no answer in "
        "time, or the connection was lost); error (any other error reply).",
        "kind",
        one_of(("not_sent", "refused", "unknown", "error")),
    ),
    _counter("store_connections", "Connections to the store opened by processes."),
    _gauge("store_connected", "1 while the process's store takes commands, else 0."),
    _gauge("store_in_flight", "Commands sent to the store and not yet answered."),
    _gauge("store_queued", "Commands that wait to be sent to the store."),
)

_HOOK: Final = (
    _counter(
        "hook_answers",
        "Answers of the hook API by endpoint and kind of status.",
        "route status",
        one_of(ROUTES, STATUSES),
    ),
    _seconds(
        "hook_answer",
        "Time from a request's last byte to its answer, waiting in the process included.",
        "route",
        one_of(ROUTES),
    ),
    _counter("hook_overloaded", "Requests not admitted because too many were being decided."),
    _counter("hook_connections", "Connections that switches have opened."),
    _counter("hook_connections_refused", "Connections turned away: too many, or draining."),
    _counter("hook_timeouts", "Connections cut because their client broke a time limit."),
    _counter("hook_answers_dropped", "Answers whose connection had gone."),
    _gauge("hook_open_connections", "Connections of switches open now.", "worker"),
    _gauge("hook_in_flight", "Requests being decided now.", "worker"),
)

_OFFICE: Final = (
    _counter(
        "admin_answers",
        "Answers of the admin API by method and kind of status.",
        "method status",
        one_of(("GET", "POST", "PUT", "PATCH", "DELETE", "other"), STATUSES),
    ),
    _counter(
        "scrape_failures",
        "Parts of the metrics that a scrape had to leave out.",
        "part",
        one_of(PARTS),
    ),
    _counter(
        "access_failures",
        "Requests refused for who sent them: no token, a wrong one, an address not allowed.",
        "listener",
        one_of(("hook", "admin")),
    ),
    _counter(
        "spool_replays",
        "Spooled settles that were replayed, by what became of them; conflict: dead letter.",
        "outcome",
        one_of(("booked", "duplicate", "conflict")),
    ),
    _gauge("spool_waiting", "Settles safe on disk and not yet booked."),
    _gauge("spool_bytes", "Bytes of the process's spool files."),
    _gauge("decks_digest", "A number that is the same in processes with the same decks in force."),
)

_FREESWITCH: Final = (
    _gauge("freeswitch_switches", "FreeSWITCH hosts that the settings name.", "agents"),
    _gauge("freeswitch_served", "Those that this process serves; others are another host's.",
           "agents"),
    _gauge("freeswitch_connected", "Those served whose event socket is connected.", "agents"),
    _gauge("freeswitch_calls", "Calls on those switches that this process supervises.", "agents"),
    _gauge("freeswitch_settles_waiting", "Ended calls whose settle is not answered yet.",
           "agents"),
    _counter(
        "freeswitch_decided",
        "Waiting calls that were decided. outcome: released; refused; abandoned (gone meanwhile, "
        "or the switch refused the release).",
        "outcome",
        one_of(("released", "refused", "abandoned")),
    ),
    _counter("freeswitch_settled", "Ended calls that were booked, or are safe in the spool."),
    _counter("freeswitch_connects", "Connections to event sockets that came up."),
    _counter("freeswitch_failures", "Attempts to connect to an event socket that failed."),
    _counter("freeswitch_settles_given_up", "Ended calls that nobody could book; see the log."),
)  # fmt: skip

_PROCESSES: Final = (
    _counter("process_starts", "Starts of the process, reloads included.", scope=Scope.PROCESS),
    _counter(
        "process_ends",
        "Processes that ended unasked and were started anew.",
        "program",
        one_of(PROGRAMS),
    ),
    _counter("reloads", "Settings read anew.", "outcome", one_of((OK, "failed"))),
    _counter("store_restarts", "Starts of the own store after it ended unasked."),
)

_KAZOO: Final = (
    _counter(
        "kazoo_messages",
        "Messages of Kazoo's brokers. outcome: handled; ignored (nobody here wants it); malformed; "
        "postponed (the store or the broker is away, it comes again); failed (a defect, it comes "
        "again); dropped (the same defect again).",
        "source outcome",
        one_of(KAZOO_SOURCES, KAZOO_OUTCOMES),
    ),
    _gauge("kazoo_connected", "Zones of Kazoo's whose broker is connected.", "agents"),
    _counter(
        "kazoo_shadow",
        "Answers of jonny5 and hotornot compared with ours in shadow mode, by the cause of what "
        "differs (docs/kazoo.md).",
        "subject cause",
        one_of(("authorize", "rate"), SHADOW_CAUSES),
    ),
)

#: What processes count, in the order of their slots.
COUNTED: Final = (*_DECISIONS, *_STORE, *_HOOK, *_OFFICE, *_FREESWITCH, *_PROCESSES, *_KAZOO)
METRICS: Final[dict[str, Metric]] = {one.name: one for one in (*COUNTED, *READ)}
