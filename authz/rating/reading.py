"""From the cells of one line to what they mean, remembering what was read before.

Decks have few distinct prices: the cells beside prefix and description are read once for each
combination, which makes the import of a long file as fast as splitting it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

from authz.rating import cells
from authz.rating.cells import CellError
from authz.rating.columns import Table
from authz.rating.rows import (
    CELL_LENGTH_MAX,
    DESCRIPTION_LENGTH_MAX,
    INCREMENT_SECONDS_DEFAULT,
    MONEY_DECIMALS,
    RoundingMode,
    Terms,
    TimeWindow,
    rate_of,
)
from authz.reasons import CLASSES, CallClass, Direction
from authz_ext.rating import Tier

#: Most combinations remembered; beyond it the memory starts anew.
COMBINATIONS_MAX = 50_000
_DIRECTIONS = {
    "both": None, "any": None,
    "outbound": Direction.OUTBOUND, "out": Direction.OUTBOUND, "outgoing": Direction.OUTBOUND,
    "inbound": Direction.INBOUND, "in": Direction.INBOUND, "incoming": Direction.INBOUND,
}  # fmt: skip

_Read = TypeVar("_Read")


class LineError(Exception):
    """A line that cannot be used: the column's heading, its cell, and why."""

    def __init__(self, column: str, value: str, reason: str) -> None:
        super().__init__(reason)
        self.column = column
        self.value = value
        self.reason = reason


class Details(NamedTuple):
    """What the cells of a line say, beside prefix and description."""

    direction: int | None
    call_class: int | None
    blocked: bool
    terms: Terms | None
    window: TimeWindow | None
    effective: str | None
    expires: str | None
    #: What somebody should look at although the line is used: (column, value, reason).
    note: tuple[str, str, str] | None


class LineReader:
    """Reads the lines of one table. `direction` holds for lines that name none."""

    def __init__(self, table: Table, currency: str, direction: int | None) -> None:
        self._header = table.header
        self._columns = table.columns
        self._currency = currency
        self._direction = None if direction is None else int(direction)
        self._prefix = table.columns["prefix"]
        self._description = table.columns.get("description")
        self._details_indexes = [
            index
            for meaning, index in table.columns.items()
            if meaning not in {"prefix", "description"}
        ]
        self._details: dict[tuple[str, ...], Details | LineError] = {}
        self._terms: dict[Terms, Terms] = {}
        self._cells: list[str] = []

    def check_shape(self, line: list[str]) -> None:
        """Refuse a line with more cells than the header, or with a cell that swallowed others."""
        width = len(self._header)
        if any(cell.strip() for cell in line[width:]):
            raise LineError(
                "",
                line[width],
                f"{len(line)} cells where the header has {width}: an unquoted delimiter?",
            )
        for index, cell in enumerate(line):
            if len(cell) > CELL_LENGTH_MAX or "\n" in cell or "\r" in cell:
                raise LineError(
                    self._header[index] if index < width else "",
                    cell,
                    "the cell runs over several lines or is too long: is a quote missing?",
                )

    def prefixes(self, line: list[str]) -> tuple[str, ...]:
        """Return the prefixes that a line is for; LineError where they are not readable."""
        cell = line[self._prefix].strip() if self._prefix < len(line) else ""
        try:
            return cells.read_prefixes(cell)
        except CellError as error:
            raise LineError(self._header[self._prefix], cell, str(error)) from None

    def description(self, line: list[str]) -> str:
        """Return the description of a line, "" without such a column."""
        index = self._description
        if index is None or index >= len(line):
            return ""
        description = line[index].strip()
        if len(description) > DESCRIPTION_LENGTH_MAX:
            raise LineError(
                self._header[index],
                description,
                f"the description is longer than {DESCRIPTION_LENGTH_MAX} characters",
            )
        if not description.isprintable():
            raise LineError(
                self._header[index], description, "the description has control characters"
            )
        return description

    def details(self, line: list[str]) -> Details:
        """Return what the other cells of a line say; LineError naming the first bad one."""
        if len(line) < len(self._header):
            line = line + [""] * (len(self._header) - len(line))
        key = tuple([line[index] for index in self._details_indexes])
        found = self._details.get(key)
        if found is None:
            if len(self._details) >= COMBINATIONS_MAX:
                self._details.clear()
            self._cells = line
            try:
                found = self._read_details()
            except LineError as error:
                found = error.with_traceback(None)
            self._details[key] = found
        if isinstance(found, LineError):
            raise LineError(found.column, found.value, found.reason)
        return found

    # -- one combination of cells ---------------------------------------------------------

    def _cell(self, meaning: str) -> str:
        index = self._columns.get(meaning)
        return self._cells[index].strip() if index is not None else ""

    def _read(self, meaning: str, read: Callable[[str], _Read]) -> _Read:
        """Return what `read` makes of a cell; its error becomes one that names the column."""
        try:
            return read(self._cell(meaning))
        except ValueError as error:
            raise self._error(meaning, str(error)) from None

    def _read_or(self, meaning: str, default: _Read, read: Callable[[str], _Read]) -> _Read:
        return self._read(meaning, read) if self._cell(meaning) else default

    def _error(self, meaning: str, reason: str) -> LineError:
        index = self._columns.get(meaning)
        heading = self._header[index] if index is not None else ""
        return LineError(heading, self._cell(meaning), reason)

    def _read_details(self) -> Details:
        if self._cell("currency") not in {"", self._currency}:
            raise self._error("currency", f"the deck's currency is {self._currency}")
        effective = self._read_or("effective", None, cells.read_date)
        expires = self._read_or("expires", None, cells.read_date)
        if effective and expires and expires <= effective:
            raise self._error("expires", f"it expires before it is effective on {effective}")
        price_cells = [
            meaning
            for meaning in ("price", "initial_price", "next_price")
            if cells.says_blocked(self._cell(meaning))
        ]
        blocked = bool(price_cells) or self._read("blocked", cells.read_flag)
        terms = None if price_cells or self._has_no_price(blocked) else self._read_terms()
        return Details(
            direction=self._read_or("direction", self._direction, _read_direction),
            call_class=self._read_or("class", None, _read_class),
            blocked=blocked,
            terms=terms if terms is None else self._terms.setdefault(terms, terms),
            window=self._read_or("window", None, cells.read_window),
            effective=effective,
            expires=expires,
            note=self._note_half_blocked(price_cells),
        )

    def _has_no_price(self, blocked: bool) -> bool:
        """Say whether a blocked row leaves its price open, which only such a row may."""
        meanings = ("price", "initial_price", "next_price", "tiers")
        return blocked and not any(map(self._cell, meanings))

    def _note_half_blocked(self, blocked: list[str]) -> tuple[str, str, str] | None:
        if len(blocked) != 1 or "initial_price" not in self._columns:
            return None
        other = "next_price" if blocked[0] == "initial_price" else "initial_price"
        column = self._header[self._columns[other]]
        return column, self._cell(other), "only one of two prices is Blocked: the row is blocked"

    def _read_terms(self) -> Terms:
        decimals = MONEY_DECIMALS
        half_up: tuple[RoundingMode, int] = ("half_up", MONEY_DECIMALS)
        rounding = self._read_or("rounding", half_up, cells.read_rounding)
        action = self._cell("max_cost_action") or "free"
        if action not in ("free", "end"):
            raise self._error("max_cost_action", f"{action!r} is not free or end")
        max_cost = self._read_or(
            "max_cost", None, lambda cell: self._money(cell, decimals, "greatest cost")
        )
        return self._checked(
            Terms(
                tiers=self._read_tiers(),
                connect_fee=self._read_or(
                    "connect_fee", 0, lambda cell: self._money(cell, decimals, "fee")
                ),
                free_seconds=self._read_or(
                    "free_seconds", 0, lambda cell: cells.read_seconds(cell, "free seconds")
                ),
                rounding_mode=rounding[0],
                rounding_decimals=rounding[1],
                max_cost=max_cost,
                # Without a greatest cost its action says nothing, so that equal terms are equal.
                max_cost_action="end" if action == "end" and max_cost is not None else "free",
            )
        )

    def _checked(self, terms: Terms) -> Terms:
        """Return terms of which a rate can be made; its bounds are the rate's own."""
        try:
            rate_of(terms)
        except ValueError as error:
            raise LineError("", "", f"the row makes no rate: {error}") from None
        return terms

    def _money(self, cell: str, decimals_max: int, what: str) -> int:
        return cells.read_money(cell, decimals_max, self._currency, what)

    def _price(self, meaning: str) -> int:
        return self._read(meaning, lambda cell: cells.read_price(cell, self._currency))

    def _read_tiers(self) -> tuple[Tier, ...]:
        if self._cell("tiers"):
            return self._read("tiers", lambda cell: cells.read_tiers(cell, self._currency))
        if "price" in self._columns:
            first_price = next_price = self._price("price")
        elif "initial_price" in self._columns:
            first_price, next_price = self._price("initial_price"), self._price("next_price")
        else:
            raise self._error("tiers", "the row has no price")
        first_seconds, next_seconds = self._read_increments()
        try:
            return tiers_of(first_price, first_seconds, next_price, next_seconds)
        except ValueError as error:
            raise LineError("", "", str(error)) from None

    def _read_increments(self) -> tuple[int, int]:
        """Return the lengths of the first and of the following increments, in seconds."""
        default = (INCREMENT_SECONDS_DEFAULT, INCREMENT_SECONDS_DEFAULT)
        first, following = self._read_or("increment", default, cells.read_increment)
        if self._cell("next_increment"):
            following = self._read(
                "next_increment", lambda cell: cells.read_seconds(cell, "increment")
            )
            if not self._cell("increment"):
                first = following
        if self._cell("initial_increment"):
            first = self._read(
                "initial_increment", lambda cell: cells.read_seconds(cell, "increment")
            )
            # Carriers write a minimum of 0 where the first increment is like the others.
            first = first or following
        return first, following


def tiers_of(
    first_price: int, first_seconds: int, next_price: int, next_seconds: int
) -> tuple[Tier, ...]:
    """Return the tiers of one first increment and what follows; prices are nanos per minute."""
    first = Tier(0, first_price, 60, first_seconds)
    if (first_price, first_seconds) == (next_price, next_seconds):
        return (first,)
    return (first, Tier(first_seconds, next_price, 60, next_seconds))


def _read_direction(cell: str) -> int | None:
    if cell.lower() not in _DIRECTIONS:
        raise CellError(f"direction {cell!r} is not outbound, inbound or both")
    direction = _DIRECTIONS[cell.lower()]
    return None if direction is None else int(direction)


def _read_class(cell: str) -> CallClass:
    try:
        return CLASSES[cell.lower()]
    except KeyError:
        raise CellError(f"class {cell!r} is not one of {', '.join(CLASSES)}") from None
