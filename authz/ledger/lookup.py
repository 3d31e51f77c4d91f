"""What the archive knows of one reference, one call, one bucket."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import distinct, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from authz.archived import ArchivedCall, ArchivedPosting, BucketOpening, Opening
from authz.ledger.schema import gap_movements, gaps, movements
from authz.store.constants import Kind, Mark

_columns = movements.c
_SETTLED_TWICE_MAX: Final = 100


async def find_posting(
    connection: AsyncConnection, account: str, reference: str
) -> ArchivedPosting | None:
    """Return what a reference of an account did, if that is archived."""
    first = (
        select(_columns.bucket, _columns.sequence)
        .where(
            _columns.account == account,
            _columns.reference == reference,
            _columns.origin == account,
            _columns.kind != Kind.CALL,
        )
        .order_by(_columns.sequence)
        .limit(1)
    )
    place = (await connection.execute(first)).first()
    if place is None:
        return None
    legs = await _legs(connection, place.bucket, [place.sequence])
    return ArchivedPosting(
        kind=legs[0].kind,
        sequence=place.sequence,
        amounts=tuple(leg.amount_micros for leg in legs),
        refunded_call=legs[0].refunded_call,
    )


async def find_call(connection: AsyncConnection, account: str, call_id: str) -> ArchivedCall | None:
    """Return what a call of an account was charged and given back, if that is archived."""
    entries = await connection.execute(
        select(_columns.bucket, _columns.sequence)
        .where(
            _columns.account == account,
            _columns.reference == call_id,
            _columns.origin == account,
            _columns.kind == Kind.CALL,
        )
        .order_by(_columns.sequence)
    )
    places = entries.all()
    if not places:
        return None
    legs = await _legs(connection, places[0].bucket, [place.sequence for place in places])
    refunds = await connection.execute(
        select(_columns.bucket, _columns.sequence).where(
            _columns.account == account,
            _columns.refunded_call == call_id,
            _columns.origin == account,
        )
    )
    given = await _legs(connection, places[0].bucket, [place.sequence for place in refunds])
    last = [leg for leg in legs if leg.sequence == places[-1].sequence]
    return ArchivedCall(
        entries=len(places),
        is_final=not last[0].marks & Mark.PROVISIONAL,
        seconds=last[0].seconds,
        accounts=tuple(leg.account for leg in last),
        billings=tuple(leg.billing for leg in last),
        costs=tuple(0 - amount for amount in _sums(legs, len(last))),
        given=_sums(given, len(last)),
    )


async def find_opening(
    connection: AsyncConnection, bucket: int, before_sequence: int | None
) -> BucketOpening:
    """Return the sums of a bucket's archived entries below a number, or of all of them."""
    where = [_columns.bucket == bucket]
    lost = [gaps.c.bucket == bucket]
    if before_sequence is not None:
        where.append(_columns.sequence < before_sequence)
        lost.append(gaps.c.last_sequence < before_sequence)
    # An adjustment in a gap stands for all that was lost there.
    bridged = select(gaps.c.last_sequence).where(*lost)
    counted = func.count().filter(_columns.sequence.not_in(bridged))
    kept = func.count(distinct(_columns.sequence)).filter(_columns.sequence.not_in(bridged))
    length = gaps.c.last_sequence - gaps.c.first_sequence + 1
    (entries,) = (await connection.execute(select(kept).where(*where))).one()
    gap = (
        await connection.execute(
            select(func.sum(length), func.max(gaps.c.last_sequence)).where(*lost)
        )
    ).one()
    (last,) = (await connection.execute(select(func.max(_columns.sequence)).where(*where))).one()
    rows = await connection.execute(
        select(
            _columns.account,
            counted,
            func.sum(_columns.amount_micros),
            func.max(_columns.account_sequence),
        )
        .where(*where)
        .group_by(_columns.account)
    )
    lost_movements = await connection.execute(
        select(gap_movements.c.account, func.sum(gap_movements.c.movements))
        .where(
            gap_movements.c.bucket == bucket,
            gap_movements.c.last_sequence.in_(bridged),
        )
        .group_by(gap_movements.c.account)
    )
    stand_ins = {row[0]: int(row[1]) for row in lost_movements}
    # PostgreSQL sums big integers to a Decimal, exactly.
    accounts = {
        row[0]: Opening(row[1] + stand_ins.get(row[0], 0), int(row[2]), row[3]) for row in rows
    }
    twice = await connection.execute(
        select(_columns.account, _columns.reference)
        .where(
            *where,
            _columns.leg == 0,
            _columns.kind == Kind.CALL,
            _columns.marks.bitwise_and(int(Mark.PROVISIONAL)) == 0,
        )
        .group_by(_columns.account, _columns.reference)
        .having(func.count() > 1)
        .limit(_SETTLED_TWICE_MAX)
    )
    return BucketOpening(
        entries=entries + int(gap[0] or 0),
        sequence=max(last or 0, gap[1] or 0),
        accounts=accounts,
        settled_twice=tuple((row[0], row[1]) for row in twice),
    )


async def _legs(
    connection: AsyncConnection, bucket: int, sequences: Sequence[int]
) -> Sequence[Any]:
    found = await connection.execute(
        select(movements)
        .where(_columns.bucket == bucket, _columns.sequence.in_(sequences))
        .order_by(_columns.sequence, _columns.leg)
    )
    return found.all()


def _sums(legs: Sequence[Any], count: int) -> tuple[int, ...]:
    sums = [0] * count
    for leg in legs:
        sums[leg.leg] += leg.amount_micros
    return tuple(sums)
