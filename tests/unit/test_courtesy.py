"""A process that gives way keeps its share, interrupts nobody and has a short slice."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

#: Prints policy, niceness and slice in nanoseconds, as the kernel has them, of a thread started
#: afterwards. 56 bytes are all that `sched_getattr` knows of.
_PROGRAM = """
import ctypes, os, platform, struct, threading
from authz.server import courtesy
if {is_unknown}:
    courtesy._SCHED_SETATTR.clear()
courtesy.give_way(3, 500)
def tell():
    number = {{"x86_64": 315}}.get(platform.machine(), 275)
    attributes = ctypes.create_string_buffer(56)
    if ctypes.CDLL(None).syscall(number, 0, attributes, 56, 0):
        raise OSError
    _, policy, _, niceness, _, slice_ns = struct.unpack_from("=IIQiIQ", attributes.raw)
    print(policy, niceness, slice_ns)
thread = threading.Thread(target=tell)
thread.start()
thread.join()
"""


def told(*, is_unknown: bool) -> list[int]:
    """Return policy, niceness and slice of a process that gives way."""
    program = _PROGRAM.format(is_unknown=is_unknown)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    return [int(word) for word in done.stdout.split()]


def niceness() -> int:
    """Return what a process nicer than this one by 3 has."""
    return min(19, os.getpriority(os.PRIO_PROCESS, 0) + 3)


def test_it_interrupts_nobody_and_keeps_its_share() -> None:
    assert told(is_unknown=False)[:2] == [os.SCHED_BATCH, niceness()]


def test_its_slice_is_short() -> None:
    release = tuple(int(part) for part in platform.release().split(".")[:2])
    if release < (6, 12):
        pytest.skip("this kernel has slices of one length")
    assert told(is_unknown=False)[2] == 500_000


def test_where_no_more_is_known_it_is_nice() -> None:
    assert told(is_unknown=True)[:2] == [os.SCHED_OTHER, niceness()]
