"""Stalls: when the slowest requests waited, who ran and waited meanwhile, and how steady it was."""

from __future__ import annotations

import os
import threading
import time
from array import array
from collections.abc import Callable

import pytest

from loadtest.fleet import Collected
from loadtest.plan import AUTHORIZE, OK
from loadtest.recorder import Recorder
from loadtest.stall_table import stall_lines, stall_rows, stalls_line, steadiness_line
from loadtest.stalls import Observed, Stalls, find_stalls
from loadtest.steadiness import Steadiness, judge, worst
from loadtest.watcher import Sightings, Watched, watch

MS = 1_000_000
START_NS = 7_000 * MS


def collected(*rows: tuple[int, int]) -> Collected:
    """Return requests of (due, latency) in ms from the beginning of the run."""
    recorder = Recorder()
    for due_ms, latency_ms in rows:
        due_ns = START_NS + due_ms * MS
        recorder.record(AUTHORIZE, OK, due_ns, due_ns, due_ns + latency_ms * MS)
    whole = Collected()
    whole.start_ns = START_NS
    whole.add(recorder.take(0, 0, "ended"))
    return whole


Column = Callable[[int], float]


def never(_at: int) -> float:
    return 0


def sightings(
    until_ms: int, stolen: Column = never, **roles: tuple[Column, Column, Column]
) -> Sightings:
    """Return a sample every 2 ms; what a role ran, waited and was blocked are functions of time."""
    moments = range(0, until_ms + 1, 2)

    def column(value: Column) -> bytes:
        return array("q", [round(value(moment) * MS) for moment in moments]).tobytes()

    return Sightings(
        array("q", [START_NS + moment * MS for moment in moments]).tobytes(),
        {role: column(ran) for role, (ran, _, _) in roles.items()},
        {role: column(waited) for role, (_, waited, _) in roles.items()},
        {role: column(blocked) for role, (_, _, blocked) in roles.items()},
        column(stolen),
    )


def observed(rows: list[tuple[int, int]], seen: Sightings, until_ms: int = 1_000) -> Observed:
    return Observed(collected(*rows), seen, START_NS, START_NS + until_ms * MS)


def one_stall() -> Stalls:
    """A request a millisecond takes one; ten wait for one end, and one is among the 99 of 100."""
    rows = [(due, 1) for due in range(1_000) if not (400 <= due < 410 or due == 700)]
    rows += [(due, 430 - due) for due in range(400, 410)] + [(700, 20)]

    def in_stall(at: int) -> int:
        return min(max(at - 400, 0), 30)

    # The worker has a tenth of a core, but all of it in the first stall; in it the store waits
    # for a core half of the time and for its disk a third, and a tenth of a core is stolen.
    worker = (lambda at: 0.1 * at + 0.9 * in_stall(at), never, never)
    store = (lambda at: 0.05 * at, lambda at: 0.5 * in_stall(at), lambda at: in_stall(at) / 3)
    seen = sightings(1_000, lambda at: 0.1 * in_stall(at), worker=worker, store=store)
    return find_stalls([observed(rows, seen)])


def test_slow_requests_that_overlap_are_one_stall() -> None:
    stalls = one_stall()

    assert stalls.limit_ms == 21
    (longest,) = stalls.longest
    assert stalls.count == 1
    assert (longest.begin_seconds, longest.duration_ms) == (0.4, 30)
    # The last of the ten took 21 ms, no longer than 99 of 100.
    assert (longest.requests, longest.worst_ms) == (9, 30)


def test_each_role_is_told_within_stalls_and_otherwise() -> None:
    stalls = one_stall()

    assert stalls.time_share == 0.03
    assert stalls.within["worker"].ran_share == pytest.approx(1, abs=0.01)
    assert stalls.otherwise["worker"].ran_share == pytest.approx(0.1, abs=0.01)
    assert stalls.within["store"].waited_share == pytest.approx(0.5, abs=0.01)
    assert stalls.otherwise["store"].waited_share == 0
    assert stalls.within["store"].blocked_share == pytest.approx(1 / 3, abs=0.01)
    assert (stalls.stolen_within, stalls.stolen_otherwise) == (0.1, 0)
    (longest,) = stalls.longest
    assert longest.ran_ms == {"worker": 30, "store": 1.5}
    assert longest.waited_ms == {"worker": 0, "store": 15}
    assert longest.blocked_ms == {"worker": 0, "store": 10}
    assert longest.stolen_ms == 3
    # An answer a millisecond comes otherwise; of a tenth of a core each takes 100 us.
    assert stalls.otherwise["worker"].us_per_request == pytest.approx(100, abs=3)


def test_only_requests_of_the_part_that_counts_are_stalls() -> None:
    rows = [(due, 1) for due in range(1_000)] + [(990 + late, 50 + late) for late in range(9)]
    seen = sightings(1_100, worker=(lambda at: 0.5 * at, never, never))

    assert find_stalls([observed(rows, seen, until_ms=980)]).count == 0
    assert find_stalls([observed(rows, seen)]).longest[0].begin_seconds >= 0.99


def test_without_a_request_there_is_no_stall() -> None:
    stalls = find_stalls([observed([], sightings(10, worker=(float, float, float)))])

    assert (stalls.count, stalls.time_share, stalls.longest) == (0, 0, ())
    assert stall_rows(stalls) == []


def test_stalls_are_told_in_words_and_cells() -> None:
    stalls = one_stall()

    assert stalls_line(stalls).startswith("stalls: 1, 3.0% of the time")
    assert "10% of one of this one's cores in them, and 0% otherwise" in stalls_line(stalls)
    rows = {row[0]: row for row in stall_rows(stalls)}
    assert rows["worker"][1:4] == ("100%", "0%", "0%")
    assert rows["store"][1:4] == ("5%", "50%", "33%")
    (line,) = stall_lines(stalls)
    assert "0.400 s: 30 ms, 9 requests, worst 30.0 ms; ran worker 30, store 2" in line
    assert line.endswith("waited store 15; blocked store 10; stolen 3")


def test_slow_phases_of_a_machine_are_those_of_slow_pieces() -> None:
    usual, slow = 500_000, 750_000
    pieces = [usual] * 90 + [slow] * 8 + [usual] * 90 + [slow] * 2

    seen = judge(pieces)

    assert seen.slow_ratio == 1.5
    assert seen.slow_max_ms == 6
    assert seen.slow_share == pytest.approx(10 * slow / sum(pieces), abs=1e-4)
    steady = judge([usual] * 50)
    assert steady == Steadiness(slow_share=0, slow_max_ms=0, slow_ratio=1)
    assert worst([seen, steady]) == seen
    assert "1.50 times" in steadiness_line(seen)


def spin(seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass


def test_the_watcher_sees_who_runs() -> None:
    read_end, write_end = os.pipe()
    stop = threading.Timer(0.2, os.close, [write_end])
    stop.start()
    # What a thread has run stays counted when it ends.
    threading.Thread(target=spin, args=(0.1,)).start()

    seen = watch(Watched({"self": [os.getpid()], "gone": [2**30]}), read_end)

    os.close(read_end)
    ran = array("q")
    ran.frombytes(seen.ran_ns["self"])
    assert len(ran) > 2
    assert ran[-1] > ran[0] > 0
    assert list(ran) == sorted(ran)
    assert set(seen.ran_ns["gone"]) <= {0}
    for column in (seen.blocked_ns["self"], seen.stolen_ns):
        numbers = array("q")
        numbers.frombytes(column)
        assert len(numbers) == len(ran)
        assert list(numbers) == sorted(numbers)
