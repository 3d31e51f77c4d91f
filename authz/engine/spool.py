"""Settles that wait on this host's disk while the store is away.

Each process writes files of its own (`spool_file`), and acknowledges a settle only when it is
safe there. When the store is back, the owner replays them (`spool_replay`); new settles go to
another file meanwhile, so that no file is ever written and replayed at once. Files of a process
that died are replayed by the office process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from authz import log
from authz.engine import spool_file
from authz.engine.spool_file import LockedFile, SpooledSettle, encode_record
from authz.engine.spool_replay import Book, OnDead, Replayer, ReplayReport, run_to_end
from authz.errors import SpoolFull

__all__ = ["Spool", "SpooledSettle"]


class Spool:
    """This process's spool. For one event loop; make it with `open`.

    Attributes:
        bytes_max: most bytes that wait at a time; past that a settle is refused.
        syncs: groups of settles made safe so far, each by one fsync.
        spooled: settles made safe so far.
        refused: settles that could not be.
    """

    def __init__(self, directory: Path, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.syncs = 0
        self.spooled = 0
        self.refused = 0
        self._directory = directory
        # One thread: writes, and the changes from one file to the next, never overlap.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="spool")
        self._current: LockedFile | None = None
        self._sealed: list[LockedFile] = []
        self._pending: list[tuple[bytes, asyncio.Future[None]]] = []
        self._pending_bytes = 0
        self._writer: asyncio.Task[None] | None = None
        self._replaying = asyncio.Lock()
        self._closed = False

    @classmethod
    def open(cls, directory: Path, bytes_max: int) -> Spool:
        """Return an empty spool in `directory`, which is made if need be.

        OSError if it cannot be written to: better at the start than in an outage.
        """
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Asks for a file as an outage will; nothing of it stays.
        LockedFile.create(directory).remove()
        return cls(directory, bytes_max)

    @staticmethod
    def adopt_orphans(directory: Path) -> Iterator[LockedFile]:
        """Lock and yield, oldest first, the files whose process is gone.

        A file that somebody else holds is passed over. `spool_replay.replay_orphans` also
        replays them.
        """
        return spool_file.orphans(directory)

    @property
    def depth(self) -> int:
        """How many settles are safe here and not yet booked."""
        return sum(file.waiting for file in self._files())

    @property
    def bytes_held(self) -> int:
        """Bytes of this process's files and of what is about to be written to them."""
        return self._pending_bytes + sum(file.size for file in self._files())

    async def append(self, settle: SpooledSettle) -> None:
        """Return when the settle is safe on disk; SpoolFull if it is not kept.

        All settles that come while a group is written make the next one. A caller that is
        cancelled may leave its settle in the spool: a settle is booked once, however often.
        """
        record = encode_record(settle)
        if self._closed or self.bytes_held + len(record) > self.bytes_max:
            self.refused += 1
            raise SpoolFull(
                "the spool is closed" if self._closed else f"the spool has {self.bytes_max} bytes"
            )
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pending.append((record, written))
        self._pending_bytes += len(record)
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write_groups())
        await written

    async def replay(self, book: Book, on_dead: OnDead) -> ReplayReport:
        """Book what waits here until nothing does, or until the store is away again.

        See `spool_replay.Replayer` for `book`, `on_dead` and the pace. The report adds up all
        files; its `finished` is False when something still waits.
        """
        replayer = Replayer(book, on_dead)
        total = ReplayReport(finished=True)
        async with self._replaying:
            while total.finished and (file := await self._next_sealed()) is not None:
                report = await replayer.run(file)
                total.add(report)
                if report.finished:
                    self._sealed.remove(file)
        return total

    async def close(self) -> None:
        """Write what is pending and let go of the files, which others may then adopt."""
        self._closed = True
        if self._writer is not None:
            await asyncio.wait([self._writer])
        async with self._replaying:
            for file in self._files():
                await run_to_end(self._thread, self._let_go, file)
            self._current = None
            self._sealed.clear()
        self._thread.shutdown(wait=True)

    def _files(self) -> list[LockedFile]:
        return self._sealed if self._current is None else [*self._sealed, self._current]

    async def _write_groups(self) -> None:
        while self._pending:
            group, self._pending = self._pending, []
            records = b"".join(record for record, _ in group)
            refusal: str | None = "the settle was not written"
            try:
                await run_to_end(self._thread, self._write, records, len(group))
                refusal = None
                self.syncs += 1
                self.spooled += len(group)
            except OSError as error:
                refusal = f"cannot write to the spool: {error}"
                self.refused += len(group)
                log.event("spool_write_failed", level="error", error=error, settles=len(group))
            finally:
                self._pending_bytes -= len(records)
                _finish(group, refusal)

    def _write(self, records: bytes, count: int) -> None:
        """Runs in the thread."""
        if self._current is None:
            self._current = LockedFile.create(self._directory)
        self._current.append(records, count)

    async def _next_sealed(self) -> LockedFile | None:
        """Return the oldest file to replay; the one in use is taken out of use for it."""
        if not self._sealed:
            await run_to_end(self._thread, self._seal)
        return self._sealed[0] if self._sealed else None

    def _seal(self) -> None:
        """Runs in the thread."""
        if self._current is not None:
            self._sealed.append(self._current)
            self._current = None

    @staticmethod
    def _let_go(file: LockedFile) -> None:
        """Runs in the thread. Leaves no file in which there never was a settle."""
        if file.size == len(spool_file.HEADING):
            file.remove()
        else:
            file.close()


def _finish(group: list[tuple[bytes, asyncio.Future[None]]], refusal: str | None) -> None:
    for _, written in group:
        if written.done():
            continue  # its caller was cancelled
        if refusal is None:
            written.set_result(None)
        else:
            written.set_exception(SpoolFull(refusal))
