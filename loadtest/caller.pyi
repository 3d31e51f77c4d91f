"""Places calls when they are due, whatever the server does meanwhile, and leads each to its end."""

from __future__ import annotations

from array import array

from loadtest.drafts import Drafts
from loadtest.plan import Target
from loadtest.recorder import Recorder

class Caller:
    """Places calls on its lines and leads each through its life."""

    def __init__(
        self,
        drafts: Drafts,
        recorder: Recorder,
        target: Target,
        *,
        lines: int,
        ns_per_call_second: float,
        is_closed_loop: bool,
    ) -> None:
        """`is_closed_loop`: each call makes its next request at once, and another follows it."""

    @property
    def in_flight(self) -> int:
        """How many requests wait for their answers."""

    @property
    def calls(self) -> int:
        """How many calls live now."""

    @property
    def has_ended(self) -> bool:
        """Whether all calls have ended, or the time for that has."""

    def open(self) -> None:
        """Connect all lines; OSError if nobody listens."""

    def begin(
        self,
        arrivals_ns: array[int],
        end_ns: int,
        deadline_ns: int,
        start_ns: int,
        calls_in_flight: int,
    ) -> None:
        """Set what `run` does. Moments are of `time.monotonic_ns`, arrivals ascend.

        Nothing is asked after the deadline; calls of a closed loop begin at `start_ns` and are
        followed by others until the end.
        """

    def watch(self, descriptor: int, events: int) -> None:
        """Let `run` return for these of epoll's events there, besides errors and hang-ups."""

    def run(self, until_ns: int) -> list[tuple[int, int]]:
        """Place calls until that moment, the end, or until something watched has happened.

        Returns (descriptor, events) of what was watched.
        """

    def close(self) -> None:
        """End at once; what has no answer by now counts as such."""
