"""A timer of the kernel that wakes an epoll within microseconds of the due time."""

from __future__ import annotations

class Alarm:
    """Its descriptor is readable from the moment it is set to until it is set again."""

    def __init__(self) -> None:
        """Make the timer; OSError where the kernel has none to give (any Linux has)."""

    def fileno(self) -> int:
        """Return the descriptor, for epoll."""

    def set(self, due_ns: int) -> int:
        """Wake at this moment, or at once if it has passed, instead of what was set before.

        `due_ns` is a moment of `time.monotonic_ns`. Returns 0; OSError if the kernel refuses.
        """
