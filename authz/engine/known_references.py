"""References that only the archive still knows: the store forgets them after 35 days."""

from __future__ import annotations

from authz import log
from authz.archived import ArchivedPosting, LedgerArchive
from authz.errors import ArchiveUnavailable, Conflict
from authz.store.constants import Kind


async def find_known(
    archive: LedgerArchive | None, account_id: str, reference: str
) -> ArchivedPosting | None:
    """Return what a reference did, as far as an archive is at hand that knows it."""
    if archive is None:
        return None
    try:
        return await archive.posting(account_id, reference)
    except ArchiveUnavailable as error:
        # The store alone knows the references of 35 days; money must not wait for the archive.
        log.event("reference_not_looked_up", level="debug", account=account_id, error=error)
        return None


def check_same(
    known: ArchivedPosting, account_id: str, reference: str, kind: Kind, amount: int | None
) -> None:
    """Raise Conflict unless a posting is the one that its reference has booked.

    `amount` names it as in the store: that of its first leg that is moved at all; None of a
    refund of all that is left of a call.
    """
    booked = next((moved for moved in known.amounts if moved), 0)
    if known.kind != kind or amount not in (None, booked):
        raise Conflict(
            f"reference {reference} of account {account_id} is used with another amount or kind"
        )
