"""Ending calls on the switch: those whose money has ended, and those that somebody asks to end.

Only such calls are hung up; an answer of `false` to a balance check would end all calls of an
account, the paid ones with them.
"""

from __future__ import annotations

import asyncio
from typing import Final

from authz import log
from authz.config.kazoo import KazooSettings
from authz.errors import StoreError
from authz.hooks.kazoo.calls import CallBook, Link, LiveCall
from authz.hooks.kazoo.errors import KazooError
from authz.store.client import StoreClient
from authz.store.switches import HangupRequest, SwitchBoard, is_switch_served, request_hangup

#: How long a process answers for an ecallmgr's calls without renewing it.
_LEASE_SECONDS: Final = 10
_LOOK_SECONDS: Final = 0.5
#: ecallmgrs of one cluster; names come from messages.
NODES_MAX: Final = 1_000


class Hangups:
    """Hangs calls up, as the settings say how."""

    def __init__(
        self, client: StoreClient, settings: KazooSettings, book: CallBook, owner: str
    ) -> None:
        self._client = client
        self._settings = settings
        self._book = book
        self._owner = owner
        self._links: dict[str, Link] = {}
        self._boards: dict[str, SwitchBoard] = {}
        self._renew_at: dict[str, float] = {}
        self._held: set[str] = set()

    def know(self, node: str, link: Link) -> None:
        """Note that calls of an ecallmgr are reached by that broker."""
        if node in self._links or len(self._links) < NODES_MAX:
            self._links[node] = link

    async def hang_up(self, call: LiveCall) -> None:
        """Have a call end now, by the way of the settings.

        Where that reaches nobody, or has not ended the call before, by the other one, too: a call
        must not outlive its money because one of them is closed. Raises KazooError or StoreError
        if neither can be tried.
        """
        ways = [self._by_konami, self._by_switch]
        if self._settings.hangup_by == "switch":
            ways.reverse()
        failures: list[KazooError | StoreError] = []
        is_heard = False
        for way in ways:
            try:
                is_heard = await way(call) or is_heard
            except (KazooError, StoreError) as error:
                failures.append(error)
            if is_heard and call.hangups <= 1:
                return
        if failures and not is_heard:
            raise failures[0]

    async def _by_switch(self, call: LiveCall) -> bool:
        """Ask the agent of the call's FreeSWITCH; False: it has none that is known."""
        if not call.switch:
            return False
        if not await is_switch_served(self._client, call.switch):
            if self._settings.hangup_by == "switch":
                log.event("kazoo_switch_unserved", level="error", switch=call.switch)
            return False
        request = HangupRequest(call.account, call.call_id)
        await request_hangup(self._client, call.switch, request)
        return True

    async def _by_konami(self, call: LiveCall) -> bool:
        return await self._order(call.call_id, call.link)

    async def _order(self, call_id: str, link: Link) -> bool:
        """Order konami; False: none runs."""
        is_heard = await link.publish_hangup(call_id)
        if not is_heard:
            log.event("kazoo_konami_missing", level="error", call_id=call_id)
        return is_heard

    async def run(self, link: Link) -> None:
        """Carry out what others ask of the calls of a broker's ecallmgrs, until cancelled."""
        while True:
            nodes = [node for node, known in self._links.items() if known is link]
            for node in nodes:
                try:
                    await self._serve(node)
                except (StoreError, KazooError) as error:
                    log.event("kazoo_requests_wait", level="debug", node=node, error=error)
            await asyncio.sleep(_LOOK_SECONDS)

    async def _serve(self, node: str) -> None:
        now = asyncio.get_running_loop().time()
        board = self._boards.get(node)
        if board is None:
            board = self._boards[node] = SwitchBoard(self._client, node, self._owner)
        if now >= self._renew_at.get(node, 0.0):
            self._held.discard(node)
            if await board.hold(_LEASE_SECONDS):
                self._held.add(node)
            self._renew_at[node] = now + _LEASE_SECONDS / 3
        link = self._links[node]
        if node not in self._held or not link.is_up:
            return
        for request in await board.take_requests():
            call = self._book.get(request.call_id)
            if call is not None:
                await self.hang_up(call)
            else:
                await self._order(request.call_id, link)

    async def leave(self) -> None:
        """Let another process answer at once."""
        for node in self._held:
            try:
                await self._boards[node].leave()
            except StoreError as error:
                log.event("kazoo_lease_not_left", level="debug", node=node, error=error)
        self._held.clear()
