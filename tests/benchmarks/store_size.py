"""`python -m benchmarks.store_size`: bytes of the store per live call, closed call, ledger entry.

A live call is what `used_memory` grows by when real records and leases are written over all
buckets, keys and hash tables included. Closed calls and ledger entries are read from their own
keys (`MEMORY USAGE`) after as many real calls of one account have been settled.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from authz.store import keys
from authz.store.embedded import EmbeddedStore
from authz.store.replies import read_answer
from benchmarks.live_calls import fill_live_calls, prepare_live_calls
from benchmarks.pipeline import Pipeline
from benchmarks.recording import CALL_ID, record_chains

_PAIR: Final = ("pair-sub", "pair-master")


class Size(NamedTuple):
    """Bytes of one thing, how many there were, and DESIGN's bound (None: no promise)."""

    what: str
    bytes: float
    count: int
    bound: int | None


def measure(live_calls: int, settled_calls: int, server: Path | None = None) -> list[Size]:
    """Measure on private stores."""
    return [
        *_on_store(server, lambda url: _measure_live(url, live_calls)),
        *_on_store(server, lambda url: _measure_settled(url, settled_calls)),
    ]


def _on_store(server: Path | None, measure_at: Callable[[str], list[Size]]) -> list[Size]:
    with (
        tempfile.TemporaryDirectory(prefix="authz-bench-") as directory,
        EmbeddedStore(Path(directory) / "state", server=server) as store,
    ):
        return measure_at(store.url)


def _measure_live(url: str, calls: int) -> list[Size]:
    templates = asyncio.run(prepare_live_calls(url))
    with Pipeline(url) as store:
        before = _used_memory(store)
        fill_live_calls(store, templates, calls)
        after = _used_memory(store)
    return [Size("live call of 2 legs, with its lease", (after - before) / calls, calls, 600)]


def _measure_settled(url: str, calls: int) -> list[Size]:
    (template,) = asyncio.run(record_chains(url, [_PAIR]))
    call_ids = [CALL_ID.format(1_000 + number) for number in range(calls)]
    with Pipeline(url) as store:
        for kind in ("authorize", "settle"):
            answers = map(read_answer, store.run(template.commands(kind, call_ids)))
            refused = [answer for answer in answers if answer[0] != 0]
            if refused:
                raise RuntimeError(f"{len(refused)} {kind} were refused: {refused[0]}")
        ledger = keys.ledger(template.tag)
        entries = store.execute("XLEN", ledger)
        closed = store.execute("KEYS", keys.closed_prefix(template.tag) + b"*")
        hourly = [key for key in closed if b":filter:" not in key]
        filters = [key for key in closed if b":filter:" in key]
        tombstones = sum(store.execute("HLEN", key) for key in hourly)
        return [
            Size("closed call", _usage(store, hourly) / tombstones, tombstones, 100),
            Size("ledger entry of 2 legs", _usage(store, [ledger]) / entries, entries, 150),
            Size("filter of closed calls, a bucket and day", _usage(store, filters), 1, None),
        ]


def _used_memory(store: Pipeline) -> int:
    return int(store.information("memory")["used_memory"])


def _usage(store: Pipeline, names: Sequence[bytes]) -> int:
    return sum(store.execute("MEMORY", "USAGE", name, "SAMPLES", 0) for name in names)


def report(sizes: Sequence[Size]) -> str:
    """Return the sizes as a table."""
    lines = [f"{'':42}{'bytes':>10}{'of':>12}    goal"]
    for size in sizes:
        goal = "" if size.bound is None else f"  ≤ {size.bound}"
        lines.append(f"{size.what:42}{size.bytes:10,.1f}{size.count:12,}{goal}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.store_size", description=__doc__)
    parser.add_argument("--live", type=int, default=1_000_000, help="live calls to write")
    parser.add_argument("--settled", type=int, default=20_000, help="calls to settle")
    parser.add_argument("--server", type=Path, help="server binary instead of the embedded one")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args(arguments)
    sizes = measure(options.live, options.settled, options.server)
    if options.json:
        text = json.dumps([size._asdict() for size in sizes], indent=2)
    else:
        text = report(sizes)
    sys.stdout.write(text + os.linesep)
    return 0


if __name__ == "__main__":
    sys.exit(main())
