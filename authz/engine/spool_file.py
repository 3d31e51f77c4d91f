"""The spool's files on disk: their records, their locks, and what a crash may leave of them.

A file is 16 bytes of heading, then records. A record is a marker, the length and the CRC-32 of
its body, the CRC-32 of these twelve bytes, and the body: one `SpooledSettle` as JSON. The header
has a check of its own so that a length that flipped is not mistaken for a record that was never
finished. A file is locked (`flock`) for as long as its owner lives, and only whoever holds the
lock reads, writes or removes it. It gets its name when it is locked and headed already, so that
nobody finds it before.

All functions here block; they are called in threads. The lock is inherited by forked children
that do not exec: open a spool after forking.
"""

from __future__ import annotations

import enum
import fcntl
import os
import secrets
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from authz import log
from authz.engine.excuses import ExcusedSettle
from authz.errors import InvariantError
from authz.model import SettleRequest

FILE_SUFFIX: Final = ".spool"
PROGRESS_SUFFIX: Final = ".offset"
DEAD_DIRECTORY: Final = "dead"
HEADING: Final = b"authz spool 1\n\0\0"
#: A settle has at most some 1,200 characters; JSON may escape each to six bytes.
RECORD_BYTES_MAX: Final = 65_536

_UNNAMED_SUFFIX: Final = ".new"
_UNNAMED_AGE_SECONDS_MAX: Final = 3_600
_MARKER: Final = b"\xa5SR1"
_CHECKED: Final = struct.Struct("<4sII")
_CHECKSUM: Final = struct.Struct("<I")
_HEADER_BYTES: Final = _CHECKED.size + _CHECKSUM.size
#: Holds at least one whole record, whatever its size.
_READ_BYTES: Final = 4 * RECORD_BYTES_MAX


class SpooledSettle(msgspec.Struct, frozen=True):
    """A settle accepted while the store was away.

    `id` is unique for ever. `received_at` (Unix seconds) stands for now wherever the request
    leaves a moment out, so that booking it later books the same.
    """

    id: str
    received_at: int
    request: ExcusedSettle

    @classmethod
    def of(cls, request: SettleRequest, received_at: int) -> SpooledSettle:
        """Return the record of a request just received."""
        kept = ExcusedSettle(**msgspec.structs.asdict(request))
        return cls(id=secrets.token_hex(16), received_at=received_at, request=kept)


_ENCODER: Final = msgspec.json.Encoder()
_DECODER: Final = msgspec.json.Decoder(SpooledSettle)


def encode_record(settle: SpooledSettle) -> bytes:
    """Return the bytes of one record."""
    body = _ENCODER.encode(settle)
    if len(body) > RECORD_BYTES_MAX:
        raise InvariantError(f"a settle of {len(body)} bytes passed validation")
    checked = _CHECKED.pack(_MARKER, len(body), zlib.crc32(body))
    return checked + _CHECKSUM.pack(zlib.crc32(checked)) + body


class Ending(enum.Enum):
    """Why no record follows."""

    #: The last record ends where the file ends.
    COMPLETE = "complete"
    #: What follows was being written when its writer died; it was never acknowledged.
    TORN = "torn"
    #: What follows was whole once.
    DAMAGED = "damaged"


class Item(NamedTuple):
    """One whole record: where it lies, and what it says (None if no settle can be read)."""

    offset: int
    end: int
    body: bytes
    settle: SpooledSettle | None


class Batch(NamedTuple):
    """The records that follow an offset; `ending` is set only when there is none."""

    items: list[Item]
    ending: Ending | None


class LockedFile:
    """One spool file, held under its lock until `close`, `remove` or `bury`.

    Attributes:
        path: where it lies.
        size: bytes up to the end of its last good record.
        waiting: records written here and not yet booked; of an adopted file always 0.
    """

    def __init__(self, path: Path, descriptor: int, size: int) -> None:
        self.path = path
        self.size = size
        self.waiting = 0
        self._descriptor = descriptor
        self._has_debris = False

    @classmethod
    def create(cls, directory: Path) -> LockedFile:
        """Make a new locked file in `directory`. OSError if that cannot be made durable."""
        name = f"{os.getpid()}-{secrets.token_hex(8)}"
        unnamed = directory / (name + _UNNAMED_SUFFIX)
        path = directory / (name + FILE_SUFFIX)
        descriptor = os.open(unnamed, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _write_all(descriptor, HEADING, 0)
            os.fsync(descriptor)
            os.rename(unnamed, path)
            sync_directory(directory)
        except BaseException:
            unnamed.unlink(missing_ok=True)
            path.unlink(missing_ok=True)
            os.close(descriptor)
            raise
        return cls(path, descriptor, len(HEADING))

    @classmethod
    def adopt(cls, path: Path) -> LockedFile | None:
        """Take over a file whose owner is gone; None if it has one or has just been dealt with."""
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held = os.fstat(descriptor)
            # Its last holder may have removed or buried it before letting go of the lock.
            if os.path.samestat(held, os.stat(path)):
                return cls(path, descriptor, held.st_size)
        except (BlockingIOError, FileNotFoundError):
            pass
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        return None

    @property
    def progress_path(self) -> Path:
        """Where the offset is kept up to which the file is booked."""
        return self.path.with_suffix(PROGRESS_SUFFIX)

    def append(self, records: bytes, count: int) -> None:
        """Write `count` records and return when they are safe.

        OSError if that failed: then none of them is in the file. Only for the file's creator.
        """
        if self._has_debris:
            self._cut_back()
        try:
            _write_all(self._descriptor, records, self.size)
            os.fdatasync(self._descriptor)
        except OSError:
            self._has_debris = True
            try:
                self._cut_back()
            except OSError as error:
                log.event("spool_not_cut_back", level="error", error=error, file=str(self.path))
            raise
        self.size += len(records)
        self.waiting += count

    def _cut_back(self) -> None:
        os.ftruncate(self._descriptor, self.size)
        os.fdatasync(self._descriptor)
        self._has_debris = False

    def read_batch(self, offset: int, count_max: int) -> Batch:
        """Return up to `count_max` records from `offset` on; 0 is the start of the file."""
        if offset == 0:
            if _read(self._descriptor, 0, len(HEADING)) != HEADING:
                return Batch([], Ending.DAMAGED)
            offset = len(HEADING)
        data = _read(self._descriptor, offset, _READ_BYTES)
        items: list[Item] = []
        position = 0
        while len(items) < count_max and (body := _body_at(data, position)) is not None:
            end = position + _HEADER_BYTES + len(body)
            items.append(Item(offset + position, offset + end, body, _decode(body)))
            position = end
        return Batch(items, None if items else self._ending(offset))

    def _ending(self, offset: int) -> Ending:
        rest = _read(self._descriptor, offset, os.fstat(self._descriptor).st_size - offset)
        return _judge(rest)

    def remove(self) -> None:
        """Delete the file, all of which is booked, and let go of it."""
        self.path.unlink()
        # In this order: progress that outlives its file is swept, a file that outlives its
        # progress would be booked again.
        sync_directory(self.path.parent)
        self.progress_path.unlink(missing_ok=True)
        self.close()

    def bury(self) -> Path:
        """Move the file to the dead ones, let go of it and return where it now lies."""
        directory = dead_directory(self.path.parent)
        buried = directory / self.path.name
        os.rename(self.path, buried)
        sync_directory(directory)
        sync_directory(self.path.parent)
        self.progress_path.unlink(missing_ok=True)
        self.close()
        return buried

    def close(self) -> None:
        """Let go of the file; whoever finds it may then adopt it."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def orphans(directory: Path) -> Iterator[LockedFile]:
    """Adopt the ownerless files of a directory, oldest first, each when it is asked for."""
    _sweep_strays(directory)
    found = []
    for path in directory.glob("*" + FILE_SUFFIX):
        try:
            found.append((path.stat().st_mtime_ns, path))
        except FileNotFoundError:
            continue
    for _, path in sorted(found):
        file = LockedFile.adopt(path)
        if file is not None:
            yield file


def dead_directory(directory: Path) -> Path:
    """Return the place for what cannot be booked, made if need be."""
    dead = directory / DEAD_DIRECTORY
    dead.mkdir(mode=0o700, exist_ok=True)
    return dead


def sync_directory(directory: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sweep_strays(directory: Path) -> None:
    """Remove what a kill in the middle of making or removing a file has left."""
    for path in directory.glob("*" + PROGRESS_SUFFIX):
        if not path.with_suffix(FILE_SUFFIX).exists():
            path.unlink(missing_ok=True)
    for path in directory.glob("*" + _UNNAMED_SUFFIX):
        try:
            if time.time() - path.stat().st_mtime > _UNNAMED_AGE_SECONDS_MAX:
                path.unlink()
        except FileNotFoundError:
            continue


def _header_at(data: bytes, position: int) -> tuple[int, int] | None:
    """Return length and checksum of the body of the record at `position`, None if none starts."""
    checked = data[position : position + _CHECKED.size]
    check = data[position + _CHECKED.size : position + _HEADER_BYTES]
    if check != _CHECKSUM.pack(zlib.crc32(checked)):
        return None
    marker, length, checksum = _CHECKED.unpack(checked)
    if marker != _MARKER or not 0 < length <= RECORD_BYTES_MAX:
        return None
    return length, checksum


def _body_at(data: bytes, position: int) -> bytes | None:
    """Return the body of the whole, undamaged record at `position`, None if there is none."""
    header = _header_at(data, position)
    if header is None:
        return None
    length, checksum = header
    start = position + _HEADER_BYTES
    body = data[start : start + length]
    return body if len(body) == length and zlib.crc32(body) == checksum else None


def _decode(body: bytes) -> SpooledSettle | None:
    try:
        return _DECODER.decode(body)
    except msgspec.DecodeError:
        return None


def _judge(rest: bytes) -> Ending:
    """Say how the bytes that follow the last good record came about.

    A writer that dies leaves a beginning of what it wrote, followed by nothing or, where the
    file had grown already, by zeros: no body ends with one. Anything else was damaged later,
    certainly so if a whole record follows.
    """
    if not rest:
        return Ending.COMPLETE
    position = rest.find(_MARKER, 1)
    while position >= 0:
        if _body_at(rest, position) is not None:
            return Ending.DAMAGED
        position = rest.find(_MARKER, position + 1)
    written = rest.rstrip(b"\0")
    if len(written) < _HEADER_BYTES:
        return Ending.TORN
    header = _header_at(rest, 0)
    unfinished = header is not None and len(written) < _HEADER_BYTES + header[0]
    return Ending.TORN if unfinished else Ending.DAMAGED


def _read(descriptor: int, offset: int, count: int) -> bytes:
    """Read `count` bytes, fewer only at the end of the file."""
    parts = []
    while count > 0 and (part := os.pread(descriptor, count, offset)):
        parts.append(part)
        offset += len(part)
        count -= len(part)
    return b"".join(parts)


def _write_all(descriptor: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        offset += written
        view = view[written:]
