"""How many calls one number of an account has: a slot for each, given up or run out."""

from __future__ import annotations

from authz.store import keys
from authz.store.client import StoreClient
from authz.store.scripts import load_scripts

_ANY_NUMBER = -1


class NumberSlots:
    """The slots of all numbers. Every method raises StoreError."""

    def __init__(self, client: StoreClient) -> None:
        self._client = client
        self._script = load_scripts()["hold_slot"]

    async def hold(
        self, tag: str, account: str, number: str, call_id: str, calls_max: int, seconds: int
    ) -> bool:
        """Take a call's slot for so long, or keep the one that it has; False: none is left."""
        return await self._hold(tag, account, number, call_id, calls_max, seconds * 1000)

    async def leave(self, tag: str, account: str, number: str, call_id: str) -> None:
        """Give a call's slot up, if it has one."""
        await self._hold(tag, account, number, call_id, _ANY_NUMBER, 0)

    async def _hold(
        self, tag: str, account: str, number: str, call_id: str, calls_max: int, milliseconds: int
    ) -> bool:
        answer = await self._client.call_script(
            self._script,
            [keys.number_slots(tag, account, number)],
            [call_id.encode(), calls_max, milliseconds],
        )
        return bool(answer)
