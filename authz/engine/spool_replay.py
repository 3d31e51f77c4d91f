"""Books spooled settles when the store is back: in order, each exactly once in effect.

Booking is idempotent by account and call, so a settle may be booked twice to the same effect;
how far a file is booked is kept beside it, so that after a crash only the last batch is.
"""

from __future__ import annotations

import asyncio
import enum
import os
import struct
import zlib
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

import msgspec

from authz import log
from authz.engine.spool_file import (
    RECORD_BYTES_MAX,
    Ending,
    Item,
    LockedFile,
    SpooledSettle,
    dead_directory,
    orphans,
    sync_directory,
)

BATCH_RECORDS: Final = 64

#: Holds at least two whole letters, whatever their size.
_TAIL_BYTES: Final = 16 * RECORD_BYTES_MAX
_PROGRESS: Final = struct.Struct("<QI")
_P = ParamSpec("_P")
_T = TypeVar("_T")


class Outcome(enum.Enum):
    """What became of one spooled settle."""

    BOOKED = "booked"
    #: It was booked before, with the same content.
    DUPLICATE = "duplicate"
    #: It can never be booked: it goes to the dead letters.
    CONFLICT = "conflict"
    #: The store is away (again): it stays, and the replay ends for now.
    RETRY = "retry"


class Booking(msgspec.Struct, frozen=True):
    """The answer of a `Book`; `reason` says of a conflict what it is."""

    outcome: Outcome
    reason: str = ""


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """Something in the spool that can never be booked, kept under `dead/` for the operator.

    `settle` is None when the record cannot be read (`body` then holds it) or when the whole
    rest of the file is damaged (reason `file_damaged`).
    """

    file: str
    offset: int
    reason: str
    settle: SpooledSettle | None = None
    body: str | None = None


class ReplayReport(msgspec.Struct):
    """What a replay did. `finished` is False when settles still wait."""

    booked: int = 0
    duplicates: int = 0
    dead: int = 0
    files_damaged: int = 0
    finished: bool = False

    def add(self, other: ReplayReport) -> None:
        """Count another report in; the sum is finished if both are."""
        self.booked += other.booked
        self.duplicates += other.duplicates
        self.dead += other.dead
        self.files_damaged += other.files_damaged
        self.finished = self.finished and other.finished


#: Books one settle in the store and never spools it again. An exception ends the replay like
#: RETRY and passes to whoever started it.
Book = Callable[[SpooledSettle], Awaitable[Booking]]
#: Told of each dead letter after it is safe under `dead/`; after a crash perhaps again.
OnDead = Callable[[DeadLetter], Awaitable[None]]


class Replayer:
    """Replays files at half its rate: after each batch it pauses as long as the batch took.

    Live traffic so keeps at least half of whatever the store and this process can do.
    """

    def __init__(
        self,
        book: Book,
        on_dead: OnDead,
        *,
        batch_records: int = BATCH_RECORDS,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._book = book
        self._on_dead = on_dead
        self._batch_records = batch_records
        self._pause = pause

    async def run(self, file: LockedFile) -> ReplayReport:
        """Replay one file from where it was left.

        A finished file is deleted, or moved to `dead/` if it is damaged: then what lies before
        the damage is booked. Both let go of it; otherwise it stays locked and can be run again.
        OSError if a dead letter cannot be kept.
        """
        report = ReplayReport()
        offset = await run_to_end(None, _load_progress, file)
        clock = asyncio.get_running_loop().time
        while True:
            started = clock()
            batch = await run_to_end(None, file.read_batch, offset, self._batch_records)
            if batch.ending is not None:
                break
            booked_to = await self._replay_batch(file, batch.items, report)
            if booked_to < batch.items[-1].end:
                return report
            offset = booked_to
            await self._pause(clock() - started)
        await self._finish(file, offset, batch.ending, report)
        return report

    async def _replay_batch(self, file: LockedFile, items: list[Item], report: ReplayReport) -> int:
        """Book the items in order and return the offset up to which that was done."""
        booked_to = items[0].offset
        try:
            for item in items:
                if not await self._replay_item(file, item, report):
                    break
                booked_to = item.end
                file.waiting = max(0, file.waiting - 1)
        finally:
            await run_to_end(None, _save_progress, file.progress_path, booked_to)
        return booked_to

    async def _replay_item(self, file: LockedFile, item: Item, report: ReplayReport) -> bool:
        """Deal with one record; False if it has to wait."""
        if item.settle is None:
            body = item.body.decode(errors="backslashreplace")
            letter = DeadLetter(
                file=file.path.name, offset=item.offset, reason="unreadable", body=body
            )
        else:
            booking = await self._book(item.settle)
            if booking.outcome is Outcome.RETRY:
                return False
            if booking.outcome is not Outcome.CONFLICT:
                report.booked += booking.outcome is Outcome.BOOKED
                report.duplicates += booking.outcome is Outcome.DUPLICATE
                return True
            letter = DeadLetter(
                file=file.path.name,
                offset=item.offset,
                reason=booking.reason,
                settle=item.settle,
            )
        await run_to_end(None, _keep_letter, file, letter)
        report.dead += 1
        await self._on_dead(letter)
        return True

    async def _finish(
        self, file: LockedFile, offset: int, ending: Ending, report: ReplayReport
    ) -> None:
        if ending is Ending.DAMAGED:
            letter = DeadLetter(file=file.path.name, offset=offset, reason="file_damaged")
            # Before the burial, after which nobody would say it any more.
            await self._on_dead(letter)
            buried = await run_to_end(None, file.bury)
            log.event("spool_file_damaged", level="error", file=str(buried), offset=offset)
            report.files_damaged += 1
        else:
            if ending is Ending.TORN:
                log.event("spool_file_torn", level="warning", file=str(file.path), offset=offset)
            await run_to_end(None, file.remove)
        report.finished = True


async def replay_orphans(directory: Path, book: Book, on_dead: OnDead) -> ReplayReport:
    """Replay the files whose process is gone, one after the other, until the store is away.

    For the office process, now and then. Any number may do it at once: a file that is being
    replayed has an owner. Files that have one are not counted as waiting.
    """
    replayer = Replayer(book, on_dead)
    total = ReplayReport(finished=True)
    files = orphans(directory)
    # Without a thread: it only names files, and a cancelled thread could lose a locked one.
    while total.finished and (file := next(files, None)) is not None:
        try:
            total.add(await replayer.run(file))
        finally:
            file.close()
    return total


async def run_to_end(
    executor: Executor | None, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs
) -> _T:
    """Call a blocking function in a thread and wait for its end even when cancelled.

    So nothing touches a file after its lock was let go of.
    """
    loop = asyncio.get_running_loop()
    call = loop.run_in_executor(executor, lambda: function(*args, **kwargs))
    try:
        return await asyncio.shield(call)
    except asyncio.CancelledError:
        await asyncio.wait([call])
        call.exception()  # taken note of: the cancellation is what the caller hears of
        raise


def _load_progress(file: LockedFile) -> int:
    """Return the offset up to which a file is booked: 0, the start, if that is not known."""
    try:
        data = file.progress_path.read_bytes()
    except FileNotFoundError:
        return 0
    if len(data) != _PROGRESS.size:
        return 0
    offset, checksum = _PROGRESS.unpack(data)
    whole = zlib.crc32(data[:8]) == checksum and offset <= file.size
    return int(offset) if whole else 0


def _save_progress(path: Path, offset: int) -> None:
    """Make the offset durable, if that can be done.

    Without it, a later run books again what is booked, to no effect. So a full disk does not
    stop the replay that will empty it.
    """
    checksum = zlib.crc32(offset.to_bytes(8, "little"))
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.pwrite(descriptor, _PROGRESS.pack(offset, checksum), 0)
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        log.event("spool_progress_not_saved", level="warning", error=error, file=str(path))


def _keep_letter(file: LockedFile, letter: DeadLetter) -> None:
    """Add a letter to the dead ones of its file, unless it lies there since before a crash."""
    directory = dead_directory(file.path.parent)
    path = directory / file.path.with_suffix(".jsonl").name
    is_new = not path.exists()
    with path.open("ab+") as letters:
        letters.seek(max(0, letters.tell() - _TAIL_BYTES))
        lines = letters.read().split(b"\n")
        # A file is replayed in order, so that letters up to the last one kept are kept, too.
        if letter.offset <= max(map(_offset_of, lines)):
            return
        # A line that a crash has cut short is ended, and so stays the only bad one.
        separator = b"\n" if lines[-1] else b""
        letters.write(separator + msgspec.json.encode(letter) + b"\n")
        letters.flush()
        os.fsync(letters.fileno())
    if is_new:
        sync_directory(directory)


def _offset_of(line: bytes) -> int:
    """Return the offset a line of dead letters names, -1 if it is no whole letter."""
    try:
        return msgspec.json.decode(line, type=DeadLetter).offset
    except msgspec.DecodeError:
        return -1
