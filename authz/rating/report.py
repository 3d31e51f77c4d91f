"""What became of a deck file's lines, as records for JSON and tables."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from msgspec import Struct

from authz.errors import DeckError

#: Most issues that a report lists; it counts the rest.
ISSUES_LISTED_MAX = 100_000
VALUE_LENGTH_MAX = 80

#: `refused`: the line refuses the deck. `blocked`: its prefix was imported as blocked.
#: `left_out`: nothing of it was imported. `note`: it was used, but look at it.
Outcome = Literal["refused", "blocked", "left_out", "note"]


class LineIssue(Struct, frozen=True):
    """One line that is wrong or was not used as it stands; `column` is empty for the whole."""

    line: int
    column: str
    value: str
    reason: str
    outcome: Outcome


class IgnoredColumn(Struct, frozen=True):
    """A column that means nothing to authz, with some of the values it holds."""

    column: str
    values: tuple[str, ...]
    reason: str


class ImportReport(Struct, frozen=True, kw_only=True):
    """How the import of one file went.

    `lines` counts lines with content below the header, `rows` what became of them after lists
    and ranges of prefixes were taken apart, `blocked` those of the rows that refuse calls.
    """

    encoding: str
    delimiter: str
    header_line: int
    lines: int
    bad_lines: int
    rows: int
    prefixes: int
    blocked: int
    issues: tuple[LineIssue, ...]
    issues_total: int
    ignored_columns: tuple[IgnoredColumn, ...]


class DeckRefused(DeckError):
    """A deck file has bad lines and nothing of it was imported; `report` lists them all."""

    def __init__(self, report: ImportReport) -> None:
        first = next(issue for issue in report.issues if issue.outcome == "refused")
        count = f"{report.bad_lines} bad line" + "s" * (report.bad_lines != 1)
        super().__init__(
            f"line {first.line}: {first.reason} ({count}; nothing was imported; with skip_bad "
            "such lines are left out, or blocked where the prefix is readable)"
        )
        self.report = report


class IssueList:
    """Collects the issues of one import, in any order, and bounds them."""

    def __init__(self) -> None:
        self._issues: list[LineIssue] = []
        self._bad_lines: set[int] = set()
        self.total = 0

    @property
    def bad_lines(self) -> int:
        """How many lines have an issue that is more than a note."""
        return len(self._bad_lines)

    def add(self, line: int, column: str, value: str, reason: str, outcome: Outcome) -> None:
        """Note one issue; of more than ISSUES_LISTED_MAX only the number is kept."""
        self.total += 1
        if outcome != "note":
            self._bad_lines.add(line)
        if len(self._issues) < ISSUES_LISTED_MAX:
            short = value if len(value) <= VALUE_LENGTH_MAX else value[:VALUE_LENGTH_MAX] + "…"
            self._issues.append(LineIssue(line, column, short, reason, outcome))

    def listed(self) -> tuple[LineIssue, ...]:
        """Return the issues by line."""
        return tuple(sorted(self._issues, key=lambda issue: issue.line))


class ColumnSamples:
    """A few distinct values of each ignored column."""

    SAMPLES_MAX = 4

    def __init__(self, header: tuple[str, ...], indexes: Iterable[int]) -> None:
        self._header = header
        self._values: dict[int, dict[str, None]] = {index: {} for index in indexes}

    def see(self, cells: list[str]) -> None:
        """Remember the values of one line."""
        for index, values in self._values.items():
            if len(values) < self.SAMPLES_MAX and index < len(cells):
                values[cells[index].strip()] = None

    def names(self) -> str:
        """Return the headings of the columns that hold more than one value, for a reason."""
        several = [self._header[index] for index, seen in self._values.items() if len(seen) > 1]
        return ", ".join(map(repr, several))

    def ignored(self) -> tuple[IgnoredColumn, ...]:
        """Return the columns with what they hold."""
        return tuple(
            IgnoredColumn(
                self._header[index],
                tuple(value[:VALUE_LENGTH_MAX] for value in values if value),
                "authz knows no column of this name",
            )
            for index, values in self._values.items()
        )
