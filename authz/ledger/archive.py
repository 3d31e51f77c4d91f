"""The archive of one store, as a process has it: opened, proved to be the store's, drained.

The store names its archive once, at `authz:archive`. A process whose database is another takes
nothing out of the store, and says so.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NoReturn, TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection

from authz import log
from authz.archived import ArchivedCall, ArchivedPosting, BucketOpening
from authz.config import Settings
from authz.errors import ArchiveElsewhere, ArchiveUnavailable, Conflict, StoreError
from authz.ledger.database import Database
from authz.ledger.drain import Drain, OnEvents
from authz.ledger.lookup import find_call, find_opening, find_posting
from authz.ledger.streams import CHANGES, STREAMS, DrainStatus, Stream
from authz.store import keys
from authz.store.client import StoreClient
from authz.store.identity import check_store_identity

_TURN_SECONDS: Final = 1
#: A forked bucket may have been repaired: it is tried again after so many turns.
_LOOK_AGAIN_TURNS: Final = 10
_BACKOFF_SECONDS_MAX: Final = 30
#: After a transaction others have processor, store and disk for so many times as long as it took of
#: the processor: what is left is enough for 20,000 movements a second. Behind, it takes half of the
#: time; and further behind than this all that the kernel gives it, until it has caught up.
_PAUSES: Final = 3
_PAUSES_BEHIND: Final = 1
_LAG_SECONDS_MAX: Final = 30
_PAUSE_MS_MAX: Final = 50
_CLOSE_SECONDS_MAX: Final = 10
_DEADLINE_MS: Final = 5_000
#: Pages of changes that a question waits for.
_CHANGES_TURNS_MAX: Final = 100

T = TypeVar("T")


class Archive:
    """The archive; it may be asked once it is open, and says ArchiveUnavailable before."""

    def __init__(
        self, client: StoreClient, settings: Settings, on_events: OnEvents | None = None
    ) -> None:
        """Use `start` to open it and drain into it, or `open` only to ask it."""
        self._client = client
        self._settings = settings
        self._on_events = on_events
        self._database: Database | None = None
        self._drain: Drain | None = None
        self._obstacle: ArchiveUnavailable = ArchiveUnavailable("the archive is not open yet")
        #: Whether the store that answers now is known to be this archive's.
        self._is_proved = False
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._pause_seconds = _TURN_SECONDS
        #: When the last turn over all streams began, in the loop's time.
        self._looked_at = -math.inf
        client.on_run_id_change(self._doubt)

    @property
    def database(self) -> Database:
        """The open database; raises ArchiveUnavailable, or ArchiveElsewhere."""
        if self._database is None or not self._is_proved:
            self._refuse()
        return self._database

    @property
    def statuses(self) -> tuple[DrainStatus, ...]:
        """How far each stream was archived at the last turn."""
        return () if self._drain is None else self._drain.statuses

    @property
    def obstacle(self) -> str | None:
        """Why nothing is archived at present, or None."""
        return None if self._is_proved else str(self._obstacle)

    @property
    def rows_total(self) -> int:
        """Rows archived by this process."""
        return 0 if self._drain is None else self._drain.rows_total

    def start(self) -> None:
        """Open and drain in the background until closed."""
        self._task = asyncio.create_task(self._run(), name="archive")

    async def open(self, *, create: bool) -> None:
        """Open the database and prove that it is the store's.

        To `create` is for whoever also drains: a new database becomes the store's archive if
        that has none. Raises ArchiveUnavailable, ArchiveElsewhere, ConfigError or StoreError.
        """
        settings = self._settings
        try:
            if self._database is None:
                self._database = await Database.open(
                    settings.archive.url, settings.state_dir, create=create
                )
            await self._prove(self._database, create)
        except ArchiveUnavailable as error:
            self._obstacle = error
            raise
        if self._drain is None:
            self._drain = Drain(
                self._client,
                self._database,
                delay_seconds=settings.archive.delay_seconds,
                keep_seconds=settings.archive.keep_seconds,
                on_events=self._on_events,
            )
            log.event("archive_opened", archive=self._database.address)

    async def stop(self) -> None:
        """Let the turn that runs end, and drain no more."""
        self._stopping.set()
        if self._task is not None:
            await asyncio.wait([self._task], timeout=_CLOSE_SECONDS_MAX)
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def close(self) -> None:
        """Drain no more, and close the database."""
        await self.stop()
        if self._database is not None:
            await self._database.close()
            self._database = None

    async def catch_up(self, account: str) -> None:
        """Archive all that the ledger of an account's bucket has by now, but not endlessly.

        Raises ArchiveUnavailable also when that bucket is forked; an account without a ledger is
        nothing to wait for.
        """
        if self._drain is None or not self._is_proved:
            self._refuse()
        root = await self._client.execute("GET", keys.root(account), deadline_ms=_DEADLINE_MS)
        if root is not None:
            await self._drain.catch_up(keys.TAGS.index(keys.tag_of_root(root.decode())))

    async def catch_up_changes(self) -> None:
        """Archive the changes that the store has by now; raises as `catch_up` does."""
        if self._drain is None or not self._is_proved:
            self._refuse()
        for _ in range(_CHANGES_TURNS_MAX):
            if not await self._drain.turn((CHANGES,), delayed=False):
                return

    async def posting(self, account: str, reference: str) -> ArchivedPosting | None:
        """Return what a reference of an account did, if that is archived."""
        return await self._ask(lambda one: find_posting(one, account, reference))

    async def call(self, account: str, call_id: str) -> ArchivedCall | None:
        """Return what a call of an account was charged, if that is archived."""
        return await self._ask(lambda one: find_call(one, account, call_id))

    async def opening(self, bucket: int, before_sequence: int | None) -> BucketOpening:
        """Return the sums of a bucket's archived entries below a number, or of all of them."""
        return await self._ask(lambda one: find_opening(one, bucket, before_sequence))

    async def _ask(self, question: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        async with self.database.read() as connection:
            return await question(connection)

    def _refuse(self) -> NoReturn:
        raise type(self._obstacle)(str(self._obstacle))

    def _doubt(self, _previous: str, _present: str) -> None:
        # Another server answers; it may have other data.
        self._is_proved = False
        self._obstacle = ArchiveUnavailable("another server answers in the store's place")

    async def _prove(self, database: Database, create: bool) -> None:
        """Claim the store for this archive, or prove that it is claimed for it."""
        identity = await check_store_identity(self._client)
        row = await (database.identify(identity) if create else database.identity())
        if row is None or row.store_identity != identity:
            raise ArchiveElsewhere(f"{database.address} is the archive of another store")
        if create:
            await self._client.execute("SET", keys.archive(), row.id, "NX")
        claimed = await self._client.execute("GET", keys.archive())
        if claimed != row.id.encode():
            raise ArchiveElsewhere(
                f"the store's archive is {(claimed or b'none').decode()}, not {row.id} "
                f"at {database.address}"
            )
        self._is_proved = True

    # The background.

    async def _run(self) -> None:
        turns = 0
        while not self._stopping.is_set():
            turns += 1
            more = False
            try:
                more = await self._turn(turns)
            except Exception as error:
                self._failed(error)
            if not more:
                await self._sleep()

    async def _turn(self, turns: int) -> bool:
        if not self._is_proved:
            await self.open(create=True)
        if self._drain is None:
            self._refuse()
        if self._drain.is_forked and turns % _LOOK_AGAIN_TURNS == 0:
            await self._drain.look_again()
        more = await self._drain.turn(self._streams(self._drain), give_way=self._give_way)
        if self._pause_seconds > _TURN_SECONDS:
            log.event("archive_resumed")
        self._pause_seconds = _TURN_SECONDS
        return more

    def _streams(self, drain: Drain) -> Sequence[Stream]:
        """Return what to drain: all, or until that is due again only where much is waiting."""
        now = asyncio.get_running_loop().time()
        if drain.full and now - self._looked_at < _TURN_SECONDS:
            return [stream for stream in STREAMS if stream in drain.full]
        self._looked_at = now
        return STREAMS

    async def _give_way(self, worked_seconds: float) -> None:
        drain = self._drain
        if drain is None or self._stopping.is_set() or drain.lag_seconds > _LAG_SECONDS_MAX:
            return
        pauses = _PAUSES_BEHIND if drain.full else _PAUSES
        await asyncio.sleep(min(pauses * worked_seconds, _PAUSE_MS_MAX / 1_000))

    def _failed(self, error: Exception) -> None:
        """Say once per outage what is wrong, and pause for longer each time."""
        expected = isinstance(error, ArchiveUnavailable | StoreError)
        if self._pause_seconds == _TURN_SECONDS:
            log.event("archive_stopped", level="warning" if expected else "error", error=error)
        if not self._is_proved and not isinstance(error, ArchiveUnavailable):
            self._obstacle = ArchiveUnavailable(str(error))
        self._pause_seconds = min(2 * self._pause_seconds, _BACKOFF_SECONDS_MAX)

    async def _sleep(self) -> None:
        wait = asyncio.create_task(self._stopping.wait())
        await asyncio.wait([wait], timeout=self._pause_seconds)
        wait.cancel()


async def claim_store(client: StoreClient, settings: Settings, lost_id: str) -> str:
    """Make the archive of the settings the store's, instead of the one named; return its id.

    Raises Conflict when the store's archive is not that one, ArchiveElsewhere when this one is
    another store's.
    """
    database = await Database.open(settings.archive.url, settings.state_dir)
    try:
        identity = await check_store_identity(client)
        row = await database.identify(identity)
        if row.store_identity != identity:
            raise ArchiveElsewhere(f"{database.address} is the archive of another store")
        claimed = await client.execute("GET", keys.archive())
        if claimed != lost_id.encode():
            raise Conflict(f"the store's archive is {(claimed or b'none').decode()}, not {lost_id}")
        await client.execute("SET", keys.archive(), row.id)
        return row.id
    finally:
        await database.close()
