"""Single movements of an account as callers read them, page by page or all in a row."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from functools import lru_cache
from typing import Any, Final, NamedTuple

from sqlalchemy import Select, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from authz.errors import InvalidInput
from authz.ledger.messages import SortName, Transaction
from authz.ledger.paging import Position, after, order, read_cursor, window_after, write_cursor
from authz.ledger.schema import movements
from authz.ledger.selections import Selection
from authz.ledger.windows import MICROS_PER_SECOND, Window, moment_text
from authz.money import format_amount
from authz.reasons import BILLING_OF, CLASS_OF, Direction
from authz.store.constants import Kind, Mark

#: By amount there is no index: what a page looks through is bounded by the window.
AMOUNT_SORT_DAYS_MAX: Final = 31
_AMOUNT_SORT_US_MAX: Final = (AMOUNT_SORT_DAYS_MAX * 24 + 1) * 3600 * MICROS_PER_SECOND
#: Rows that a stream reads at a time: enough that asking costs little, few enough to hold.
STREAM_ROWS: Final = 1_000

#: Opens a connection for one read.
Read = Callable[[], AbstractAsyncContextManager[AsyncConnection]]

_KIND_LABELS: Final = {int(kind): kind.label for kind in Kind}
_DIRECTION_LABELS: Final = tuple(one.label for one in Direction)
_CLASS_LABELS: Final = tuple(one.label for one in CLASS_OF)
_BILLING_LABELS: Final = tuple(one.label for one in BILLING_OF)


class Page(NamedTuple):
    """Some transactions in order; `cursor` asks for the next, None: there are no more."""

    transactions: tuple[Transaction, ...]
    cursor: str | None


async def read_page(
    connection: AsyncConnection,
    selection: Selection,
    sort: SortName,
    cursor: str | None,
    limit: int,
) -> Page:
    """Return one page; raises InvalidInput for a cursor or an order that cannot be."""
    if sort.endswith("amount"):
        _check_width(selection.window)
    position = None if cursor is None else read_cursor(cursor, sort, selection)
    rows = (await connection.execute(page_statement(selection, sort, position, limit + 1))).all()
    next_cursor = None
    if len(rows) > limit:
        rows = rows[:limit]
        next_cursor = write_cursor(sort, selection, position_of(rows[-1]))
    return Page(tuple([transaction_of(row) for row in rows]), next_cursor)


async def stream_rows(
    read: Read, selection: Selection, sort: SortName
) -> AsyncIterator[Sequence[Any]]:
    """Yield every row of a selection in parts, however many there are, by one short read each.

    What is booked after the first read is left out. Raises InvalidInput for an order by amount,
    whose every part would look through the whole window again.
    """
    if sort.endswith("amount"):
        raise InvalidInput("sort", "a file is in the order of booking: booked or -booked")
    position: Position | None = None
    while True:
        async with read() as connection:
            if position is None:
                selection = await _closed(connection, selection)
            statement = page_statement(selection, sort, position, STREAM_ROWS)
            rows = (await connection.execute(statement)).all()
        if rows:
            yield rows
            position = position_of(rows[-1])
        if len(rows) < STREAM_ROWS:
            return


def page_statement(
    selection: Selection, sort: SortName, position: Position | None, limit: int
) -> Select[Any]:
    """Return the query of the rows after a position, of which `transaction_of` makes sense."""
    columns = movements.c
    if position is not None:
        window = window_after(sort, selection.window, position)
        selection = selection._replace(window=window)
    statement = (
        select(
            columns.bucket, columns.sequence, columns.leg, columns.account, columns.origin,
            columns.kind, columns.marks, columns["class"], columns.direction, columns.billing,
            columns.seconds, columns.booked_us, columns.started_at, columns.amount_micros,
            columns.balance_micros, columns.reference, columns.number, columns.description,
            columns.refunded_call,
        )
        .where(*selection.conditions())
        .order_by(*order(sort))
        .limit(limit)
    )  # fmt: skip
    return statement if position is None else statement.where(after(sort, position))


def transaction_of(row: Sequence[Any], zone: dt.tzinfo = dt.UTC) -> Transaction:
    """Return what callers see of a row, with times of a zone."""
    (
        bucket, sequence, leg, account, origin, kind, marks, call_class, direction, billing,
        seconds, booked_us, started_at, amount, balance, reference, number, description, refunded,
    ) = row  # fmt: skip
    is_call = kind == Kind.CALL
    return Transaction(
        id=f"txn_{bucket}_{sequence}_{leg}",
        account=account,
        origin=origin,
        booked_at=moment_text(booked_us, zone, "milliseconds"),
        started_at=moment_text(started_at * MICROS_PER_SECOND, zone),
        kind=_KIND_LABELS[kind],
        marks=_mark_words(marks),
        direction=_DIRECTION_LABELS[direction] if is_call else None,
        class_=_CLASS_LABELS[call_class] if is_call else None,
        number=number if is_call else None,
        seconds=seconds if is_call else None,
        billing=_BILLING_LABELS[billing] if is_call else None,
        amount=format_amount(amount),
        balance=format_amount(balance),
        call_id=reference if is_call else refunded or None,
        reference=None if is_call else reference,
        description=description,
    )


def position_of(row: Any) -> Position:
    """Return where a row stands."""
    return Position(row.amount_micros, row.booked_us, row.sequence)


async def _closed(connection: AsyncConnection, selection: Selection) -> Selection:
    """Return the selection without what will be booked from now on."""
    newest = select(func.max(movements.c.booked_us)).where(movements.c.account == selection.account)
    end_us = ((await connection.execute(newest)).scalar() or 0) + 1
    window = selection.window
    if window.end_us is not None:
        end_us = min(end_us, window.end_us)
    return selection._replace(window=Window(window.start_us, end_us))


def _check_width(window: Window) -> None:
    if (
        window.start_us is None
        or window.end_us is None
        or window.end_us - window.start_us > _AMOUNT_SORT_US_MAX
    ):
        detail = f"by amount, give start and end at most {AMOUNT_SORT_DAYS_MAX} days apart"
        raise InvalidInput("sort", detail)


@lru_cache(maxsize=256)
def _mark_words(marks: int) -> tuple[str, ...]:
    return tuple(mark.name.lower() for mark in Mark(marks) if mark.name)
