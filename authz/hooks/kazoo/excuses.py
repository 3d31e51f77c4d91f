"""Which accounts a channel costs nothing, while it is decided and when it has ended.

A call is always the account's that its channel bears; whom its limits document excuses, or whom
a soft limit let pass, has a free leg in it.
"""

from __future__ import annotations

from authz.hooks.kazoo.legs import Leg
from authz.hooks.kazoo.limits import limits_of
from authz.hooks.kazoo.words import PAID_WORDS, REFUSED_WORDS, is_accepted, is_free
from authz.reasons import Excuse
from authz.store.accounts import Chain


def excuses_by_limits(chain: Chain, leg: Leg) -> dict[str, Excuse]:
    """Return whom the limits documents of a chain excuse from a channel."""
    found = ((one.id, limits_of(one).excuse(leg.resource_type)) for one in chain.accounts)
    return {account: excuse for account, excuse in found if excuse is not None}


def excuses_by_words(
    account: str, account_word: str, reseller: str, reseller_word: str
) -> dict[str, Excuse]:
    """Return who was excused from a channel, by what it was told of its two accounts.

    What it was told is on the channel, so that any process knows it, also when the store or
    whoever decided is gone. It runs already, so that no limit on calls is looked at again.
    """
    # An account that is its own reseller goes by its own word.
    told = {reseller: reseller_word, account: account_word}
    return {name: Excuse.LIMITS for name, word in told.items() if name and is_free(word)}


def excuses_of_ended(leg: Leg, chain: Chain | None) -> dict[str, Excuse]:
    """Return who was excused from an ended channel: by its words, and where it was told nothing,
    by the limits documents of its chain, if that is known.
    """
    excuses = {} if chain is None else excuses_by_limits(chain, leg)
    for account, word in ((leg.reseller, leg.reseller_billing), (leg.account, leg.account_billing)):
        if word in PAID_WORDS:
            excuses.pop(account, None)
    return excuses | excuses_by_words(
        leg.account, leg.account_billing, leg.reseller, leg.reseller_billing
    )


def is_let_through(account_word: str, reseller_word: str) -> bool:
    """Return whether somebody has let a channel through, by what it was told."""
    return is_accepted(account_word) or is_accepted(reseller_word)


def is_refused(account_word: str, reseller_word: str) -> bool:
    """Return whether both accounts have refused a channel; soft limits pass it nevertheless."""
    return account_word in REFUSED_WORDS and reseller_word in REFUSED_WORDS
