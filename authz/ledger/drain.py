"""From the store's streams into the archive, exactly once.

A turn reads what lies behind the cursors and, in one transaction, stores it and moves the cursors
from where they were read: whoever comes second changes nothing. Only what such a transaction has
made durable is trimmed from the store. Killed anywhere, the next turn begins where the last
transaction ended.
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_right
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import groupby
from typing import Any, Final, NamedTuple

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
    read_movements,
)
from authz.ledger.schema import changes, events, movements
from authz.ledger.streams import (
    LEDGERS,
    STREAMS,
    Cursor,
    DrainStatus,
    Fork,
    Move,
    Stream,
    load_cursors,
    move_cursors,
    position_of,
)
from authz.store import keys
from authz.store.client import StoreClient
from authz.store.records import LedgerEntry

#: Entries read of one stream at a time: the store is held up for as long as it takes to send them.
PAGE: Final = 200
#: Entries with which a transaction is full. Others wait for the processor or for the disk no
#: longer than it takes to store them.
ENTRIES_MAX: Final = 200
#: Streams trimmed at once, and the most that one XTRIM takes away: the store is held up meanwhile.
_TRIMS_MAX: Final = 8
_TRIM_MAX: Final = 2_000
#: A stream that grows is trimmed about so often.
_TRIM_MS: Final = 1_000
_DEADLINE_MS: Final = 10_000
#: Turns after which a caller waits no longer for a bucket that it wants to see whole.
_CATCH_UP_TURNS: Final = 200
_TABLES: Final[dict[str, Table]] = {"events": events, "changes": changes}

#: Told of new events within the transaction that stores them; its rows are stored with them.
OnEvents = Callable[[AsyncConnection, Sequence[Row]], Awaitable[None]]
#: Waits between two transactions, of which the last took so many seconds of the processor, for
#: others to work.
GiveWay = Callable[[float], Awaitable[None]]


class _Batch(NamedTuple):
    """What is to be stored of one stream: values of movements, or rows by name."""

    move: Move
    rows: list[Any]

    @property
    def stream(self) -> Stream:
        """Where it comes from."""
        return self.move.stream


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
        #: Streams of which more than a page was waiting.
        self._full: set[Stream] = set()
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

    @property
    def full(self) -> frozenset[Stream]:
        """The streams of which the last turn has left something that was due."""
        return frozenset(self._full)

    @property
    def lag_seconds(self) -> int:
        """How long the oldest entry of those streams has been due at most; 0 without any."""
        oldest = max((self._statuses[stream].seconds_behind for stream in self._full), default=0)
        return max(0, oldest - self._delay_ms // 1_000)

    async def look_again(self) -> None:
        """Read the cursors anew, and try the forked streams again: they may be repaired."""
        async with self._lock:
            await self._load_cursors()
            self._forks.clear()

    async def turn(
        self,
        streams: Iterable[Stream] = STREAMS,
        *,
        delayed: bool = True,
        give_way: GiveWay | None = None,
    ) -> bool:
        """Archive up to a page of each stream; return whether there may be more at once.

        It does so in small transactions and, between them, gives way to whoever waits for a
        bucket, and by `give_way` to other processes. Raises StoreError and ArchiveUnavailable;
        nothing is lost by either.
        """
        async with self._lock:
            if not self._cursors:
                await self._load_cursors()
            now_ms = await self._now_ms()
        until_ms = now_ms - self._delay_ms if delayed else None
        more = False
        asked = tuple(streams)
        self._full.difference_update(asked)
        chosen = [stream for stream in asked if stream not in self._forks]
        # One kind after the other: trouble with events must not keep money waiting.
        for _, alike in groupby(chosen, lambda stream: stream.name):
            async with self._lock:
                waiting = deque((await self._heads(tuple(alike))).items())
            while waiting:
                began = time.process_time()
                async with self._lock:
                    more |= await self._part(waiting, now_ms, until_ms)
                if give_way is not None:
                    await give_way(time.process_time() - began)
        for start in range(0, len(chosen), _TRIMS_MAX):
            async with self._lock:
                await self._trim(chosen[start : start + _TRIMS_MAX], now_ms - self._keep_ms)
        return more

    async def inspect(self) -> tuple[DrainStatus, ...]:
        """Return how far every stream is archived now, without changing anything."""
        async with self._lock:
            await self._load_cursors()
            self._forks.clear()
            now_ms = await self._now_ms()
            for _, alike in groupby(STREAMS, lambda stream: stream.name):
                for stream, head in (await self._heads(tuple(alike))).items():
                    page = await self._page(stream, head, None)
                    await self._read(stream, page)
                    self._note_page(stream, head, page, now_ms, None)
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

    async def _part(
        self, waiting: deque[tuple[Stream, int | None]], now_ms: int, until_ms: int | None
    ) -> bool:
        """Archive the first of these streams, of one kind, in one transaction."""
        self._is_overtaken = False
        pages, batches, entries = [], [], 0
        while waiting and entries < ENTRIES_MAX:
            stream, head = waiting.popleft()
            # Meanwhile whoever waits for a bucket may have archived it, or found it forked.
            if stream in self._forks:
                continue
            page = await self._page(stream, head, until_ms)
            batch = await self._read(stream, page)
            pages.append((stream, head, page))
            entries += len(page)
            if batch is not None:
                batches.append(batch)
        if batches:
            await self._store(batches)
        for stream, head, page in pages:
            self._note_page(stream, head, page, now_ms, until_ms)
            if len(page) == PAGE and stream not in self._forks:
                self._full.add(stream)
        # Overtaken, it does not know yet what somebody else has left to archive.
        return self._is_overtaken or any(stream in self._full for stream, _, _ in pages)

    async def _now_ms(self) -> int:
        seconds, micros = await self._client.execute("TIME", deadline_ms=_DEADLINE_MS)
        return int(seconds) * 1_000 + int(micros) // 1_000

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
            self._note(stream, max(0, sequence - archived), 0)
        return heads

    async def _sequence(self, stream: Stream) -> int:
        key = keys.bucket(keys.TAGS[stream.bucket])
        counted = await self._client.execute("HGET", key, "sequence", deadline_ms=_DEADLINE_MS)
        return int(counted or 0)

    async def _page(self, stream: Stream, head: int | None, until_ms: int | None) -> list[Entry]:
        """Return the first entries behind the cursor that are old enough."""
        cursor = self._cursors[stream]
        if head is not None and head <= cursor.sequence:
            return []
        end = "+" if until_ms is None else str(until_ms)
        page = await self._range(stream, end, PAGE)
        if head is not None and not page:
            if until_ms is not None and await self._range(stream, "+", 1):
                return page
            detail = f"entries up to {head} are neither here nor archived"
            await self._suspect(stream, Fork("missing", detail))
        return page

    async def _range(self, stream: Stream, end: str, count: int) -> list[Entry]:
        start = f"({self._cursors[stream].entry_id}"
        page: list[Entry] = await self._client.execute(
            "XRANGE", stream.key, start, end, "COUNT", count, deadline_ms=_DEADLINE_MS
        )
        return page

    async def _read(self, stream: Stream, page: list[Entry]) -> _Batch | None:
        """Return what to store of a page, up to where the stream is forked."""
        before = self._cursors[stream]
        rows: list[Any] = []
        after, taken = before, 0
        while taken < len(page):
            if stream.name == "ledger":
                plain, count = read_movements(stream.bucket, page[taken:], after.sequence)
                if count:
                    rows += plain
                    taken += count
                    after = Cursor(page[taken - 1][0].decode(), after.sequence + count)
                    continue
            entry = page[taken]
            try:
                if stream.name == "ledger":
                    movement = read_movement(entry)
                    fork = await self._check(stream, after, movement)
                    if fork is not None:
                        await self._suspect(stream, fork)
                        break
                    if movement.sequence > after.sequence:
                        own = movement_rows(stream.bucket, movement)
                        rows += [tuple(row.values()) for row in own]
                    sequence = max(after.sequence, movement.sequence)
                else:
                    is_change = stream.name == "changes"
                    rows.append(change_row(entry) if is_change else event_row(stream.bucket, entry))
                    sequence = after.sequence + 1
            except Unreadable as error:
                await self._suspect(stream, Fork("unreadable", str(error)))
                break
            after = Cursor(entry[0].decode(), sequence)
            taken += 1
        return None if after == before else _Batch(Move(stream, before, after), rows)

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
        moves = [batch.move for batch in batches]
        rows = [row for batch in batches for row in batch.rows]
        name = batches[0].stream.name
        try:
            if name == "ledger":
                if not await self._database.store_movements(moves, rows):
                    raise _Overtaken
            else:
                await self._store_others(name, moves, rows)
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
                self._cursors[batch.stream] = batch.move.after

    async def _store_others(self, name: str, moves: list[Move], rows: list[Row]) -> None:
        async with self._database.write() as connection:
            if not await move_cursors(connection, moves):
                raise _Overtaken
            if rows:
                await connection.execute(insert(_TABLES[name]), rows)
                if name == "events" and self._on_events is not None:
                    await self._on_events(connection, rows)

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
        # It takes whole nodes of the stream, and stops before one that would pass the limit.
        if 2 * taken < _TRIM_MAX:
            self._trimmed[stream] = first

    def _note_page(
        self,
        stream: Stream,
        head: int | None,
        page: list[Entry],
        now_ms: int,
        until_ms: int | None,
    ) -> None:
        cursor = self._cursors[stream]
        done = bisect_right(page, cursor.position, key=lambda entry: position_of(entry[0]))
        oldest_ms = now_ms
        if page and (done < len(page) or len(page) == PAGE):
            # What comes behind a whole page is a little younger than its last entry.
            oldest_ms = position_of(page[min(done, len(page) - 1)][0])[0]
        elif until_ms is not None and head is not None and head > cursor.sequence:
            oldest_ms = until_ms
        left = len(page) - done if head is None else max(0, head - cursor.sequence)
        self._note(stream, left, now_ms - oldest_ms)

    def _note(self, stream: Stream, left: int, behind_ms: int) -> None:
        cursor, fork = self._cursors[stream], self._forks.get(stream)
        self._statuses[stream] = DrainStatus(
            stream=stream.name,
            bucket=stream.bucket,
            entry_id=cursor.entry_id,
            sequence=cursor.sequence,
            entries_behind=left,
            seconds_behind=max(0, behind_ms) // 1_000,
            fork=None if fork is None else f"{fork.reason}: {fork.detail}",
        )
