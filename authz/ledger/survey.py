"""What `authz archive status` shows: whose archive it is, and how far it has come."""

from __future__ import annotations

from msgspec import Struct

from authz.ledger.database import Database
from authz.ledger.drain import Drain
from authz.ledger.streams import DrainStatus
from authz.store import keys
from authz.store.client import StoreClient


class ArchiveSurvey(Struct, frozen=True, kw_only=True):
    """An archive beside the store that it should be of.

    `archive` is its id and `claimed` the one that the store names, each null before the first
    office has started.
    """

    address: str
    archive: str | None
    claimed: str | None
    streams: tuple[DrainStatus, ...]

    @property
    def is_claimed(self) -> bool:
        """Whether this archive is the store's."""
        return self.archive is not None and self.archive == self.claimed

    @property
    def forked(self) -> tuple[DrainStatus, ...]:
        """The streams that wait for a decision."""
        return tuple(one for one in self.streams if one.fork is not None)


async def survey(client: StoreClient, database: Database) -> ArchiveSurvey:
    """Look at an archive and its store, changing neither.

    Raises StoreError and ArchiveUnavailable.
    """
    row = await database.identity()
    claimed = await client.execute("GET", keys.archive())
    drain = Drain(client, database, delay_seconds=0, keep_seconds=0, is_quiet=True)
    is_ours = row is not None and claimed == row.id.encode()
    return ArchiveSurvey(
        address=database.address,
        archive=None if row is None else row.id,
        claimed=None if claimed is None else claimed.decode(),
        streams=await drain.inspect() if is_ours else (),
    )
