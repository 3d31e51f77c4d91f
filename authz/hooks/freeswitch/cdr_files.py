"""CDRs that mod_json_cdr could not deliver and left as files: booked once, then put away.

A file is put away only after its call is booked, so that a run may end at any moment and be done
again: what was booked before is a duplicate. What cannot be booked stays where it is.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, NamedTuple

from msgspec import Struct

from authz.errors import (
    CallUnknown,
    InvalidInput,
    NotFound,
    SettledDifferently,
    SpoolFull,
    StoreError,
)
from authz.hooks.freeswitch.cdr import read_cdr
from authz.hooks.freeswitch.cdr_settle import CdrRules, Ignored, settle_of
from authz.model import Settlement, SettleRequest, Spooled

SUFFIX: Final = ".cdr.json"
#: Where files go whose call is booked, below the directory they were in.
DONE_DIRECTORY: Final = "imported"
_FILE_BYTES_MAX: Final = 16_777_216
#: Reports that are kept of files that somebody should look at; the counts tell of all.
REMARKABLE_MAX: Final = 1_000

Settle = Callable[[SettleRequest], Awaitable[Settlement | Spooled]]
#: Called with how many files are done, and of how many.
Progress = Callable[[int, int], None]


class Fate(enum.Enum):
    """What became of one file."""

    BOOKED = "booked"
    DUPLICATE = "booked before"
    DIFFERENT = "booked before with other seconds"
    LATE = "left to the archive"
    IGNORED = "not charged"
    DEAD = "cannot be booked"


class FileReport(Struct, frozen=True):
    """One file, the call in it as far as it could be read, and why it had this fate."""

    file: str
    fate: Fate
    call_id: str | None = None
    account: str | None = None
    seconds: int | None = None
    detail: str | None = None


class ImportReport(Struct, frozen=True):
    """What became of a directory. `stopped` says why the run ended with files unread, if it did."""

    counts: dict[str, int]
    #: The first of those that somebody should look at: dead, or booked before with other seconds.
    remarkable: list[FileReport]
    left: int
    stopped: str | None = None


class _Booked(NamedTuple):
    fate: Fate
    detail: str | None = None


async def import_records(
    directory: Path,
    rules: CdrRules,
    settle: Settle,
    progress: Progress,
    *,
    delete: bool = False,
) -> ImportReport:
    """Book every record of a directory and put its file away, or delete it.

    Ends early when the store does not answer. Raises InvalidInput if the directory cannot be used.
    """
    paths = _records_in(directory)
    done_directory = None if delete or not paths else _make_done_directory(directory)
    counts = dict.fromkeys((fate.value for fate in Fate), 0)
    remarkable: list[FileReport] = []
    for place, path in enumerate(paths):
        progress(place, len(paths))
        try:
            report = await _import_file(path, rules, settle)
        except (StoreError, SpoolFull) as error:
            return ImportReport(counts, remarkable, len(paths) - place, str(error))
        counts[report.fate.value] += 1
        if report.fate in (Fate.DEAD, Fate.DIFFERENT) and len(remarkable) < REMARKABLE_MAX:
            remarkable.append(report)
        if report.fate is not Fate.DEAD:
            _put_away(path, done_directory)
    progress(len(paths), len(paths))
    return ImportReport(counts, remarkable, counts[Fate.DEAD.value])


async def _import_file(path: Path, rules: CdrRules, settle: Settle) -> FileReport:
    try:
        found = settle_of(read_cdr(_read(path)), rules)
    except (InvalidInput, CallUnknown, OSError) as error:
        return FileReport(path.name, Fate.DEAD, detail=str(error))
    if isinstance(found, Ignored):
        return FileReport(path.name, Fate.IGNORED, found.call_id, detail=found.why)
    fate, detail = await _book(found, settle)
    return FileReport(path.name, fate, found.call_id, found.account, found.seconds, detail)


async def _book(request: SettleRequest, settle: Settle) -> _Booked:
    try:
        settlement = await settle(request)
    except SettledDifferently as error:
        return _Booked(Fate.DIFFERENT, str(error))
    except (CallUnknown, InvalidInput, NotFound) as error:
        return _Booked(Fate.DEAD, str(error))
    if isinstance(settlement, Spooled):
        return _Booked(Fate.LATE)
    return _Booked(Fate.DUPLICATE if settlement.duplicate else Fate.BOOKED)


def _records_in(directory: Path) -> list[Path]:
    try:
        with os.scandir(directory) as entries:
            names = [
                entry.name
                for entry in entries
                if entry.name.endswith(SUFFIX) and entry.is_file(follow_symlinks=False)
            ]
    except OSError as error:
        raise InvalidInput("directory", f"cannot be read: {error}") from None
    return [directory / name for name in sorted(names)]


def _make_done_directory(directory: Path) -> Path:
    done = directory / DONE_DIRECTORY
    try:
        done.mkdir(exist_ok=True)
    except OSError as error:
        raise InvalidInput("directory", f"cannot hold {DONE_DIRECTORY}: {error}") from None
    return done


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        data = file.read(_FILE_BYTES_MAX + 1)
    if len(data) > _FILE_BYTES_MAX:
        raise InvalidInput("", f"longer than {_FILE_BYTES_MAX} bytes")
    return data


def _put_away(path: Path, done_directory: Path | None) -> None:
    if done_directory is None:
        path.unlink(missing_ok=True)
    else:
        path.replace(done_directory / path.name)
