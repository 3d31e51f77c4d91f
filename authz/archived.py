"""What the archive of the ledger is asked by those who know no database: words and a protocol.

Amounts are micros; a charge is negative in the ledger and positive in `costs`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol


class ArchivedPosting(NamedTuple):
    """What a credit's or debit's reference did: kind (a number of `Kind`), amount per leg."""

    kind: int
    sequence: int
    amounts: tuple[int, ...]
    #: The call that a refund gave back; empty otherwise.
    refunded_call: str


class ArchivedCall(NamedTuple):
    """A call that was booked, over all its entries; leaf first.

    `seconds` and `billings` are those of its last one of `entries`, `costs` what it was charged in
    all, `given` what refunds gave back of that.
    """

    entries: int
    is_final: bool
    seconds: int
    accounts: tuple[str, ...]
    billings: tuple[int, ...]
    costs: tuple[int, ...]
    given: tuple[int, ...]


class Opening(NamedTuple):
    """One account's archived movements: how many, their sum, and the last one's number."""

    movements: int
    amount_sum: int
    sequence: int


class BucketOpening(NamedTuple):
    """A bucket's archived ledger up to an entry: how many entries, their sums per account.

    `settled_twice` names calls, as account and call_id, with more than one final settlement; of
    many, the first hundred.
    """

    entries: int
    sequence: int
    accounts: Mapping[str, Opening]
    settled_twice: tuple[tuple[str, str], ...]


class LedgerArchive(Protocol):
    """An archive that holds all that its store's ledgers have lost to it.

    Every method raises ArchiveUnavailable when it cannot be asked now.
    """

    async def posting(self, account: str, reference: str) -> ArchivedPosting | None:
        """Return what a reference of an account did, if that is archived."""

    async def call(self, account: str, call_id: str) -> ArchivedCall | None:
        """Return what a call of an account was charged, if that is archived."""

    async def opening(self, bucket: int, before_sequence: int | None) -> BucketOpening:
        """Return the sums of a bucket's archived entries below a number, or of all of them."""

    async def catch_up(self, account: str) -> None:
        """Archive all that the ledger of an account's bucket has by now."""
