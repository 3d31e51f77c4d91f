"""What is due when: a binary heap of moments, the earliest first."""

from __future__ import annotations

class Agenda:
    """Plans, each with the moment at which it is due; of one moment's, in the order of making."""

    def __len__(self) -> int: ...
    def push(self, due_ns: int, operation: int, subject: int) -> None:
        """Plan an operation for a moment; `subject` is a number of the caller's own."""

    def pop(self) -> tuple[int, int, int]:
        """Return the earliest plan as (due_ns, operation, subject); IndexError if there is none."""
