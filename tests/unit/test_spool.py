"""The spool: what it acknowledges, how it groups, and how it is replayed."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import msgspec
import pytest

from authz.engine.spool import Spool, SpooledSettle
from authz.engine.spool_file import HEADING, LockedFile, encode_record
from authz.engine.spool_replay import Booking, DeadLetter, Outcome, Replayer, replay_orphans
from authz.errors import InvariantError, SpoolFull
from authz.model import SettleRequest

BYTES_MAX = 1_000_000


def settle(number: int) -> SpooledSettle:
    request = SettleRequest(
        call_id=f"call-{number}", account="acme", seconds=number, from_="+14155550100"
    )
    return SpooledSettle.of(request, received_at=1_800_000_000 + number)


class Ledger:
    """Books like the store: once for each call, and as told for some of them."""

    def __init__(self) -> None:
        self.booked: list[SpooledSettle] = []
        self.asked: list[str] = []
        self.conflicts: set[str] = set()
        self.is_away = False
        self.letters: list[DeadLetter] = []

    async def book(self, record: SpooledSettle) -> Booking:
        self.asked.append(record.id)
        if self.is_away:
            return Booking(Outcome.RETRY)
        if record.id in self.conflicts:
            return Booking(Outcome.CONFLICT, "settled_differently")
        if record in self.booked:
            return Booking(Outcome.DUPLICATE)
        self.booked.append(record)
        return Booking(Outcome.BOOKED)

    async def on_dead(self, letter: DeadLetter) -> None:
        self.letters.append(letter)


def names(directory: Path) -> list[str]:
    return sorted(path.suffix for path in directory.iterdir())


def only_file(directory: Path) -> Path:
    (path,) = directory.glob("*.spool")
    return path


async def fill(directory: Path, count: int) -> list[SpooledSettle]:
    """Leave a file of a process that is gone."""
    spool = Spool.open(directory, BYTES_MAX)
    records = [settle(number) for number in range(count)]
    await asyncio.gather(*map(spool.append, records))
    await spool.close()
    return records


class TestAppend:
    async def test_opening_leaves_no_file(self, tmp_path: Path) -> None:
        spool = Spool.open(tmp_path / "state" / "spool", BYTES_MAX)
        assert names(tmp_path / "state" / "spool") == []
        assert (spool.depth, spool.bytes_held) == (0, 0)
        await spool.close()
        assert (tmp_path / "state" / "spool").stat().st_mode & 0o777 == 0o700

    def test_a_place_that_cannot_be_written_is_said_at_once(self, tmp_path: Path) -> None:
        (tmp_path / "spool").write_text("a file")
        with pytest.raises(FileExistsError):
            Spool.open(tmp_path / "spool", BYTES_MAX)

    async def test_what_comes_together_is_made_safe_together(self, tmp_path: Path) -> None:
        spool = Spool.open(tmp_path, BYTES_MAX)
        await asyncio.gather(*(spool.append(settle(number)) for number in range(200)))
        assert (spool.syncs, spool.spooled, spool.depth) == (1, 200, 200)
        await spool.append(settle(200))
        assert (spool.syncs, spool.spooled, spool.depth) == (2, 201, 201)
        assert names(tmp_path) == [".spool"]
        await spool.close()

    async def test_what_comes_during_a_write_makes_the_next_group(self, tmp_path: Path) -> None:
        spool = Spool.open(tmp_path, BYTES_MAX)

        async def late(number: int) -> None:
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            await spool.append(settle(number))

        await asyncio.gather(spool.append(settle(0)), *(late(number) for number in range(1, 50)))
        assert (spool.syncs, spool.depth) == (2, 50)
        await spool.close()

    async def test_the_bound_counts_what_is_not_yet_written(self, tmp_path: Path) -> None:
        size = len(encode_record(settle(1)))
        spool = Spool.open(tmp_path, 2 * size)
        answers = await asyncio.gather(
            *(spool.append(settle(1)) for _ in range(5)), return_exceptions=True
        )
        assert [type(answer) for answer in answers] == [type(None)] * 2 + [SpoolFull] * 3
        assert (spool.depth, spool.refused) == (2, 3)
        ledger = Ledger()
        await spool.replay(ledger.book, ledger.on_dead)
        await spool.append(settle(1))
        await spool.close()

    async def test_a_closed_spool_refuses(self, tmp_path: Path) -> None:
        spool = Spool.open(tmp_path, BYTES_MAX)
        await spool.close()
        with pytest.raises(SpoolFull, match="closed"):
            await spool.append(settle(1))
        await spool.close()

    async def test_a_cancelled_caller_takes_nobody_with_it(self, tmp_path: Path) -> None:
        spool = Spool.open(tmp_path, BYTES_MAX)
        first = asyncio.create_task(spool.append(settle(1)))
        second = asyncio.create_task(spool.append(settle(2)))
        await asyncio.sleep(0)
        first.cancel()
        await second
        assert first.cancelled()
        assert spool.depth == 2
        await spool.close()

    def test_a_settle_too_large_for_a_record_is_a_defect(self) -> None:
        request = SettleRequest(call_id="c", account="a", seconds=1, ended_at="x" * 70_000)
        with pytest.raises(InvariantError):
            encode_record(SpooledSettle.of(request, 0))


class TestReplay:
    async def test_everything_in_order_and_unchanged(self, tmp_path: Path) -> None:
        records = await fill(tmp_path, 300)
        ledger = Ledger()
        report = await replay_orphans(tmp_path, ledger.book, ledger.on_dead)
        assert ledger.booked == records
        assert (report.booked, report.duplicates, report.finished) == (300, 0, True)
        assert names(tmp_path) == []

    async def test_the_owner_replays_while_settles_still_come(self, tmp_path: Path) -> None:
        spool = Spool.open(tmp_path, BYTES_MAX)
        await spool.append(settle(0))
        ledger = Ledger()

        async def book(record: SpooledSettle) -> Booking:
            if record.request.seconds < 3:
                await spool.append(settle(record.request.seconds + 1))
            return await ledger.book(record)

        report = await spool.replay(book, ledger.on_dead)
        assert [one.request.seconds for one in ledger.booked] == [0, 1, 2, 3]
        assert (report.booked, report.finished) == (4, True)
        assert (spool.depth, spool.bytes_held, names(tmp_path)) == (0, 0, [])
        await spool.close()

    async def test_it_stops_while_the_store_is_away_and_goes_on_there(self, tmp_path: Path) -> None:
        spool = Spool.open(tmp_path, BYTES_MAX)
        for number in range(5):
            await spool.append(settle(number))
        ledger = Ledger()

        async def book(record: SpooledSettle) -> Booking:
            ledger.is_away = len(ledger.booked) == 3
            return await ledger.book(record)

        assert not (await spool.replay(book, ledger.on_dead)).finished
        assert (spool.depth, len(ledger.asked)) == (2, 4)
        report = await spool.replay(ledger.book, ledger.on_dead)
        assert not report.finished
        ledger.is_away = False
        report = await spool.replay(ledger.book, ledger.on_dead)
        assert (report.booked, report.duplicates, report.finished) == (2, 0, True)
        assert spool.depth == 0
        await spool.close()

    async def test_another_process_goes_on_where_one_died(self, tmp_path: Path) -> None:
        await fill(tmp_path, 5)
        ledger = Ledger()

        async def fails(record: SpooledSettle) -> Booking:
            if len(ledger.booked) == 3:
                raise ConnectionError("the store fell over")
            return await ledger.book(record)

        with pytest.raises(ConnectionError):
            await replay_orphans(tmp_path, fails, ledger.on_dead)
        assert names(tmp_path) == [".offset", ".spool"]
        report = await replay_orphans(tmp_path, ledger.book, ledger.on_dead)
        assert (report.booked, report.duplicates) == (2, 0)

    async def test_a_useless_progress_file_costs_duplicates_only(self, tmp_path: Path) -> None:
        records = await fill(tmp_path, 3)
        ledger = Ledger()
        ledger.booked = records[:2]
        path = only_file(tmp_path)
        for useless in (b"", b"\xff" * 12, (10**9).to_bytes(8, "little") + b"\0" * 4):
            path.with_suffix(".offset").write_bytes(useless)
        report = await replay_orphans(tmp_path, ledger.book, ledger.on_dead)
        assert (report.booked, report.duplicates) == (1, 2)
        assert ledger.booked == records

    async def test_a_conflict_becomes_a_dead_letter_and_the_rest_goes_on(
        self, tmp_path: Path
    ) -> None:
        records = await fill(tmp_path, 4)
        ledger = Ledger()
        ledger.conflicts = {records[1].id, records[3].id}
        report = await replay_orphans(tmp_path, ledger.book, ledger.on_dead)
        assert ledger.booked == [records[0], records[2]]
        assert (report.booked, report.dead, report.finished) == (2, 2, True)
        kept = next((tmp_path / "dead").glob("*.jsonl")).read_bytes().splitlines()
        assert [msgspec.json.decode(line, type=DeadLetter) for line in kept] == ledger.letters
        assert [letter.settle for letter in ledger.letters] == [records[1], records[3]]
        assert {letter.reason for letter in ledger.letters} == {"settled_differently"}

    async def test_a_whole_record_that_is_no_settle_becomes_a_dead_letter(
        self, tmp_path: Path
    ) -> None:
        records = await fill(tmp_path, 2)
        path = only_file(tmp_path)
        strange = encode_record(msgspec.structs.replace(records[0], received_at="noon"))
        path.write_bytes(HEADING + encode_record(records[0]) + strange + encode_record(records[1]))
        ledger = Ledger()
        report = await replay_orphans(tmp_path, ledger.book, ledger.on_dead)
        assert ledger.booked == records
        assert (report.booked, report.dead) == (2, 1)
        assert ledger.letters[0].reason == "unreadable"
        assert '"noon"' in (ledger.letters[0].body or "")

    async def test_it_pauses_as_long_as_each_batch_took(self, tmp_path: Path) -> None:
        await fill(tmp_path, 5)
        pauses: list[float] = []

        async def book(record: SpooledSettle) -> Booking:
            await asyncio.sleep(0.01)
            return Booking(Outcome.BOOKED)

        async def pause(seconds: float) -> None:
            pauses.append(seconds)

        replayer = Replayer(book, Ledger().on_dead, batch_records=2, pause=pause)
        for file in Spool.adopt_orphans(tmp_path):
            assert (await replayer.run(file)).booked == 5
        assert len(pauses) == 3
        assert min(pauses[:2]) >= 0.015


class TestLocks:
    async def test_a_living_process_keeps_its_files(self, tmp_path: Path) -> None:
        spool = Spool.open(tmp_path, BYTES_MAX)
        await spool.append(settle(1))
        assert list(Spool.adopt_orphans(tmp_path)) == []
        await spool.close()
        adopted = list(Spool.adopt_orphans(tmp_path))
        assert len(adopted) == 1
        assert list(Spool.adopt_orphans(tmp_path)) == []
        adopted[0].close()

    async def test_two_office_processes_never_replay_one_file_at_once(self, tmp_path: Path) -> None:
        for _ in range(3):
            await fill(tmp_path, 20)
        ledger = Ledger()

        async def book(record: SpooledSettle) -> Booking:
            await asyncio.sleep(0)
            return await ledger.book(record)

        reports = await asyncio.gather(
            *(replay_orphans(tmp_path, book, ledger.on_dead) for _ in range(4))
        )
        assert sum(report.booked for report in reports) == 60
        assert len(ledger.asked) == 60

    async def test_a_file_dealt_with_while_it_was_opened_is_passed_over(
        self, tmp_path: Path
    ) -> None:
        await fill(tmp_path, 1)
        path = only_file(tmp_path)
        holder = LockedFile.adopt(path)
        assert holder is not None
        holder.remove()
        assert LockedFile.adopt(path) is None

    async def test_strays_of_a_kill_are_swept(self, tmp_path: Path) -> None:
        await fill(tmp_path, 1)
        (tmp_path / "1-gone.offset").write_bytes(b"")
        (tmp_path / "1-old.new").write_bytes(b"")
        os.utime(tmp_path / "1-old.new", (0, 0))
        (tmp_path / "2-making.new").write_bytes(b"")
        for file in Spool.adopt_orphans(tmp_path):
            file.close()
        assert names(tmp_path) == [".new", ".spool"]

    async def test_a_replay_that_is_cancelled_lets_go_of_its_file(self, tmp_path: Path) -> None:
        records = await fill(tmp_path, 3)
        ledger = Ledger()
        reached = asyncio.Event()

        async def hangs(record: SpooledSettle) -> Booking:
            if len(ledger.booked) == 1:
                reached.set()
                await asyncio.Event().wait()
            return await ledger.book(record)

        replay = asyncio.create_task(replay_orphans(tmp_path, hangs, ledger.on_dead))
        await reached.wait()
        replay.cancel()
        with pytest.raises(asyncio.CancelledError):
            await replay
        report = await replay_orphans(tmp_path, ledger.book, ledger.on_dead)
        assert (report.booked, report.duplicates) == (2, 0)
        assert ledger.booked == records
