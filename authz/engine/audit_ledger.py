"""The audit's walk along one bucket's ledger: sequences, balances, settlements of calls.

It reads a live stream from its oldest entry to its newest, as often as it is asked for more, and
keeps per account the last movement and per call what was booked. Of entries that an archive has
taken away it asks that archive for their sums; without it, a ledger that begins late is a finding.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from authz.archived import BucketOpening, LedgerArchive
from authz.errors import ArchiveUnavailable, InvariantError
from authz.store import keys
from authz.store.client import StoreClient
from authz.store.constants import Kind, Mark
from authz.store.records import LedgerEntry, LedgerLeg, unpack_ledger_entry, unpack_tombstone

PAGE: Final = 500
DEADLINE_MS: Final = 10_000
_SECONDS_PER_HOUR: Final = 3600

#: Called with account, invariant, what is expected and what was found.
Report = Callable[[str, str, str, str], None]


class Position(NamedTuple):
    """An account's last movement as read so far."""

    sequence: int
    balance: int


class Booking:
    """What the ledger says of one call."""

    __slots__ = ("account", "is_final", "is_provisional", "is_whole", "sums")

    def __init__(self, account: str, legs: int, is_whole: bool) -> None:
        self.account = account
        self.is_final = False
        self.is_provisional = False
        #: False when what came before the first entry read is in an archive.
        self.is_whole = is_whole
        self.sums = [0] * legs


class LedgerWalk:
    """One bucket's ledger as read so far."""

    def __init__(
        self,
        client: StoreClient,
        tag: str,
        report: Report,
        archive: LedgerArchive | None = None,
        needs_archive: bool = False,
    ) -> None:
        self._client = client
        self._archive = archive
        self._needs_archive = needs_archive
        self._stream = keys.ledger(tag)
        self._tag = tag
        self._report = report
        self._last_id = b"-"
        self._wanted: dict[str, int] = {}
        #: Balances after the movements that `advance` was asked to look for.
        self.captured: dict[str, int] = {}
        self.positions: dict[str, Position] = {}
        self.bookings: dict[bytes, Booking] = {}
        self.entries = 0
        self.sequence = 0
        #: Whether entries before the first one read are in an archive, and it told their sums.
        self.is_trimmed = False
        self.is_opened = False

    async def begin(self) -> None:
        """Read all entries; those that are not there at the end either, an archive may have."""
        counted = await self._ask_store("HGET", keys.bucket(self._tag), "sequence")
        await self.advance()
        if self.sequence < int(counted or 0):
            opening, _ = await self._ask(int(counted) + 1)
            if opening is not None:
                self.is_trimmed = True
                self.positions.clear()
                self._begin(opening, int(counted))

    async def _ask_store(self, *command: bytes | str | int) -> Any:
        """Ask with patience: an audit is nothing that a call waits for."""
        return await self._client.execute(*command, deadline_ms=DEADLINE_MS)

    async def advance(self, wanted: dict[str, int] | None = None) -> None:
        """Read to the newest entry, capturing the balances after the `wanted` sequences."""
        self._wanted = wanted or {}
        self.captured = {}
        while True:
            start = self._last_id if self._last_id == b"-" else b"(" + self._last_id
            page = await self._ask_store("XRANGE", self._stream, start, "+", "COUNT", PAGE)
            for entry_id, fields in page:
                await self._take(entry_id, fields[1])
            if len(page) < PAGE:
                break
        # A stream without entries that exists has had some.
        is_untouched = not self.entries and not self.is_trimmed
        if is_untouched and await self._ask_store("EXISTS", self._stream):
            await self._open(None)

    async def _take(self, entry_id: bytes, packed: bytes) -> None:
        self._last_id = entry_id
        self.entries += 1
        try:
            entry = unpack_ledger_entry(entry_id, packed)
        except (InvariantError, struct.error, IndexError, ValueError) as error:
            self._report("", "ledger entry", "readable", f"{entry_id.decode()}: {error}")
            return
        if entry.sequence != self.sequence + 1:
            await self._skip(entry_id, entry.sequence)
        self.sequence = entry.sequence
        for leg in entry.legs:
            self._move(leg)
        if entry.kind == Kind.CALL:
            self._book(entry)

    async def _skip(self, entry_id: bytes, sequence: int) -> None:
        """Tell a gap from entries that an archive has taken, at the start or under our feet."""
        oldest = await self._ask_store("XRANGE", self._stream, "-", "+", "COUNT", 1)
        is_first = not oldest or oldest[0][0] >= entry_id
        # What the store has lost in the middle, a repaired archive has an adjustment for.
        if sequence > self.sequence and (is_first or self._archive is not None):
            await self._open(sequence)
            return
        self._report("", "bucket sequence", str(self.sequence + 1), str(sequence))

    async def _open(self, before_sequence: int | None) -> None:
        """Begin with what the archive holds below an entry of the stream, or with all of it."""
        is_first = not self.is_trimmed
        self.is_trimmed = True
        self.is_opened = False
        self.positions.clear()
        opening, obstacle = await self._ask(before_sequence)
        if opening is None:
            if is_first:
                self._report("", "the ledger is whole", "entries from 1", f"trimmed; {obstacle}")
            return
        self._begin(opening, opening.sequence if before_sequence is None else before_sequence - 1)
        if is_first:
            for account, call_id in opening.settled_twice:
                self._report(account, "one final settlement", "one", f"several of {call_id}")

    async def _ask(self, before_sequence: int | None) -> tuple[BucketOpening | None, str]:
        """Return what the archive holds, or why it does not tell."""
        if self._archive is None:
            return None, "no archive is at hand"
        try:
            bucket = keys.TAGS.index(self._tag)
            return await self._archive.opening(bucket, before_sequence), ""
        except ArchiveUnavailable as error:
            if self._needs_archive:
                raise
            return None, str(error)

    def _begin(self, opening: BucketOpening, sequence: int) -> None:
        """Go on from archived sums, which reach up to an entry if they are whole."""
        if (opening.entries, opening.sequence) != (sequence, sequence):
            found = f"{opening.entries} entries, the last {opening.sequence}"
            self._report("", "what was trimmed is archived", f"entries 1 to {sequence}", found)
        for account, one in opening.accounts.items():
            if one.movements != one.sequence:
                found = f"{one.movements} up to {one.sequence} in the archive"
                self._report(account, "account sequence", "no gap", found)
            self.positions[account] = Position(one.sequence, one.amount_sum)
        self.sequence = sequence
        self.is_opened = True

    def _move(self, leg: LedgerLeg) -> None:
        last = self.positions.get(leg.account)
        if last is None:
            last = Position(0, 0)
            if self.is_trimmed and not self.is_opened:
                last = Position(leg.sequence - 1, leg.balance - leg.amount)
        if leg.sequence != last.sequence + 1:
            self._report(leg.account, "account sequence", str(last.sequence + 1), str(leg.sequence))
        elif leg.balance != last.balance + leg.amount:
            self._report(
                leg.account,
                "balance is the sum of the ledger",
                f"{last.balance + leg.amount} after movement {leg.sequence}",
                str(leg.balance),
            )
        self.positions[leg.account] = Position(leg.sequence, leg.balance)
        if self._wanted.get(leg.account) == leg.sequence:
            self.captured[leg.account] = leg.balance

    def _book(self, entry: LedgerEntry) -> None:
        account = entry.legs[0].account
        digest = keys.call_digest(account, entry.reference)
        is_correction = Mark.CORRECTION in entry.marks
        booking = self.bookings.get(digest)
        if booking is None:
            is_whole = not (self.is_trimmed and is_correction)
            booking = self.bookings[digest] = Booking(account, len(entry.legs), is_whole)
            booking.is_provisional = not is_whole
        what = f"entry {entry.sequence} of call {entry.reference} ({entry.marks!r})"
        if booking.is_final:
            self._report(account, "one final settlement", "nothing after the final one", what)
        if is_correction != booking.is_provisional:
            expected = "a correction" if booking.is_provisional else "no correction"
            self._report(account, "one final settlement", expected, what)
        for index, leg in enumerate(entry.legs):
            booking.sums[index] += leg.amount
            if booking.is_whole and booking.sums[index] > 0:
                found = f"{booking.sums[index]} after {what}"
                self._report(leg.account, "a call gives no money", "at most 0", found)
        booking.is_provisional = Mark.PROVISIONAL in entry.marks and not is_correction
        booking.is_final = Mark.PROVISIONAL not in entry.marks
        if Mark.PROVISIONAL in entry.marks and is_correction and booking.is_whole:
            self._check_reversed(account, booking, what)

    def _check_reversed(self, account: str, booking: Booking, what: str) -> None:
        if any(booking.sums):
            self._report(account, "a reopened call is not charged", "0", f"{booking.sums}: {what}")

    async def check_tombstones(self, hours: int) -> None:
        """Compare the tombstones of the last hours with what the ledger says was charged."""
        (now, _) = await self._ask_store("TIME")
        hour = int(now) // _SECONDS_PER_HOUR
        prefix = keys.closed_prefix(self._tag)
        hashes = [prefix + b"%d" % (hour - back) for back in range(hours + 1)]
        # In most buckets of most installations nothing was settled for a day.
        if not await self._ask_store("EXISTS", *hashes):
            return
        lengths = await asyncio.gather(*(self._ask_store("HLEN", one) for one in hashes))
        for one in (one for one, length in zip(hashes, lengths, strict=True) if length):
            cursor = b"0"
            while True:
                cursor, fields = await self._ask_store("HSCAN", one, cursor, "COUNT", PAGE)
                # Whatever has a tombstone by now has its ledger entry too.
                await self.advance()
                for digest, packed in zip(fields[::2], fields[1::2], strict=True):
                    self._check_tombstone(digest, packed)
                if cursor == b"0":
                    break

    def _check_tombstone(self, digest: bytes, packed: bytes) -> None:
        booking = self.bookings.get(digest)
        if booking is None:
            if not self.is_trimmed:
                found = f"only the tombstone {digest.hex()}"
                self._report("", "one final settlement", "one ledger entry", found)
            return
        if not booking.is_final:
            self._report(
                booking.account, "one final settlement", "a final entry", f"none: {digest.hex()}"
            )
        costs = unpack_tombstone(packed).costs
        charged = tuple(-amount for amount in booking.sums)
        if booking.is_whole and costs != charged:
            self._report(booking.account, "a call is charged its cost", str(costs), str(charged))
