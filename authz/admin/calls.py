"""Open calls of the whole store or of one account tree, paged by their leases."""

from __future__ import annotations

import asyncio
from typing import Final

from authz.admin.messages import CallList
from authz.engine.context import Context
from authz.engine.inspect import describe_call
from authz.errors import NotFound
from authz.model import CallState
from authz.store import keys
from authz.store.constants import State
from authz.store.records import unpack_call
from authz.validation import parse_bucket_cursor

_SCAN_MEMBERS: Final = 500
#: Leases that one request looks through, so that it ends soon also where few match.
_EXAMINED_MAX: Final = 20_000


async def open_calls(
    context: Context, account: str | None, cursor: str | None, limit: int
) -> CallList:
    """Return about `limit` open calls of an account and its descendants, or of all.

    A page ends with a whole scan step, so that it may hold some more than `limit`, or fewer and
    yet have a cursor. Raises NotFound for an unknown account, InvalidInput for a cursor that is
    not one of ours.
    """
    tags = keys.TAGS
    if account is not None:
        tag = await context.directory.tag_of(account)
        if tag is None:
            raise NotFound(f"no account {account}")
        tags = (tag,)
    bucket, position = parse_bucket_cursor(cursor, len(tags))
    found: dict[tuple[str, str], CallState] = {}
    examined = 0
    while bucket < len(tags) and len(found) < limit and examined < _EXAMINED_MAX:
        tag = tags[bucket]
        next_position, page = await context.client.execute(
            "ZSCAN", keys.leases(tag), position, "COUNT", min(limit, _SCAN_MEMBERS)
        )
        for call in await _read(context, tag, page[::2], account):
            found[call.account, call.call_id] = call
        examined += len(page) // 2
        position = int(next_position)
        bucket += position == 0
    next_cursor = f"{bucket}-{position}" if bucket < len(tags) else None
    return CallList(tuple(found.values()), next_cursor)


async def _read(
    context: Context, tag: str, members: list[bytes], account: str | None
) -> list[CallState]:
    named = [keys.split_member(member) for member in members]
    packed = await asyncio.gather(
        *(context.client.execute("GET", keys.call(tag, *name)) for name in named)
    )
    calls = []
    for (owner, call_id), data in zip(named, packed, strict=True):
        record = None if data is None else unpack_call(data)
        if record is None or record.state != State.OPEN:
            continue
        chain = await context.directory.chain(owner)
        if chain is None:
            continue
        if account is None or any(one.id == account for one in chain.accounts):
            calls.append(describe_call(chain, call_id, record))
    return calls
