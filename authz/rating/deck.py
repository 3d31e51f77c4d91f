"""A deck in use: mapped from its compiled file and asked for every leg of every call."""

from __future__ import annotations

import hashlib
import mmap
import os
import zlib
from pathlib import Path

from msgspec import Struct

from authz.errors import DeckError
from authz.rating.compiled import (
    CLASS_NONE,
    FLAG_BLOCKED,
    ROW,
    DeckFacts,
    ends_of,
    read_head,
)
from authz_ext.prefixes import PrefixTable, RowTable
from authz_ext.rating import Rate
from authz_ext.tables import Latest

#: Rows and rates that a process keeps ready, the latest of those asked for.
ROWS_READY_MAX = 16_384
RATES_READY_MAX = 16_384


class DeckRow(Struct, frozen=True, gc=False):
    """What a deck says of a number: the longest prefix in force, and its rate.

    `call_class` (authz.reasons.CallClass) is what the row's class cell says, None without one.
    The rate of a blocked row means nothing.
    """

    prefix: str
    description: str
    call_class: int | None
    blocked: bool
    rate: Rate


class Deck:
    """One version of one deck. Never changes; safe to use from several threads.

    `version` is the SHA-256 of its compiled form. Raises DeckError for a damaged buffer.
    """

    def __init__(self, buffer: bytes | mmap.mmap, version: str) -> None:
        self._data = memoryview(buffer)
        head, sections = read_head(self._data)
        self.facts: DeckFacts = head.facts
        #: ISO 4217 code; the deck serves only accounts of it.
        self.currency = head.facts.currency
        self.version = version
        self._rows = sections["rows"]
        self._rates = sections["rates"]
        self._rate_ends = ends_of(sections["rate_ends"], len(self._rates))
        self._texts = sections["texts"]
        self._text_ends = ends_of(sections["text_ends"], len(self._texts))
        self._canonical = sections["canonical"]
        try:
            self._table = PrefixTable(sections["prefixes"])
            self._find = RowTable(self._table, self._rows).find
        except ValueError as error:
            raise DeckError(str(error)) from None
        self._ready: Latest[int, DeckRow] = Latest(ROWS_READY_MAX)
        self._ready_rates: Latest[int, Rate] = Latest(RATES_READY_MAX)

    @classmethod
    def open(cls, path: Path, version: str) -> Deck:
        """Map the file of a compiled deck. Raises DeckError unless its hash is `version`."""
        try:
            with path.open("rb") as file:
                length = os.fstat(file.fileno()).st_size
                if length == 0:
                    raise DeckError(f"{path} is empty")
                mapped = mmap.mmap(file.fileno(), length, access=mmap.ACCESS_READ)
        except OSError as error:
            raise DeckError(f"{path}: {error.strerror}") from error
        if hashlib.sha256(mapped).hexdigest() != version:
            raise DeckError(f"{path} is damaged: its hash is not its name")
        return cls(mapped, version)

    @property
    def id(self) -> str:
        """The deck's name."""
        return self.facts.id

    @property
    def timezone(self) -> str:
        """IANA name of the zone of its windows and dates."""
        return self.facts.timezone

    def __len__(self) -> int:
        return len(self._table)

    def lookup(self, number: str, direction: int, at: int) -> DeckRow | None:
        """Return the row of the longest prefix of `number` that is in force at `at`.

        `number` is normalised: with `+`, or a service code beginning `*` or `#`. Any other
        (`911`) matches only a prefix equal to the whole of it. `direction` is an
        authz.reasons.Direction, `at` Unix seconds.
        """
        index = self._find(number, direction, at)
        row = self._ready.get(index)
        if row is None and index >= 0:
            row = self._read_row(index, number)
        return row

    def forget_rows(self, count: int) -> bool:
        """Let go of so many rows and rates that are kept ready; False: there were none.

        What is asked for afterwards is read anew. A deck that goes with all of them holds up the
        calls of its process for some milliseconds.
        """
        had_any = bool(self._ready or self._ready_rates)
        self._ready.forget_oldest(count)
        self._ready_rates.forget_oldest(count)
        return had_any

    def canonical(self) -> bytes:
        """Return the canonical CSV that this version was compiled from."""
        try:
            return zlib.decompress(self._canonical)
        except zlib.error as error:
            raise DeckError(f"the canonical CSV of deck {self.id} is damaged: {error}") from None

    def _read_row(self, index: int, number: str) -> DeckRow:
        """Return the row of that index, whose prefix `number` begins with, and keep it ready."""
        _, _, rate, text, flags, call_class, symbols = ROW.unpack_from(self._rows, index * ROW.size)
        start = self._text_ends[text - 1] if text else 0
        row = DeckRow(
            number.removeprefix("+")[:symbols],
            str(self._texts[start : self._text_ends[text]], "utf-8"),
            None if call_class == CLASS_NONE else call_class,
            bool(flags & FLAG_BLOCKED),
            self._rate(rate),
        )
        self._ready.put(index, row)
        return row

    def _rate(self, index: int) -> Rate:
        rate = self._ready_rates.get(index)
        if rate is None:
            start = self._rate_ends[index - 1] if index else 0
            rate = Rate.unpack(bytes(self._rates[start : self._rate_ends[index]]))
            self._ready_rates.put(index, rate)
        return rate
