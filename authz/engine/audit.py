"""`authz audit`: checks on a live store that every invariant holds, one bucket at a time.

It reads in pages of 500 at most and writes nothing. What moves meanwhile is read again; only
what stands still and is wrong is a finding.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Final

from msgspec import Struct

from authz.archived import LedgerArchive
from authz.engine.audit_calls import CallAudit
from authz.engine.audit_ledger import DEADLINE_MS, PAGE, LedgerWalk
from authz.store import keys
from authz.store.client import StoreClient
from authz.store.layouts import ACCOUNT_STATE

#: Tombstones of older calls are gone with the default `store.closed_keep_seconds`.
_TOMBSTONE_HOURS: Final = 26
#: How often an account is looked at whose ledger entry goes into the archive meanwhile.
_LOOKS_MAX: Final = 6

#: Told how many buckets are done, of how many.
Progress = Callable[[int, int], None]


class Finding(Struct, frozen=True):
    """Something that must not be. `account` is empty for what concerns a whole bucket."""

    bucket: int
    account: str
    invariant: str
    expected: str
    found: str


class AuditReport(Struct, frozen=True, kw_only=True):
    """What an audit has looked at and found. Without findings every invariant holds.

    `moving` names accounts whose calls changed during every look, so that their holds and
    counters could not be compared; their ledger was checked all the same.
    """

    buckets: int
    accounts: int
    calls: int
    entries: int
    findings: tuple[Finding, ...]
    moving: tuple[str, ...]
    duration_ms: int


async def audit(
    client: StoreClient,
    buckets: Iterable[int] | None = None,
    progress: Progress | None = None,
    *,
    tombstone_hours: int = _TOMBSTONE_HOURS,
    archive: LedgerArchive | None = None,
    needs_archive: bool = False,
) -> AuditReport:
    """Audit some buckets (by index), or all of them; raises StoreError if the store fails.

    A ledger that was trimmed is whole only together with its `archive`. One that cannot be asked
    is a finding, or with `needs_archive` ArchiveUnavailable.
    """
    started_ns = time.monotonic_ns()
    chosen = range(keys.BUCKETS) if buckets is None else tuple(buckets)
    findings: list[Finding] = []
    moving: list[str] = []
    accounts = calls = entries = 0
    for done, bucket in enumerate(chosen):
        if progress is not None:
            progress(done, len(chosen))
        one = _BucketAudit(client, bucket, tombstone_hours, archive, needs_archive)
        await one.run()
        findings += one.findings
        moving += {*one.calls.moving, *one.unsettled}
        accounts += len(one.calls.nodes)
        calls += one.calls.calls
        entries += one.walk.entries
    if progress is not None:
        progress(len(chosen), len(chosen))
    return AuditReport(
        buckets=len(chosen),
        accounts=accounts,
        calls=calls,
        entries=entries,
        findings=tuple(findings),
        moving=tuple(moving),
        duration_ms=(time.monotonic_ns() - started_ns) // 1_000_000,
    )


class _BucketAudit:
    """The audit of one bucket."""

    def __init__(
        self,
        client: StoreClient,
        bucket: int,
        tombstone_hours: int,
        archive: LedgerArchive | None,
        needs_archive: bool,
    ) -> None:
        self._client = client
        self._bucket = bucket
        self._tag = keys.TAGS[bucket]
        self._tombstone_hours = tombstone_hours
        self.findings: list[Finding] = []
        #: Accounts whose movements an archive took away faster than they could be read.
        self.unsettled: list[str] = []
        self.walk = LedgerWalk(client, self._tag, self._report, archive, needs_archive)
        self.calls = CallAudit(client, self._tag, self.walk, self._report)

    def _report(self, account: str, invariant: str, expected: str, found: str) -> None:
        self.findings.append(Finding(self._bucket, account, invariant, expected, found))

    async def run(self) -> None:
        await self.walk.begin()
        await self.calls.run()
        await self.walk.check_tombstones(self._tombstone_hours)
        names = sorted(self.calls.nodes.keys() | self.walk.positions.keys())
        for start in range(0, len(names), PAGE):
            pending = names[start : start + PAGE]
            for _ in range(_LOOKS_MAX):
                pending = await self._check_balances(pending)
                if not pending:
                    break
            self.unsettled += pending
        await self._check_bucket()

    async def _check_balances(self, names: list[str]) -> list[str]:
        """Compare sequence and balance of accounts with their ledger entries.

        Returns those whose entry was archived and trimmed before it could be read.
        """
        overtaken = []
        # A state that is read after an entry cannot be older than it.
        known_before = {name: one.sequence for name, one in self.walk.positions.items()}
        rows = await asyncio.gather(*(self._account(name) for name in names))
        states = {}
        for name, (packed, closed) in zip(names, rows, strict=True):
            if packed is not None:
                states[name] = ACCOUNT_STATE.unpack(packed)
            elif closed is None:
                self._report(name, "an account is open or closed", "a state", "none")
            elif name in self.walk.positions and self.walk.positions[name].balance != 0:
                found = str(self.walk.positions[name].balance)
                self._report(name, "a closed account has no balance", "0", found)
        positions = self.walk.positions
        known = {
            name: positions[name].balance
            for name, state in states.items()
            if name in positions and positions[name].sequence == state.sequence
        }
        await self.walk.advance(
            {name: state.sequence for name, state in states.items() if name not in known}
        )
        known |= self.walk.captured
        for name, state in states.items():
            if name in known:
                if state.balance != known[name]:
                    expected, found = str(known[name]), str(state.balance)
                    self._report(name, "balance is the sum of the ledger", expected, found)
            elif name in positions and (
                known_before.get(name, 0) <= state.sequence < positions[name].sequence
            ):
                overtaken.append(name)
            elif name in positions or self.walk.is_opened or not self.walk.is_trimmed:
                self._check_unbooked(name, state.sequence, state.balance)
        return overtaken

    def _check_unbooked(self, name: str, sequence: int, balance: int) -> None:
        """Look at an account whose sequence has no entry: right only if nothing ever moved."""
        if sequence == 0 and balance == 0 and name not in self.walk.positions:
            return
        last = self.walk.positions.get(name)
        expected = "no movement" if last is None else f"movement {last.sequence}"
        self._report(name, "account sequence", expected, f"{sequence}, balance {balance}")

    async def _account(self, name: str) -> tuple[bytes | None, bytes | None]:
        packed, closed = await self._client.execute(
            "HMGET", keys.account(self._tag, name), "s", "closed", deadline_ms=DEADLINE_MS
        )
        return packed, closed

    async def _check_bucket(self) -> None:
        """Compare the bucket's counter with the last entry of its ledger."""
        counted = await self._client.execute(
            "HGET", keys.bucket(self._tag), "sequence", deadline_ms=DEADLINE_MS
        )
        await self.walk.advance()
        sequence = int(counted or 0)
        if self.walk.sequence < sequence:
            self._report("", "bucket sequence", str(sequence), str(self.walk.sequence))
