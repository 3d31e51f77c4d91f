"""Limits on how many inbound calls one number of an account may have.

Counted in the store across all processes, by calls that exist. A call whose end is never heard of
gives its slot up when it is not renewed.
"""

from __future__ import annotations

from collections.abc import Sequence

from authz import log
from authz.engine.context import Context
from authz.errors import StoreError
from authz.hooks.kazoo.calls import LiveCall
from authz.hooks.kazoo.limits import limits_of
from authz.store.accounts import Account, Chain
from authz.store.slots import NumberSlots

_ANY_NUMBER = -1


class DidLimits:
    """The slots of the numbers of all accounts. Without the store nothing is limited here: the
    engine, which is asked next, has a policy for that.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._slots = NumberSlots(context.client)
        calls = context.settings.calls
        #: How long a slot lasts unless it is renewed: longer than a call goes unlooked at.
        self._seconds = calls.ring_seconds + calls.sign_of_life_seconds + 2 * calls.grace_seconds

    async def take(
        self, chain: Chain, accounts: Sequence[Account], direction: str, number: str, call_id: str
    ) -> str | None:
        """Take a slot of every one of these accounts of the chain that limits the number.

        Returns the account that has none left, and then none is taken; None: the call has all.
        """
        taken: list[str] = []
        for account, calls_max in _limited(accounts, direction, number):
            if not await self._hold(chain.tag, account, number, call_id, calls_max):
                for other in taken:
                    await self._leave(chain.tag, other, number, call_id)
                return account
            taken.append(account)
        return None

    async def leave(self, account: str, direction: str, number: str, call_id: str) -> None:
        """Give up the slots of a call of `account`."""
        chain = await self._chain(account, direction)
        if chain is not None:
            for one, _ in _limited(chain.accounts, direction, number):
                await self._leave(chain.tag, one, number, call_id)

    async def renew(self, call: LiveCall) -> None:
        """Keep the slots of a live call."""
        chain = await self._chain(call.account, call.direction)
        if chain is not None:
            for one, _ in _limited(chain.accounts, call.direction, call.number):
                await self._hold(chain.tag, one, call.number, call.call_id, _ANY_NUMBER)

    async def _chain(self, account: str, direction: str) -> Chain | None:
        if direction != "inbound":
            return None
        try:
            return await self._context.directory.chain(account)
        except StoreError:
            return None

    async def _hold(
        self, tag: str, account: str, number: str, call_id: str, calls_max: int
    ) -> bool:
        try:
            return await self._slots.hold(tag, account, number, call_id, calls_max, self._seconds)
        except StoreError:
            return True

    async def _leave(self, tag: str, account: str, number: str, call_id: str) -> None:
        try:
            await self._slots.leave(tag, account, number, call_id)
        except StoreError as error:
            log.event("kazoo_slot_not_left", level="debug", call_id=call_id, error=error)


def _limited(accounts: Sequence[Account], direction: str, number: str) -> list[tuple[str, int]]:
    """Return account and limit of those that limit how many inbound calls the number has."""
    if direction != "inbound":
        return []
    limits = [(one.id, limits_of(one).did_calls_max(number)) for one in accounts]
    return [(account, calls_max) for account, calls_max in limits if calls_max is not None]
