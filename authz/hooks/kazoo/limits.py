"""What Kazoo's limits documents say beyond our accounts' own fields, kept in their metadata.

The keys below are the whole agreement with whoever writes them (an operator, or the import of
limits documents). A value that cannot be read is told of and counts as not given.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

import msgspec
from msgspec import Struct

from authz import log
from authz.reasons import Excuse
from authz.store.accounts import Account

#: "false": Kazoo's limits are off for the account; its leg costs nothing and limits nothing.
ENABLED: Final = "kazoo.enabled"
#: Words with commas: `Resource-Type`s of calls that cost this account nothing.
RESOURCE_TYPES: Final = "kazoo.resource_types"
#: "true": calls beyond the account's limits are let through, and flagged.
SOFT_LIMIT_INBOUND: Final = "kazoo.soft_limit_inbound"
SOFT_LIMIT_OUTBOUND: Final = "kazoo.soft_limit_outbound"
#: JSON object: regular expression on the E.164 number to how many inbound calls it may have, -1
#: for any number. The first expression that matches decides.
INBOUND_PER_DID: Final = "kazoo.inbound_channels_per_did"

_UNLIMITED: Final = -1
_RULES: Final = msgspec.json.Decoder(dict[str, int])
_PARSED_MAX: Final = 16_384


class DidRule(Struct, frozen=True):
    """How many inbound calls a number may have that the expression matches; None: any number."""

    pattern: re.Pattern[str]
    calls_max: int | None


class KazooLimits(Struct, frozen=True):
    """One account's."""

    is_enabled: bool = True
    resource_types: frozenset[str] = frozenset()
    is_soft_inbound: bool = False
    is_soft_outbound: bool = False
    did_rules: tuple[DidRule, ...] = ()

    def is_soft(self, direction: str) -> bool:
        """Return whether calls of that direction go beyond the limits."""
        return self.is_soft_inbound if direction == "inbound" else self.is_soft_outbound

    def excuse(self, resource_type: str) -> Excuse | None:
        """Return what the account is spared in a call with that resource.

        By the contract's section 1.2: limits that are off limit nothing either (step 0), but the
        limits on calls look at an exempt resource as well (step 2).
        """
        if not self.is_enabled:
            return Excuse.LIMITS
        return Excuse.PAYMENT if resource_type in self.resource_types else None

    def did_calls_max(self, number: str) -> int | None:
        """Return how many inbound calls a number may have, None if that is not limited."""
        for rule in self.did_rules:
            if rule.pattern.search(number):
                return rule.calls_max
        return None


NO_LIMITS: Final = KazooLimits()


def limits_of(account: Account) -> KazooLimits:
    """Return an account's limits beyond its fields."""
    metadata = account.config.metadata
    if not any(key.startswith("kazoo.") for key in metadata):
        return NO_LIMITS
    return _parse(account.id, tuple(sorted(metadata.items())))


@lru_cache(maxsize=_PARSED_MAX)
def _parse(account_id: str, items: tuple[tuple[str, str], ...]) -> KazooLimits:
    metadata = dict(items)
    words = metadata.get(RESOURCE_TYPES, "").split(",")
    return KazooLimits(
        is_enabled=not _is(metadata, ENABLED, "false"),
        resource_types=frozenset(word.strip() for word in words if word.strip()),
        is_soft_inbound=_is(metadata, SOFT_LIMIT_INBOUND, "true"),
        is_soft_outbound=_is(metadata, SOFT_LIMIT_OUTBOUND, "true"),
        did_rules=_did_rules(account_id, metadata.get(INBOUND_PER_DID, "")),
    )


def _is(metadata: Mapping[str, str], key: str, word: str) -> bool:
    return metadata.get(key, "").strip().lower() == word


def _did_rules(account_id: str, text: str) -> tuple[DidRule, ...]:
    if not text:
        return ()
    try:
        rules = _RULES.decode(text)
        return tuple(
            DidRule(re.compile(pattern), None if limit == _UNLIMITED else max(0, limit))
            for pattern, limit in sorted(rules.items())
        )
    except (msgspec.DecodeError, re.error, RecursionError) as error:
        log.event(
            "kazoo_limits_unreadable",
            level="error",
            account=account_id,
            key=INBOUND_PER_DID,
            error=error,
        )
        return ()
