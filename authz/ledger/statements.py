"""The statement of an account's month: what it began with, what was booked, what is left.

It goes by the time of booking, in the account's time zone. Ledger entries are booked in order, so
that a month that is over never changes.
"""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from authz.errors import InvariantError
from authz.ledger.messages import KindSums
from authz.ledger.schema import movements
from authz.ledger.selections import within
from authz.ledger.usage import fields, sum_columns, sums_of
from authz.ledger.windows import Window
from authz.money import format_amount
from authz.store.constants import Kind


class Sheet(NamedTuple):
    """Balances in micros; `opening_micros` + all sums of `totals` = `closing_micros`."""

    opening_micros: int
    totals: tuple[KindSums, ...]
    closing_micros: int


async def read_sheet(
    connection: AsyncConnection, account: str, start_us: int, end_us: int
) -> Sheet:
    """Return what an account had before a window, the sums of its kinds, and what it had after.

    Raises InvariantError when movements are missing, so that it would not add up.
    """
    opening = await _balance_before(connection, account, start_us)
    closing = await _balance_before(connection, account, end_us)
    by_kind = select(movements.c.kind, *sum_columns()).group_by(movements.c.kind)
    by_kind = by_kind.where(*within(account, Window(start_us, end_us))).order_by(movements.c.kind)
    sums = {row.kind: sums_of(row[1:]) for row in await connection.execute(by_kind)}
    booked = sum(one.amount_micros for one in sums.values())
    if opening + booked != closing:
        raise InvariantError(
            f"movements of {account} are missing in the archive: {format_amount(opening)} and "
            f"{format_amount(booked)} do not make {format_amount(closing)}"
        )
    totals = tuple(KindSums(kind=Kind(kind).label, **fields(one)) for kind, one in sums.items())
    return Sheet(opening, totals, closing)


async def _balance_before(connection: AsyncConnection, account: str, moment_us: int) -> int:
    """Return the balance after the last movement before a moment."""
    columns = movements.c
    last = (
        select(columns.balance_micros)
        .where(*within(account, Window(None, moment_us)))
        .order_by(columns.booked_us.desc(), columns.sequence.desc())
        .limit(1)
    )
    balance: int | None = (await connection.execute(last)).scalar()
    if balance is not None:
        return balance
    first = (
        select(columns.balance_micros - columns.amount_micros)
        .where(*within(account, Window(moment_us, None)))
        .order_by(columns.booked_us, columns.sequence)
        .limit(1)
    )
    return (await connection.execute(first)).scalar() or 0
