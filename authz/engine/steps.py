"""How much time money buys on several legs at once: caps, holds, and the steps of a second try."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from functools import lru_cache

from msgspec import Struct

from authz.model import CHAIN_LENGTH_MAX, SECONDS_MAX
from authz.reasons import REASONS, Reason
from authz.store.accounts import Account, Chain
from authz_ext.rating import Rate

STEPS_MAX = 16
#: By the number of legs.
_STEP_LAYOUTS = [struct.Struct(f">i{legs}q") for legs in range(CHAIN_LENGTH_MAX + 1)]
_COSTS_LAYOUTS = [struct.Struct(f">{legs}q") for legs in range(CHAIN_LENGTH_MAX + 1)]

#: Seconds that an amount buys on one leg, at most `limit`.
Inverse = Callable[[Rate, int, int], int]
#: What a leg must hold for that many seconds.
Hold = Callable[[Rate, int], int]


class Cap(Struct, frozen=True, gc=False):
    """The most seconds a call may last, and the reason given when they are used up."""

    seconds: int
    reason: Reason


def duration_cap(chain: Chain) -> Cap | None:
    """Return the shortest max_call_seconds of a chain, or None."""
    seconds = chain.max_call_seconds
    return None if seconds is None else _duration_cap(seconds)


@lru_cache(maxsize=1_024)
def _duration_cap(seconds: int) -> Cap:
    return Cap(seconds, REASONS["max_call_seconds"])


def cost_cap(account: Account, rate: Rate, answered_at: int) -> Cap | None:
    """Return the most seconds that max_call_cost and the rate's own greatest cost leave."""
    seconds = SECONDS_MAX
    if account.max_call_cost is not None:
        seconds = rate.seconds_for(account.max_call_cost, answered_at)
    ending = rate.seconds_until_max_cost(answered_at)
    if ending is not None:
        seconds = min(seconds, ending)
    return None if seconds >= SECONDS_MAX else Cap(seconds, REASONS["max_call_cost"])


def shorter(one: Cap | None, other: Cap | None) -> Cap | None:
    """Return the cap that ends the call first."""
    if one is None or other is None:
        return one or other
    return one if one.seconds <= other.seconds else other


def pack_steps(steps: Sequence[tuple[int, Sequence[int]]], legs: int) -> bytes:
    """Return steps (seconds, hold of every leg) as the scripts read them."""
    pack = _STEP_LAYOUTS[legs].pack
    return b"".join([pack(seconds, *holds) for seconds, holds in steps])


def pack_costs(costs: Sequence[int]) -> bytes:
    """Return one amount per leg as the scripts read them."""
    return _COSTS_LAYOUTS[len(costs)].pack(*costs)


def descending_seconds(
    rooms: Sequence[tuple[Rate, int]], longest: int, shortest: int, inverse: Inverse
) -> list[int]:
    """Return up to 15 descending durations that ever smaller parts of the rooms buy.

    The first is the exact inverse: the most seconds that fit into the room of every leg. All lie
    above `shortest` and at most at `longest`.
    """
    durations: list[int] = []
    for part in range(STEPS_MAX - 1, 0, -1):
        seconds = longest
        for rate, room in rooms:
            amount = room * part // (STEPS_MAX - 1)
            seconds = min(seconds, inverse(rate, amount, longest) if amount > 0 else 0)
        if seconds > shortest and (not durations or seconds < durations[-1]):
            durations.append(seconds)
    return durations
