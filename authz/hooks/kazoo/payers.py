"""Who of an account's chain pays for a channel: limits documents can excuse the lower ones.

An account whose limits are off, or that lists the call's resource type, is left out, and the call
is that of its parent. Excuses end at the first account that has none: where only a reseller is
excused it pays all the same, because one script charges a chain as a whole.
"""

from __future__ import annotations

from msgspec import Struct

from authz.engine.context import Context
from authz.hooks.kazoo.legs import Leg
from authz.hooks.kazoo.limits import limits_of
from authz.hooks.kazoo.words import LIMITS_DISABLED, PAID_WORDS, REFUSED_WORDS
from authz.store.accounts import Account, Chain

_ATTEMPTS_MAX = 4


class Payers(Struct, frozen=True):
    """A channel's chain, and how many of its accounts, from the leaf on, it costs nothing."""

    chain: Chain
    excused: int

    @property
    def payer(self) -> Account | None:
        """The account whose call it is; None if nobody pays."""
        accounts = self.chain.accounts
        return accounts[self.excused] if self.excused < len(accounts) else None

    @property
    def disabled(self) -> Account | None:
        """An excused account that is disabled: who pays says the engine of the others."""
        for account in self.chain.accounts[: self.excused]:
            if not account.config.enabled:
                return account
        return None


async def find_payers(context: Context, leg: Leg) -> Payers | None:
    """Return who pays for a channel, None for an unknown account. Raises StoreError."""
    deadline_ms = context.settings.store.decision_deadline_ms
    for attempt in range(_ATTEMPTS_MAX):
        chain = context.directory.cached(leg.account)
        if chain is None:
            chain = await context.directory.chain(leg.account, deadline_ms)
        if chain is None:
            return None
        payers = Payers(chain, _excused(chain, leg))
        # No script looks at the excused ones, which would say that they have changed.
        if payers.excused == 0 or attempt == _ATTEMPTS_MAX - 1:
            break
        if await context.directory.is_current(chain, deadline_ms):
            break
        context.directory.forget(leg.account)
    return payers


def _excused(chain: Chain, leg: Leg) -> int:
    excused = 0
    for account in chain.accounts:
        if not limits_of(account).is_exempt(leg.resource_type):
            break
        excused += 1
    return excused


def payer_by_words(leg: Leg, payers: Payers | None) -> str | None:
    """Return whose call an ended channel was, by what it was told; None: nobody's.

    What it was told is on the channel, so that any process can book it, also when the store or
    whoever decided is gone. Where it was told nothing, it is who would pay now.
    """
    if leg.account_billing in PAID_WORDS:
        return leg.account
    reseller = _reseller_of(leg, payers)
    if leg.account_billing in REFUSED_WORDS:
        # Let through by the account's soft limit, and its reseller's call.
        return reseller if leg.reseller_billing in PAID_WORDS else None
    if leg.account_billing == LIMITS_DISABLED and leg.reseller_billing in PAID_WORDS:
        return reseller if payers is None or payers.excused else leg.account
    if payers is None:
        return leg.account
    return None if payers.payer is None else payers.payer.id


def _reseller_of(leg: Leg, payers: Payers | None) -> str | None:
    """Return the account that paid in the place of the channel's own."""
    if payers is None:
        return leg.reseller or None
    accounts = payers.chain.accounts
    above = accounts[max(payers.excused, 1) :]
    return above[0].id if above else None


def payer_of_channel(
    account: str, account_billing: str, reseller: str, reseller_billing: str
) -> str | None:
    """Return whose call a live channel is by what it was told, without looking anything up."""
    is_disabled = account_billing == LIMITS_DISABLED
    if account_billing in PAID_WORDS or (is_disabled and reseller_billing not in PAID_WORDS):
        return account or None
    return (reseller or None) if reseller_billing in PAID_WORDS else None
