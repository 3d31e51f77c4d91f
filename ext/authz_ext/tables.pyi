"""Tables of what a process remembers, in which a step moves a part of the entries at the most.

A dict that has outgrown its memory moves all its entries in one step, and one from which entries
are taken out does so again and again; an OrderedDict looks each of them up besides. With 100,000
live calls all calls waited for that, for 10 to 30 ms (`python -m benchmarks.table_pauses`). Here
the entries are spread over 256 dicts, each of which is moved by itself.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

class Latest(Generic[K, V]):
    """A mapping of the latest keys: beyond `entries_max` the oldest one is forgotten.

    A key that is put again keeps its age. Keys are texts, numbers and tuples of them; a value is
    not None, and does not lead back to the table.
    """

    def __init__(self, entries_max: int) -> None: ...
    def get(self, key: K) -> V | None:
        """Return the value of a key, or None."""

    def put(self, key: K, value: V) -> None:
        """Set the value of a key."""

    def pop(self, key: K) -> V | None:
        """Forget a key and return its value, or None."""

    def forget_oldest(self, count: int) -> None:
        """Forget so many of the oldest keys, as far as there are any."""

    def clear(self) -> None:
        """Forget all keys, in one step that takes the longer the more there are."""

    def __contains__(self, key: K) -> bool: ...
    def __len__(self) -> int: ...
