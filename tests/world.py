"""A small telephone business on a real store, for tests of the engine.

`World` puts accounts, credit and decks together and asks the engine as an adapter does. Prices
are given per minute as decimal strings, so that a test reads like a price list.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from authz.config import Settings
from authz.config.sections import CallSettings, FailureSettings, SpoolSettings, StoreSettings
from authz.engine.accounts import AccountService
from authz.engine.metered import MeteredEngine
from authz.engine.orphans import Sweeper
from authz.engine.postings import CreditRequest, DebitRequest, PostingService
from authz.engine.spool import Spool
from authz.model import (
    AccountConfig,
    AuthorizeRequest,
    Denial,
    Grant,
    ReserveRequest,
    Settlement,
    SettleRequest,
    Spooled,
)
from authz.money import parse_amount
from authz.numbers import default_rules
from authz.rating.deck import DeckRow
from authz.store.client import StoreClient
from authz.store.scripts import load_scripts
from authz_ext.rating import Rate, Tier

US = "+14155550100"
UK = "+442071838750"
TOLLFREE = "+18005551212"


def per_minute(price: str, increment_seconds: int = 60, **terms: Any) -> Rate:
    """Return a rate of one price per minute."""
    nanos = parse_amount(price) * 1000
    return Rate(tiers=[Tier(0, nanos, 60, increment_seconds)], **terms)


class PriceList:
    """A deck in memory: the engine only asks for the row in force."""

    def __init__(self, rows: dict[str, Rate | DeckRow], currency: str = "USD") -> None:
        self.currency = currency
        self.rows = {
            prefix: row if isinstance(row, DeckRow) else make_row(prefix, row)
            for prefix, row in rows.items()
        }

    def lookup(self, number: str, direction: int, at: int) -> DeckRow | None:
        """Return the row of the longest prefix."""
        digits = number.lstrip("+")
        matching = [prefix for prefix in self.rows if digits.startswith(prefix)]
        return self.rows[max(matching, key=len)] if matching else None


def make_row(
    prefix: str, rate: Rate, *, call_class: int | None = None, blocked: bool = False
) -> DeckRow:
    """Return a deck row."""
    return DeckRow(prefix=prefix, description="", call_class=call_class, blocked=blocked, rate=rate)


RETAIL = PriceList({"1": per_minute("0.01"), "44": per_minute("0.0137", 1)})
WHOLESALE = PriceList({"1": per_minute("0.005", 6), "44": per_minute("0.01", 6)})


class World:
    """One daemon's engine with what it needs; several may share a store."""

    def __init__(self, client: StoreClient, directory: Path, **settings: Any) -> None:
        store = settings.pop("store", StoreSettings())
        failure = settings.pop("failure", FailureSettings())
        spool = settings.pop("spool", SpoolSettings())
        self.settings = Settings(
            state_dir=directory,
            calls=CallSettings(**settings),
            store=store,
            failure=failure,
            spool=spool,
        )
        self.client = client
        self.decks: dict[str, Any] = {"retail": RETAIL, "wholesale": WHOLESALE}
        self.engine = MeteredEngine(
            client,
            self.decks,
            default_rules(),
            self.settings,
            Spool.open(directory / "spool", self.settings.spool.bytes_max),
        )
        context = self.engine.context
        self.accounts = AccountService(client, context.directory, context.clock)
        self.postings = PostingService(client, context.directory, context.clock)
        self.sweeper = Sweeper(context)
        self._references = itertools.count(1)

    @classmethod
    async def start(cls, url: str, directory: Path, **settings: Any) -> World:
        """Return a world with its own connection to the store at `url`."""
        client = await StoreClient.connect(url, scripts=load_scripts().values())
        return cls(client, directory, **settings)

    async def close(self) -> None:
        """End the daemon's part; the store keeps what it knows."""
        await self.engine.close()
        await self.client.close()

    async def account(self, account_id: str, credit: str | None = None, **config: Any) -> None:
        """Create or replace an account, and give it credit."""
        await self.accounts.put(account_id, AccountConfig(**config))
        if credit not in (None, "0"):
            await self.credit(account_id, credit)

    async def pair(self, sub: str = "10", master: str = "10", **config: Any) -> None:
        """Create the usual two: `sub` under `master`, each with its deck and credit."""
        await self.account("master", master, deck="wholesale")
        await self.account("sub", sub, **{"parent": "master", "deck": "retail", **config})

    async def credit(self, account_id: str, amount: str) -> Any:
        """Credit one account."""
        return await self.postings.credit(
            account_id,
            CreditRequest(amount=amount, kind="payment", reference=self._reference()),
        )

    async def debit(self, account_id: str, amount: str, **how: Any) -> Any:
        """Debit an account and its ancestors."""
        how = {"kind": "manual", "reference": self._reference(), **how}
        return await self.postings.debit(account_id, DebitRequest(amount=amount, **how))

    def _reference(self) -> str:
        return f"ref-{id(self)}-{next(self._references)}"

    async def authorize(
        self, call_id: str, to: str = US, account: str = "sub", **more: Any
    ) -> Grant | Denial:
        """Ask whether a call may start."""
        return await self.engine.authorize(
            AuthorizeRequest(call_id=call_id, account=account, to=to, **more)
        )

    async def granted(self, call_id: str, to: str = US, **more: Any) -> Grant:
        """Ask whether a call may start, which it must."""
        answer = await self.authorize(call_id, to, **more)
        assert isinstance(answer, Grant), answer
        return answer

    async def denied(self, call_id: str, to: str = US, **more: Any) -> str:
        """Ask whether a call may start, which it must not; return the reason."""
        answer = await self.authorize(call_id, to, **more)
        assert isinstance(answer, Denial), answer
        return answer.reason

    async def reserve(
        self, call_id: str, used_seconds: int, account: str = "sub", **more: Any
    ) -> Grant | Denial:
        """Ask whether a call may go on."""
        return await self.engine.reserve(
            ReserveRequest(call_id=call_id, account=account, used_seconds=used_seconds, **more)
        )

    async def settle(
        self, call_id: str, seconds: int, account: str = "sub", **more: Any
    ) -> Settlement | Spooled:
        """Report the end of a call."""
        return await self.engine.settle(
            SettleRequest(call_id=call_id, account=account, seconds=seconds, **more)
        )

    async def state(self, account_id: str) -> Any:
        """Return the running state of an account."""
        record = await self.accounts.read(account_id)
        return record.state

    async def balance(self, account_id: str) -> int:
        """Return the balance of an account in micros."""
        state = await self.state(account_id)
        return int(state.balance)

    async def events(self, account_id: str) -> list[dict[str, str]]:
        """Return the events of an account's bucket, oldest first."""
        tag = await self.engine.context.directory.tag_of(account_id)
        entries = await self.client.execute("XRANGE", f"authz:{{{tag}}}:events", "-", "+")
        return [
            {
                fields[place].decode(): fields[place + 1].decode()
                for place in range(0, len(fields), 2)
            }
            for _, fields in entries
        ]

    async def event_names(self, account_id: str) -> list[str]:
        """Return the names of the events of an account, oldest first."""
        return [
            event["event"]
            for event in await self.events(account_id)
            if event["account"] == account_id
        ]
