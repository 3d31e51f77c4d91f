"""The open calls of one switch, for an adapter that knows which of them the switch still has."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from msgspec import Struct

from authz.engine.context import Context
from authz.engine.orphans import PAGE_MEMBERS, claim
from authz.store import keys
from authz.store.constants import State
from authz.store.records import unpack_call


class OpenCall(Struct, frozen=True):
    """An open call as the store knows it. `authorized_us` is the store's time."""

    account: str
    call_id: str
    authorized_us: int


async def open_calls_of(context: Context, switch: str) -> AsyncIterator[OpenCall]:
    """Yield the open calls that name a switch; pages through the leases of every bucket.

    A call that opens or ends meanwhile may be yielded or not.
    """
    for tag in keys.TAGS:
        cursor = b"0"
        while True:
            cursor, page = await context.client.execute(
                "ZSCAN", keys.leases(tag), cursor, "COUNT", PAGE_MEMBERS
            )
            names = [keys.split_member(member) for member in page[::2]]
            records = await asyncio.gather(
                *(context.client.execute("GET", keys.call(tag, *name)) for name in names)
            )
            for (account, call_id), packed in zip(names, records, strict=True):
                record = None if packed is None else unpack_call(packed)
                if (
                    record is not None
                    and record.state == State.OPEN
                    and record.tail.switch == switch
                ):
                    yield OpenCall(account, call_id, record.head.authorized_us)
            if cursor == b"0":
                break


async def claim_ended(context: Context, account: str, call_id: str) -> bool:
    """Make an orphan of a call that its switch no longer has; False: it is not open any more.

    It is charged by the policy of orphans until its true end is reported.
    """
    tag = await context.directory.tag_of(account)
    if tag is None:
        return False
    return await claim(context, tag, keys.call_member(account, call_id), forced=True)
