"""What operators may see and do about events: lists, test messages, dead letters sent again."""

from __future__ import annotations

import base64
import binascii
import time
from collections.abc import Callable, Mapping
from typing import Any, Final
from zoneinfo import ZoneInfo

import msgspec
from sqlalchemy import ColumnElement, Select, case, select, tuple_, update

from authz.engine.account_tree import AccountTree
from authz.engine.clock import format_moment
from authz.errors import Conflict, InvalidInput, NotFound
from authz.event_types import EVENT_TYPES, is_pattern
from authz.events.endpoints import WebhookDirectory
from authz.events.messages import (
    DeliveryPage,
    DeliveryQuery,
    DeliveryView,
    EventPage,
    EventQuery,
    Retried,
    event_view,
)
from authz.events.routing import DEAD, DELIVERED, PENDING, WEBHOOK
from authz.ledger.database import Database
from authz.ledger.schema import deliveries, events
from authz.ledger.windows import parse_window

_MICROS_PER_SECOND: Final = 1_000_000
#: Pages of all events of a bucket that one page of a tree's looks through.
_LOOKS_MAX: Final = 20
_UTC: Final = ZoneInfo("UTC")
#: What marks the two lists' cursors apart.
_EVENTS_MARK, _DELIVERIES_MARK = "e", "d"


class EventService:
    """Reads the archive's events and deliveries. Raises ArchiveUnavailable without an archive."""

    def __init__(self, database: Callable[[], Database], webhooks: WebhookDirectory) -> None:
        """Ask the database that `database` returns when the archive is open."""
        self._database = database
        self._webhooks = webhooks

    async def events(self, query: EventQuery, tree: AccountTree | None = None) -> EventPage:
        """Return one page of events, of a tree's accounts if one is given.

        Of a tree it may hold fewer than `limit` and yet have a cursor: one page looks through
        20 times as many events at most. InvalidInput names a wrong field.
        """
        conditions = _conditions(query, tree)
        is_ascending = query.sort == "at"
        key = (events.c.at, events.c.id)
        order = [column.asc() if is_ascending else column.desc() for column in key]
        place = None
        if query.cursor is not None:
            place = _read_cursor(_EVENTS_MARK + query.sort, query.cursor)
        shown: list[Mapping[str, Any]] = []
        more = True
        for _ in range(_LOOKS_MAX):
            wanted = select(events).where(*conditions).order_by(*order)
            if place is not None:
                is_after = tuple_(*key) > tuple_(*place)
                is_before = tuple_(*key) < tuple_(*place)
                wanted = wanted.where(is_after if is_ascending else is_before)
            rows = await self._rows(wanted, query.limit)
            page = rows[: query.limit]
            more = len(rows) > query.limit
            for number, row in enumerate(page, start=1):
                place = (row["at"], row["id"])
                if tree is None or await tree.contains(row["account"]):
                    shown.append(row)
                if len(shown) == query.limit:
                    more = more or number < len(page)
                    break
            if not more or len(shown) == query.limit:
                break
        cursor = None
        if more and place is not None:
            cursor = _write_cursor(_EVENTS_MARK + query.sort, *place)
        return EventPage(tuple(map(event_view, shown)), cursor)

    async def deliveries(self, query: DeliveryQuery) -> DeliveryPage:
        """Return one page of deliveries; InvalidInput for a forged cursor."""
        conditions: list[ColumnElement[bool]] = [
            getattr(deliveries.c, name) == value
            for name in ("state", "channel", "target", "event_id")
            if (value := getattr(query, name)) is not None
        ]
        key = (deliveries.c.created_at, deliveries.c.id)
        if query.cursor is not None:
            conditions.append(tuple_(*key) < tuple_(*_read_cursor(_DELIVERIES_MARK, query.cursor)))
        wanted = _delivery_rows().where(*conditions).order_by(*(column.desc() for column in key))
        rows = await self._rows(wanted, query.limit)
        shown = rows[: query.limit]
        cursor = None
        if len(rows) > query.limit:
            cursor = _write_cursor(_DELIVERIES_MARK, shown[-1]["created_at"], shown[-1]["id"])
        return DeliveryPage(tuple(map(_delivery_view, shown)), cursor)

    async def retry(self, delivery_id: str) -> DeliveryView:
        """Send a dead letter again, or one that waits at once.

        Raises NotFound, or Conflict for one that has arrived.
        """
        async with self._database().write() as connection:
            done = await connection.execute(
                update(deliveries)
                .where(deliveries.c.id == delivery_id, deliveries.c.state != DELIVERED)
                .values(_again())
            )
            found = (
                (await connection.execute(_delivery_rows().where(deliveries.c.id == delivery_id)))
                .mappings()
                .first()
            )
        if found is None:
            raise NotFound(f"no delivery {delivery_id[:80]}")
        if not done.rowcount:
            raise Conflict(f"delivery {delivery_id} has arrived")
        return _delivery_view(found)

    async def retry_webhook(self, webhook_id: str) -> Retried:
        """Send all dead letters of a receiver again. Raises NotFound, Conflict if it is off."""
        endpoint = await self._webhooks.find(webhook_id)
        if not endpoint.enabled:
            raise Conflict(f"webhook {webhook_id} is switched off")
        async with self._database().write() as connection:
            done = await connection.execute(
                update(deliveries)
                .where(
                    deliveries.c.state == DEAD,
                    deliveries.c.channel == WEBHOOK,
                    deliveries.c.target == webhook_id,
                )
                .values(_again())
            )
        return Retried(done.rowcount)

    async def _rows(self, wanted: Select[Any], limit: int) -> list[Mapping[str, Any]]:
        """Return one row more than the limit, if there is one."""
        async with self._database().read() as connection:
            found = await connection.execute(wanted.limit(limit + 1))
            return [dict(row) for row in found.mappings()]


def _conditions(query: EventQuery, tree: AccountTree | None) -> list[ColumnElement[bool]]:
    window = parse_window(query.start, query.end, _UTC)
    conditions: list[ColumnElement[bool]] = []
    if tree is not None:
        conditions.append(events.c.bucket == tree.bucket)
    if query.account is not None:
        conditions.append(events.c.account == query.account)
    if query.event is not None:
        conditions.append(_named(query.event))
    if window.start_us is not None:
        conditions.append(events.c.at >= -(-window.start_us // _MICROS_PER_SECOND))
    if window.end_us is not None:
        conditions.append(events.c.at < -(-window.end_us // _MICROS_PER_SECOND))
    return conditions


def _named(text: str) -> ColumnElement[bool]:
    if text in EVENT_TYPES:
        return events.c.event == text
    if not is_pattern(text) or text.count("*") != 1 or not text.endswith("*"):
        raise InvalidInput("event", f"{text!r} is neither an event nor one such as balance.*")
    return events.c.event.startswith(text[:-1], autoescape=True)


def _delivery_rows() -> Select[Any]:
    return select(deliveries, events.c.event, events.c.account).join(
        events, events.c.id == deliveries.c.event_id
    )


def _delivery_view(row: Mapping[str, Any]) -> DeliveryView:
    arrived = row["delivered_at"]
    is_pending = row["state"] == PENDING
    return DeliveryView(
        id=row["id"],
        event_id=row["event_id"],
        event=row["event"],
        account=row["account"],
        channel=row["channel"],
        target=row["target"],
        state=row["state"],
        attempts=row["attempts"],
        next_attempt_at=format_moment(row["next_attempt_at"]) if is_pending else None,
        last_error=row["last_error"],
        created_at=format_moment(row["created_at"]),
        delivered_at=None if arrived is None else format_moment(arrived),
    )


def _again() -> dict[str, Any]:
    """Return what makes a delivery due now; a dead one has all its attempts before it again."""
    return {
        "attempts": case((deliveries.c.state == DEAD, 0), else_=deliveries.c.attempts),
        "state": PENDING,
        "next_attempt_at": int(time.time()),
    }


def _write_cursor(mark: str, at: int, row_id: str) -> str:
    packed = msgspec.json.encode((mark, at, row_id))
    return base64.urlsafe_b64encode(packed).rstrip(b"=").decode()


def _read_cursor(mark: str, text: str) -> tuple[int, str]:
    try:
        packed = base64.urlsafe_b64decode(text.encode() + b"=" * (-len(text) % 4))
        found, at, row_id = msgspec.json.decode(packed, type=tuple[str, int, str])
    except (binascii.Error, UnicodeEncodeError, msgspec.MsgspecError, UnicodeDecodeError):
        raise InvalidInput("cursor", "is not the cursor of an earlier page") from None
    if found != mark or not 0 <= at < 1 << 62 or "\0" in row_id:
        raise InvalidInput("cursor", "belongs to another list or order")
    return at, row_id
