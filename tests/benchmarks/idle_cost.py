"""`python -m benchmarks.idle_cost`: what a daemon that nobody asks takes of the processor.

A daemon of its own, with one worker, one office and its store, is left alone; told is how much of a
core each of them has used, by /proc. The store's share is what worker and office ask of it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Sequence
from typing import Final

import uvloop

from loadtest import processes
from loadtest.daemon import own_daemon

#: A daemon that has just started still does what is done once.
_SETTLE_SECONDS: Final = 5


async def measure(seconds: float, settle_seconds: float = _SETTLE_SECONDS) -> dict[str, float]:
    """Return the share of one core that each kind of process has used."""
    async with own_daemon({"hook.workers": 1}, over_unix=False) as daemon:
        await asyncio.sleep(settle_seconds)
        pids = daemon.pids()
        before, begun = processes.cpu_seconds(pids), time.monotonic()
        await asyncio.sleep(seconds)
        after, passed = processes.cpu_seconds(pids), time.monotonic() - begun
    return {role: (used - before.get(role, 0.0)) / passed for role, used in after.items()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.idle_cost", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args(arguments)
    shares = uvloop.run(measure(options.seconds))
    table = "\n".join(f"{role:14} {share:8.2%} of a core" for role, share in shares.items())
    sys.stdout.write((json.dumps(shares) if options.json else table) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
