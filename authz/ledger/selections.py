"""Which movements of one account a question is about, in callers' words and in SQL."""

from __future__ import annotations

from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from sqlalchemy import ColumnElement, and_, exists, func, literal_column, or_, select

from authz.errors import InvalidInput
from authz.ledger.messages import MovementQuery
from authz.ledger.schema import movements
from authz.ledger.windows import Window, parse_window
from authz.reasons import CLASSES, DIRECTIONS, CallClass, Direction
from authz.store.constants import Kind

KINDS: dict[str, Kind] = {kind.label: kind for kind in Kind}


class Selection(NamedTuple):
    """A MovementQuery understood."""

    account: str
    window: Window
    kind: Kind | None = None
    direction: Direction | None = None
    call_class: CallClass | None = None
    destination: str | None = None
    origin: str | None = None
    under: str | None = None

    @classmethod
    def of(cls, query: MovementQuery, zone: ZoneInfo) -> Selection:
        """Return what a query selects of an account of this time zone; raises InvalidInput."""
        kind = None if query.kind is None else KINDS[query.kind]
        for name, word in (
            ("direction", query.direction),
            ("class", query.class_),
            ("destination", query.destination),
        ):
            if word is not None and kind not in (None, Kind.CALL):
                raise InvalidInput(name, f"only calls have one, and kind is {query.kind}")
            if word is not None:
                kind = Kind.CALL
        return cls(
            account=query.id,
            window=parse_window(query.start, query.end, zone),
            kind=kind,
            direction=None if query.direction is None else DIRECTIONS[query.direction],
            call_class=None if query.class_ is None else CLASSES[query.class_],
            destination=query.destination,
            origin=query.origin,
            under=query.under,
        )

    def conditions(self) -> list[ColumnElement[bool]]:
        """Return what a row of `movements` must fulfil."""
        columns = movements.c
        conditions = within(self.account, self.window)
        if self.kind is not None:
            conditions.append(columns.kind == int(self.kind))
            if self.kind != Kind.CALL:
                # Written out: the planner must see that the index of what is no call will do.
                conditions.append(columns.kind != literal_column(str(int(Kind.CALL))))
        if self.direction is not None:
            conditions.append(columns.direction == int(self.direction))
        if self.call_class is not None:
            conditions.append(columns["class"] == int(self.call_class))
        if self.destination is not None:
            conditions.append(_begins(columns.number, self.destination))
        if self.origin is not None:
            conditions.append(columns.origin == self.origin)
        if self.under is not None:
            conditions.append(_passes(self.under))
        return conditions


def within(account: str, window: Window) -> list[ColumnElement[bool]]:
    """Return the conditions of an account's movements in a window, which an index serves."""
    conditions: list[ColumnElement[bool]] = [movements.c.account == account]
    if window.start_us is not None:
        conditions.append(movements.c.booked_us >= window.start_us)
    if window.end_us is not None:
        conditions.append(movements.c.booked_us < window.end_us)
    return conditions


def _begins(number: Any, prefix: str) -> ColumnElement[bool]:
    # By characters and not by LIKE or order, which depend on the database and its collation.
    def begins(text: str) -> ColumnElement[bool]:
        return and_(func.substr(number, 1, len(text)) == text)

    return begins(prefix) if prefix.startswith("+") else or_(begins(prefix), begins(f"+{prefix}"))


def _passes(account: str) -> ColumnElement[bool]:
    """Return whether the same ledger entry has a leg of that account too."""
    other = movements.alias("other")
    return exists(
        select(other.c.leg).where(
            other.c.bucket == movements.c.bucket,
            other.c.sequence == movements.c.sequence,
            # As an expression, lest SQLite look through all that this account ever had for the
            # entry, by an index of accounts, instead of finding it by its key.
            other.c.account + "" == account,
        )
    )
