"""From the switch's clocks to whole seconds and back, alike in every door."""

from __future__ import annotations

from typing import Final, Literal

Rounding = Literal["up", "half_up", "down"]

#: A shorter grant cannot be kept by a timer of whole seconds.
GRANT_SECONDS_MIN: Final = 2


def whole_seconds(milliseconds: int, rounding: Rounding) -> int:
    """Return the seconds of talk to settle for what the switch measured."""
    match rounding:
        case "up":
            return -(-milliseconds // 1000)
        case "half_up":
            return (milliseconds + 500) // 1000
    return milliseconds // 1000


def cut_seconds(granted_seconds: int) -> int:
    """Return what `sched_hangup` must be told so that the call never passes its grant.

    It counts whole seconds of the switch's clock: `+N` cuts after N - 1 to N + 0.5 s, `+0` at once.
    """
    return max(1, granted_seconds - 1)
