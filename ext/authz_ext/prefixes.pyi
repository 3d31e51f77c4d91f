"""Longest-prefix table over one read-only buffer."""

from __future__ import annotations

from collections.abc import Sequence

from typing_extensions import Buffer

#: Most symbols in one prefix; E.164 numbers have at most 15.
PREFIX_LENGTH_MAX: int
#: Most prefixes in one table.
PREFIXES_MAX: int

#: Bytes of one row of a RowTable, and its flag for the last row of a prefix.
ROW_BYTES: int
ROW_FLAG_LAST: int

def build(prefixes: Sequence[str], values: Sequence[int] | None = None) -> bytes:
    """Return the table of `prefixes`, each 1 to 16 of `0123456789*#`, in any order.

    A prefix's value (0 to 4,294,967,295) is its index unless `values` names another. Raises
    ValueError for a prefix that is malformed or repeated.
    """

class PrefixTable:
    """The prefixes of one buffer from `build`; reads it in place and never copies it.

    Raises ValueError unless the buffer is whole: magic, length and checksum are right.
    """

    def __init__(self, buffer: Buffer) -> None: ...
    def __len__(self) -> int:
        """Return how many prefixes the table holds."""

    @property
    def nbytes(self) -> int:
        """Bytes of the buffer, values included."""

    def find(self, number: str) -> int:
        """Return the value of the longest prefix of `number`, or -1.

        A number with a leading `+` and a service code (leading `*` or `#`) match by prefix.
        Anything else is no E.164 number (`911`, an internal extension): only a prefix equal to
        the whole of it matches, so that 911 never takes a price of India.
        """

    def matches(self, number: str) -> list[tuple[int, int]]:
        """Return (symbols, value) of every prefix that `find` may name, longest first."""

class RowTable:
    """The rows of a compiled deck behind its prefixes: which of them holds for a number now.

    A prefix's value is the index of its first row; of several, the one that takes effect last
    stands first. A row is 32 bytes, as prefixes.pxd says. Raises ValueError for a buffer that is
    no whole number of rows.
    """

    def __init__(self, table: PrefixTable, rows: Buffer) -> None: ...
    def __len__(self) -> int:
        """Return how many rows there are."""

    def find(self, number: str, direction: int, at: int) -> int:
        """Return the index of the row in force at Unix second `at`, or -1.

        It is the first row in force, for that direction (0 or 1), of the longest prefix of
        `number` that has one.
        """
