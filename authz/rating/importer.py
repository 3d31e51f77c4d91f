"""Import of a deck from a carrier's CSV file, with a report of every line that is not used.

Pure: bytes in, rows and report out. DESIGN: any bad line refuses the deck; with `skip_bad` a
bad line whose prefix is readable blocks that prefix, and other bad lines are left out.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from authz.errors import DeckError
from authz.rating.columns import Table, find_table
from authz.rating.grouping import group_rows
from authz.rating.reading import LineError, LineReader
from authz.rating.report import ColumnSamples, DeckRefused, ImportReport, IssueList, Outcome
from authz.rating.rows import ROWS_MAX, PriceRow

#: Progress is told after this many lines.
PROGRESS_LINES = 5_000

#: Called with (lines done, lines in all).
Progress = Callable[[int, int], None]


class ImportOptions(Struct, frozen=True, kw_only=True):
    """How to read a file. `direction` (authz.reasons.Direction) is that of lines naming none."""

    currency: str = "USD"
    direction: int | None = None
    skip_bad: bool = False


class ImportedDeck(Struct, frozen=True):
    """The rows of a file, sorted by prefix, and the report of its import."""

    rows: tuple[PriceRow, ...]
    report: ImportReport


def import_deck(
    data: bytes, options: ImportOptions, progress: Progress | None = None
) -> ImportedDeck:
    """Return the rows of a deck file.

    Raises DeckRefused with the report when a line is bad and `skip_bad` is off, and DeckError
    for a file that is no deck at all: no text, no header, no usable row, too large.
    """
    table = find_table(data, options.currency)
    run = _Import(table, options)
    lines_total = table.text.count("\n") + 1 - table.header_line
    for line, cells in table.rows():
        run.take(line, cells)
        if progress is not None and run.lines % PROGRESS_LINES == 0:
            progress(min(run.lines, lines_total), lines_total)
    imported = run.finish()
    if progress is not None:
        progress(lines_total, lines_total)
    return imported


class _Import:
    """One import under way: the rows so far by prefix, and the issues."""

    def __init__(self, table: Table, options: ImportOptions) -> None:
        self._table = table
        self._skip_bad = options.skip_bad
        self._reader = LineReader(table, options.currency, options.direction)
        self._issues = IssueList()
        self._samples = ColumnSamples(table.header, table.ignored)
        self._rows: dict[str, list[PriceRow]] = {}
        self._row_count = 0
        #: Prefixes of bad lines, with the first such line.
        self._damaged: dict[str, int] = {}
        self.lines = 0
        for line in table.preamble:
            self._issues.add(line, "", "", "it stands above the header", "note")

    def take(self, line: int, cells: list[str]) -> None:
        """Read one line: add its rows, or note why it is not used."""
        self.lines += 1
        self._samples.see(cells)
        prefixes: tuple[str, ...] = ()
        try:
            self._reader.check_shape(cells)
            prefixes = self._reader.prefixes(cells)
            details = self._reader.details(cells)
            description = self._reader.description(cells)
        except LineError as error:
            outcome = self._outcome("blocked" if prefixes else "left_out")
            self._issues.add(line, error.column, error.value, error.reason, outcome)
            for prefix in prefixes:
                self._damaged.setdefault(prefix, line)
            self._count_rows(line, len(prefixes))
            return
        if details.note is not None:
            self._issues.add(line, *details.note, "note")
        self._count_rows(line, len(prefixes))
        for prefix in prefixes:
            row = PriceRow(line, prefix, description, *details[:-1])
            self._rows.setdefault(prefix, []).append(row)

    def finish(self) -> ImportedDeck:
        """Return what was imported, or raise DeckRefused or DeckError."""
        self._block_damaged()
        rows: list[PriceRow] = []
        for prefix in sorted(self._rows):
            members = self._rows[prefix]
            if len(members) > 1 or members[0].window is not None:
                members = self._settle_prefix(prefix, members)
            rows += members
        report = self._report(rows)
        if report.bad_lines and not self._skip_bad:
            raise DeckRefused(report)
        if not rows:
            raise DeckError("the file has no row that can be used")
        return ImportedDeck(tuple(rows), report)

    def _count_rows(self, line: int, count: int) -> None:
        self._row_count += count
        if self._row_count > ROWS_MAX:
            raise DeckError(f"line {line}: the deck has more than {ROWS_MAX} rows")

    def _outcome(self, outcome: Outcome) -> Outcome:
        return outcome if self._skip_bad else "refused"

    def _block_damaged(self) -> None:
        """Make blocked rows of the prefixes of bad lines; other rows of them cannot be trusted."""
        for prefix, bad_line in self._damaged.items():
            for row in self._rows.get(prefix, ()):
                self._issues.add(
                    row.line,
                    "",
                    prefix,
                    f"prefix {prefix} is also on line {bad_line}, which is bad",
                    self._outcome("blocked"),
                )
            self._rows[prefix] = [_blocked_row(bad_line, prefix, "")]

    def _settle_prefix(self, prefix: str, members: list[PriceRow]) -> list[PriceRow]:
        """Return the rows of a prefix in their order, or one blocked row if they contradict."""
        _, complaints = group_rows(members)
        if not complaints:
            return sorted(members, key=_order)
        differing = self._samples.names()
        hint = f" (columns that authz ignores differ: {differing})" if differing else ""
        for row, reason in complaints:
            self._issues.add(row.line, "", prefix, reason + hint, self._outcome("blocked"))
        if self._skip_bad:
            told = {row.line for row, _ in complaints}
            for line in sorted({row.line for row in members} - told):
                reason = f"other lines of prefix {prefix} contradict it"
                self._issues.add(line, "", prefix, reason, "blocked")
        return [_blocked_row(members[0].line, prefix, members[0].description)]

    def _report(self, rows: list[PriceRow]) -> ImportReport:
        return ImportReport(
            encoding=self._table.encoding,
            delimiter=self._table.delimiter,
            header_line=self._table.header_line,
            lines=self.lines,
            bad_lines=self._issues.bad_lines,
            rows=len(rows),
            prefixes=len(self._rows),
            blocked=sum(row.blocked for row in rows),
            issues=self._issues.listed(),
            issues_total=self._issues.total,
            ignored_columns=self._samples.ignored(),
        )


def _blocked_row(line: int, prefix: str, description: str) -> PriceRow:
    """Return the row that refuses every call to a prefix whose price is in doubt."""
    return PriceRow(line, prefix, description, None, None, True, None, None, None, None)


def _order(row: PriceRow) -> tuple[int, str, tuple[int, int, int]]:
    """Return what sorts the rows of one prefix: direction, date, the windowless row first."""
    window = row.window
    return (
        -1 if row.direction is None else row.direction,
        row.effective or "",
        (-1, 0, 0) if window is None else (window.days, window.start_minute, window.end_minute),
    )
