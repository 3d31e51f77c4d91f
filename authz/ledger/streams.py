"""The store's streams, and how far each is archived."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

from msgspec import Struct
from sqlalchemy import bindparam, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from authz.ledger.schema import cursors
from authz.store import keys

StreamName = Literal["ledger", "events", "changes"]


class Stream(NamedTuple):
    """One stream of the store."""

    name: StreamName
    bucket: int
    key: bytes


LEDGERS: Final = tuple(
    Stream("ledger", bucket, keys.ledger(tag)) for bucket, tag in enumerate(keys.TAGS)
)
#: Of the whole store, in the place of a first bucket.
CHANGES: Final = Stream("changes", 0, keys.changes())
STREAMS: Final = (
    *LEDGERS,
    *(Stream("events", bucket, keys.events(tag)) for bucket, tag in enumerate(keys.TAGS)),
    CHANGES,
)


class Cursor(NamedTuple):
    """The last archived entry of a stream, and its number."""

    entry_id: str
    sequence: int

    @property
    def position(self) -> tuple[int, int]:
        """The place of that entry in its stream."""
        return position_of(self.entry_id.encode())


START: Final = Cursor("0-0", 0)


class Fork(NamedTuple):
    """Why a stream cannot be archived any further without a decision (`authz archive repair`)."""

    reason: Literal["gap", "repeat", "behind", "missing", "unreadable", "refused"]
    detail: str


class DrainStatus(Struct, frozen=True, kw_only=True):
    """How far a stream is archived.

    `entries_behind` is at least so many; `seconds_behind` is at most so many, as what is too young
    to be archived is not looked at.
    """

    stream: StreamName
    bucket: int
    entry_id: str
    sequence: int
    entries_behind: int
    seconds_behind: int
    fork: str | None


def position_of(entry_id: bytes) -> tuple[int, int]:
    """Return the store's clock in milliseconds in an entry's id, and its number within it."""
    milliseconds, _, number = entry_id.partition(b"-")
    return int(milliseconds), int(number)


async def seed_cursors(connection: AsyncConnection) -> None:
    """Enter every stream that the archive does not know yet, from its start; not concurrently."""
    known = {(row.stream, row.bucket) for row in await connection.execute(select(cursors))}
    new = [stream for stream in STREAMS if (stream.name, stream.bucket) not in known]
    if new:
        rows = [
            {"stream": stream.name, "bucket": stream.bucket, **START._asdict()} for stream in new
        ]
        await connection.execute(insert(cursors), rows)


async def load_cursors(connection: AsyncConnection) -> dict[Stream, Cursor]:
    """Return every stream's cursor."""
    rows = (await connection.execute(select(cursors))).all()
    known = {(row.stream, row.bucket): Cursor(row.entry_id, row.sequence) for row in rows}
    return {stream: known[stream.name, stream.bucket] for stream in STREAMS}


class Move(NamedTuple):
    """How far a stream is archived by a transaction, and from where it went on."""

    stream: Stream
    before: Cursor
    after: Cursor


async def move_cursors(connection: AsyncConnection, moves: Sequence[Move]) -> bool:
    """Move cursors of one kind of streams from where the caller believes them to be.

    False if one of them is elsewhere; then the caller is to undo what it did. Whoever moves them
    holds their rows until the transaction ends, so that nobody else can.
    """
    name = moves[0].stream.name
    # All take them in the order of their buckets, so that nobody waits for each other.
    wanted = (
        select(cursors.c.bucket, cursors.c.entry_id, cursors.c.sequence)
        .where(cursors.c.stream == name)
        .where(cursors.c.bucket.in_([move.stream.bucket for move in moves]))
        .order_by(cursors.c.bucket)
        .with_for_update()
    )
    found = {row[0]: Cursor(row[1], row[2]) for row in await connection.execute(wanted)}
    if any(found.get(move.stream.bucket) != move.before for move in moves):
        return False
    await connection.execute(
        _MOVE,
        [
            {"its_stream": name, "its_bucket": move.stream.bucket, **move.after._asdict()}
            for move in moves
        ],
    )
    return True


_MOVE: Final = (
    update(cursors)
    .where(cursors.c.stream == bindparam("its_stream"), cursors.c.bucket == bindparam("its_bucket"))
    .values(entry_id=bindparam("entry_id"), sequence=bindparam("sequence"))
)
