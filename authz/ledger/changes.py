"""Who changed what: the log of changes, asked from the archive."""

from __future__ import annotations

import base64
import binascii
import datetime as dt
from typing import Annotated, Any, Final
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Meta, Struct
from sqlalchemy import ColumnElement, RowMapping, select, tuple_

from authz.errors import InvalidInput
from authz.ledger.archive import Archive
from authz.ledger.messages import MomentText
from authz.ledger.schema import changes
from authz.ledger.windows import parse_window

_UTC: Final = ZoneInfo("UTC")
_MICROS_PER_SECOND: Final = 1_000_000
Text = Annotated[str, Meta(min_length=1, max_length=256)]


class ChangeQuery(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which changes, the newest first; what is left out restricts nothing.

    `start` and `end` are dates of UTC, RFC 3339 times or Unix seconds; a date as `end` includes
    that day. `who` is a token's name or `cli:<user>`, `action` a route or a command, `target`
    the id of what was changed: each as an entry has it.
    """

    start: MomentText | None = None
    end: MomentText | None = None
    who: Text | None = None
    action: Text | None = None
    target: Text | None = None
    cursor: Annotated[str, Meta(min_length=1, max_length=128)] | None = None
    limit: Annotated[int, Meta(ge=1, le=500)] = 100


class ChangeView(Struct, frozen=True, kw_only=True):
    """One change, done or (by its `status`) refused.

    `who` is a token's name, `admin.token` (the one of the settings), `anonymous` (this host,
    while there was no token), empty for a wrong token, or `cli:<user>`. `detail` is what was
    asked for, without secrets; `by` in it is the token's id.
    """

    id: str
    at: str
    who: str
    remote: str
    action: str
    target: str
    status: int
    detail: dict[str, Any]


class ChangePage(Struct, frozen=True):
    """Some changes, the newest first; `cursor` asks for the next, null: there are no more."""

    changes: tuple[ChangeView, ...]
    cursor: str | None


class ChangeHistory:
    """Reads the archived changes; a change is there as soon as its answer is sent."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive

    async def page(self, query: ChangeQuery) -> ChangePage:
        """Return one page.

        Raises InvalidInput naming the field, StoreError, ArchiveUnavailable or ArchiveElsewhere.
        """
        conditions = _conditions(query)
        await self._archive.catch_up_changes()
        key = (changes.c.at, changes.c.id)
        wanted = (
            select(changes)
            .where(*conditions)
            .order_by(*(column.desc() for column in key))
            .limit(query.limit + 1)
        )
        async with self._archive.database.read() as connection:
            rows = (await connection.execute(wanted)).mappings().all()
        shown = tuple(map(_view, rows[: query.limit]))
        cursor = None
        if len(rows) > query.limit:
            last = rows[query.limit - 1]
            cursor = _write_cursor(last["at"], last["id"])
        return ChangePage(shown, cursor)


def _conditions(query: ChangeQuery) -> list[ColumnElement[bool]]:
    window = parse_window(query.start, query.end, _UTC)
    conditions: list[ColumnElement[bool]] = []
    # Entries have whole seconds: a bound within one begins with the next.
    if window.start_us is not None:
        conditions.append(changes.c.at >= -(-window.start_us // _MICROS_PER_SECOND))
    if window.end_us is not None:
        conditions.append(changes.c.at < -(-window.end_us // _MICROS_PER_SECOND))
    for name in ("who", "action", "target"):
        value = getattr(query, name)
        if value is not None:
            if "\0" in value:
                raise InvalidInput(name, "holds a NUL")
            conditions.append(getattr(changes.c, name) == value)
    if query.cursor is not None:
        key = tuple_(changes.c.at, changes.c.id)
        conditions.append(key < tuple_(*_read_cursor(query.cursor)))
    return conditions


def _view(row: RowMapping) -> ChangeView:
    fields = dict(row)
    at = dt.datetime.fromtimestamp(fields.pop("at"), dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    try:
        detail = msgspec.json.decode(fields.pop("detail"), type=dict[str, Any])
    except msgspec.MsgspecError:
        # Whoever wrote it, the rest of the log must stay readable.
        detail = {}
    return ChangeView(at=at, detail=detail, **fields)


def _write_cursor(at: int, change_id: str) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode((at, change_id))).rstrip(b"=").decode()


def _read_cursor(text: str) -> tuple[int, str]:
    try:
        packed = base64.urlsafe_b64decode(text.encode() + b"=" * (-len(text) % 4))
        at, change_id = msgspec.json.decode(packed, type=tuple[int, str])
    except (binascii.Error, UnicodeEncodeError, msgspec.MsgspecError):
        raise InvalidInput("cursor", "is not the cursor of an earlier page") from None
    if not 0 <= at < 1 << 62 or "\0" in change_id:
        raise InvalidInput("cursor", "is not the cursor of an earlier page")
    return at, change_id
