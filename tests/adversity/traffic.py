"""Switches that place whole calls over the hook API, and the proof that each was booked once.

A switch here does what a good one does: it asks again when it gets no answer, ends each call with
a settle that it repeats until it is acknowledged, and says of a call that authz does not know
whom it had called. Some of its settles come twice, some of its calls never end.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable
from fractions import Fraction
from typing import Any, Final

import aiohttp
from audit_helper import assert_clean_audit
from books import Books
from daemons import Daemon

from authz.money import parse_amount
from authz.store.client import StoreClient
from authz.store.constants import Kind, Mark
from authz.store.records import LedgerEntry

MASTER: Final = "acme"
SUB: Final = "acme-sales"
SWITCH: Final = "traffic"
CREDIT: Final = "1000"

US: Final = "+14155550100"
UK: Final = "+442071838750"
TOLLFREE: Final = "+18005551212"
EMERGENCY: Final = "911"

#: Price per minute, first increment and the rest, by deck and prefix.
PRICES: Final = {
    "retail": {"1": ("0.0137", 1, 1), "44": ("0.012517", 30, 6)},
    "wholesale": {"1": ("0.005", 6, 6), "44": ("0.0117", 60, 60)},
}

#: What the log tells when the daemon itself did wrong.
_BUGS: Final = frozenset(
    ("background_work_failed", "hook_request_failed", "resend_failed", "resend_refused",
     "run_id_callback_failed", "process_failed", "process_hangs")
)  # fmt: skip
_REQUEST_SECONDS: Final = 3
_DIALS_MAX: Final = 5
_ADMIN_TRIES_MAX: Final = 900
_SETTLE_TRIES_MAX: Final = 900
_BOOKED_TRIES_MAX: Final = 900
_DECK_SECONDS: Final = 1.2
_DECK_TRIES_MAX: Final = 900


def cost(deck: str, to: str, seconds: int) -> int:
    """Return what a call costs in micros, computed in fractions and rounded half up."""
    if seconds == 0 or to in (EMERGENCY, TOLLFREE):
        return 0
    digits = to.lstrip("+")
    price, first, rest = next(
        terms for prefix, terms in PRICES[deck].items() if digits.startswith(prefix)
    )
    begun = max(0, -(-(seconds - first) // rest))
    exact = Fraction(price) * (first + begun * rest) / 60 * 1_000_000
    return int(exact + Fraction(1, 2))


def costs(to: str, seconds: int) -> tuple[int, int]:
    """Return what the sub-account and its master pay."""
    return cost("retail", to, seconds), cost("wholesale", to, seconds)


class Api:
    """Both APIs of one daemon, asked once."""

    def __init__(self, daemon: Daemon, session: aiohttp.ClientSession) -> None:
        self._daemon = daemon
        self._session = session

    async def hook(self, verb: str, **body: Any) -> tuple[int, dict[str, Any]]:
        """POST to the hook API; ClientError or TimeoutError without an answer."""
        return await self._send("POST", f"{self._daemon.hook}/v1/{verb}", json=body)

    async def admin(self, method: str, path: str, **how: Any) -> dict[str, Any]:
        """Ask the admin API, which must agree."""
        status, answer = await self._send(method, f"{self._daemon.admin}/v1/{path}", **how)
        assert status < 300, answer
        return answer

    async def admin_until_answered(self, method: str, path: str, **how: Any) -> None:
        """Ask the admin API, again as long as it cannot do it now."""
        for _ in range(_ADMIN_TRIES_MAX):
            status, answer = await self._send(method, f"{self._daemon.admin}/v1/{path}", **how)
            if status < 300:
                return
            assert status == 503, answer
            await asyncio.sleep(0.1)
        raise AssertionError(f"{method} {path} was never answered")

    async def restart_switch(self) -> None:
        """Say that the switch has restarted, so that its open calls become orphans."""
        url = f"{self._daemon.hook}/v1/switches/{SWITCH}/restarted"
        status, answer = await self._send("POST", url)
        assert status == 200, answer

    async def _send(self, method: str, url: str, **how: Any) -> tuple[int, dict[str, Any]]:
        async with self._session.request(method, url, **how) as response:
            return response.status, await response.json(content_type=None)


#: Starts a daemon that is prepared, with command line options and settings by variable.
Start = Callable[..., Awaitable[tuple[Daemon, Api]]]


async def prepare(api: Api, sub: str = CREDIT, master: str = CREDIT, **config: Any) -> None:
    """Import the decks, create master and sub-account, give both credit."""
    for deck, rows in PRICES.items():
        lines = ["prefix,price,increment"]
        lines += [
            f"{prefix},{price},{first}/{rest}" for prefix, (price, first, rest) in rows.items()
        ]
        headers = {"Content-Type": "text/csv"}
        data = "\n".join(lines).encode()
        await api.admin_until_answered(
            "PUT", f"decks/{deck}?currency=USD", data=data, headers=headers
        )
    sub_config = {"parent": MASTER, "deck": "retail", **config}
    await api.admin_until_answered("PUT", f"accounts/{MASTER}", json={"deck": "wholesale"})
    await api.admin_until_answered("PUT", f"accounts/{SUB}", json=sub_config)
    for account, amount in ((MASTER, master), (SUB, sub)):
        body = {"amount": amount, "kind": "payment", "reference": "first"}
        await api.admin_until_answered("POST", f"accounts/{account}/credits", json=body)
    # Every process uses a published deck within a second; on a busy machine its workers say when.
    await asyncio.sleep(_DECK_SECONDS)
    await decks_are_used(api)


async def decks_are_used(api: Api) -> None:
    """Return when every worker of a daemon has prices; so many questions at once reach all."""
    body = {"account": SUB, "to": UK, "dry_run": True}
    for _ in range(_DECK_TRIES_MAX):
        answers = await asyncio.gather(
            *(api.hook("authorize", call_id=f"deck-{number}", **body) for number in range(8))
        )
        if all(status == 200 and answer["allowed"] for status, answer in answers):
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"the decks are not used: {answers}")


class Life:
    """One call: where it goes, how long it lasts, and what authz has acknowledged of it."""

    def __init__(self, call_id: str, to: str, seconds: int) -> None:
        self.call_id = call_id
        self.to = to
        self.seconds = seconds
        self.was_placed = False
        self.is_acknowledged = False

    @property
    def costs(self) -> tuple[int, int]:
        """What both legs pay."""
        return costs(self.to, self.seconds)


class Switch:
    """Places a bounded number of calls, some at a time, through one daemon or several.

    One that is `explicit` says of every call that ends whom it had called; another only when
    authz does not know the call.
    """

    def __init__(
        self,
        apis: list[Api],
        rng: random.Random,
        calls: int,
        lines: int = 16,
        *,
        explicit: bool = False,
    ) -> None:
        self._apis = apis
        self._rng = rng
        self._lines = lines
        self._explicit = explicit
        places = rng.choices([US, UK, TOLLFREE, EMERGENCY], [8, 8, 1, 1], k=calls)
        self.lives = [
            Life(f"call-{number}", to, rng.choice((0, 1, rng.randrange(200), 59, 60, 61)))
            for number, to in enumerate(places)
        ]

    async def run(self) -> None:
        """Place all calls; return when each has ended or was lost by its switch."""
        waiting = iter(self.lives)

        async def line() -> None:
            for life in waiting:
                await self._live(life, random.Random(self._rng.random()))

        await asyncio.gather(*(line() for _ in range(self._lines)))

    async def _live(self, life: Life, rng: random.Random) -> None:
        answer = await self._dial(life, rng)
        # Without an answer a switch may connect the call all the same.
        if not (answer["allowed"] if answer else rng.random() < 0.5):
            return
        life.was_placed = True
        await asyncio.sleep(rng.random() * 0.1)
        for part in range(rng.randrange(3)):
            used = life.seconds * (part + 1) // 4
            await self._ask(rng, "reserve", life, used_seconds=used)
            await asyncio.sleep(rng.random() * 0.1)
        if rng.random() < 0.95:
            await self._settle(rng, life)
            if rng.random() < 0.1:
                await self._settle(rng, life)

    async def _dial(self, life: Life, rng: random.Random) -> dict[str, Any] | None:
        """Ask for a call, with the same id again while that is refused for want of a store."""
        for _ in range(_DIALS_MAX):
            answer = await self._ask(rng, "authorize", life, to=life.to, switch=SWITCH)
            if answer is None or answer["reason"] != "store_unavailable":
                break
            await asyncio.sleep(0.2 + rng.random() * 0.2)
        return answer

    async def _ask(
        self, rng: random.Random, verb: str, life: Life, **body: Any
    ) -> dict[str, Any] | None:
        """Ask twice at most; None without an answer."""
        for _ in range(2):
            try:
                status, answer = await self._send(rng, verb, life, **body)
            except (aiohttp.ClientError, TimeoutError):
                await asyncio.sleep(0.1)
                continue
            if status == 200:
                return answer
        return None

    async def _settle(self, rng: random.Random, life: Life) -> None:
        """Report the end of a call until it is acknowledged."""
        body: dict[str, Any] = {"seconds": life.seconds}
        numbers = {"to": life.to, "direction": "outbound", "ended_at": int(time.time())}
        if self._explicit:
            body |= numbers
        for _ in range(_SETTLE_TRIES_MAX):
            try:
                status, answer = await self._send(rng, "settle", life, **body)
            except (aiohttp.ClientError, TimeoutError):
                status, answer = 0, {}
            if status in (200, 202):
                assert status == 202 or answer["seconds"] == life.seconds
                life.is_acknowledged = True
                return
            assert status in (0, 404, 503), answer
            if status == 404:
                body |= numbers
            await asyncio.sleep(0.1)
        raise AssertionError(f"the settle of {life.call_id} was never acknowledged")

    async def _send(
        self, rng: random.Random, verb: str, life: Life, **body: Any
    ) -> tuple[int, dict[str, Any]]:
        api = rng.choice(self._apis)
        async with asyncio.timeout(_REQUEST_SECONDS):
            return await api.hook(verb, call_id=life.call_id, account=SUB, **body)


async def finish(
    daemon: Daemon, api: Api, url: str, lives: Iterable[Life], *, paid: str = "0"
) -> None:
    """Let everything come to rest and prove that each call was booked once, at its exact cost.

    `url` is the store's; `paid` is what was credited to the master since `prepare`. Calls that
    no switch has ended become orphans first.
    """
    client = await StoreClient.connect(url)
    books = Books(client)
    known = {life.call_id: life for life in lives}
    due = {life.call_id for life in known.values() if life.is_acknowledged}
    for _ in range(_BOOKED_TRIES_MAX):
        entries = await _entries(books)
        missing = due - {name for name, found in entries.items() if _finals(found)}
        if not missing and not list((daemon.state_dir / "spool").glob("*.spool")):
            break
        await asyncio.sleep(0.1)
    assert missing == set(), "acknowledged and not booked"
    await api.restart_switch()
    entries = await _entries(books)
    assert entries.keys() <= known.keys()
    spent = [0, 0]
    for call_id, found in entries.items():
        _check_call(known[call_id], found)
        for leg in (0, 1):
            spent[leg] -= sum(entry.legs[leg].amount for entry in found)
    for account, credited, charged in zip((SUB, MASTER), ("0", paid), spent, strict=True):
        state = await books.state(account)
        assert (state.held, state.used, state.calls) == (0, 0, 0), account
        assert state.balance == parse_amount(CREDIT) + parse_amount(credited) - charged, account
    await assert_clean_audit(client)
    await client.close()
    wrong = {"settle_dead_letter", "spool_file_damaged", *_BUGS}
    assert [event for event in daemon.events if event["event"] in wrong] == []


async def _entries(books: Books) -> dict[str, list[LedgerEntry]]:
    """Return the ledger entries of every call."""
    calls: dict[str, list[LedgerEntry]] = defaultdict(list)
    for entry in await books.ledger(MASTER):
        if entry.kind == Kind.CALL:
            calls[entry.reference].append(entry)
    return calls


def _finals(entries: list[LedgerEntry]) -> list[LedgerEntry]:
    return [entry for entry in entries if not entry.marks & Mark.PROVISIONAL]


def _check_call(life: Life, entries: list[LedgerEntry]) -> None:
    """One final settlement of a call that was acknowledged, none of one that was not."""
    where = f"{life.call_id} to {life.to} for {life.seconds} s: {entries}"
    finals = _finals(entries)
    if not life.is_acknowledged:
        assert finals == [], where
        return
    assert len(finals) == 1, where
    assert finals[0].seconds == life.seconds, where
    assert [leg.account for leg in finals[0].legs] == [SUB, MASTER], where
    charged = tuple(-sum(entry.legs[leg].amount for entry in entries) for leg in (0, 1))
    assert charged == life.costs, where
