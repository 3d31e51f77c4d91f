"""Destination policy: what an account of the chain does not let be dialled (outbound only)."""

from __future__ import annotations

from typing import NamedTuple

from authz.engine.quotes import LegQuote
from authz.reasons import REASONS, CallClass, Reason
from authz.store.accounts import Account, Chain


class PolicyDenial(NamedTuple):
    """Why a destination is refused, by which account, and the detail a person reads."""

    reason: Reason
    account: str
    detail: str


def _longest(prefixes: tuple[str, ...], digits: str) -> int:
    return max((len(prefix) for prefix in prefixes if digits.startswith(prefix)), default=-1)


def _denied_by(
    account: Account, call_class: CallClass, quote: LegQuote, digits: str
) -> tuple[str, str] | None:
    leg_class = quote.leg_class(call_class)
    if leg_class in account.blocked_classes:
        return "class_blocked", f"class {leg_class.label} is blocked"
    blocked = _longest(account.blocked_prefixes, digits)
    allowed = _longest(account.allowed_prefixes, digits)
    if blocked >= 0 and blocked >= allowed:
        return "prefix_blocked", f"prefix {digits[:blocked]} is blocked"
    if account.allowed_prefixes and allowed < 0:
        return "prefix_not_allowed", "no allowed prefix matches the number"
    if quote.blocked:
        return "rate_blocked", "the deck blocks this prefix"
    if (
        account.max_rate_nanos is not None
        and quote.rate is not None
        and quote.rate.dearest_per_minute_nanos > account.max_rate_nanos
    ):
        return "rate_too_high", f"the rate is above max_rate {account.config.max_rate}"
    return None


def depends_on_number(chain: Chain) -> bool:
    """Return whether numbers of one class and one set of rates may be refused differently."""
    return any(account.blocked_prefixes or account.allowed_prefixes for account in chain.accounts)


def destination_denial(
    chain: Chain, call_class: CallClass, quotes: tuple[LegQuote, ...], number: str
) -> PolicyDenial | None:
    """Return the first denial by the policy of any account of the chain, leaf first."""
    digits = number.lstrip("+")
    for account, quote in zip(chain.accounts, quotes, strict=True):
        denied = _denied_by(account, call_class, quote, digits)
        if denied is not None:
            return PolicyDenial(REASONS[denied[0]], account.id, denied[1])
    return None
