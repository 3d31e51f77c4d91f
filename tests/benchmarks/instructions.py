"""Counts the instructions that a store spends inside EVALSHA, with valgrind's callgrind.

Unlike microseconds they are the same on a busy machine: two runs differ by a part in a thousand.
They are no time: a miss of a cache costs as much as a hit.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from authz.store.embedded import EmbeddedStore
from authz.store.embedded_files import find_server
from benchmarks.pipeline import Pipeline

#: The server's function that runs the command; the same in Redis and Valkey.
_FUNCTION: Final = "evalShaCommand"
_TOOLS: Final = ("valgrind", "callgrind_control")


def missing_tools() -> list[str]:
    """Return what has to be installed before instructions can be counted."""
    return [name for name in _TOOLS if shutil.which(name) is None]


class CountingStore:
    """A store that runs under callgrind in `directory`; start it by `store`, then `begin`."""

    def __init__(self, directory: Path, server: Path | None, options: dict[str, str]) -> None:
        self._directory = directory
        self._dump = directory / "callgrind"
        wrapper = directory / "server"
        wrapper.write_text(
            "#!/bin/sh\n"
            f"exec valgrind --tool=callgrind --instr-atstart=no --toggle-collect={_FUNCTION} "
            f"--callgrind-out-file={self._dump} --log-file={directory / 'valgrind.log'} "
            f'{find_server(server)} "$@"\n',
            encoding="utf-8",
        )
        wrapper.chmod(0o700)
        self.store = EmbeddedStore(directory / "state", server=wrapper, options=options)

    def begin(self) -> None:
        """Switch counting on; before, the store runs faster."""
        self._control("--instr=on")

    def count(self, pipeline: Pipeline, commands: Sequence[bytes]) -> tuple[float, list[object]]:
        """Run commands; return instructions per command and the replies."""
        self._control("--zero")
        replies = pipeline.run(commands)
        self._control("--dump")
        return dumped_total(self._dump) / len(commands), replies

    def _control(self, option: str) -> None:
        subprocess.run(
            ["callgrind_control", option, str(self.store.pid)], check=True, capture_output=True
        )


def dumped_total(dump: Path) -> int:
    """Return the instructions of all dumps of that name, and remove them."""
    # Each dump is a file of its own, whose name ends in a growing number.
    dumps = list(dump.parent.glob(f"{dump.name}.*"))
    total = sum(_total(one) for one in dumps)
    for one in dumps:
        one.unlink()
    return total


def _total(dump: Path) -> int:
    for line in dump.read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith("totals:"):
            return int(line.split()[1])
    raise RuntimeError(f"{dump} holds no total")
