"""Kazoo's words for how a leg is billed, and what they mean for who pays."""

from __future__ import annotations

from typing import Final

from authz.reasons import Billing

LIMITS_DISABLED: Final = "limits_disabled"
LIMITS_ENFORCED: Final = "limits_enforced"
HARD_LIMIT: Final = "hard_limit"
FLAT_RATE: Final = "flat_rate"
FLAT_RATE_BURST: Final = "flat_rate_burst"
PER_MINUTE: Final = "per_minute"

BILLING_WORDS: Final = {
    Billing.FREE.label: LIMITS_DISABLED,
    Billing.TRUNK.label: FLAT_RATE,
    Billing.BURST.label: FLAT_RATE_BURST,
    Billing.PER_MINUTE.label: PER_MINUTE,
}
#: What a leg is called that some account pays for, or that rides one of its trunks.
PAID_WORDS: Final = frozenset((FLAT_RATE, FLAT_RATE_BURST, PER_MINUTE))
#: What a refused leg is called.
REFUSED_WORDS: Final = frozenset((LIMITS_ENFORCED, HARD_LIMIT))

#: What jonny5 calls a leg that included minutes cover, before the allotment's name.
ALLOTMENT_PREFIX: Final = "allotment_"

#: Limits on how many calls there are: what Kazoo calls hard.
_HARD_REASONS: Final = frozenset(
    ("max_calls_exceeded", "max_class_calls_exceeded", "call_rate_exceeded")
)
#: Limits that a soft limit lets a call pass: of number and money, never of where it goes.
SOFT_REASONS: Final = _HARD_REASONS | {
    "trunks_exhausted",
    "no_rate",
    "insufficient_credit",
    "daily_spend_limit",
    "monthly_spend_limit",
}


def refusal_word(reason: str) -> str:
    """Return what the leg is called whose account refuses for that reason of ours."""
    return HARD_LIMIT if reason in _HARD_REASONS else LIMITS_ENFORCED


def is_accepted(word: str) -> bool:
    """Return whether an account has let a channel through of which it was told that word."""
    return word in PAID_WORDS or (is_free(word) and word not in REFUSED_WORDS)


def is_free(word: str) -> bool:
    """Return whether an account that was told of a channel by that word is charged nothing."""
    is_spared = word == LIMITS_DISABLED or word.startswith(ALLOTMENT_PREFIX)
    return is_spared or word in REFUSED_WORDS
