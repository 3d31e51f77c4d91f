"""The spool against kills, full disks, torn and flipped bytes, and crashes at every step."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authz.engine.excuses import ExcusedSettle
from authz.engine.spool import Spool, SpooledSettle
from authz.engine.spool_file import HEADING, encode_record
from authz.engine.spool_replay import (
    Booking,
    DeadLetter,
    Outcome,
    ReplayReport,
    replay_orphans,
)
from authz.errors import SpoolFull

BYTES_MAX = 10_000_000


def settle(number: int) -> SpooledSettle:
    request = ExcusedSettle(call_id=f"call-{number}", account="acme", seconds=number)
    return SpooledSettle(id=f"id-{number}", received_at=1_800_000_000, request=request)


class Ledger:
    """Books like the store: a settle has its effect once, a conflicting one never."""

    def __init__(self, conflicts: frozenset[int] = frozenset()) -> None:
        self.effects: list[int] = []
        self.conflicts = conflicts
        self.letters: set[int] = set()
        self.step: Callable[[], None] = lambda: None

    async def book(self, record: SpooledSettle) -> Booking:
        self.step()
        number = record.request.seconds
        assert record == settle(number)
        if number in self.conflicts:
            return Booking(Outcome.CONFLICT, "settled_differently")
        if number in self.effects:
            return Booking(Outcome.DUPLICATE)
        self.effects.append(number)
        self.step()
        return Booking(Outcome.BOOKED)

    async def on_dead(self, letter: DeadLetter) -> None:
        self.step()
        if letter.settle is not None:
            self.letters.add(letter.settle.request.seconds)

    async def replay(self, directory: Path) -> ReplayReport:
        return await replay_orphans(directory, self.book, self.on_dead)


def write_file(directory: Path, content: bytes) -> Path:
    directory.mkdir(exist_ok=True)
    path = directory / "1-test.spool"
    path.write_bytes(content)
    return path


def replay_content(directory: Path, content: bytes) -> tuple[Ledger, ReplayReport]:
    """Replay a directory that holds one ownerless file of that content."""
    write_file(directory, content)
    ledger = Ledger()
    return ledger, asyncio.run(ledger.replay(directory))


# --- Damage -------------------------------------------------------------------------------------

RECORDS = [encode_record(settle(number)) for number in range(4)]
CONTENT = HEADING + b"".join(RECORDS)
#: Where each record starts, and the end.
STARTS = [len(HEADING) + sum(map(len, RECORDS[:count])) for count in range(len(RECORDS) + 1)]


def whole_before(position: int) -> list[int]:
    """The numbers of the records that end at or before a position."""
    return [number for number in range(len(RECORDS)) if STARTS[number + 1] <= position]


@given(cut=st.integers(len(HEADING), len(CONTENT)), zeros=st.sampled_from([0, 1, 5, 11, 12, 5_000]))
@settings(deadline=None, max_examples=150)
def test_a_torn_tail_is_left_out_and_all_before_it_is_booked(
    tmp_path_factory: pytest.TempPathFactory, cut: int, zeros: int
) -> None:
    directory = tmp_path_factory.mktemp("torn")
    ledger, report = replay_content(directory, CONTENT[:cut] + b"\0" * zeros)
    assert ledger.effects == whole_before(cut)
    assert (report.finished, report.files_damaged) == (True, 0)
    assert list(directory.iterdir()) == []


@given(position=st.integers(0, len(CONTENT) - 1), bit=st.integers(0, 7))
@settings(deadline=None, max_examples=300)
def test_a_flipped_bit_is_found_and_books_nothing_false(
    tmp_path_factory: pytest.TempPathFactory, position: int, bit: int
) -> None:
    content = bytearray(CONTENT)
    content[position] ^= 1 << bit
    directory = tmp_path_factory.mktemp("flipped")
    ledger, report = replay_content(directory, bytes(content))
    assert report.finished
    assert ledger.effects == (whole_before(position) if position >= len(HEADING) else [])
    assert report.files_damaged == 1
    assert (directory / "dead" / "1-test.spool").read_bytes() == content
    assert not list(directory.glob("*.*"))


@given(start=st.integers(0, len(CONTENT) - 1), noise=st.binary(min_size=1, max_size=400))
@settings(deadline=None, max_examples=200)
def test_noise_anywhere_books_nothing_false(
    tmp_path_factory: pytest.TempPathFactory, start: int, noise: bytes
) -> None:
    content = CONTENT[:start] + noise + CONTENT[start + len(noise) :]
    ledger, report = replay_content(tmp_path_factory.mktemp("noise"), content)
    # The ledger checks each record's content; what comes is always a beginning of what was.
    assert ledger.effects == list(range(len(ledger.effects)))
    assert report.finished


async def test_damage_in_a_part_booked_already_is_no_matter(tmp_path: Path) -> None:
    path = write_file(tmp_path, CONTENT)
    ledger = Ledger()
    stops_at_two = Ledger()

    async def book(record: SpooledSettle) -> Booking:
        if record.request.seconds == 2:
            return Booking(Outcome.RETRY)
        return await stops_at_two.book(record)

    await replay_orphans(tmp_path, book, stops_at_two.on_dead)
    content = bytearray(CONTENT)
    content[STARTS[1] + 20] ^= 1
    path.write_bytes(content)
    report = await ledger.replay(tmp_path)
    assert stops_at_two.effects + ledger.effects == [0, 1, 2, 3]
    assert (report.finished, report.files_damaged) == (True, 0)


# --- Crashes ------------------------------------------------------------------------------------


class Crash(BaseException):
    """The process is gone: nothing it would do next happens."""


class Countdown:
    """Lets some steps happen and crashes at the next one and at each after it."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def __call__(self) -> None:
        if self.left == 0:
            raise Crash
        self.left -= 1


STEPS = ["pwrite", "fdatasync", "fsync", "rename", "unlink", "mkdir"]


@contextmanager
def crashing(countdown: Countdown, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make each call that changes the disk a step of the countdown."""

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            countdown()
            return function(*arguments, **options)

        return call

    with monkeypatch.context() as patch:
        for name in STEPS:
            patch.setattr(os, name, counted(getattr(os, name)))
        yield


@pytest.mark.parametrize("damage", [False, True])
def test_a_crash_at_any_step_of_a_replay_books_each_settle_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: bool
) -> None:
    """Every number of steps from none to all of a replay that meets conflicts and damage."""
    content = CONTENT + (b"damaged" * 9 + RECORDS[0] if damage else b"")
    crashes = 0
    while True:
        directory = tmp_path / str(crashes)
        write_file(directory, content)
        ledger = Ledger(conflicts=frozenset({1}))
        countdown = ledger.step = Countdown(crashes)
        try:
            with crashing(countdown, monkeypatch):
                asyncio.run(ledger.replay(directory))
            crashed = False
        except Crash:
            crashed = True
        ledger.step = lambda: None
        asyncio.run(ledger.replay(directory))
        assert ledger.effects == [0, 2, 3]
        assert ledger.letters == {1}
        assert not list(directory.glob("*.*"))
        letters = (directory / "dead" / "1-test.jsonl").read_bytes()
        assert letters.count(b'"id":"id-1"') == letters.count(b"\n") == 1
        assert (directory / "dead" / "1-test.spool").exists() == damage
        shutil.rmtree(directory)
        if not crashed:
            break
        crashes += 1
    assert crashes > 15


async def test_a_dead_letter_cut_short_by_a_crash_is_written_again(tmp_path: Path) -> None:
    write_file(tmp_path, CONTENT)
    (tmp_path / "dead").mkdir()
    (tmp_path / "dead" / "1-test.jsonl").write_bytes(b'{"file":"1-test.spo')
    ledger = Ledger(conflicts=frozenset({1, 2}))
    await ledger.replay(tmp_path)
    lines = (tmp_path / "dead" / "1-test.jsonl").read_bytes().splitlines()
    assert [b'"id-1"' in line for line in lines] == [False, True, False]
    assert [b'"id-2"' in line for line in lines] == [False, False, True]


WRITER = """
import asyncio, os, sys
sys.path.insert(0, {here!r})
from test_spool_faults import settle
from pathlib import Path
from authz.engine.spool import Spool

async def write(spool, numbers):
    for number in numbers:
        await spool.append(settle(number))
        os.write(1, b"%d\\n" % number)

async def main():
    spool = Spool.open(Path(sys.argv[1]), 10**9)
    await asyncio.gather(*(write(spool, range(part, 10**9, 16)) for part in range(16)))

asyncio.run(main())
"""


@pytest.mark.parametrize("acknowledged_min", [1, 100, 1_500])
def test_a_killed_writer_loses_nothing_it_acknowledged(
    tmp_path: Path, acknowledged_min: int
) -> None:
    source = WRITER.format(here=str(Path(__file__).parent))
    with subprocess.Popen(
        [sys.executable, "-c", source, str(tmp_path)], stdout=subprocess.PIPE, bufsize=0
    ) as writer:
        assert writer.stdout is not None
        output = b""
        while output.count(b"\n") < acknowledged_min:
            part = os.read(writer.stdout.fileno(), 65_536)
            assert part, "the writer ended by itself"
            output += part
        assert list(Spool.adopt_orphans(tmp_path)) == []
        writer.send_signal(signal.SIGKILL)
        while part := os.read(writer.stdout.fileno(), 65_536):
            output += part
    acknowledged = [int(line) for line in output.split(b"\n")[:-1]]
    ledger = Ledger()
    report = asyncio.run(ledger.replay(tmp_path))
    assert (report.finished, report.files_damaged, report.duplicates) == (True, 0, 0)
    assert set(acknowledged) <= set(ledger.effects)
    # At most the one settle that each of the 16 was waiting for comes on top.
    assert len(ledger.effects) <= len(acknowledged) + 16


# --- Full disks ---------------------------------------------------------------------------------

FULL_DISK = """
import asyncio, os, resource, sys
sys.path.insert(0, {here!r})
from test_spool_faults import settle
from pathlib import Path
from authz.engine.spool import Spool
from authz.errors import SpoolFull

def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

async def append(spool, number):
    try:
        await spool.append(settle(number))
    except SpoolFull:
        os.write(2, b"refused %d\\n" % number)
    else:
        os.write(1, b"%d\\n" % number)

async def main():
    spool = Spool.open(Path(sys.argv[1]), 10**9)
    limit(8)
    await append(spool, 0)
    os.write(1, b"files %d\\n" % len(os.listdir(sys.argv[1])))
    limit(3_000)
    for number in range(1, 60):
        await append(spool, number)
    await asyncio.gather(*(append(spool, number) for number in range(60, 90)))
    limit(resource.RLIM_INFINITY)
    for number in range(90, 100):
        await append(spool, number)

asyncio.run(main())
os._exit(0)
"""


def test_a_full_disk_refuses_and_keeps_exactly_what_was_acknowledged(
    tmp_path: Path,
) -> None:
    """A limit on the size of files breaks writes off in the middle, as a full disk does."""
    source = FULL_DISK.format(here=str(Path(__file__).parent))
    done = subprocess.run(
        [sys.executable, "-c", source, str(tmp_path)], capture_output=True, check=True
    )
    lines = done.stdout.decode().splitlines()
    assert lines.pop(0) == "files 0"
    acknowledged = [int(line) for line in lines]
    assert 5 < len(acknowledged) < 60
    assert acknowledged[-10:] == list(range(90, 100))
    assert done.stderr.count(b"refused") == 100 - len(acknowledged)
    ledger = Ledger()
    report = asyncio.run(ledger.replay(tmp_path))
    assert ledger.effects == acknowledged
    assert report.files_damaged == 0


def fail_once(function: Callable[..., Any], code: int) -> Callable[..., Any]:
    failures = [OSError(code, os.strerror(code))]

    def call(*arguments: Any) -> Any:
        if failures:
            raise failures.pop()
        return function(*arguments)

    return call


async def test_what_could_not_even_be_cut_back_is_cut_back_before_the_next_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool.open(tmp_path, BYTES_MAX)
    await spool.append(settle(0))
    monkeypatch.setattr(os, "fdatasync", fail_once(os.fdatasync, errno.EIO))
    monkeypatch.setattr(os, "ftruncate", fail_once(os.ftruncate, errno.EIO))
    answers = await asyncio.gather(
        *(spool.append(settle(number)) for number in (1, 2)), return_exceptions=True
    )
    assert [type(answer) for answer in answers] == [SpoolFull, SpoolFull]
    assert (spool.refused, spool.depth) == (2, 1)
    await spool.append(settle(3))
    ledger = Ledger()
    report = await spool.replay(ledger.book, ledger.on_dead)
    assert ledger.effects == [0, 3]
    assert (report.finished, spool.depth) == (True, 0)
    await spool.close()


def test_a_full_disk_does_not_stop_the_replay_that_empties_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_file(tmp_path, CONTENT)

    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    ledger = Ledger()
    report = asyncio.run(ledger.replay(tmp_path))
    assert ledger.effects == [0, 1, 2, 3]
    assert report.finished
    assert list(tmp_path.iterdir()) == []


async def test_a_dead_letter_that_cannot_be_kept_keeps_its_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_file(tmp_path, CONTENT)
    ledger = Ledger(conflicts=frozenset({2}))
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail_once(os.fsync, errno.ENOSPC))
        with pytest.raises(OSError, match="No space"):
            await ledger.replay(tmp_path)
    assert (ledger.effects, ledger.letters) == ([0, 1], set())
    report = await ledger.replay(tmp_path)
    assert (ledger.effects, ledger.letters) == ([0, 1, 3], {2})
    assert (report.dead, report.duplicates) == (1, 0)


async def test_files_are_replayed_oldest_first(tmp_path: Path) -> None:
    now = time.time()
    for number in range(3):
        path = tmp_path / f"{9 - number}-test.spool"
        path.write_bytes(HEADING + RECORDS[number])
        os.utime(path, (now + number, now + number))
    ledger = Ledger()
    await ledger.replay(tmp_path)
    assert ledger.effects == [0, 1, 2]
