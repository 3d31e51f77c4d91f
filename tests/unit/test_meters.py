"""Meters: the table, the instruments, and the memory that the processes of a daemon share."""

from __future__ import annotations

import mmap
import os
import re
import signal
import subprocess
import sys
import threading

import pytest

from authz import meters
from authz.errors import InvariantError, ProtocolError
from authz.meters import shared
from authz.meters.kinds import BUCKETS_NS, PREFIX, Kind, Scope, one_of
from authz.meters.shared import ROWS_MAX, SharedMeters
from authz.meters.table import COUNTED, METRICS
from authz.meters.table_read import READ
from authz_ext.meters import HISTOGRAM_BOUNDS_MAX, Board, Counter, Gauge, Histogram

COUNTING_CHILD = """
import sys
from authz import meters
from authz.meters.shared import SharedMeters
rows = SharedMeters.adopt(int(sys.argv[1]))
rows.count_here("worker-1")
orphaned = meters.counter("authz_calls_orphaned_total")
for _ in range(int(sys.argv[2])):
    orphaned.add()
sys.stdout.write("counted\\n")
sys.stdout.flush()
sys.stdin.read()
"""


@pytest.fixture
def private_board(monkeypatch: pytest.MonkeyPatch) -> Board:
    """A board in place of this process's own, which stays as it is."""
    board = Board(meters.SLOTS)
    monkeypatch.setattr(meters, "BOARD", board)
    return board


# The table.


def test_names_follow_prometheus() -> None:
    assert len(METRICS) == len(COUNTED) + len(READ)
    for metric in METRICS.values():
        assert re.fullmatch(rf"{PREFIX}[a-z]+(_[a-z]+)*", metric.name)
        assert metric.name.endswith("_total") == (metric.kind is Kind.COUNTER)
        assert metric.name.endswith("_seconds") or metric.kind is not Kind.HISTOGRAM
        assert metric.meaning.endswith(".")
        assert all(re.fullmatch(r"[a-z]+", label) for label in metric.labels)
        assert not {"account", "call", "number", "process", "le"} & set(metric.labels)


def test_counted_series_are_complete_and_few() -> None:
    for metric in COUNTED:
        assert metric.series
        assert len(set(metric.series)) == len(metric.series) <= 200
        assert all(len(labels) == len(metric.labels) for labels in metric.series)
        assert metric.kind is not Kind.GAUGE or metric.scope is Scope.PROCESS
    assert all(metric.series is None for metric in READ)
    assert meters.SLOTS < 2_000


def test_no_two_series_share_a_slot() -> None:
    taken = [
        slot
        for metric in COUNTED
        for _, first in meters.slots_of(metric)
        for slot in range(first, first + meters.width_of(metric))
    ]
    assert taken == list(range(meters.SLOTS))


def test_one_of_combines() -> None:
    assert one_of("ab", ("x",)) == (("a", "x"), ("b", "x"))


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("authz_nothing_total", ()),
        ("authz_calls_orphaned_total", ("one_too_many",)),
        ("authz_settles_total", ()),
        ("authz_settles_total", ("paid",)),
        ("authz_decision_seconds", ("authorize",)),
        ("authz_store_up", ()),
    ],
)
def test_what_the_table_does_not_have_is_refused(name: str, labels: tuple[str, ...]) -> None:
    with pytest.raises(InvariantError):
        meters.counter(name, *labels)


def test_families_are_looked_up_by_what_is_left() -> None:
    assert {"booked", "spooled"} < set(meters.counters("authz_settles_total"))
    assert ("allowed", "ok") in meters.counters("authz_decisions_total", "reserve")
    assert set(meters.histograms("authz_decision_seconds")) == {"authorize", "reserve", "settle"}
    with pytest.raises(InvariantError):
        meters.counters("authz_decisions_total", "ring")


# Instruments.


def test_a_counter_only_grows() -> None:
    counter = Counter(Board(1), 0)
    counter.add()
    counter.add(4)
    counter.add(0)
    assert counter.value == 5
    with pytest.raises(ValueError, match="never falls"):
        counter.add(-1)
    assert counter.value == 5


def test_a_gauge_takes_any_value() -> None:
    gauge = Gauge(Board(2), 1)
    for value in (7, -3, True, 0):
        gauge.set(value)
        assert gauge.value == value
    with pytest.raises(OverflowError):
        gauge.set(1 << 63)


@pytest.mark.parametrize(
    ("value", "bucket"), [(-5, 0), (0, 0), (10, 0), (11, 1), (20, 1), (21, 2), (10**15, 2)]
)
def test_a_histogram_counts_into_the_least_bucket_that_holds(value: int, bucket: int) -> None:
    board = Board(5)
    Histogram(board, 1, [10, 20]).observe(value)
    assert board.values()[1:4] == [int(bucket == one) for one in range(3)]
    assert board.value(4) == max(0, value)


def test_time_is_counted_from_the_same_clock() -> None:
    board = Board(3)
    started_ns = meters.now_ns()
    Histogram(board, 0, [3_600 * 10**9]).observe_since(started_ns)
    assert board.values()[:2] == [1, 0]
    assert 0 < board.value(2) <= meters.now_ns() - started_ns


@pytest.mark.parametrize("bounds", [[], [2, 1], [1, 1], list(range(HISTOGRAM_BOUNDS_MAX + 1))])
def test_bounds_must_make_sense(bounds: list[int]) -> None:
    with pytest.raises(ValueError, match="bounds"):
        Histogram(Board(100), 0, bounds)


@pytest.mark.parametrize("slot", [-1, 2, 1 << 62])
def test_nothing_counts_beside_its_board(slot: int) -> None:
    board = Board(2)
    for make in (Counter, Gauge):
        with pytest.raises(IndexError):
            make(board, slot)
    with pytest.raises(IndexError):
        Histogram(board, slot, [1])
    with pytest.raises(IndexError):
        board.value(slot)


def test_sharing_keeps_what_was_counted_and_adds_to_what_is_there() -> None:
    memory = mmap.mmap(-1, 16)
    for counted in (3, 4):
        board = Board(2)
        counter = Counter(board, 1)
        counter.add(counted)
        board.share(memory)
        counter.add()
    assert memoryview(memory).cast("q").tolist() == [0, 9]


@pytest.mark.parametrize("buffer", [bytearray(8), memoryview(bytearray(24))[4:20]])
def test_a_buffer_that_does_not_fit_is_refused(buffer: bytearray) -> None:
    board = Board(2)
    with pytest.raises(ValueError, match="2 slots"):
        board.share(buffer)
    Counter(board, 0).add()
    assert board.values() == [1, 0]


def test_a_read_only_buffer_is_refused() -> None:
    with pytest.raises(BufferError):
        Board(1).share(bytes(8))


def test_threads_lose_nothing() -> None:
    counter = Counter(Board(1), 0)
    threads = [
        threading.Thread(target=lambda: [counter.add() for _ in range(20_000)]) for _ in range(4)
    ]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert counter.value == 80_000


# Shared memory.


def slot_of(name: str, *labels: str) -> int:
    return dict(meters.slots_of(METRICS[name]))[labels]


def count_in_a_child(rows: SharedMeters, times: int) -> subprocess.Popen[str]:
    """Start a process that counts and then waits."""
    child = subprocess.Popen(
        [sys.executable, "-c", COUNTING_CHILD, str(rows.descriptor), str(times)],
        pass_fds=[rows.descriptor],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "counted\n"
    return child


def test_counts_outlive_a_killed_process_and_its_successor_adds_to_them() -> None:
    rows = SharedMeters.create()
    assert rows.reserve("worker-1")
    slot = slot_of("authz_calls_orphaned_total")
    for expected in (5, 10):
        child = count_in_a_child(rows, 5)
        (row,) = rows.rows()
        assert (row.name, row.pid, row.is_alive) == ("worker-1", child.pid, True)
        child.send_signal(signal.SIGKILL)
        child.communicate()
        (row,) = rows.rows()
        assert row.values[slot] == expected


def test_two_processes_in_one_row_lose_nothing() -> None:
    rows = SharedMeters.create()
    assert rows.reserve("worker-1")
    for child in [count_in_a_child(rows, 3_000) for _ in range(2)]:
        child.communicate()
    (row,) = rows.rows()
    assert row.values[slot_of("authz_calls_orphaned_total")] == 6_000


def test_a_predecessor_leaves_the_gauges_to_its_successor(private_board: Board) -> None:
    rows = SharedMeters.create()
    assert rows.reserve("worker-1")
    rows.count_here("worker-1")
    assert rows.beat()
    child = count_in_a_child(rows, 1)
    assert not rows.beat()
    child.communicate()


def test_a_silent_process_is_not_alive(
    private_board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = SharedMeters.create()
    assert rows.reserve("office")
    rows.count_here("office")
    late_ms = shared._now_ms() + shared.SILENT_MS_MAX + 1
    monkeypatch.setattr(shared, "_now_ms", lambda: late_ms)
    assert [row.is_alive for row in rows.rows()] == [False]
    assert rows.beat()
    assert [row.is_alive for row in rows.rows()] == [True]


def test_a_row_belongs_to_a_name_and_there_is_an_end_of_them(private_board: Board) -> None:
    rows = SharedMeters.create()
    for _ in range(2):
        assert all(rows.reserve(f"worker-{number}") for number in range(ROWS_MAX))
    assert not rows.reserve("office")
    rows.count_here("office")
    meters.Counter(private_board, 0).add()
    assert not any(row.pid or any(row.values) for row in rows.rows())
    assert not rows.beat()


def test_of_a_process_that_is_done_away_with_only_the_counts_are_told() -> None:
    rows = SharedMeters.create()
    assert rows.reserve("worker-1")
    count_in_a_child(rows, 3).communicate()
    rows.retire("worker-1")
    (row,) = rows.rows()
    assert (row.pid, row.is_alive) == (0, False)
    assert row.values[slot_of("authz_calls_orphaned_total")] == 3
    assert rows.reserve("worker-1")
    count_in_a_child(rows, 1).communicate()
    (row,) = rows.rows()
    assert row.pid
    assert row.values[slot_of("authz_calls_orphaned_total")] == 4


@pytest.mark.parametrize("name", ["", "x" * 33])
def test_a_row_has_a_short_name(name: str) -> None:
    with pytest.raises(ValueError, match="not a name"):
        SharedMeters.create().reserve(name)


@pytest.mark.parametrize("size", [0, 4_096, None])
def test_memory_of_another_version_is_refused(size: int | None) -> None:
    rows = SharedMeters.create()
    if size is None:
        rows._memory[:8] = b"authzM0\n"
    else:
        os.ftruncate(rows.descriptor, size)
    with pytest.raises(ProtocolError, match="another version"):
        SharedMeters.adopt(os.dup(rows.descriptor))


def test_what_is_not_shared_is_told_all_the_same() -> None:
    row = shared.own_row("worker-1")
    assert (row.pid, row.is_alive, len(row.values)) == (os.getpid(), True, meters.SLOTS)


def test_buckets_fit_the_instrument() -> None:
    assert len(BUCKETS_NS) <= HISTOGRAM_BOUNDS_MAX
    assert BUCKETS_NS[0] == 50_000
