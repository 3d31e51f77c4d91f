"""Ending calls on purpose: the switch is asked by way of the store, the books need no answer.

First the call's lease is shortened, which no death of ours undoes; then whoever serves the switch
is asked to hang up. A call that is not settled by then becomes an orphan, and its slots and hold
are free.

A switch that asks by HTTP is nobody's to command: its call becomes an orphan as well, and would be
taken up again by its next reserve. To end such a call, end it on the switch; to refuse its next
reserve, disable its account.
"""

from __future__ import annotations

import asyncio
from typing import Final

from msgspec import Struct

from authz.admin.calls import open_calls
from authz.admin.messages import AccountPath, CallQuery
from authz.admin.roles import Role, Within
from authz.admin.routes import Reply, Route
from authz.admin.services import Services
from authz.engine.clock import format_moment
from authz.engine.context import Context
from authz.errors import CallUnknown
from authz.model import CallState
from authz.store import keys
from authz.store.switches import HangupRequest, is_switch_served, request_hangup

#: How long a switch may take to settle a call that it is asked to end.
HANGUP_SECONDS: Final = 10
_PAGE: Final = 200
_AT_A_TIME: Final = 32


class Hangup(Struct, frozen=True, kw_only=True):
    """A call that was asked to end. `asked` is false where no agent serves its switch."""

    call_id: str
    account: str
    switch: str | None
    asked: bool
    #: When the call becomes an orphan, unless it is settled before.
    orphan_at: str


class Hangups(Struct, frozen=True, kw_only=True):
    """How many calls were asked to end, and of how many of them no agent serves the switch."""

    calls: int
    not_asked: int


async def hang_up(context: Context, account: str, call_id: str) -> Hangup:
    """Have an open call ended; raises CallUnknown if none is open under this id."""
    chain = await context.directory.chain(account)
    if chain is None:
        raise CallUnknown(f"account {account} is unknown")
    reply = await context.client.call_script(
        context.scripts["hasten"],
        [keys.call(chain.tag, account, call_id), keys.leases(chain.tag)],
        [keys.call_member(account, call_id), HANGUP_SECONDS * 1000],
    )
    if reply[0] != 0:
        raise CallUnknown(f"account {account} has no open call {call_id}")
    switch = reply[2].decode() or None
    asked = switch is not None and await is_switch_served(context.client, switch)
    if switch is not None and asked:
        await request_hangup(context.client, switch, HangupRequest(account, call_id))
    return Hangup(
        call_id=call_id,
        account=account,
        switch=switch,
        asked=asked,
        orphan_at=format_moment(reply[1] // 1000),
    )


async def hang_up_tree(context: Context, account: str) -> Hangups:
    """Have all open calls of an account and its descendants ended; raises NotFound.

    A call that begins meanwhile may be missed: disable the account first.
    """
    cursor: str | None = None
    ended: dict[tuple[str, str], bool] = {}
    limit = asyncio.Semaphore(_AT_A_TIME)

    async def end(call: CallState) -> None:
        async with limit:
            try:
                done = await hang_up(context, call.account, call.call_id)
            except CallUnknown:
                # It has ended meanwhile.
                return
            ended[call.account, call.call_id] = done.asked

    while True:
        page = await open_calls(context, account, cursor, _PAGE)
        fresh = [one for one in page.calls if (one.account, one.call_id) not in ended]
        await asyncio.gather(*map(end, fresh))
        cursor = page.cursor
        if cursor is None:
            break
    return Hangups(calls=len(ended), not_asked=sum(not asked for asked in ended.values()))


async def delete_call(services: Services, query: CallQuery, _: None) -> Reply:
    """Have one call ended."""
    return Reply(202, await hang_up(services.context, query.account, query.call_id))


async def post_hangup(services: Services, path: AccountPath, _: None) -> Reply:
    """Have all calls of an account's tree ended."""
    return Reply(202, await hang_up_tree(services.context, path.id))


ROUTES: tuple[Route, ...] = (
    Route("DELETE", "/v1/calls/{call_id}",
          "Ask the switch to end a call; unsettled 10 s later it becomes an orphan.",
          delete_call, CallQuery, None, {202: Hangup}, Role.OPERATE, Within("account")),
    Route("POST", "/v1/accounts/{id}/hangup",
          "Ask the switches to end all open calls of an account and those below it.",
          post_hangup, AccountPath, None, {202: Hangups}, Role.OPERATE, Within("id")),
)  # fmt: skip
