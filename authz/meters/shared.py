"""The memory in which all processes of one daemon count, and from which the office publishes.

The supervisor makes it (a memfd: it has no name, is on no disk, and ends with the last process
that has it) and gives every child its descriptor. A row belongs to a name (`worker-1`, `office`),
not to a process: the successor of a process that died goes on in its row, so that no counter ever
goes back while the daemon runs, and nothing has to be added up or cleaned.

A file instead would be written back by the kernel, which may hold up a writer for as long as the
disk takes, in the middle of a decision.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import struct
import time
from collections.abc import Iterator
from typing import Final, NamedTuple

from authz import meters
from authz.errors import ProtocolError
from authz.meters.table import COUNTED

#: Most names that a daemon's processes may have; one that is too many counts for itself alone.
ROWS_MAX: Final = 160
#: A process that has not published its gauges for so long counts as gone.
SILENT_MS_MAX: Final = 10_000

_NAME_BYTES: Final = 32
#: Magic and digest of the layout, once; then in each row name, process id, times of start and of
#: the last sign of life (Unix and monotonic milliseconds).
_HEADING: Final = struct.Struct("=8s16s")
_HEADING_BYTES: Final = 64
_ROW_HEAD: Final = struct.Struct(f"={_NAME_BYTES}sqqq")
_ROW_HEAD_BYTES: Final = 64
_MAGIC: Final = b"authzM1\n"
_ROW_BYTES: Final = _ROW_HEAD_BYTES + 8 * meters.SLOTS
_BYTES: Final = _HEADING_BYTES + ROWS_MAX * _ROW_BYTES
_LAYOUT: Final = hashlib.blake2b(repr(COUNTED).encode(), digest_size=16).digest()


class Row(NamedTuple):
    """What one process has counted. `is_alive`: its gauges are of now.

    `pid` is 0 if there is to be none of that name at present.
    """

    name: str
    pid: int
    started_ms: int
    is_alive: bool
    values: list[int]

    @property
    def program(self) -> str:
        """Which program the process runs: its name without a number."""
        return self.name.partition("-")[0]


class SharedMeters:
    """The rows of one daemon. `descriptor` is what children inherit."""

    def __init__(self, descriptor: int, memory: mmap.mmap) -> None:
        """Use `create` or `adopt` instead."""
        self.descriptor = descriptor
        self._memory = memory
        self._view = memoryview(memory)
        self._own_offset: int | None = None

    @classmethod
    def create(cls) -> SharedMeters:
        """Make the memory of a new daemon; raises OSError."""
        descriptor = os.memfd_create("authz-meters", os.MFD_CLOEXEC)
        try:
            os.ftruncate(descriptor, _BYTES)
            memory = mmap.mmap(descriptor, _BYTES)
        except BaseException:
            os.close(descriptor)
            raise
        memory[: _HEADING.size] = _HEADING.pack(_MAGIC, _LAYOUT)
        return cls(descriptor, memory)

    @classmethod
    def adopt(cls, descriptor: int) -> SharedMeters:
        """Use the memory that the supervisor made; owns the descriptor.

        Raises ProtocolError if it has another layout: the supervisor runs another version of
        authz than this process, which was installed meanwhile.
        """
        if os.fstat(descriptor).st_size == _BYTES:
            memory = mmap.mmap(descriptor, _BYTES)
            if memory[: _HEADING.size] == _HEADING.pack(_MAGIC, _LAYOUT):
                return cls(descriptor, memory)
            memory.close()
        os.close(descriptor)
        raise ProtocolError(
            "the daemon was started by another version of authz and counts otherwise; restart it"
        )

    def reserve(self, name: str) -> bool:
        """Give a row to a process of that name, unless it has one; False if there is none left.

        Only the supervisor calls this, before it starts the process.
        """
        packed = _pack_name(name)
        for offset in self._offsets():
            taken = self._view[offset : offset + _NAME_BYTES].tobytes()
            if taken == packed:
                return True
            if not taken.strip(b"\0"):
                self._view[offset : offset + _NAME_BYTES] = packed
                return True
        return False

    def retire(self, name: str) -> None:
        """Tell no more of a process of that name, for there is to be none; its counts stay."""
        for offset in self._offsets():
            if self._view[offset : offset + _NAME_BYTES].tobytes() == _pack_name(name):
                self._view[offset : offset + _ROW_HEAD.size] = _ROW_HEAD.pack(
                    _pack_name(name), 0, 0, 0
                )

    def count_here(self, name: str) -> None:
        """Let this process count in the row of that name from now on.

        Without a row of that name it goes on counting for itself.
        """
        packed = _pack_name(name)
        for offset in self._offsets():
            if self._view[offset : offset + _NAME_BYTES].tobytes() == packed:
                slots = offset + _ROW_HEAD_BYTES
                meters.BOARD.share(self._view[slots : slots + 8 * meters.SLOTS])
                self._own_offset = offset
                head = _ROW_HEAD.pack(packed, os.getpid(), time.time_ns() // 1_000_000, _now_ms())
                self._view[offset : offset + _ROW_HEAD.size] = head
                return

    def beat(self) -> bool:
        """Give a sign of life; False if the row is another process's by now.

        A successor takes the row when it is ready, while its predecessor drains: gauges are then
        the successor's to set.
        """
        offset = self._own_offset
        if offset is None or self._pid_at(offset) != os.getpid():
            return False
        struct.pack_into("=q", self._view, offset + _ROW_HEAD.size - 8, _now_ms())
        return True

    def rows(self) -> list[Row]:
        """Return what every process has counted so far."""
        return [self._read(offset) for offset in self._offsets() if self._is_taken(offset)]

    def _read(self, offset: int) -> Row:
        packed, pid, started_ms, beat_ms = _ROW_HEAD.unpack_from(self._view, offset)
        start = offset + _ROW_HEAD_BYTES
        values = self._view[start : start + 8 * meters.SLOTS].cast("q").tolist()
        is_alive = pid != 0 and _now_ms() - beat_ms <= SILENT_MS_MAX
        return Row(packed.rstrip(b"\0").decode(), pid, started_ms, is_alive, values)

    def _is_taken(self, offset: int) -> bool:
        return self._view[offset] != 0

    def _pid_at(self, offset: int) -> int:
        return int(_ROW_HEAD.unpack_from(self._view, offset)[1])

    def _offsets(self) -> Iterator[int]:
        return iter(range(_HEADING_BYTES, _BYTES, _ROW_BYTES))


def own_row(name: str) -> Row:
    """Return what this process has counted, where nothing is shared."""
    return Row(name, os.getpid(), 0, True, meters.BOARD.values())


def _pack_name(name: str) -> bytes:
    packed = name.encode()
    if not 0 < len(packed) <= _NAME_BYTES:
        raise ValueError(f"not a name of a process: {name!r}")
    return packed.ljust(_NAME_BYTES, b"\0")


def _now_ms() -> int:
    # One clock for all processes of the host, which nobody sets.
    return time.monotonic_ns() // 1_000_000
