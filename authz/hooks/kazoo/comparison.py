"""Where jonny5 and hotornot answer otherwise than we would have, and what it probably comes from.

Shadow mode holds no money and no trunks, so that calls in progress, which jonny5 counts, are not
there for us. That and the defects that we do not repeat (docs/kazoo.md) are told apart from what
an operator should look at before the change.
"""

from __future__ import annotations

from typing import Final, Literal, get_args

from msgspec import Struct

from authz.hooks.kazoo.imports.accounts import TRUNKS_UNLIMITED
from authz.hooks.kazoo.messages import AuthorizeAnswer, RateAnswer
from authz.hooks.kazoo.words import (
    ALLOTMENT_PREFIX,
    FLAT_RATE,
    FLAT_RATE_BURST,
    HARD_LIMIT,
    LIMITS_DISABLED,
    PAID_WORDS,
    PER_MINUTE,
    REFUSED_WORDS,
)

#: `same`: no difference. `account`: we do not know it. `limits`: other trunk limits. `load`: calls
#: in progress, which shadow mode does not hold. `credit`: we see none, or jonny5 does not.
#: `allotment`: included minutes. `defect`: a known one of the original. `rate`: another price.
#: `unanswered`: no answer came. `other`: look at it.
Cause = Literal[
    "same", "account", "limits", "load", "credit", "allotment", "defect", "rate", "unanswered",
    "other",
]  # fmt: skip
CAUSES: Final[tuple[str, ...]] = get_args(Cause)

_USAGE_PARTS: Final = 6
_TRUNK_WORDS: Final = frozenset((FLAT_RATE, FLAT_RATE_BURST))
_LATE_TOLLFREE: Final = ("+1833", "+1822")
_EMERGENCY_LENGTH_MAX: Final = 3
_USAGES: Final = ("Account-Trunk-Usage", "Reseller-Trunk-Usage")


class Difference(Struct, frozen=True):
    """One field in which two answers differ. `defect` is its number where that is the cause."""

    field: str
    ours: str
    theirs: str
    cause: Cause
    defect: str = ""


def compare_decisions(ours: AuthorizeAnswer, theirs: AuthorizeAnswer) -> tuple[Difference, ...]:
    """Return the fields in which two decisions on one call differ."""
    found = []
    for field in ("is_authorized", "soft_limit", "account_billing", "reseller_billing"):
        mine, other = getattr(ours, field), getattr(theirs, field)
        if mine != other:
            cause, defect = _cause_of(field, ours, theirs)
            found.append(Difference(field, _text(mine), _text(other), cause, defect))
    for field in _USAGES:
        mine_limits = _limits(ours.variable(field))
        their_limits = _limits(theirs.variable(field))
        if mine_limits and their_limits and mine_limits != their_limits:
            found.append(Difference(field, ours.variable(field), theirs.variable(field), "limits"))
    return tuple(found)


def compare_rates(ours: RateAnswer | None, theirs: RateAnswer) -> tuple[Difference, ...]:
    """Return the fields in which two rates of one call differ; None: we have no rate."""
    if ours is None:
        return (Difference("rate", "", theirs.rate, "rate"),)
    fields = (
        "rate", "rate_increment", "rate_minimum", "rate_nocharge_time", "surcharge",
        "discount_percentage",
    )  # fmt: skip
    return tuple(
        Difference(field, mine, other, "rate")
        for field in fields
        if (mine := _number(getattr(ours, field))) != (other := _number(getattr(theirs, field)))
    )


def _cause_of(field: str, ours: AuthorizeAnswer, theirs: AuthorizeAnswer) -> tuple[Cause, str]:
    defect = _defect_of(field, ours, theirs)
    if defect:
        return "defect", defect
    if not ours.variable(_USAGES[0]) and theirs.variable(_USAGES[0]):
        return "account", ""
    words = (theirs.account_billing, theirs.reseller_billing)
    if any(word.startswith(ALLOTMENT_PREFIX) for word in words):
        return "allotment", ""
    if _limits_differ(ours, theirs):
        return "limits", ""
    if _is_loaded(theirs) and _is_trunk_matter(ours, theirs):
        return "load", ""
    if HARD_LIMIT in words:
        return "load", ""
    if ours.is_authorized != theirs.is_authorized or _is_credit_matter(ours, theirs):
        return "credit", ""
    return "other", ""


def _defect_of(field: str, ours: AuthorizeAnswer, theirs: AuthorizeAnswer) -> str:
    """Return the number of the original's defect by which a field differs, "" for none."""
    number = ours.variable("To")
    if number.lstrip("+").isdigit() and len(number) <= _EMERGENCY_LENGTH_MAX:
        # Ours are emergency numbers whatever the account.
        return "B5" if HARD_LIMIT in (theirs.account_billing, theirs.reseller_billing) else "B21"
    is_inbound = theirs.call_direction == "inbound"
    if is_inbound and number.startswith(_LATE_TOLLFREE) and theirs.account_billing in _TRUNK_WORDS:
        return "B21"
    if field == "soft_limit" and theirs.soft_limit:
        return "B29" if theirs.is_authorized else "B4"
    if ours.account_id == ours.reseller_id:
        if field == "reseller_billing":
            return "B28"
        if ours.account_billing in _TRUNK_WORDS and theirs.account_billing == PER_MINUTE:
            return "B3"
    if field == "reseller_billing" and theirs.account_billing in REFUSED_WORDS:
        # It has not looked at the reseller: what it writes there is what the question said.
        return "B30"
    return ""


def _limits_differ(ours: AuthorizeAnswer, theirs: AuthorizeAnswer) -> bool:
    for usage in _USAGES:
        mine, other = _limits(ours.variable(usage)), _limits(theirs.variable(usage))
        if mine and other and mine != other:
            return True
    return False


def _is_loaded(theirs: AuthorizeAnswer) -> bool:
    return any(any(_parts(theirs.variable(usage))[4:]) for usage in _USAGES)


def _is_trunk_matter(ours: AuthorizeAnswer, theirs: AuthorizeAnswer) -> bool:
    """Return whether we had a trunk free where it had none, or another kind of one."""
    pairs = (
        (ours.account_billing, theirs.account_billing),
        (ours.reseller_billing, theirs.reseller_billing),
    )
    return any(mine in _TRUNK_WORDS and mine != other for mine, other in pairs)


def _is_credit_matter(ours: AuthorizeAnswer, theirs: AuthorizeAnswer) -> bool:
    pairs = (
        (ours.account_billing, theirs.account_billing),
        (ours.reseller_billing, theirs.reseller_billing),
    )
    known = PAID_WORDS | REFUSED_WORDS | {LIMITS_DISABLED}
    return any(
        mine != other
        and {mine, other} <= known
        and PER_MINUTE in (mine, other)
        and (mine in REFUSED_WORDS or other in REFUSED_WORDS)
        for mine, other in pairs
    )


def _parts(usage: str) -> tuple[int, ...]:
    """Return the six numbers of a trunk-usage string, none for what is no such string."""
    words = usage.split("/")
    if len(words) != _USAGE_PARTS or not all(_is_number(word) for word in words):
        return ()
    return tuple(map(int, words))


def _limits(usage: str) -> tuple[int, ...]:
    return tuple(-1 if part >= TRUNKS_UNLIMITED else part for part in _parts(usage)[:4])


def _is_number(word: str) -> bool:
    digits = word.removeprefix("-")
    return digits.isascii() and digits.isdecimal() and len(digits) < _EMERGENCY_LENGTH_MAX * 5


def _number(value: object) -> str:
    """Return a figure of a rate in one spelling: hotornot writes some as text."""
    text = "" if value is None else str(value)
    return text.removesuffix(".0") or "0"


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
