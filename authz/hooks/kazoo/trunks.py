"""Trunk-usage strings: an account's flat-rate channels, and how many of them calls occupy."""

from __future__ import annotations

from typing import Any

from authz.hooks.kazoo.imports.accounts import TRUNKS_UNLIMITED
from authz.hooks.kazoo.words import FLAT_RATE, FLAT_RATE_BURST
from authz.store.accounts import Account


def trunk_usage(account: Account, state: Any, word: str, direction: str) -> str:
    """Return `inbound/outbound/twoway/burst limits/inbound used/outbound used`.

    `state` is the account's, after the decision; the call that was decided does not count, which
    is how Kazoo's invoices have it. A limit that is none is -1, as in limits documents.
    """
    trunks = account.config.trunks
    inbound, outbound = state.trunks_inbound, state.trunks_outbound
    if word in (FLAT_RATE, FLAT_RATE_BURST):
        if direction == "inbound":
            inbound -= 1
        else:
            outbound -= 1
    limits = (trunks.inbound, trunks.outbound, trunks.twoway, trunks.burst)
    shown = [-1 if limit >= TRUNKS_UNLIMITED else limit for limit in limits]
    return "/".join(map(str, (*shown, max(0, inbound), max(0, outbound))))
