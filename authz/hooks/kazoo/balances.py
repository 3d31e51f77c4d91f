"""balance_check_req → balance_check_resp: can these accounts go on paying by the minute?

An answer of `false` makes ecallmgr end every per-minute call of the account. Our calls have their
money held, and those that cannot be paid are ended one by one; so `false` is only said of an
account whose booked and reported use has used up everything.
"""

from __future__ import annotations

from typing import Final

from authz.engine.context import Context
from authz.hooks.kazoo.limits import limits_of
from authz.store.accounts import Account, AccountRecord

#: Accounts of one question; the answer leaves out the others, which says nothing of them.
ACCOUNTS_MAX: Final = 10_000


async def check_balances(context: Context, accounts: list[str]) -> dict[str, bool]:
    """Return by account whether it can. Raises StoreError: then nothing is to be answered."""
    balances: dict[str, bool] = {}
    for account_id in accounts[:ACCOUNTS_MAX]:
        record = await context.directory.read(account_id)
        # Of an account that is not ours we know nothing that calls should end for.
        balances[account_id] = record is None or _can_pay(record)
    return balances


def _can_pay(record: AccountRecord) -> bool:
    account = Account(record.id, record.state.version, record.config)
    if account.unlimited or not limits_of(account).is_enabled:
        return True
    state = record.state
    return bool(state.balance - state.used + account.credit_limit > 0)
