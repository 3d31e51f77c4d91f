"""Settles of calls that ended longer ago than the store remembers calls.

Whoever gets one cannot tell whether it is booked: it goes into a stream of the store, where the
office process finds it, looks into the archive, in which a call of an account is unique for ever,
and books it, drops it as a repeat or makes a dead letter of it.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Final

import msgspec

from authz import log
from authz.archived import LedgerArchive
from authz.engine import settle as settling
from authz.engine.context import Context
from authz.engine.spool_file import SpooledSettle, dead_directory
from authz.engine.spool_replay import DeadLetter, OnDead
from authz.errors import (
    ArchiveUnavailable,
    CallUnknown,
    InvalidInput,
    SettledDifferently,
    SpoolFull,
)
from authz.model import SettleRequest
from authz.store import keys
from authz.store.client import StoreClient

#: More than so many are not taken: an archive that long away needs somebody.
LATE_MAX: Final = 100_000
_PAGE: Final = 100
_FILE_NAME: Final = "late.jsonl"
_decode = msgspec.json.Decoder(SpooledSettle).decode
_encode = msgspec.json.Encoder().encode


async def hand_over(client: StoreClient, request: SettleRequest, now: int) -> None:
    """Leave a settle to the office process; raises StoreError, or SpoolFull for too many."""
    if await client.execute("XLEN", keys.late()) >= LATE_MAX:
        raise SpoolFull(f"{LATE_MAX} late settles wait for the archive")
    settle = SpooledSettle.of(request, now)
    await client.execute("XADD", keys.late(), "*", "settle", _encode(settle))
    log.event("settle_late", account=request.account, call_id=request.call_id)


class LateBooker:
    """Books what was handed over; any number may run at once."""

    def __init__(
        self, context: Context, archive: LedgerArchive, spool_directory: Path, on_dead: OnDead
    ) -> None:
        """Keep what cannot be booked among the dead letters of `spool_directory`."""
        self._context = context
        self._archive = archive
        self._directory = dead_directory(spool_directory)
        self._on_dead = on_dead
        self._is_waiting = False

    async def book_all(self) -> int:
        """Book what waits; return how many settles were dealt with.

        Stops at the first that the archive cannot tell of now. Raises StoreError.
        """
        dealt_with = 0
        while True:
            client = self._context.client
            page = await client.execute("XRANGE", keys.late(), "-", "+", "COUNT", _PAGE)
            for entry_id, fields in page:
                try:
                    await self._deal_with(fields[1])
                except ArchiveUnavailable as error:
                    self._wait(error)
                    return dealt_with
                # A kill before this deals with it again, to the same end.
                await client.execute("XDEL", keys.late(), entry_id)
                dealt_with += 1
            self._is_waiting = False
            if len(page) < _PAGE:
                return dealt_with

    def _wait(self, error: ArchiveUnavailable) -> None:
        if not self._is_waiting:
            self._is_waiting = True
            log.event("late_settles_wait", level="warning", error=error)

    async def _deal_with(self, packed: bytes) -> None:
        try:
            settle = _decode(packed)
        except msgspec.DecodeError as error:
            body = packed.decode(errors="backslashreplace")
            await self._bury(DeadLetter(file="late", offset=0, reason=f"{error}", body=body))
            return
        try:
            await self._book(settle.request)
        except SettledDifferently as error:
            await self._reject(settle, f"settled_differently: {error}")
        except CallUnknown as error:
            await self._reject(settle, f"call_unknown: {error}")
        except InvalidInput as error:
            await self._reject(settle, f"invalid: {error}")

    async def _book(self, request: SettleRequest) -> None:
        # What the store knows of the call is in the archive then, or was never booked.
        await self._archive.catch_up(request.account)
        call = await self._archive.call(request.account, request.call_id)
        if call is not None and call.is_final:
            if call.seconds != request.seconds:
                raise SettledDifferently(call.seconds)
            return
        past = settling.Past(None if call is None else call.costs)
        answer = await settling.settle(self._context, request, past=past)
        log.event(
            "late_settle_booked",
            account=request.account,
            call_id=request.call_id,
            duplicate=answer.duplicate,
        )

    async def _reject(self, settle: SpooledSettle, reason: str) -> None:
        await self._bury(DeadLetter(file="late", offset=0, reason=reason, settle=settle))

    async def _bury(self, letter: DeadLetter) -> None:
        await asyncio.to_thread(self._keep, letter)
        await self._on_dead(letter)

    def _keep(self, letter: DeadLetter) -> None:
        """Make a letter safe on disk; after a crash it may be there twice."""
        with (self._directory / _FILE_NAME).open("ab") as letters:
            letters.write(_encode(letter) + b"\n")
            letters.flush()
            os.fsync(letters.fileno())
