"""What an account used in a window: sums by kind, class, billing and origin."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, case, func, literal, select
from sqlalchemy.ext.asyncio import AsyncConnection

from authz.ledger.messages import BillingSums, ClassSums, KindSums, OriginSums, UsageSums
from authz.ledger.schema import movements
from authz.ledger.selections import Selection
from authz.money import format_amount
from authz.reasons import BILLING_OF, CLASS_OF
from authz.store.constants import Kind, Mark

#: Accounts that one answer lists; the window or `under` narrows a larger tree.
ORIGINS_MAX: Final = 1_000


class Sums(NamedTuple):
    """Sums over movements: how many, calls and their seconds among them, and the net amount."""

    entries: int = 0
    calls: int = 0
    seconds: int = 0
    amount_micros: int = 0

    def plus(self, other: Sums) -> Sums:
        """Return the sums over both."""
        return Sums(*map(sum, zip(self, other, strict=True)))


class Usage(NamedTuple):
    """The sums of a selection, each list in the order of its table of codes or by charge.

    `by_origin` has the `ORIGINS_MAX` accounts that were charged most; `more_origins` says that
    there are others.
    """

    total: UsageSums
    by_kind: tuple[KindSums, ...]
    by_class: tuple[ClassSums, ...]
    by_billing: tuple[BillingSums, ...]
    by_origin: tuple[OriginSums, ...]
    more_origins: bool


async def read_usage(connection: AsyncConnection, selection: Selection) -> Usage:
    """Return the sums of what a selection has."""
    columns = movements.c
    conditions = selection.conditions()
    sums = sum_columns()
    by_code = select(columns.kind, columns["class"], columns.billing, *sums)
    by_code = by_code.where(*conditions).group_by(columns.kind, columns["class"], columns.billing)
    groups = [(*row[:3], sums_of(row[3:])) for row in await connection.execute(by_code)]
    by_origin = select(columns.origin, *sums).where(*conditions).group_by(columns.origin)
    by_origin = by_origin.order_by(func.sum(columns.amount_micros), columns.origin)
    origins = (await connection.execute(by_origin.limit(ORIGINS_MAX + 1))).all()
    calls = [group for group in groups if group[0] == Kind.CALL]
    return Usage(
        total=UsageSums(**fields(_total(one[3] for one in groups))),
        by_kind=tuple(
            KindSums(kind=Kind(kind).label, **fields(part)) for kind, part in _by(0, groups)
        ),
        by_class=tuple(
            ClassSums(class_=CLASS_OF[code].label, **fields(part)) for code, part in _by(1, calls)
        ),
        by_billing=tuple(
            BillingSums(billing=BILLING_OF[code].label, **fields(part))
            for code, part in _by(2, calls)
        ),
        by_origin=tuple(
            OriginSums(origin=row.origin, **fields(sums_of(row[1:])))
            for row in origins[:ORIGINS_MAX]
        ),
        more_origins=len(origins) > ORIGINS_MAX,
    )


def sum_columns() -> tuple[ColumnElement[int], ...]:
    """Return the columns of `Sums`, over whatever rows are selected."""
    columns = movements.c
    is_call = columns.kind == int(Kind.CALL)
    corrects = columns.marks.bitwise_and(int(Mark.CORRECTION)) != 0
    reverses = corrects & (columns.marks.bitwise_and(int(Mark.PROVISIONAL)) != 0)
    # An orphan is one call: its reversal takes it back, its correction leaves it counted.
    calls = case((~is_call, 0), (reverses, -1), (corrects, 0), else_=1)
    seconds = case(
        (~is_call, 0), (corrects, columns.seconds - _provisional_seconds()), else_=columns.seconds
    )
    return (
        func.count().label("entries"),
        func.coalesce(func.sum(calls), 0).label("calls"),
        func.coalesce(func.sum(seconds), 0).label("seconds"),
        func.coalesce(func.sum(columns.amount_micros), 0).label("amount_micros"),
    )


def sums_of(row: Iterable[Any]) -> Sums:
    """Return the values of `sum_columns`; PostgreSQL sums up to decimals."""
    return Sums(*map(int, row))


def fields(sums: Sums) -> dict[str, Any]:
    """Return the fields of UsageSums."""
    return {
        "entries": sums.entries,
        "calls": sums.calls,
        "seconds": sums.seconds,
        "amount": format_amount(sums.amount_micros),
    }


def _provisional_seconds() -> ColumnElement[int]:
    """Return what the orphan's settlement that a row corrects had counted; 0 if it is not there."""
    columns = movements.c
    earlier = movements.alias("earlier")
    seconds = (
        select(earlier.c.seconds)
        .where(
            earlier.c.account == columns.account,
            earlier.c.reference == columns.reference,
            earlier.c.origin == columns.origin,
            earlier.c.kind == int(Kind.CALL),
            earlier.c.marks.bitwise_and(int(Mark.PROVISIONAL | Mark.CORRECTION))
            == int(Mark.PROVISIONAL),
            earlier.c.sequence < columns.sequence,
        )
        .order_by(earlier.c.sequence.desc())
        .limit(1)
        .correlate(movements)
        .scalar_subquery()
    )
    return func.coalesce(seconds, literal(0))


def _by(place: int, groups: list[tuple[Any, ...]]) -> list[tuple[int, Sums]]:
    """Return the sums of the groups that have the same code at a place, by code."""
    codes = sorted({group[place] for group in groups})
    return [(code, _total(group[3] for group in groups if group[place] == code)) for code in codes]


def _total(parts: Iterable[Sums]) -> Sums:
    total = Sums()
    for part in parts:
        total = total.plus(part)
    return total
