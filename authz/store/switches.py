"""What processes agree on about a switch: who serves it, what it is asked, whether it restarted."""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Struct

from authz import log
from authz.store import keys
from authz.store.client import StoreClient
from authz.store.scripts import load_scripts

#: Requests that wait for a switch; the oldest beyond are dropped.
_REQUESTS_MAX: Final = 10_000
#: Requests taken at a time.
_PAGE: Final = 64
#: A request that nobody took by then is void: its call has become an orphan long ago.
_REQUEST_KEEP_SECONDS: Final = 60


class HangupRequest(Struct, frozen=True):
    """Somebody wants a call to end now."""

    account: str
    call_id: str


_decode = msgspec.json.Decoder(HangupRequest).decode
_encode = msgspec.json.Encoder().encode


class SwitchBoard:
    """The store's part of one switch, for the process `owner`."""

    def __init__(self, client: StoreClient, name: str, owner: str) -> None:
        self._client = client
        self._name = name
        self._owner = owner.encode()
        self._script = load_scripts()["hold_switch"]

    async def hold(self, seconds: int) -> bool:
        """Take or renew the lease of the switch; False: another process has it."""
        return await self._hold(seconds * 1000)

    async def leave(self) -> None:
        """Give the lease up, if it is ours, so that another process need not wait for its end."""
        await self._hold(0)

    async def swap_core(self, core_uuid: str) -> str | None:
        """Note the switch's identity; return the one noted before, None if there was none."""
        before = await self._client.execute(
            "SET", keys.switch_core(self._name), core_uuid.encode(), "GET"
        )
        return None if before is None else before.decode()

    async def take_requests(self) -> list[HangupRequest]:
        """Return some of the requests that wait, oldest first, and forget them."""
        taken = await self._client.execute("LPOP", keys.switch_commands(self._name), _PAGE)
        requests = []
        for data in taken or ():
            try:
                requests.append(_decode(data))
            except msgspec.DecodeError as error:
                log.event("hangup_request_unread", level="error", switch=self._name, error=error)
        return requests

    async def _hold(self, milliseconds: int) -> bool:
        answer = await self._client.call_script(
            self._script, [keys.switch_lease(self._name)], [self._owner, milliseconds]
        )
        return bool(answer)


async def is_switch_served(client: StoreClient, name: str) -> bool:
    """Return whether a process serves the switch, and so takes requests."""
    return await client.execute("GET", keys.switch_lease(name)) is not None


async def request_hangup(client: StoreClient, switch: str, request: HangupRequest) -> None:
    """Ask the process that serves the switch to end a call."""
    key = keys.switch_commands(switch)
    await client.execute("RPUSH", key, _encode(request))
    await client.execute("LTRIM", key, -_REQUESTS_MAX, -1)
    await client.execute("EXPIRE", key, _REQUEST_KEEP_SECONDS)
