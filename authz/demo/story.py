"""The calls of the demonstration, placed through the real hook API of a running daemon.

A master with money, two sub-accounts under it: one with a spending limit, one with nothing but
a trunk. Every scene is one thing that an operator should see happen.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from importlib.resources import files
from typing import Any, Final

import aiohttp
from msgspec import Struct

from authz.errors import AuthzError

DECK: Final = "world"
MASTER: Final = "acme"
SALES: Final = "acme-sales"
SUPPORT: Final = "acme-support"
ACCOUNTS: Final = (MASTER, SALES, SUPPORT)

_SAN_FRANCISCO: Final = "+14155550100"
_LONDON: Final = "+442071838750"
_TOLLFREE: Final = "+18005551212"
_ORPHAN_SECONDS_MAX: Final = 120
#: A published deck is in use in every process within this time.
_DECK_SECONDS: Final = 1


class DemoError(AuthzError):
    """The demonstration met an answer that it did not expect."""


class Row(Struct, frozen=True):
    """One scene: who called whom, what authz answered, what was charged, what is left."""

    scene: str
    account: str
    to: str
    answer: str
    charged: str
    #: Balance of every account afterwards, in the order of ACCOUNTS.
    balances: tuple[str, ...]


class Apis:
    """The hook and the admin API of one daemon."""

    def __init__(self, session: aiohttp.ClientSession, hook_url: str, admin_url: str) -> None:
        self._session = session
        self._hook_url = hook_url
        self._admin_url = admin_url

    async def hook(self, path: str, **body: Any) -> dict[str, Any]:
        """POST to the hook API as a switch does."""
        return await self._send("POST", self._hook_url + path, json=body)

    async def hook_get(self, path: str) -> dict[str, Any]:
        """GET from the hook API."""
        return await self._send("GET", self._hook_url + path)

    async def admin(self, method: str, path: str, **how: Any) -> dict[str, Any]:
        """Ask the admin API as an operator does."""
        return await self._send(method, self._admin_url + path, **how)

    async def _send(self, method: str, url: str, **how: Any) -> dict[str, Any]:
        async with self._session.request(method, url, **how) as response:
            answer: dict[str, Any] = await response.json(content_type=None)
            if response.status >= 400:
                raise DemoError(f"{method} {url} answered {response.status}: {answer}")
            return answer


async def prepare(apis: Apis) -> None:
    """Import the deck, create the accounts, give them credit."""
    # Accounts without a deck use the default one, which this daemon's settings name.
    deck = files("authz.demo").joinpath("world_deck.csv").read_bytes()
    headers = {"Content-Type": "text/csv"}
    await apis.admin("PUT", f"/v1/decks/{DECK}?currency=USD", data=deck, headers=headers)
    accounts: dict[str, Mapping[str, Any]] = {
        MASTER: {},
        SALES: {"parent": MASTER, "max_calls": 10},
        SUPPORT: {"parent": MASTER, "trunks": {"outbound": 1}},
    }
    for account, config in accounts.items():
        await apis.admin("PUT", f"/v1/accounts/{account}", json=config)
    for account, amount in ((MASTER, "5"), (SALES, "2")):
        await apis.admin(
            "POST",
            f"/v1/accounts/{account}/credits",
            json={"amount": amount, "kind": "payment", "reference": "demo-1"},
        )
    await asyncio.sleep(_DECK_SECONDS)


class _Story:
    """Places the calls and tells of each."""

    def __init__(self, apis: Apis) -> None:
        self._apis = apis

    async def row(self, scene: str, account: str, to: str, answer: str, charged: str) -> Row:
        """Return the row of a scene with the balances as they are now."""
        balances = []
        for name in ACCOUNTS:
            view = await self._apis.admin("GET", f"/v1/accounts/{name}/balance")
            balances.append(str(view["balance"]))
        return Row(scene, account, to, answer, charged, tuple(balances))

    async def ask(self, call_id: str, account: str, to: str, **more: Any) -> dict[str, Any]:
        """Authorize a call."""
        return await self._apis.hook(
            "/v1/authorize", call_id=call_id, account=account, to=to, switch="demo", **more
        )

    async def end(self, call_id: str, account: str, seconds: int) -> str:
        """Settle a call; return what its legs were charged."""
        settled = await self._apis.hook(
            "/v1/settle", call_id=call_id, account=account, seconds=seconds
        )
        return " + ".join(leg["charged"] for leg in settled["legs"])

    async def on_credit(self) -> Row:
        """A call that credit pays: held first, then charged for what it lasted."""
        granted = _granted(await self.ask("demo-1", SALES, _SAN_FRANCISCO, seconds=60))
        charged = await self.end("demo-1", SALES, 47)
        return await self.row(
            "allowed on credit", SALES, _SAN_FRANCISCO, granted + ", 47 s", charged
        )

    async def extended(self) -> Row:
        """A call that asks for more time while it runs."""
        first = _granted(await self.ask("demo-2", SALES, _LONDON, seconds=60))
        more = await self._apis.hook(
            "/v1/reserve", call_id="demo-2", account=SALES, used_seconds=45, seconds=60
        )
        answer = f"{first}, then {_granted(more)}, 93 s"
        charged = await self.end("demo-2", SALES, 93)
        return await self.row("extended, settled", SALES, _LONDON, answer, charged)

    async def on_trunk(self) -> Row:
        """A national call on the sub-account's flat-rate trunk; its master pays by the minute."""
        billed = _billed(await self.ask("demo-3", SUPPORT, _SAN_FRANCISCO, seconds=60))
        charged = await self.end("demo-3", SUPPORT, 60)
        return await self.row("on a trunk", SUPPORT, _SAN_FRANCISCO, billed + ", 60 s", charged)

    async def tollfree(self) -> Row:
        """Toll-free needs no credit."""
        granted = _granted(await self.ask("demo-4", SUPPORT, _TOLLFREE))
        charged = await self.end("demo-4", SUPPORT, 300)
        return await self.row(
            "toll-free, no credit", SUPPORT, _TOLLFREE, granted + ", 300 s", charged
        )

    async def refused(self) -> Row:
        """No trunk for it, no credit: refused, with what the switch should answer."""
        answer = await self.ask("demo-5", SUPPORT, _LONDON)
        return await self.row("refused for credit", SUPPORT, _LONDON, _denied(answer), "")

    async def emergency(self) -> Row:
        """Emergency calls pass always, on a disabled account too."""
        await self._switch_support(enabled=False)
        try:
            granted = _granted(await self.ask("demo-6", SUPPORT, "911"))
            charged = await self.end("demo-6", SUPPORT, 30)
        finally:
            await self._switch_support(enabled=True)
        return await self.row("emergency, disabled", SUPPORT, "911", granted + ", 30 s", charged)

    async def _switch_support(self, *, enabled: bool) -> None:
        await self._apis.admin("PATCH", f"/v1/accounts/{SUPPORT}", json={"enabled": enabled})

    async def lost(self) -> Row:
        """A call whose hang-up never comes: reported once, then silent."""
        _granted(await self.ask("demo-7", SALES, _SAN_FRANCISCO, seconds=6))
        answer = await self._apis.hook(
            "/v1/reserve", call_id="demo-7", account=SALES, used_seconds=6, seconds=6
        )
        return await self.row(
            "never hung up", SALES, _SAN_FRANCISCO, _granted(answer) + ", 6 s reported", "held"
        )

    async def orphan(self) -> Row:
        """The lost call's lease runs out: it is charged what it had reported."""
        for _ in range(_ORPHAN_SECONDS_MAX):
            call = await self._apis.hook_get(f"/v1/calls/demo-7?account={SALES}")
            if call["state"] == "orphan":
                charged = " + ".join(leg["used"] for leg in call["legs"])
                return await self.row(
                    "became an orphan", SALES, _SAN_FRANCISCO, "6 s charged, hold freed", charged
                )
            await asyncio.sleep(1)
        raise DemoError(f"call demo-7 was no orphan after {_ORPHAN_SECONDS_MAX} s")


def _granted(answer: Mapping[str, Any]) -> str:
    if not answer["allowed"]:
        raise DemoError(f"expected a grant, got {answer}")
    seconds = answer["seconds"]
    return "allowed" if seconds is None else f"{seconds} s granted"


def _billed(answer: Mapping[str, Any]) -> str:
    _granted(answer)
    return ", ".join(f"{leg['account']} by {leg['billing']}" for leg in answer["legs"])


def _denied(answer: Mapping[str, Any]) -> str:
    if answer["allowed"]:
        raise DemoError(f"expected a denial, got {answer}")
    return f"{answer['reason']}, SIP {answer['sip_status']}"


#: Titles of what takes long, by the scene's method.
WAITS: Final = {"orphan": "waiting until the lease of the lost call runs out"}


async def tell(
    apis: Apis, on_scene: Callable[[str], Awaitable[None]] | None = None
) -> AsyncIterator[Row]:
    """Place every call in turn and yield its row; `on_scene` hears the name of what comes next."""
    story = _Story(apis)
    scenes = (
        story.on_credit, story.extended, story.on_trunk, story.tollfree,
        story.refused, story.emergency, story.lost, story.orphan,
    )  # fmt: skip
    for scene in scenes:
        if on_scene is not None:
            await on_scene(scene.__name__)
        yield await scene()
