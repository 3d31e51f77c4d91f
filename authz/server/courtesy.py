"""How the kernel schedules a process whose work can wait: behind those that decide calls.

Niceness alone says how much of a busy processor a process gets, not how soon another one gets it
back: whoever wakes up while a nice process runs waits for the end of its slice, some milliseconds.
So the slice is made short, and a process that wakes up interrupts nobody (SCHED_BATCH). It keeps
the share that its niceness gives it, however busy the machine is; SCHED_IDLE would leave it next to
none.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from typing import Final

#: Numbers of the system call `sched_setattr`, which neither Python nor the C library offers.
_SCHED_SETATTR: Final = {"x86_64": 314, "aarch64": 274, "riscv64": 274}
#: Size, policy, flags, niceness, priority, slice, deadline and period, as the call takes them.
_ATTRIBUTES: Final = struct.Struct("=IIQiIQQQ")


def give_way(niceness: int, slice_us: int) -> None:
    """Let others run first, in all threads that this process starts from now on.

    A kernel before 6.12 has slices of one length for all; what cannot be had is left as it is,
    but the niceness.
    """
    os.nice(niceness)
    number = _SCHED_SETATTR.get(platform.machine())
    if number is None:
        return
    present = os.getpriority(os.PRIO_PROCESS, 0)
    size = _ATTRIBUTES.size
    attributes = _ATTRIBUTES.pack(size, os.SCHED_BATCH, 0, present, 0, slice_us * 1_000, 0, 0)
    # It returns -1 where it is not allowed.
    ctypes.CDLL(None).syscall(number, 0, ctypes.create_string_buffer(attributes, size), 0)
