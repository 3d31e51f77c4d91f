"""Time limits of running calls: pure functions from grants to timers and questions.

The switch's scheduler counts whole seconds of its clock and looks every half second, so that a
task at `+N` runs between N - 1 and N + 0.5 s from now (measured). Money was held for `seconds`
of talk, which is settled in whole seconds rounded up. So every timer is set for the greatest N
that is over before `seconds` is; `durations` has the timer that begins at the answer.
"""

from __future__ import annotations

from typing import Final

from authz.model import SECONDS_MAX

US: Final = 1_000_000
#: By how much a task at `+N` may be late, and what a command may take to get there.
_LATE_US: Final = 500_000
_TRANSIT_US: Final = 100_000
#: How long before the end nothing is asked any more: the timer may already be running out.
_LAST_QUESTION_US: Final = 3 * US
#: No question follows an answer sooner than this.
_SOON_US: Final = US // 4
#: Least time between two questions about a call that is not extended.
_PAUSE_US: Final = 2 * US


def running_timer_seconds(granted_seconds: int, elapsed_us: int) -> int | None:
    """Return the N of a timer set now, `elapsed_us` after the answer; None: it is too late.

    The timer that is in place then cuts the call, which is why none is ever set for less.
    """
    left = granted_seconds * US - elapsed_us - _LATE_US - _TRANSIT_US
    return left // US if left >= US else None


def first_question_us(granted_seconds: int, extend_at_seconds: int, elapsed_us: int) -> int:
    """Return when, from the answer, an extension is first asked for.

    As the grant says, but well before the coarse timer of a short grant can run out.
    """
    latest = granted_seconds * US - _LAST_QUESTION_US
    return max(elapsed_us + _SOON_US, min(extend_at_seconds * US, latest))


def next_question_us(granted_seconds: int, elapsed_us: int) -> int | None:
    """Return when to ask again after an answer that added nothing; None: not any more.

    Credit booked meanwhile extends the call, so the questions come closer towards the end.
    """
    latest = granted_seconds * US - _LAST_QUESTION_US
    if latest - elapsed_us < _PAUSE_US:
        return None
    return elapsed_us + max(_PAUSE_US, (latest - elapsed_us) // 2)


def warning_us(granted_seconds: int, ahead_seconds: int) -> int:
    """Return when, from the answer, a caller is told that the call is going to end."""
    # The timer may cut two seconds before the grant ends; a warning is for what is left then.
    return max(0, (granted_seconds - 2 - ahead_seconds) * US)


def used_seconds(elapsed_us: int) -> int:
    """Return the whole seconds begun, as use is reported while a call runs."""
    return min(-(-max(0, elapsed_us) // US), SECONDS_MAX)


class SwitchClock:
    """What a switch's clock says now, learnt from the times in its events.

    An event comes later than its time says, never earlier; the quickest of them knows best.
    """

    #: A step of the switch's clock by more than this is believed.
    _STEP_US: Final = 2 * US

    def __init__(self) -> None:
        self._offset_us: int | None = None

    def observe(self, switch_us: int, here_us: int) -> None:
        """Note that an event of `switch_us` was there at `here_us` (monotonic)."""
        offset = switch_us - here_us
        known = self._offset_us
        if known is None or offset > known or offset < known - self._STEP_US:
            self._offset_us = offset

    def now_us(self, here_us: int) -> int | None:
        """Return the switch's time at `here_us`, None before anything was observed."""
        return None if self._offset_us is None else self._offset_us + here_us
