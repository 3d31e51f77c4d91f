"""Entries of a ledger as rows of the archive."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, final

@final
class MovementReader:
    """Reads ordinary entries, whose values are plain; all others are left to the general reader."""

    def __init__(
        self,
        head: Mapping[str, tuple[int, int, bool]],
        leg: Mapping[str, tuple[int, int, bool]],
        *,
        head_size: int,
        leg_size: int,
        kinds: int,
        marks: int,
        classes: int,
        directions: int,
        billings: int,
        causes: Mapping[str, str],
    ) -> None:
        """Take the places of the fields: offset and width in bytes, and whether it has a sign.

        Codes from 1 to `kinds`, and from 0 to below the other numbers, are known.
        """

    def read(
        self, bucket: int, page: Sequence[Any], sequence: int
    ) -> tuple[list[tuple[Any, ...]], int]:
        """Return the rows of the first entries of a page, and how many entries those are.

        It ends before the first entry that is not the next of the numbers that begin with
        `sequence`, or is in any way not plain.
        """
