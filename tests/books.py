"""What tests of money need at hand: accounts, postings, and the store's records in the open."""

from __future__ import annotations

import itertools
from typing import Any

from authz.engine.accounts import AccountService
from authz.engine.balances import BalanceView, read_balance
from authz.engine.clock import StoreClock
from authz.engine.postings import (
    CreditKind,
    CreditRequest,
    DebitKind,
    DebitRequest,
    Posted,
    PostingRefused,
    PostingService,
)
from authz.engine.resend import ResendWindow
from authz.model import AccountConfig
from authz.store import keys
from authz.store.accounts import AccountDirectory
from authz.store.client import StoreClient
from authz.store.layouts import ACCOUNT_STATE
from authz.store.records import LedgerEntry, unpack_ledger_entry

_REFERENCES = itertools.count(1)


class Books:
    """One process's services on a store, and readers of what they leave there."""

    def __init__(self, client: StoreClient, resend: ResendWindow | None = None) -> None:
        self.client = client
        self.resend = resend or ResendWindow()
        self.clock = StoreClock()
        self.directory = AccountDirectory(client)
        self.accounts = AccountService(client, self.directory, self.clock)
        self.postings = PostingService(client, self.directory, self.clock, resend=self.resend)

    async def open(self, account: str, balance: str | None = None, **fields: Any) -> None:
        """Create an account, with a first payment if `balance` is given."""
        await self.accounts.put(account, AccountConfig(**fields))
        if balance is not None:
            await self.credit(account, balance)

    async def credit(
        self,
        account: str,
        amount: str | None,
        kind: CreditKind = "payment",
        reference: str | None = None,
        **fields: Any,
    ) -> Posted:
        """Book a credit that must pass."""
        posted = await self.postings.credit(
            account,
            CreditRequest(
                amount=amount,
                kind=kind,
                reference=reference or self.new_reference(),
                **fields,
            ),
        )
        assert isinstance(posted, Posted)
        return posted

    async def try_debit(
        self,
        account: str,
        amount: str,
        kind: DebitKind = "manual",
        reference: str | None = None,
        **fields: Any,
    ) -> Posted | PostingRefused:
        """Book a debit that may be refused."""
        return await self.postings.debit(
            account,
            DebitRequest(
                amount=amount,
                kind=kind,
                reference=reference or self.new_reference(),
                **fields,
            ),
        )

    async def debit(
        self, account: str, amount: str, kind: DebitKind = "manual", **fields: Any
    ) -> Posted:
        """Book a debit that must pass."""
        posted = await self.try_debit(account, amount, kind, **fields)
        assert isinstance(posted, Posted)
        return posted

    def new_reference(self) -> str:
        """Return a reference that no other posting has."""
        return f"reference-{next(_REFERENCES)}"

    async def balance(self, account: str) -> BalanceView:
        """Return an account's balance as callers see it."""
        return await read_balance(self.client, self.directory, account)

    async def tag(self, account: str) -> str:
        """Return the hash tag of the account's bucket."""
        tag = await self.directory.tag_of(account)
        assert tag is not None
        return tag

    async def state(self, account: str) -> Any:
        """Return an account's running state."""
        record = await self.directory.read(account)
        assert record is not None
        return record.state

    async def set_state(self, account: str, **changes: int) -> None:
        """Overwrite parts of an account's running state, as no script would."""
        state = (await self.state(account))._asdict() | changes
        await self.client.execute(
            "HSET", keys.account(await self.tag(account), account), "s", ACCOUNT_STATE.pack(**state)
        )

    async def ledger(self, account: str) -> list[LedgerEntry]:
        """Return every ledger entry of the account's bucket, oldest first."""
        stream = keys.ledger(await self.tag(account))
        entries = await self.client.execute("XRANGE", stream, "-", "+")
        return [unpack_ledger_entry(entry_id, fields[1]) for entry_id, fields in entries]

    async def events(self, account: str) -> list[dict[str, str]]:
        """Return the events of one account, oldest first."""
        stream = keys.events(await self.tag(account))
        found = []
        for _, fields in await self.client.execute("XRANGE", stream, "-", "+"):
            texts = [field.decode() for field in fields]
            event = dict(zip(texts[::2], texts[1::2], strict=True))
            if event["account"] == account:
                found.append(event)
        return found

    async def event_names(self, account: str) -> list[str]:
        """Return what happened to an account, oldest first."""
        return [event["event"] for event in await self.events(account)]
