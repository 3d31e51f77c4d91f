"""When calls arrive: fixed before the run and whatever the server does meanwhile."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Final, Literal

from msgspec import Struct

Arrivals = Literal["poisson", "even"]

NANOS_PER_SECOND: Final = 1_000_000_000


class Stretch(Struct, frozen=True):
    """A time of constant load: how many calls arrive in each of how many seconds."""

    seconds: float
    calls_per_second: float


def arrivals(
    stretches: Sequence[Stretch], start_ns: int, kind: Arrivals, rng: random.Random
) -> Iterator[int]:
    """Yield the moments (ascending, in ns of the clock of `start_ns`) at which calls arrive.

    `poisson` is independent callers, whose gaps vary; `even` is one call every n-th of a second,
    from a random moment on, so that several generators do not fire together.
    """
    begin_ns = float(start_ns)
    for stretch in stretches:
        end_ns = begin_ns + stretch.seconds * NANOS_PER_SECOND
        if stretch.calls_per_second > 0:
            gap_ns = NANOS_PER_SECOND / stretch.calls_per_second
            yield from _within(begin_ns, end_ns, gap_ns, kind, rng)
        begin_ns = end_ns


def _within(
    begin_ns: float, end_ns: float, gap_ns: float, kind: Arrivals, rng: random.Random
) -> Iterator[int]:
    # Poisson arrivals have no memory: each stretch may begin anew.
    due_ns = begin_ns + (rng.expovariate(1) if kind == "poisson" else rng.random()) * gap_ns
    while due_ns < end_ns:
        yield int(due_ns)
        due_ns += rng.expovariate(1) * gap_ns if kind == "poisson" else gap_ns
