"""What counting costs a decision: an addition, a duration, and all that one authorize counts."""

from __future__ import annotations

from typing import Any

import pytest

from authz import meters
from authz.hooks.counts import answers_of

pytestmark = pytest.mark.benchmark
_DECISIONS = meters.counters("authz_decisions_total", "authorize")
_STARTS = meters.counters("authz_call_starts_total")
_DECISION_TIME = meters.histogram("authz_decision_seconds", "authorize")
_ANSWERS = answers_of("authorize")
_REPLY_TIME = meters.histogram("authz_store_reply_seconds")


def test_add(benchmark: Any) -> None:
    benchmark.group = "meters"
    benchmark(meters.counter("authz_calls_orphaned_total").add)


def test_add_by_labels(benchmark: Any) -> None:
    benchmark.group = "meters"
    benchmark(lambda: _DECISIONS["denied", "no_rate"].add())


def test_observe_a_duration(benchmark: Any) -> None:
    benchmark.group = "meters"
    started_ns = meters.now_ns()
    benchmark(_DECISION_TIME.observe_since, started_ns)


def test_all_that_one_authorize_counts(benchmark: Any) -> None:
    benchmark.group = "meters"

    def count() -> None:
        began_ns = meters.now_ns()
        started_ns = meters.now_ns()
        sent_ns, received_ns = meters.now_ns(), meters.now_ns()
        _REPLY_TIME.observe(received_ns - sent_ns)
        _DECISION_TIME.observe_since(started_ns)
        _DECISIONS["allowed", "ok"].add()
        _STARTS["national", "outbound", "allowed"].add()
        _ANSWERS.count(200, began_ns)

    benchmark(count)
