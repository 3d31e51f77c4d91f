"""The part that looks at this host: the daemon's processes, its spool, its disk."""

from __future__ import annotations

import os
import platform
import resource
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from authz import __version__
from authz.engine.spool_file import DEAD_DIRECTORY, FILE_SUFFIX
from authz.meters.shared import Row
from authz.metrics.readings import Readings

_TICKS_PER_SECOND: Final = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES: Final = resource.getpagesize()
#: Places in /proc/<pid>/stat after the name in parentheses (proc(5)), counted from 0.
_UTIME, _STIME, _RSS = 11, 12, 21
_MILLISECONDS: Final = 1_000


class HostPart:
    """Processes, spool and disk."""

    name = "host"

    def __init__(self, rows: Callable[[], Sequence[Row]], state_dir: Path, spool: Path) -> None:
        """`rows` returns what the daemon's processes count."""
        self._rows = rows
        self._state_dir = state_dir
        self._spool = spool

    async def read(self) -> Readings:
        """Return what the kernel says."""
        readings = Readings()
        readings.add("authz_build_info", 1, __version__, platform.python_version())
        for row in self._rows():
            if not row.pid:
                continue
            readings.add("authz_process_up", row.is_alive, row.name)
            if row.is_alive:
                _add_process(readings, row)
        disk = os.statvfs(self._state_dir)
        readings.add("authz_state_dir_free_bytes", disk.f_bavail * disk.f_frsize)
        readings.add("authz_spool_files", _count(self._spool, FILE_SUFFIX))
        readings.add("authz_spool_dead_files", _count(self._spool / DEAD_DIRECTORY, ""))
        return readings


def _add_process(readings: Readings, row: Row) -> None:
    place = Path("/proc", str(row.pid))
    try:
        fields = (place / "stat").read_text().rpartition(")")[2].split()
        files = len(os.listdir(place / "fd"))
        files_max, _ = resource.prlimit(row.pid, resource.RLIMIT_NOFILE)
    except (OSError, IndexError):
        # It has just ended; the supervisor will tell.
        return
    ticks = int(fields[_UTIME]) + int(fields[_STIME])
    readings.add("authz_process_cpu_seconds_total", ticks / _TICKS_PER_SECOND, row.name)
    readings.add("authz_process_resident_bytes", int(fields[_RSS]) * _PAGE_BYTES, row.name)
    readings.add("authz_process_open_files", files, row.name)
    readings.add("authz_process_open_files_max", files_max, row.name)
    started = row.started_ms / _MILLISECONDS
    readings.add("authz_process_start_time_seconds", started, row.name)


def _count(directory: Path, suffix: str) -> int:
    try:
        return sum(name.endswith(suffix) for name in os.listdir(directory))
    except FileNotFoundError:
        return 0
