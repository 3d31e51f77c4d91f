"""`python -m benchmarks.log_rewrite`: how long a rewrite of the store's log stops the store.

A store of its own with some hundred megabytes of data and a log as long is asked for nothing
(PING) a thousand times a second while it rewrites its log: in turns with the old files removed by
the store itself, at once, and by `authz/store/retired_logs.py`, piece by piece. Told is the longest
answer after the beginning, when the store forks, and after the end, when the old files go.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import redis

from authz.store.embedded import EmbeddedStore
from authz.store.retired_logs import RetiredLogs

_PAUSE_SECONDS: Final = 0.001
_POLL_SECONDS: Final = 0.01
_PIECE_SECONDS: Final = 0.05
_AFTER_SECONDS: Final = 1.0
_REWRITE_SECONDS_MAX: Final = 120
_VALUES_PER_MEGABYTE: Final = 4
_VALUE: Final = os.urandom((1 << 20) // _VALUES_PER_MEGABYTE)
#: It is rewritten when the benchmark says so.
_OPTIONS: Final = {"auto-aof-rewrite-percentage": "0"}


class Rewrite(NamedTuple):
    """The longest answers of one rewrite, in milliseconds."""

    begin_max_ms: float
    end_max_ms: float


class _Probe:
    """Asks the store again and again, from a thread."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._has_ended = threading.Event()
        self._spans: list[tuple[float, float]] = []
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        due = time.monotonic()
        while not self._has_ended.is_set():
            self._client.ping()
            self._spans.append((due, time.monotonic() - due))
            due = max(due + _PAUSE_SECONDS, time.monotonic())
            time.sleep(max(0.0, due - time.monotonic()))

    def end(self) -> None:
        self._has_ended.set()
        self._thread.join()

    def longest_ms(self, from_seconds: float, until_seconds: float) -> float:
        """Return the longest answer that was being waited for at any time of these."""
        return 1_000 * max(
            took for due, took in self._spans if due <= until_seconds and due + took >= from_seconds
        )


def _rewrite(client: redis.Redis) -> tuple[float, float]:
    """Let the store rewrite its log; return when that began and was seen to have ended."""
    begun = time.monotonic()
    client.bgrewriteaof()
    while time.monotonic() < begun + _REWRITE_SECONDS_MAX:
        time.sleep(_POLL_SECONDS)
        if not client.info("persistence")["aof_rewrite_in_progress"]:
            return begun, time.monotonic()
    raise RuntimeError("the rewrite does not end")


def _measure_one(store: EmbeddedStore, megabytes: int, *, retires: bool) -> Rewrite:
    logs = RetiredLogs(store.data_dir)
    with redis.Redis.from_url(store.url) as client, redis.Redis.from_url(store.url) as asked:
        for number in range(megabytes * _VALUES_PER_MEGABYTE):
            client.set(f"filler-{number}", _VALUE)
        if retires:
            logs.hold()
        time.sleep(_AFTER_SECONDS)
        probe = _Probe(asked)
        try:
            begun, ended = _rewrite(client)
            until = time.monotonic() + _AFTER_SECONDS
            while logs.release_piece() or time.monotonic() < until:
                time.sleep(_PIECE_SECONDS)
        finally:
            probe.end()
    logs.clear()
    half = (begun + ended) / 2
    return Rewrite(probe.longest_ms(begun, half), probe.longest_ms(half, ended + _AFTER_SECONDS))


def measure(megabytes: int, rewrites: int, directory: Path) -> dict[str, list[Rewrite]]:
    """Return the rewrites of both kinds, in turns."""
    found: dict[str, list[Rewrite]] = {"at once": [], "piece by piece": []}
    with EmbeddedStore(directory / "state", options=_OPTIONS) as store:
        for _ in range(rewrites):
            found["at once"].append(_measure_one(store, megabytes, retires=False))
            found["piece by piece"].append(_measure_one(store, megabytes, retires=True))
    return found


def report(found: dict[str, list[Rewrite]]) -> str:
    """Return the figures in words: medians, least and greatest."""
    lines = []
    for kind, rewrites in found.items():
        parts = []
        for name, column in zip(("begin", "end"), zip(*rewrites, strict=True), strict=True):
            parts.append(
                f"at its {name} {statistics.median(column):6.1f} ms"
                f" ({min(column):.1f} to {max(column):.1f})"
            )
        lines.append(f"old files removed {kind:15} longest answer {', '.join(parts)}\n")
    return "".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.log_rewrite", description=__doc__)
    parser.add_argument("--megabytes", type=int, default=512, help="length of the log")
    parser.add_argument("--rewrites", type=int, default=5, help="of each kind")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="authz-bench-") as directory:
        sys.stdout.write(report(measure(options.megabytes, options.rewrites, Path(directory))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
