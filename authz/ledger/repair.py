"""Where a bucket's ledger and its archive part, and how they are brought together again.

They part when the store loses its last moments to a power loss or a failover after they were
archived, or loses entries before they were. Nothing is decided here: an operator accepts one
side, and what is set aside stays in the tables `disowned` and `gaps`.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterable
from typing import Any, Final, Literal

from msgspec import Struct
from sqlalchemy import delete, func, insert, literal, select
from sqlalchemy.ext.asyncio import AsyncConnection

from authz.errors import Conflict
from authz.ledger.database import Database
from authz.ledger.rows import Entry, Row, Unreadable, movement_rows, read_movement
from authz.ledger.schema import disowned, gap_movements, gaps, movements
from authz.ledger.streams import LEDGERS, Cursor, Move, Stream, load_cursors, move_cursors
from authz.store import keys
from authz.store.client import StoreClient
from authz.store.constants import Kind
from authz.store.layouts import ACCOUNT_STATE
from authz.store.records import LedgerEntry

_PAGE: Final = 500
_DEADLINE_MS: Final = 10_000
_TREE_DEPTH_MAX: Final = 8

Verdict = Literal["store", "archive"]


class LostAccount(Struct, frozen=True):
    """What an account's movements in a gap came to: how many, their sum, where they led."""

    account: str
    movements: int
    amount_micros: int
    balance_micros: int
    sequence: int


class Divergence(Struct, frozen=True, kw_only=True):
    """Where a bucket's ledger and its archive part.

    Both agree up to entry `common`. `archived` are the rows that only the archive has,
    `stored` the entries that only the store has. `lost` are the accounts moved by the entries
    between `common` and the first stored one, which are nowhere.
    """

    bucket: int
    cursor: Cursor
    common: int
    archived: tuple[Row, ...]
    stored: tuple[LedgerEntry, ...]
    lost_entries: int
    lost: tuple[LostAccount, ...]
    #: When the lost entries are booked, in microseconds: before all that follows, as they lie
    #: before it in the ledger.
    lost_us: int
    #: The cursor from which the store's side is archived on.
    resume: Cursor

    @property
    def is_parted(self) -> bool:
        """Whether there is anything to decide."""
        return bool(self.archived or self.lost_entries)

    def only_archived(self) -> tuple[Row, ...]:
        """Return the first legs of archived entries that the store has not booked anew."""
        anew = {(entry.legs[0].account, int(entry.kind), entry.reference) for entry in self.stored}
        return tuple(
            row
            for row in self.archived
            if row["leg"] == 0 and (row["origin"], row["kind"], row["reference"]) not in anew
        )


async def find_divergence(client: StoreClient, database: Database, bucket: int) -> Divergence:
    """Compare a bucket's ledger, as far as the store has it, with its archive.

    Reads the ledger whole, and changes nothing. Raises StoreError and ArchiveUnavailable.
    """
    stream = LEDGERS[bucket]
    async with database.read() as connection:
        cursor = (await load_cursors(connection))[stream]
        # States before entries: what moves meanwhile is seen by its entry.
        states = await _states(client, keys.TAGS[bucket])
        seconds, micros = await client.execute("TIME", deadline_ms=_DEADLINE_MS)
        now_us = int(seconds) * 1_000_000 + int(micros)
        head = await _head(client, stream)
        common: int | None = None
        stored: list[LedgerEntry] = []
        first_id = b""
        last_id = b"0-0"
        async for page_end, page in _pages(client, stream):
            last_id = page_end
            known = await _archived(connection, bucket, page)
            for entry_id, entry in page:
                rows = movement_rows(bucket, entry)
                if not stored and known.get(entry.sequence) == rows:
                    common = entry.sequence
                    continue
                first_id = first_id or entry_id
                stored.append(entry)
        end = stored[0].sequence - 1 if stored else head
        agreed = await _past_gap(connection, bucket, _agreed(common, cursor, end), end)
        archived = await _rows_after(connection, bucket, agreed)
        balances = await _archived_balances(connection, bucket, agreed)
    return Divergence(
        bucket=bucket,
        cursor=cursor,
        common=agreed,
        archived=tuple(archived),
        stored=tuple(stored),
        lost_entries=max(0, end - agreed),
        lost=tuple(_lost(_openings(states, stored), balances)) if end > agreed else (),
        lost_us=stored[0].booked_us if stored else now_us,
        # At its end when nothing is left to archive, however unreadable that is.
        resume=Cursor(_before(first_id) if first_id else last_id.decode(), max(end, agreed)),
    )


async def accept(database: Database, found: Divergence, verdict: Verdict) -> None:
    """Go on with the store's side; set aside what only the archive has.

    `verdict` is noted beside what is set aside: `archive` says that it was booked in the store
    again. Raises Conflict when the archive has moved since it was looked at.
    """
    now = int(time.time())
    of_bucket = movements.c.bucket == found.bucket
    is_disowned = of_bucket & (movements.c.sequence > found.common)
    async with database.write() as connection:
        move = Move(LEDGERS[found.bucket], found.cursor, found.resume)
        if not await move_cursors(connection, [move]):
            raise Conflict(f"the archive of bucket {found.bucket} has moved: look again")
        names = [column.name for column in movements.columns]
        copied = select(literal(now), literal(verdict), *movements.columns).where(is_disowned)
        await connection.execute(
            insert(disowned).from_select(["disowned_at", "verdict", *names], copied)
        )
        await connection.execute(delete(movements).where(is_disowned))
        for table in (gaps, gap_movements):
            await connection.execute(
                delete(table).where(
                    table.c.bucket == found.bucket, table.c.last_sequence > found.common
                )
            )
        if found.lost_entries:
            await _bridge(connection, found, now)


async def _bridge(connection: AsyncConnection, found: Divergence, now: int) -> None:
    """Let one adjustment per account stand for what was lost, at the end of the gap."""
    last = found.common + found.lost_entries
    await connection.execute(
        insert(gaps).values(
            bucket=found.bucket,
            first_sequence=found.common + 1,
            last_sequence=last,
            repaired_at=now,
        )
    )
    if not found.lost:
        return
    await connection.execute(
        insert(movements),
        [_adjustment(found, one, leg, last) for leg, one in enumerate(found.lost)],
    )
    await connection.execute(
        insert(gap_movements),
        [
            {
                "bucket": found.bucket,
                "last_sequence": last,
                "account": one.account,
                "movements": one.movements,
            }
            for one in found.lost
        ],
    )


def _adjustment(found: Divergence, one: LostAccount, leg: int, sequence: int) -> Row:
    return {
        **dict.fromkeys(("marks", "class", "direction", "billing", "seconds"), 0),
        "bucket": found.bucket,
        "sequence": sequence,
        "leg": leg,
        "account": one.account,
        "origin": one.account,
        "kind": int(Kind.ADJUSTMENT),
        "booked_us": found.lost_us,
        "started_at": found.lost_us // 1_000_000,
        "amount_micros": one.amount_micros,
        "balance_micros": one.balance_micros,
        "account_sequence": one.sequence,
        "reference": f"archive-repair-{found.bucket}-{sequence}",
        "number": "",
        "description": f"{one.movements} movements lost by the store",
        "refunded_call": "",
    }


def _agreed(common: int | None, cursor: Cursor, end: int) -> int:
    """Return the last entry on which both sides agree.

    Without one in the store, what it no longer has is believed to be what was archived.
    """
    return min(cursor.sequence, end) if common is None else common


def _before(entry_id: bytes) -> str:
    """Return an entry id just below another."""
    milliseconds, _, number = entry_id.decode().partition("-")
    if int(number):
        return f"{milliseconds}-{int(number) - 1}"
    return f"{int(milliseconds) - 1}-{2**64 - 1}"


def _openings(
    states: dict[str, tuple[int, int]], stored: Iterable[LedgerEntry]
) -> dict[str, tuple[int, int]]:
    """Return number and balance of every account before the first stored entry."""
    openings = dict(states)
    seen = set()
    for entry in stored:
        for leg in entry.legs:
            if leg.account not in seen:
                seen.add(leg.account)
                openings[leg.account] = (leg.sequence - 1, leg.balance - leg.amount)
    return openings


def _lost(
    openings: dict[str, tuple[int, int]], balances: dict[str, tuple[int, int]]
) -> Iterable[LostAccount]:
    for account, (sequence, balance) in sorted(openings.items()):
        archived_sequence, archived_balance = balances.get(account, (0, 0))
        if sequence > archived_sequence:
            yield LostAccount(
                account,
                sequence - archived_sequence,
                balance - archived_balance,
                balance,
                sequence,
            )


# The store's side.


async def _head(client: StoreClient, stream: Stream) -> int:
    key = keys.bucket(keys.TAGS[stream.bucket])
    return int(await client.execute("HGET", key, "sequence", deadline_ms=_DEADLINE_MS) or 0)


async def _pages(
    client: StoreClient, stream: Stream
) -> AsyncIterator[tuple[bytes, list[tuple[bytes, LedgerEntry]]]]:
    """Yield the id that a page ends with, and its readable entries; the others count as lost."""
    start, last_id = b"-", b"0-0"
    while True:
        page: list[Entry] = await client.execute(
            "XRANGE", stream.key, start, "+", "COUNT", _PAGE, deadline_ms=_DEADLINE_MS
        )
        found = []
        for entry in page:
            try:
                found.append((entry[0], read_movement(entry)))
            except Unreadable:
                continue
        last_id = page[-1][0] if page else last_id
        yield last_id, found
        if len(page) < _PAGE:
            return
        start = b"(" + last_id


async def _states(client: StoreClient, tag: str) -> dict[str, tuple[int, int]]:
    """Return number and balance of the open accounts of a bucket."""
    states: dict[str, tuple[int, int]] = {}
    level = [""]
    for _ in range(_TREE_DEPTH_MAX):
        below: list[str] = []
        for name in level:
            below += await _children(client, tag, name)
        for name in below:
            packed = await client.execute(
                "HGET", keys.account(tag, name), "s", deadline_ms=_DEADLINE_MS
            )
            if packed is not None:
                state = ACCOUNT_STATE.unpack(packed)
                states[name] = (state.sequence, state.balance)
        level = below
    return states


async def _children(client: StoreClient, tag: str, name: str) -> list[str]:
    found: list[str] = []
    first = "-"
    while True:
        page = await client.execute(
            *("ZRANGEBYLEX", keys.children(tag, name), first, "+", "LIMIT", 0, _PAGE),
            deadline_ms=_DEADLINE_MS,
        )
        found += [member.decode() for member in page]
        if len(page) < _PAGE:
            return found
        first = f"({found[-1]}"


# The archive's side.


async def _archived(
    connection: AsyncConnection, bucket: int, page: list[tuple[bytes, LedgerEntry]]
) -> dict[int, list[Row]]:
    """Return the archived rows of a page's entries by their number."""
    if not page:
        return {}
    numbers = [entry.sequence for _, entry in page]
    rows = await connection.execute(
        select(movements)
        .where(
            movements.c.bucket == bucket,
            movements.c.sequence.between(min(numbers), max(numbers)),
        )
        .order_by(movements.c.sequence, movements.c.leg)
    )
    found: dict[int, list[Row]] = {}
    for row in rows:
        found.setdefault(row.sequence, []).append(dict(row._mapping))
    return found


async def _past_gap(connection: AsyncConnection, bucket: int, agreed: int, end: int) -> int:
    """Return the end of the gap that follows an entry, if a repair has bridged it already."""
    last = gaps.c.last_sequence
    found = await connection.execute(
        select(last).where(
            gaps.c.bucket == bucket, gaps.c.first_sequence == agreed + 1, last <= end
        )
    )
    row = found.first()
    return agreed if row is None else int(row[0])


async def _rows_after(connection: AsyncConnection, bucket: int, sequence: int) -> list[Row]:
    rows = await connection.execute(
        select(movements)
        .where(movements.c.bucket == bucket, movements.c.sequence > sequence)
        .order_by(movements.c.sequence, movements.c.leg)
    )
    return [dict(row._mapping) for row in rows]


async def _archived_balances(
    connection: AsyncConnection, bucket: int, sequence: int
) -> dict[str, tuple[int, int]]:
    """Return the number and the sum of every account's movements up to an entry."""
    rows: Any = await connection.execute(
        select(
            movements.c.account,
            func.max(movements.c.account_sequence),
            func.sum(movements.c.amount_micros),
        )
        .where(movements.c.bucket == bucket, movements.c.sequence <= sequence)
        .group_by(movements.c.account)
    )
    return {row[0]: (row[1], int(row[2])) for row in rows}
