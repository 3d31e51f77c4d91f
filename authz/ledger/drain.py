"""From the store's streams into the archive, exactly once.

A turn reads what lies behind the cursors and, in one transaction, stores it and moves the cursors
from where they were read: whoever comes second changes nothing. Only what such a transaction has
made durable is trimmed from the store. Killed anywhere, the next turn begins where the last
transaction ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import groupby
from typing import Final, NamedTuple

from sqlalchemy import Table, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from authz import log
from authz.errors import ArchiveRefused, ArchiveUnavailable
from authz.ledger.database import Database
from authz.ledger.rows import (
    Entry,
    Row,
    Unreadable,
    change_row,
    event_row,
    movement_rows,
    read_movement,
)
from authz.ledger.schema import changes, events, movements
from authz.ledger.streams import (
    LEDGERS,
    STREAMS,
    Cursor,
    DrainStatus,
    Fork,
    Stream,
    load_cursors,
    move_cursor,
    position_of,
)
from authz.store import keys
from authz.store.client import StoreClient
from authz.store.records import LedgerEntry

#: Entries read of one stream at a time: the store is held up for as long as it takes to send them.
PAGE: Final = 200
_ENTRIES_MAX: Final = 2_000
#: Most that one XTRIM takes away, so that the store is not held up.
_TRIM_MAX: Final = 10_000
#: A stream that grows is trimmed about so often.
_TRIM_MS: Final = 1_000
_DEADLINE_MS: Final = 10_000
#: Turns after which a caller waits no longer for a bucket that it wants to see whole.
_CATCH_UP_TURNS: Final = 200
_TABLES: Final[dict[str, Table]] = {"ledger": movements, "events": events, "changes": changes}

#: Told of new events within the transaction that stores them; its rows are stored with them.
OnEvents = Callable[[AsyncConnection, Sequence[Row]], Awaitable[None]]


#: Per stream the newest sequence of a ledger, and the entries behind its cursor.
_Pages = dict[Stream, tuple[int | None, list[Entry]]]


class _Batch(NamedTuple):
    """What is to be stored of one stream."""

    stream: Stream
    before: Cursor
    after: Cursor
    rows: list[Row]


class _Overtaken(Exception):
    """Somebody else has archived the same entries."""


class Drain:
    """Archives the streams of one store into one database; any number may run at once."""

    def __init__(
        self,
        client: StoreClient,
        database: Database,
        *,
        delay_seconds: int,
        keep_seconds: int,
        on_events: OnEvents | None = None,
        is_quiet: bool = False,
    ) -> None:
        """`database` is the one that the store names as its archive.

        Entries younger than `delay_seconds` wait, and archived ones stay in the store until they
        are `keep_seconds` old. One that `is_quiet` logs nothing.
        """
        self._client = client
        self._database = database
        self._delay_ms = delay_seconds * 1_000
        self._keep_ms = keep_seconds * 1_000
        self._on_events = on_events
        self._is_quiet = is_quiet
        #: Whether somebody else was found to have moved a cursor, in the turn that runs.
        self._is_overtaken = False
        self._lock = asyncio.Lock()
        self._cursors: dict[Stream, Cursor] = {}
        #: The lowest entry id that each stream was trimmed to.
        self._trimmed: dict[Stream, tuple[int, int]] = {}
        self._forks: dict[Stream, Fork] = {}
        self._told: dict[Stream, Fork] = {}
        self._statuses: dict[Stream, DrainStatus] = {}
        #: Rows archived by this process.
        self.rows_total = 0

    @property
    def is_forked(self) -> bool:
        """Whether any stream waits for a decision."""
        return bool(self._forks)

    @property
    def statuses(self) -> tuple[DrainStatus, ...]:
        """How far each stream was archived at the last turn; empty before the first."""
        return tuple(self._statuses.values())

    async def look_again(self) -> None:
        """Read the cursors anew, and try the forked streams again: they may be repaired."""
        async with self._lock:
            await self._load_cursors()
            self._forks.clear()

    async def turn(self, streams: Iterable[Stream] = STREAMS, *, delayed: bool = True) -> bool:
        """Archive up to a page of each stream; return whether there may be more at once.

        Raises StoreError and ArchiveUnavailable; nothing is lost by either.
        """
        async with self._lock:
            if not self._cursors:
                await self._load_cursors()
            now_ms = await self._now_ms()
            until_ms = now_ms - self._delay_ms if delayed else None
            more = False
            chosen = [stream for stream in streams if stream not in self._forks]
            # One kind after the other: trouble with events must not keep money waiting.
            for _, alike in groupby(chosen, lambda stream: stream.name):
                more |= await self._turn(tuple(alike), now_ms, until_ms)
            await self._trim(chosen, now_ms - self._keep_ms)
            return more

    async def inspect(self) -> tuple[DrainStatus, ...]:
        """Return how far every stream is archived now, without changing anything."""
        async with self._lock:
            await self._load_cursors()
            self._forks.clear()
            now_ms = await self._now_ms()
            for _, alike in groupby(STREAMS, lambda stream: stream.name):
                pages = await self._pages(tuple(alike))
                for stream, (_, page) in pages.items():
                    await self._read(stream, page)
                self._note_all(pages, now_ms)
            return self.statuses

    async def catch_up(self, bucket: int) -> None:
        """Archive all that a bucket's ledger has by now, however young.

        Raises ArchiveUnavailable if it is forked, or if there is too much to wait for.
        """
        stream = LEDGERS[bucket]
        wanted = await self._sequence(stream)
        for _ in range(_CATCH_UP_TURNS):
            await self.turn((stream,), delayed=False)
            if stream in self._forks:
                detail = self._forks[stream].detail
                raise ArchiveUnavailable(f"the ledger of bucket {bucket} is forked: {detail}")
            if self._cursors[stream].sequence >= wanted:
                return
        raise ArchiveUnavailable(f"the archive is far behind the ledger of bucket {bucket}")

    # Reading.

    async def _turn(self, streams: tuple[Stream, ...], now_ms: int, until_ms: int | None) -> bool:
        self._is_overtaken = False
        pages = await self._pages(streams)
        batches, more = [], False
        for stream, (_, page) in pages.items():
            due = page
            if until_ms is not None:
                due = [entry for entry in page if position_of(entry[0])[0] <= until_ms]
            batch = await self._read(stream, due)
            if batch is not None:
                batches.append(batch)
            more |= len(due) == PAGE and stream not in self._forks
        for group in _groups(batches):
            await self._store(group)
        self._note_all(pages, now_ms)
        # Overtaken, it does not know yet what somebody else has left to archive.
        return more or self._is_overtaken

    async def _now_ms(self) -> int:
        seconds, micros = await self._client.execute("TIME", deadline_ms=_DEADLINE_MS)
        return int(seconds) * 1_000 + int(micros) // 1_000

    async def _pages(self, streams: tuple[Stream, ...]) -> _Pages:
        """Return, of the streams with anything new, a ledger's newest sequence and a page."""
        heads = await self._heads(streams)
        pages = {}
        # One after the other: the store answers decisions between two pages.
        for stream, head in heads.items():
            page = await self._page(stream)
            if head is not None and not page:
                detail = f"entries up to {head} are neither here nor archived"
                await self._suspect(stream, Fork("missing", detail))
            pages[stream] = (head, page)
        return pages

    async def _heads(self, streams: tuple[Stream, ...]) -> dict[Stream, int | None]:
        """Return the streams to read, with the newest sequence of a ledger."""
        if streams[0].name != "ledger":
            return dict.fromkeys(streams)
        heads: dict[Stream, int | None] = {}
        sequences = await asyncio.gather(*(self._sequence(stream) for stream in streams))
        for stream, sequence in zip(streams, sequences, strict=True):
            archived = self._cursors[stream].sequence
            if sequence > archived:
                heads[stream] = sequence
                continue
            if sequence < archived:
                detail = f"the store ends at {sequence}, the archive at {archived}"
                await self._suspect(stream, Fork("behind", detail))
            self._note(stream, sequence, (), 0)
        return heads

    async def _sequence(self, stream: Stream) -> int:
        key = keys.bucket(keys.TAGS[stream.bucket])
        counted = await self._client.execute("HGET", key, "sequence", deadline_ms=_DEADLINE_MS)
        return int(counted or 0)

    async def _page(self, stream: Stream) -> list[Entry]:
        start = f"({self._cursors[stream].entry_id}"
        page: list[Entry] = await self._client.execute(
            "XRANGE", stream.key, start, "+", "COUNT", PAGE, deadline_ms=_DEADLINE_MS
        )
        return page

    async def _read(self, stream: Stream, page: list[Entry]) -> _Batch | None:
        """Return what to store of a page, up to where the stream is forked."""
        # Between two pages others get their turn: they may be long.
        await asyncio.sleep(0)
        before = self._cursors[stream]
        after, rows = before, []
        for entry in page:
            try:
                if stream.name == "ledger":
                    movement = read_movement(entry)
                    fork = await self._check(stream, after, movement)
                    if fork is not None:
                        await self._suspect(stream, fork)
                        break
                    if movement.sequence > after.sequence:
                        rows += movement_rows(stream.bucket, movement)
                    sequence = max(after.sequence, movement.sequence)
                else:
                    is_change = stream.name == "changes"
                    rows.append(change_row(entry) if is_change else event_row(stream.bucket, entry))
                    sequence = after.sequence + 1
            except Unreadable as error:
                await self._suspect(stream, Fork("unreadable", str(error)))
                break
            after = Cursor(entry[0].decode(), sequence)
        return None if after == before else _Batch(stream, before, after, rows)

    async def _check(self, stream: Stream, after: Cursor, movement: LedgerEntry) -> Fork | None:
        """Return why a ledger's entry does not follow what was archived, or None."""
        expected, found = after.sequence + 1, movement.sequence
        if found == expected:
            return None
        if found > expected:
            return Fork("gap", f"expected entry {expected}, the store has {found}")
        rows = movement_rows(stream.bucket, movement)
        if await self._archived_rows(stream.bucket, found) == rows:
            return None
        return Fork("repeat", f"entry {found} is archived with other content")

    async def _archived_rows(self, bucket: int, sequence: int) -> list[Row]:
        async with self._database.read() as connection:
            found = await connection.execute(
                select(movements)
                .where(movements.c.bucket == bucket, movements.c.sequence == sequence)
                .order_by(movements.c.leg)
            )
            return [dict(row._mapping) for row in found]

    # Storing.

    async def _store(self, batches: list[_Batch]) -> None:
        """Store the batches of one kind and move their cursors, all or none."""
        rows = [row for batch in batches for row in batch.rows]
        try:
            async with self._database.write() as connection:
                for batch in batches:
                    if not await move_cursor(connection, *batch[:3]):
                        raise _Overtaken
                if rows:
                    name = batches[0].stream.name
                    await connection.execute(insert(_TABLES[name]), rows)
                    if name == "events" and self._on_events is not None:
                        await self._on_events(connection, rows)
        except _Overtaken:
            self._is_overtaken = True
            await self._load_cursors()
        except ArchiveRefused as error:
            if len(batches) == 1:
                await self._suspect(batches[0].stream, Fork("refused", str(error)))
                return
            for batch in batches:
                await self._store([batch])
        else:
            self.rows_total += len(rows)
            for batch in batches:
                self._cursors[batch.stream] = batch.after

    async def _load_cursors(self) -> None:
        async with self._database.read() as connection:
            self._cursors = await load_cursors(connection)

    async def _suspect(self, stream: Stream, fork: Fork) -> None:
        """Leave a stream alone that cannot go on, unless somebody else went on with it."""
        before = self._cursors[stream]
        await self._load_cursors()
        if self._cursors[stream] != before:
            self._is_overtaken = True
            return
        self._forks[stream] = fork
        if self._told.get(stream) != fork and not self._is_quiet:
            self._told[stream] = fork
            log.event(
                "ledger.forked" if stream.name == "ledger" else "stream.forked",
                level="error",
                stream=stream.name,
                bucket=stream.bucket,
                reason=fork.reason,
                detail=fork.detail,
            )

    async def _trim(self, streams: Iterable[Stream], horizon_ms: int) -> None:
        """Take away what is archived and older than the horizon."""
        trims = []
        for stream in streams:
            cursor, trimmed = self._cursors[stream], self._trimmed.get(stream, (0, 0))
            # The last archived entry stays: it shows where store and archive belong together.
            first = min(cursor.position, (horizon_ms, 0))
            is_due = first[0] - trimmed[0] >= _TRIM_MS or trimmed < first == cursor.position
            if is_due and stream not in self._forks:
                trims.append(self._trim_stream(stream, first))
        await asyncio.gather(*trims)

    async def _trim_stream(self, stream: Stream, first: tuple[int, int]) -> None:
        lowest = f"{first[0]}-{first[1]}"
        command = ("XTRIM", stream.key, "MINID", "~", lowest, "LIMIT", _TRIM_MAX)
        taken = await self._client.execute(*command, deadline_ms=_DEADLINE_MS)
        if taken < _TRIM_MAX:
            self._trimmed[stream] = first

    def _note_all(self, pages: _Pages, now_ms: int) -> None:
        for stream, (head, page) in pages.items():
            archived = self._cursors[stream].position
            left = [entry for entry in page if position_of(entry[0]) > archived]
            self._note(stream, head, left, now_ms)

    def _note(self, stream: Stream, head: int | None, left: Sequence[Entry], now_ms: int) -> None:
        cursor, fork = self._cursors[stream], self._forks.get(stream)
        oldest_ms = position_of(left[0][0])[0] if left else now_ms
        self._statuses[stream] = DrainStatus(
            stream=stream.name,
            bucket=stream.bucket,
            entry_id=cursor.entry_id,
            sequence=cursor.sequence,
            entries_behind=len(left) if head is None else max(0, head - cursor.sequence),
            seconds_behind=max(0, now_ms - oldest_ms) // 1_000,
            fork=None if fork is None else f"{fork.reason}: {fork.detail}",
        )


def _groups(batches: list[_Batch]) -> Iterable[list[_Batch]]:
    """Yield the batches in groups that one transaction takes."""
    group: list[_Batch] = []
    entries = 0
    for batch in batches:
        group.append(batch)
        entries += len(batch.rows)
        if entries >= _ENTRIES_MAX:
            yield group
            group, entries = [], 0
    if group:
        yield group
