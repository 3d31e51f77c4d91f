"""The archive of a command's session, opened when it is first asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from authz.archived import ArchivedCall, ArchivedPosting, BucketOpening
from authz.config import Settings
from authz.store.client import StoreClient

if TYPE_CHECKING:
    from authz.ledger.archive import Archive


class LazyArchive:
    """A `LedgerArchive` that most commands never ask, so that they need not wait for it.

    It makes no new archive: where there is none, every method raises ArchiveUnavailable.
    """

    def __init__(self, client: StoreClient, settings: Settings) -> None:
        self._client = client
        self._settings = settings
        self._archive: Archive | None = None

    async def opened(self) -> Archive:
        """Return the open archive; raises ArchiveUnavailable, ArchiveElsewhere or ConfigError."""
        if self._archive is None:
            # SQLAlchemy takes longer to import than most commands to run.
            from authz.ledger.archive import Archive

            archive = Archive(self._client, self._settings)
            try:
                await archive.open(create=False)
            except BaseException:
                await archive.close()
                raise
            self._archive = archive
        return self._archive

    async def close(self) -> None:
        """Close the archive, if it was opened."""
        if self._archive is not None:
            await self._archive.close()

    async def posting(self, account: str, reference: str) -> ArchivedPosting | None:
        """Return what a reference of an account did, if that is archived."""
        return await (await self.opened()).posting(account, reference)

    async def call(self, account: str, call_id: str) -> ArchivedCall | None:
        """Return what a call of an account was charged, if that is archived."""
        return await (await self.opened()).call(account, call_id)

    async def opening(self, bucket: int, before_sequence: int | None) -> BucketOpening:
        """Return the sums of a bucket's archived entries below a number, or of all of them."""
        return await (await self.opened()).opening(bucket, before_sequence)

    async def catch_up(self, account: str) -> None:
        """Archive all that the ledger of an account's bucket has by now."""
        await (await self.opened()).catch_up(account)
