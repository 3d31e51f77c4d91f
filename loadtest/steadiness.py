"""How steadily the machine computes when nothing else is asked of it.

A virtual machine shares its cores with others that it cannot see: for some milliseconds, again and
again, the same work takes half as long again. Where most of the machine is in use such a phase is
a queue, whatever the software. So every core does the same small piece of work over and over for
some seconds, and what is told is how much of the time was slow.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec
from msgspec import Struct

from loadtest.errors import LoadTestError
from loadtest.fleet import end, spawn

SECONDS: Final = 3.0
#: Some half a millisecond.
_PIECE_TURNS: Final = 10_000
#: A piece is slow that takes so much longer than one in ten, the quickest, takes at the most.
_SLOW_RATIO: Final = 1.25


class Steadiness(Struct, frozen=True):
    """What one core has shown, or the worst of several."""

    #: Share of the time in which a piece of work took a quarter longer than usual, or more.
    slow_share: float
    #: The longest time without a piece that was not slow.
    slow_max_ms: float
    #: How much longer than usual a slow piece took, at the median.
    slow_ratio: float


def judge(pieces_ns: Sequence[int]) -> Steadiness:
    """Return what the times of equal pieces of work say."""
    usual_ns = sorted(pieces_ns)[len(pieces_ns) // 10]
    slow = sorted(piece for piece in pieces_ns if _is_slow(piece, usual_ns))
    return Steadiness(
        slow_share=round(sum(slow) / sum(pieces_ns), 4),
        slow_max_ms=round(max(_phases(pieces_ns, usual_ns), default=0) / 1e6, 1),
        slow_ratio=round(slow[len(slow) // 2] / usual_ns, 2) if slow else 1.0,
    )


def _is_slow(piece_ns: int, usual_ns: int) -> bool:
    return piece_ns > _SLOW_RATIO * usual_ns


def _phases(pieces_ns: Iterable[int], usual_ns: int) -> Iterable[int]:
    """Yield how long each phase of slow pieces lasted."""
    phase_ns = 0
    for piece in pieces_ns:
        if _is_slow(piece, usual_ns):
            phase_ns += piece
        elif phase_ns:
            yield phase_ns
            phase_ns = 0
    yield phase_ns


def worst(cores: Sequence[Steadiness]) -> Steadiness:
    """Return the worst of each figure."""
    return Steadiness(
        slow_share=max(one.slow_share for one in cores),
        slow_max_ms=max(one.slow_max_ms for one in cores),
        slow_ratio=max(one.slow_ratio for one in cores),
    )


async def look() -> Steadiness:
    """Let every core work at the same time; return the worst of each figure."""
    cores = len(os.sched_getaffinity(0))
    working = [await spawn("loadtest.steadiness") for _ in range(cores)]
    try:
        async with asyncio.timeout(10 * SECONDS):
            said = [(await one.communicate())[0] for one in working]
    except TimeoutError:
        raise LoadTestError("the look at the machine's steadiness does not end") from None
    finally:
        await asyncio.gather(*map(end, working))
    return worst([msgspec.json.decode(one, type=Steadiness) for one in said])


def _work(seconds: float) -> list[int]:
    """Return how long each piece of work took."""
    pieces: list[int] = []
    until_ns = time.monotonic_ns() + round(seconds * 1e9)
    begun_ns = time.monotonic_ns()
    while begun_ns < until_ns:
        total = 0
        for turn in range(_PIECE_TURNS):
            total += turn * turn % 7
        ended_ns = time.monotonic_ns()
        pieces.append(ended_ns - begun_ns)
        begun_ns = ended_ns
    return pieces


if __name__ == "__main__":
    sys.stdout.buffer.write(msgspec.json.encode(judge(_work(SECONDS))))
