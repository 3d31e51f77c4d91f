"""How the kernel schedules a process whose work can wait: behind those that decide calls.

Niceness says how much of a busy processor a process gets, not how soon another one gets it back.
Since Linux 6.12 a process can say how long its turns shall be: whoever wakes up takes the processor
at once from one that runs with a *longer* slice, but waits for the clock's next tick, up to 4 ms,
where the other's is as short or shorter (EEVDF, `sched_setattr(2)`; `python -m benchmarks.waking`
measures it). So the slice is made as long as can be, and a process that wakes up interrupts nobody
(SCHED_BATCH). It keeps the share that its niceness gives it, however busy the machine is;
SCHED_IDLE would leave it next to none.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import struct
from typing import Final

#: More than that of what decides calls: what waits must not stand in its way on short cores.
NICENESS: Final = 10
#: The longest that the kernel knows.
SLICE_US_MAX: Final = 100_000

#: Numbers of the system call `sched_setattr`, which neither Python nor the C library offers.
_SCHED_SETATTR: Final = {"x86_64": 314, "aarch64": 274, "riscv64": 274}
#: Size, policy, flags, niceness, priority, slice, deadline and period, as the call takes them.
_ATTRIBUTES: Final = struct.Struct("=IIQiIQQQ")


def give_way(niceness: int = NICENESS) -> None:
    """Let others run first, in this thread and all that it starts from now on.

    A thread that does so already, as its process may, goes no further back. Where the system does
    not allow it nothing changes.
    """
    with contextlib.suppress(OSError):
        if os.sched_getscheduler(0) != os.SCHED_BATCH:
            schedule(os.SCHED_BATCH, niceness, SLICE_US_MAX)


def schedule(policy: int, niceness: int, slice_us: int) -> None:
    """Ask the kernel for a policy, more niceness and a slice (0: its own) for this thread.

    A kernel before 6.12 has slices of one length for all; what cannot be had is left as it is,
    but the niceness.
    """
    os.nice(niceness)
    number = _SCHED_SETATTR.get(platform.machine())
    if number is None:
        return
    present = os.getpriority(os.PRIO_PROCESS, 0)
    size = _ATTRIBUTES.size
    attributes = _ATTRIBUTES.pack(size, policy, 0, present, 0, slice_us * 1_000, 0, 0)
    # It returns -1 where it is not allowed.
    ctypes.CDLL(None).syscall(number, 0, ctypes.create_string_buffer(attributes, size), 0)
