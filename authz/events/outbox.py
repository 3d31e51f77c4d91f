"""The outbox in SQL: claimed by one office at a time, recorded, purged, listed, sent again.

A claim is a lease: it moves the time of the next attempt past the end of this one, by
compare-and-set. Whoever dies between attempt and record leaves a delivery that falls due again:
it is sent at least once and never lost.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, Select, and_, delete, exists, func, not_, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from authz.config.alerts import EventSettings
from authz.events.messages import SendResult
from authz.events.routing import DEAD, DELIVERED, EMAIL, PENDING, WEBHOOK
from authz.ledger.database import Database
from authz.ledger.schema import deliveries, events

_SECONDS_PER_DAY: Final = 86_400
_PURGE_ROWS: Final = 500
_JITTER_PERCENT: Final = 20
_FACTOR: Final = 3
_ERROR_LENGTH_MAX: Final = 200
_SPARED_SECONDS: Final = 5


class Claimed(NamedTuple):
    """A delivery that this process may attempt now, with its event's row."""

    id: str
    target: str
    #: Which attempt this is, from 1.
    attempts: int
    event: dict[str, Any]


class Outbox:
    """Deliveries of an archive; any number of offices may share it.

    Every method raises ArchiveUnavailable when the archive cannot be asked.
    """

    def __init__(self, database: Callable[[], Database], settings: EventSettings) -> None:
        """Keep them in the archive's database, which `database` returns when it is open."""
        self._database = database
        self._settings = settings

    async def claim(
        self, channel: str, target: str | None, now: int, lease_seconds: int, limit: int
    ) -> list[Claimed]:
        """Return up to `limit` deliveries that are due and now this process's for the lease.

        `target` None takes those of every receiver of the channel.
        """
        due = select(deliveries.c.id).where(*_due(channel, target, now)).limit(limit)
        if target is not None:
            due = due.order_by(deliveries.c.next_attempt_at)
        async with self._database().read() as connection:
            if not (await connection.execute(due)).first():
                return []
        async with self._database().write() as connection:
            rows = (await connection.execute(_with_event(due))).mappings().all()
            return [
                Claimed(
                    row["id"],
                    row["target"],
                    row["attempts"] + 1,
                    {name: row[f"event_{name}"] for name in _EVENT_COLUMNS},
                )
                for row in rows
                if await _lease(connection, row, now + lease_seconds)
            ]

    async def record(self, claimed: Claimed, result: SendResult, now: int) -> str | None:
        """Note what became of an attempt; return the state, None if the lease was lost."""
        values: dict[str, Any] = {"last_error": result.error[:_ERROR_LENGTH_MAX]}
        if result.verdict == "delivered":
            values |= {"state": DELIVERED, "delivered_at": now, "last_error": ""}
        elif result.verdict == "failed" and claimed.attempts < self._settings.attempts_max:
            wait_seconds = max(self.wait_seconds(claimed.attempts), result.wait_seconds)
            values |= {"state": PENDING, "next_attempt_at": now + wait_seconds}
        else:
            values["state"] = DEAD
        async with self._database().write() as connection:
            done = await connection.execute(
                update(deliveries)
                .where(
                    deliveries.c.id == claimed.id,
                    deliveries.c.state == PENDING,
                    deliveries.c.attempts == claimed.attempts,
                )
                .values(values)
            )
        return str(values["state"]) if done.rowcount else None

    def wait_seconds(self, attempts: int) -> int:
        """Return how long to wait after so many attempts: three times as long each, and jitter."""
        settings = self._settings
        longest = settings.retry_seconds_max
        # The exponent is bounded: past it every wait is the longest.
        wait = min(settings.retry_seconds * int(_FACTOR ** min(attempts - 1, 20)), longest)
        percent = random.randint(100 - _JITTER_PERCENT, 100 + _JITTER_PERCENT)
        return max(1, wait * percent // 100)

    async def bury_unwanted(
        self,
        webhook_ids: Sequence[str],
        now: int,
        *,
        has_mail: bool,
        others: Sequence[tuple[str, str]] = (),
    ) -> int:
        """Make dead letters of what waits for receivers that are gone or switched off.

        What fell due a moment ago is spared: it may be for a receiver that is newer than the
        list of `webhook_ids`. `others` are the channel and receiver of every outlet.
        """
        gone: ColumnElement[bool] = and_(
            deliveries.c.channel == WEBHOOK, not_(deliveries.c.target.in_(webhook_ids))
        )
        if not has_mail:
            gone = or_(gone, deliveries.c.channel == EMAIL)
        is_other = deliveries.c.channel.not_in((WEBHOOK, EMAIL))
        known = (and_(deliveries.c.channel == one, deliveries.c.target == at) for one, at in others)
        gone = or_(gone, and_(is_other, *map(not_, known)))
        due_at = deliveries.c.next_attempt_at
        condition = and_(
            deliveries.c.state == PENDING, gone, or_(due_at < now - _SPARED_SECONDS, due_at > now)
        )
        async with self._database().read() as connection:
            waiting = select(deliveries.c.id).where(condition).limit(1)
            if not (await connection.execute(waiting)).first():
                return 0
        async with self._database().write() as connection:
            done = await connection.execute(
                update(deliveries)
                .where(condition)
                .values(state=DEAD, last_error="the receiver is removed or switched off")
            )
        return int(done.rowcount)

    async def purge(self, now: int) -> int:
        """Delete one batch of what is older than `keep_days`; return how many rows that were.

        Whatever still waits to be told stays, with its event.
        """
        before = now - self._settings.keep_days * _SECONDS_PER_DAY
        old = (
            select(deliveries.c.id)
            .where(deliveries.c.created_at < before, deliveries.c.state != PENDING)
            .order_by(deliveries.c.created_at, deliveries.c.id)
            .limit(_PURGE_ROWS)
        )
        told = ~exists().where(deliveries.c.event_id == events.c.id)
        untold = (
            select(events.c.id)
            .where(events.c.at < before, told)
            .order_by(events.c.at, events.c.id)
            .limit(_PURGE_ROWS)
        )
        removed = 0
        for table, ids in ((deliveries, old), (events, untold)):
            async with self._database().read() as connection:
                found = (await connection.execute(ids)).scalars().all()
            if found:
                async with self._database().write() as connection:
                    done = await connection.execute(delete(table).where(table.c.id.in_(found)))
                removed += int(done.rowcount)
        return removed

    async def backlog(self) -> dict[tuple[str, str], int]:
        """Return how many deliveries wait or are dead, by channel and state, zeros included."""
        counted = (
            select(deliveries.c.channel, deliveries.c.state, func.count())
            .where(deliveries.c.state.in_((PENDING, DEAD)))
            .group_by(deliveries.c.channel, deliveries.c.state)
        )
        async with self._database().read() as connection:
            rows = (await connection.execute(counted)).all()
        counts = dict.fromkeys(itertools.product((WEBHOOK, EMAIL), (PENDING, DEAD)), 0)
        return counts | {(channel, state): count for channel, state, count in rows}


_EVENT_COLUMNS: Final = tuple(column.name for column in events.columns)


def _due(channel: str, target: str | None, now: int) -> list[ColumnElement[bool]]:
    conditions = [
        deliveries.c.state == PENDING,
        deliveries.c.channel == channel,
        deliveries.c.next_attempt_at <= now,
    ]
    if target is not None:
        conditions.append(deliveries.c.target == target)
    return conditions


def _with_event(ids: Select[tuple[str]]) -> Select[Any]:
    return (
        select(
            deliveries.c.id,
            deliveries.c.target,
            deliveries.c.attempts,
            deliveries.c.next_attempt_at,
            *(column.label(f"event_{column.name}") for column in events.columns),
        )
        .join(events, events.c.id == deliveries.c.event_id)
        .where(deliveries.c.id.in_(ids.subquery().select()))
    )


async def _lease(connection: AsyncConnection, row: Any, until: int) -> bool:
    done = await connection.execute(
        update(deliveries)
        .where(
            deliveries.c.id == row["id"],
            deliveries.c.state == PENDING,
            deliveries.c.attempts == row["attempts"],
            deliveries.c.next_attempt_at == row["next_attempt_at"],
        )
        .values(attempts=row["attempts"] + 1, next_attempt_at=until)
    )
    return bool(done.rowcount)
