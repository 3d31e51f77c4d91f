"""A process that gives way keeps its share, interrupts nobody and has the longest slice."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from processes import has_slices

#: Prints what the kernel has of a thread started afterwards, and of the process itself.
_PROGRAM = """
import os, sys, threading
sys.path.insert(0, {tests!r})
from authz.server import courtesy
from processes import attributes_of
{act}
thread = threading.Thread(target=lambda: print(*attributes_of(0)))
thread.start()
thread.join()
print(*attributes_of(0))
"""


def attributes_after(act: str) -> list[tuple[int, int, int]]:
    """Return the attributes of a new thread of a process that has done that, and its own."""
    program = _PROGRAM.format(tests=str(Path(__file__).parents[1]), act=act)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    rows = [tuple(int(word) for word in line.split()) for line in done.stdout.splitlines()]
    return [(row[0], row[1], row[2]) for row in rows]


def niceness(more: int) -> int:
    """Return what a process nicer than this one has."""
    return min(19, os.getpriority(os.PRIO_PROCESS, 0) + more)


def test_who_gives_way_interrupts_nobody_and_keeps_its_share() -> None:
    thread, process = attributes_after("courtesy.give_way(3)")

    assert thread[:2] == (os.SCHED_BATCH, niceness(3))
    if has_slices():
        assert thread[2] == 100_000_000
    assert process == thread


def test_others_are_scheduled_as_they_ask() -> None:
    _, process = attributes_after("courtesy.schedule(os.SCHED_OTHER, 2, 500)")

    assert process[:2] == (os.SCHED_OTHER, niceness(2))
    if has_slices():
        assert process[2] == 500_000


def test_where_the_call_is_not_known_niceness_is_all_there_is() -> None:
    thread, _ = attributes_after("courtesy._SCHED_SETATTR.clear(); courtesy.give_way(3)")

    assert thread[:2] == (os.SCHED_OTHER, niceness(3))
