"""Orphans: calls whose lease ran out unheard of, claimed bucket by bucket.

Any number of sweepers may run: the stamp of a bucket lies in the store, and the script that
claims a call checks the lease itself.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from msgspec import Struct

from authz import log, meters
from authz.engine.context import ATTEMPTS_MAX, Context
from authz.engine.plans import call_key
from authz.errors import AuthzError
from authz.model import SwitchRestarted
from authz.reasons import CallClass, Outcome
from authz.store import keys
from authz.store.constants import Policy, State
from authz.store.layouts import SETTLE
from authz.store.records import CallRecord, ledger_strings, unpack_call

PAGE_MEMBERS = 500
PASS_SECONDS = 5
_CLOCK_JUMP_SECONDS = 5
_ORPHANED = meters.counter("authz_calls_orphaned_total")


class SweepReport(Struct, frozen=True):
    """What one pass over the buckets did; `waiting` buckets were not yet trusted."""

    orphaned: int
    waiting: int


class Sweeper:
    """Claims orphans in every bucket, again and again."""

    def __init__(self, context: Context, pass_seconds: int = PASS_SECONDS) -> None:
        self._context = context
        self._pass_seconds = pass_seconds
        #: By how much each bucket's server was ahead of this host when it was last noted.
        self._clock_offsets_seconds: dict[str, int] = {}
        #: Calls claimed since this process started.
        self.orphaned_total = 0

    async def run(self) -> None:
        """Sweep until cancelled; a store that is away is only waited for."""
        while True:
            try:
                report = await self.sweep()
                if report.orphaned:
                    log.event("calls_orphaned", calls=report.orphaned)
            except AuthzError as error:
                log.event("sweep_failed", level="warning", error=error)
            await asyncio.sleep(self._pass_seconds)

    async def sweep(self) -> SweepReport:
        """Pass once over all buckets."""
        orphaned = waiting = 0
        for tag in keys.TAGS:
            claimed, waits = await self._sweep_bucket(tag)
            orphaned += claimed
            waiting += waits
        self.orphaned_total += orphaned
        return SweepReport(orphaned, waiting)

    async def _sweep_bucket(self, tag: str) -> tuple[int, bool]:
        context = self._context
        calls = context.settings.calls
        claimed, jumped = 0, False
        while True:
            now, wait_seconds, *due = await context.client.call_script(
                context.scripts["sweep"],
                [keys.leases(tag), keys.bucket(tag)],
                [
                    (context.client.run_id or "").encode(),
                    max(calls.grace_seconds, 2 * self._pass_seconds),
                    calls.chunk_seconds + calls.grace_seconds,
                    int(jumped),
                    PAGE_MEMBERS,
                ],
            )
            if self._has_clock_jumped(tag, now):
                # Asked again with the doubt: nothing that this answer calls due is claimed.
                jumped = True
                continue
            jumped = False
            if wait_seconds:
                return claimed, True
            page = 0
            for member in due:
                page += await claim(context, tag, member, forced=False)
            claimed += page
            if len(due) < PAGE_MEMBERS or not page:
                return claimed, False

    def _has_clock_jumped(self, tag: str, store_seconds: int) -> bool:
        """Return whether the clocks of the bucket's server and of this host have parted."""
        offset = store_seconds - int(time.time())
        if abs(offset - self._clock_offsets_seconds.get(tag, 0)) <= _CLOCK_JUMP_SECONDS:
            return False
        self._clock_offsets_seconds[tag] = offset
        self._context.clock.correct(store_seconds)
        return True


async def claim(context: Context, tag: str, member: bytes, *, forced: bool) -> bool:
    """Make an orphan of one call whose lease has run out (or at once, `forced`)."""
    account, call_id = keys.split_member(member)
    for _ in range(ATTEMPTS_MAX):
        chain = await context.directory.chain(account)
        if chain is None:
            # A closed account owes nothing; its lease would only stand in the way of others.
            log.event("orphan_without_account", level="error", account=account, call_id=call_id)
            await context.client.execute("ZREM", keys.leases(tag), member)
            return False
        packed = await context.client.execute("GET", keys.call(tag, account, call_id))
        record = None if packed is None else unpack_call(packed)
        valid_from, valid_until = chain.validity(context.clock.now())
        names = [one.id for one in chain.accounts]
        now = context.clock.now()
        reply = await context.run(
            "orphan",
            chain,
            call_id,
            [
                _numbers(context, record, valid_from, valid_until, forced),
                keys.call_digest(account, call_id),
                member,
                b"",
                ledger_strings(names, call_id, "" if record is None else record.tail.number),
                *(one.limits(CallClass.UNKNOWN, now) for one in chain.accounts),
            ],
            context.settings.store.settle_deadline_ms,
        )
        if reply[0] == Outcome.STALE_CALL or context.is_stale(reply, chain):
            continue
        claimed = bool(reply[0] == 0)
        if claimed:
            _ORPHANED.add()
            context.memory.forget(account, call_id)
            context.gate.closed(call_key(account, call_id))
        return claimed
    return False


def _numbers(
    context: Context, record: CallRecord | None, valid_from: int, valid_until: int, forced: bool
) -> bytes:
    head: Any = None if record is None else record.head
    return SETTLE.pack(
        attempt=0 if head is None else head.attempt,
        valid_from=valid_from,
        valid_until=valid_until,
        legs=0 if head is None else head.legs,
        policy=Policy[context.settings.calls.orphan_policy.upper()],
        used_seconds=0 if head is None else head.used_seconds,
        started_at=0 if head is None else head.authorized_us // 1_000_000,
        closed_hours=context.closed_hours,
        force=forced,
    )


async def orphan_calls(context: Context, is_meant: Callable[[CallRecord], bool]) -> int:
    """Make orphans of all open calls that `is_meant` picks; pages the leases of every bucket."""
    orphaned = 0
    for tag in keys.TAGS:
        cursor = b"0"
        while True:
            cursor, page = await context.client.execute(
                "ZSCAN", keys.leases(tag), cursor, "COUNT", PAGE_MEMBERS
            )
            for member in page[::2]:
                packed = await context.client.execute(
                    "GET", keys.call(tag, *keys.split_member(member))
                )
                record = None if packed is None else unpack_call(packed)
                if record is not None and record.state == State.OPEN and is_meant(record):
                    orphaned += await claim(context, tag, member, forced=True)
            if cursor == b"0":
                break
    return orphaned


async def orphan_switch(context: Context, switch: str) -> SwitchRestarted:
    """Make orphans of all calls that a switch had open before now."""
    seconds, micros = await context.client.execute("TIME")
    before_us = int(seconds) * 1_000_000 + int(micros)
    count = await orphan_calls(
        context,
        lambda record: record.tail.switch == switch and record.head.authorized_us < before_us,
    )
    log.event("switch_restarted", switch=switch, orphaned=count)
    return SwitchRestarted(switch=switch, orphaned=count)
