"""A benchmark that plays several roles, each in a process of its own."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def running(module: str, *words: object) -> Iterator[subprocess.Popen[bytes]]:
    """Run `python -m benchmarks.MODULE --role WORDS...` with a pipe to read from, and end it."""
    command = [sys.executable, "-m", f"benchmarks.{module}", "--role", *map(str, words)]
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environ) as process:
        try:
            yield process
        finally:
            process.kill()
