"""The compiled form of a deck: one file, named by its SHA-256, that every process maps.

Layout, little-endian: magic, length of the head, then the head as JSON (the deck's facts and
where each section lies), then the sections, each on a multiple of 8 bytes:

- `prefixes`: the prefix table; the value of a prefix is the index of its first row
- `rows`: 32 bytes a row (ROW); of one prefix the row that takes effect last stands first, and
  the last one is flagged
- `rates`, `texts`: packed rates and descriptions, each once
- `rate_ends`, `text_ends`: where each of them ends
- `canonical`: the canonical CSV, compressed
"""

from __future__ import annotations

import datetime
import hashlib
import struct
import zlib
from array import array
from collections.abc import Sequence
from itertools import accumulate, groupby
from typing import Final
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Struct

from authz.errors import DeckError
from authz.rating.canonical import write_canonical
from authz.rating.grouping import PriceGroup, group_rows
from authz.rating.rows import PriceRow
from authz.reasons import Direction
from authz_ext import prefixes

MAGIC: Final = b"AUTHZDK1"
#: effective, expires (Unix seconds), rate, description, flags, class, symbols of the prefix;
#: the same as row_t of authz_ext.prefixes.
ROW: Final = struct.Struct("<qqIIBBB5x")
LEAD: Final = struct.Struct("<8sQ")
FLAG_BLOCKED: Final = 4
CLASS_NONE: Final = 255
#: Stands for "always" and "never": no call is older or later.
MOMENT_MIN: Final = -(2**62)
MOMENT_MAX: Final = 2**62
_SECTION_ALIGNMENT = 8


class DeckFacts(Struct, frozen=True, kw_only=True):
    """What is known of a deck beside its rows. `direction` is what unnamed lines got."""

    id: str
    currency: str
    timezone: str
    direction: int | None = None
    rows: int = 0
    prefixes: int = 0


class Head(Struct, frozen=True):
    """The JSON head of a compiled deck: facts, and (offset, length) of each section."""

    facts: DeckFacts
    sections: dict[str, tuple[int, int]]


class CompiledDeck(Struct, frozen=True):
    """A compiled deck. `version` is the SHA-256 of `data` in hexadecimal."""

    facts: DeckFacts
    version: str
    data: bytes


def direction_flag(direction: int) -> int:
    """Return the flag of rows that serve a direction (authz.reasons.Direction)."""
    return 1 << direction


class _Pool:
    """Byte strings, each kept once."""

    def __init__(self) -> None:
        self._indexes: dict[bytes, int] = {}

    def index(self, data: bytes) -> int:
        return self._indexes.setdefault(data, len(self._indexes))

    def sections(self) -> tuple[bytes, bytes]:
        """Return (all strings, the end of each)."""
        ends = array("I", accumulate(map(len, self._indexes)))
        return b"".join(self._indexes), _little_endian(ends)


def _little_endian(numbers: array[int]) -> bytes:
    if struct.pack("=I", 1) != struct.pack("<I", 1):
        numbers.byteswap()
    return numbers.tobytes()


class _Compiler:
    """Rows on their way into sections."""

    def __init__(self, timezone: str) -> None:
        self._timezone = timezone
        self._zone = ZoneInfo(timezone)
        self._rates = _Pool()
        self._texts = _Pool()
        self._plain_rates: dict[int, int] = {}
        self._moments: dict[str, int] = {}
        self._prefixes: list[str] = []
        self._firsts: list[int] = []
        self._records: list[bytes] = []

    def add(self, prefix: str, rows: Sequence[PriceRow]) -> None:
        """Add all rows of one prefix. Raises DeckError where they contradict."""
        groups, complaints = group_rows(rows)
        if complaints:
            raise DeckError(f"line {complaints[0].row.line}: {complaints[0].reason}")
        self._prefixes.append(prefix)
        self._firsts.append(len(self._records))
        records: dict[bytes, int] = {}
        for group in groups:
            record = self._record(group)
            records[record] = records.get(record, 0) | direction_flag(group.direction)
        merged = [(ROW.unpack(record), flags) for record, flags in records.items()]
        merged.sort(key=lambda pair: pair[0][0], reverse=True)
        for number, (fields, flags) in enumerate(merged, start=1):
            if number == len(merged):
                flags |= prefixes.ROW_FLAG_LAST
            self._records.append(ROW.pack(*fields[:4], fields[4] | flags, *fields[5:]))

    def add_plain(self, row: PriceRow) -> None:
        """Add the only row of a prefix that has no window; the usual case, made short."""
        self._prefixes.append(row.prefix)
        self._firsts.append(len(self._records))
        both = direction_flag(Direction.OUTBOUND) | direction_flag(Direction.INBOUND)
        flags = both if row.direction is None else direction_flag(row.direction)
        flags |= prefixes.ROW_FLAG_LAST
        self._records.append(self._record(PriceGroup(0, row, ()), flags))

    def _record(self, group: PriceGroup, flags: int = 0) -> bytes:
        row = group.base
        return ROW.pack(
            MOMENT_MIN if row.effective is None else self._moment(row.effective),
            MOMENT_MAX if row.expires is None else self._moment(row.expires),
            self._rate(group),
            self._texts.index(row.description.encode()),
            flags | (FLAG_BLOCKED if row.blocked else 0),
            CLASS_NONE if row.call_class is None else row.call_class,
            len(row.prefix),
        )

    def _rate(self, group: PriceGroup) -> int:
        """Return the index of a group's rate. Terms are shared objects: most are known."""
        if group.windows:
            return self._rates.index(group.rate(self._timezone).pack())
        known = self._plain_rates.get(id(group.base.terms))
        if known is None:
            known = self._rates.index(group.rate(self._timezone).pack())
            self._plain_rates[id(group.base.terms)] = known
        return known

    def _moment(self, text: str) -> int:
        """Return Unix seconds of a local date or time; in a repeated hour, the first one."""
        moment = self._moments.get(text)
        if moment is None:
            local = datetime.datetime.fromisoformat(text).replace(tzinfo=self._zone)
            moment = self._moments[text] = int(local.timestamp())
        return moment

    def sections(self) -> dict[str, bytes]:
        """Return the sections made of what was added, all but `canonical`."""
        rates, rate_ends = self._rates.sections()
        texts, text_ends = self._texts.sections()
        return {
            "prefixes": prefixes.build(self._prefixes, self._firsts),
            "rows": b"".join(self._records),
            "rates": rates,
            "rate_ends": rate_ends,
            "texts": texts,
            "text_ends": text_ends,
        }


def compile_deck(rows: Sequence[PriceRow], facts: DeckFacts) -> CompiledDeck:
    """Return the compiled form of rows as `import_deck` sorts them.

    `facts` names the deck; its counts are filled in. The same rows and facts give the same
    bytes. Raises DeckError for contradicting rows.
    """
    compiler = _Compiler(facts.timezone)
    prefix_count = 0
    for prefix, group in groupby(rows, key=lambda row: row.prefix):
        members = list(group)
        prefix_count += 1
        if len(members) == 1 and members[0].window is None:
            compiler.add_plain(members[0])
        else:
            compiler.add(prefix, members)
    sections = compiler.sections()
    sections["canonical"] = zlib.compress(write_canonical(rows).encode(), 6)
    facts = msgspec.structs.replace(facts, rows=len(rows), prefixes=prefix_count)
    data = _assemble(facts, sections)
    return CompiledDeck(facts, hashlib.sha256(data).hexdigest(), data)


def _assemble(facts: DeckFacts, sections: dict[str, bytes]) -> bytes:
    """Return lead, head and sections in one piece. Offsets count from the first section."""
    offset = 0
    places: dict[str, tuple[int, int]] = {}
    parts: list[bytes] = []
    for name, data in sections.items():
        places[name] = (offset, len(data))
        parts += (data, _padding(len(data)))
        offset += len(data) + len(parts[-1])
    head = msgspec.json.encode(Head(facts, places), order="deterministic")
    head += b" " * len(_padding(len(head)))
    return b"".join((LEAD.pack(MAGIC, len(head)), head, *parts))


def _padding(length: int) -> bytes:
    return b"\0" * (-length % _SECTION_ALIGNMENT)


def read_head(data: memoryview) -> tuple[Head, dict[str, memoryview]]:
    """Return the head of a compiled deck and its sections, none of them copied.

    Raises DeckError for what is no compiled deck or is cut short; it does not look for flipped
    bits: that is what the version, a hash, is for.
    """
    if len(data) < LEAD.size:
        raise DeckError("the deck file is cut short")
    magic, head_length = LEAD.unpack_from(data)
    if magic != MAGIC:
        raise DeckError("this is no compiled deck, or one of another layout")
    start = LEAD.size + head_length
    if start > len(data):
        raise DeckError("the deck file is cut short")
    try:
        head = msgspec.json.decode(data[LEAD.size : start], type=Head)
    except msgspec.DecodeError as error:
        raise DeckError(f"the head of the deck file is damaged: {error}") from None
    sections = {}
    for name, (offset, length) in head.sections.items():
        sections[name] = data[start + offset : start + offset + length]
        if offset < 0 or length < 0 or len(sections[name]) != length:
            raise DeckError("the deck file is cut short")
    missing = SECTIONS - sections.keys()
    if missing:
        raise DeckError(f"the deck file lacks {', '.join(sorted(missing))}")
    return head, sections


SECTIONS: Final = frozenset(
    ("prefixes", "rows", "rates", "rate_ends", "texts", "text_ends", "canonical")
)


def ends_of(section: memoryview, last: int) -> memoryview:
    """Return a section of ends as numbers; DeckError unless they rise up to `last`."""
    ends = section.cast("I")
    if len(ends) and ends[-1] != last:
        raise DeckError("the deck file is damaged: its parts do not fit together")
    return ends
