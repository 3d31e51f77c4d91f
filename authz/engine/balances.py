"""The balance of an account and of its ancestors, as callers see it."""

from __future__ import annotations

import asyncio
from typing import Any

from msgspec import Struct

from authz.errors import NotFound
from authz.model import AccountConfig
from authz.money import format_amount
from authz.store.accounts import Account, AccountDirectory, AccountRecord, available
from authz.store.client import StoreClient


class TrunksInUse(Struct, frozen=True):
    """How many flat-rate channels calls occupy now."""

    inbound: int
    outbound: int


class AccountBalance(Struct, frozen=True, kw_only=True):
    """One account's money and calls now. Amounts are decimal strings.

    `available` is balance − held + credit_limit, null for an unlimited account. `used` is what
    running calls have reported and is still to be booked. Spend is that of the account's day and
    month.
    """

    account: str
    currency: str
    balance: str
    held: str
    used: str
    available: str | None
    credit_limit: str
    trunks: TrunksInUse
    calls: int
    spend_today: str
    spend_month: str


class BalanceView(AccountBalance, frozen=True, kw_only=True):
    """An account's balance with those of its ancestors, nearest first."""

    chain: tuple[AccountBalance, ...]


async def read_balance(
    client: StoreClient, directory: AccountDirectory, account_id: str
) -> BalanceView:
    """Return the balance of an account and of its ancestors now; raises NotFound."""
    chain = await directory.chain(account_id)
    if chain is None:
        raise NotFound(f"no account {account_id}")
    # Sent in one write: the nearest to one moment that needs no script.
    (seconds, _), *records = await asyncio.gather(
        client.execute("TIME"), *(directory.read(account.id) for account in chain.accounts)
    )
    missing = [
        account.id
        for account, record in zip(chain.accounts, records, strict=True)
        if record is None
    ]
    if missing:
        directory.forget(account_id)
        raise NotFound(f"no account {missing[0]}")
    fields = [_fields(record, int(seconds)) for record in records]
    ancestors = tuple(AccountBalance(**one) for one in fields[1:])
    return BalanceView(**fields[0], chain=ancestors)


def _fields(record: AccountRecord, at: int) -> dict[str, Any]:
    config: AccountConfig = record.config
    state = record.state
    account = Account(record.id, state.version, config)
    left = available(state, account)
    period = account.period(at)
    return {
        "account": record.id,
        "currency": config.currency,
        "balance": format_amount(state.balance),
        "held": format_amount(state.held),
        "used": format_amount(state.used),
        "available": None if left is None else format_amount(left),
        "credit_limit": "unlimited" if account.unlimited else format_amount(account.credit_limit),
        "trunks": TrunksInUse(state.trunks_inbound, state.trunks_outbound),
        "calls": state.calls,
        "spend_today": format_amount(state.day_spend if state.day == period.day else 0),
        "spend_month": format_amount(state.month_spend if state.month == period.month else 0),
    }
