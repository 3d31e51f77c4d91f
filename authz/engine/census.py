"""A census: what all accounts have, hold and use together, by a slow walk over them.

It reads some hundred accounts a second, so that it takes next to nothing from the store however
many there are; accounts that it has passed move on meanwhile, so its sums are of no one moment.
The audit proves the books; the census only shows how much is in them.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
from msgspec import Struct, field

from authz import log
from authz.model import AccountConfig
from authz.reasons import CLASSES, CallClass
from authz.store import keys
from authz.store.client import StoreClient
from authz.store.layouts import ACCOUNT_STATE

#: Accounts read at a time, and how long to rest after each page: at most 500 a second.
PAGE: Final = 100
PAUSE_SECONDS: Final = 0.2
#: Sums are kept for so many currencies; accounts in others are left out, which is logged.
CURRENCIES_MAX: Final = 64
ROOT: Final = "root"
SUB: Final = "sub"
_DEADLINE_MS: Final = 2_000
_decode_config = msgspec.json.Decoder(AccountConfig).decode


class Purse(Struct):
    """Sums over the accounts of one level and currency."""

    accounts: int = 0
    balance_micros: int = 0
    held_micros: int = 0
    used_micros: int = 0


class Census(Struct):
    """What a walk has found. `level` is `root` or `sub`."""

    #: By level and currency.
    purses: dict[tuple[str, str], Purse] = field(default_factory=dict)
    #: Accounts by what is the matter with them.
    states: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(
            ("disabled", "low", "exhausted", "recharge_pending"), 0
        )
    )
    #: Open calls of root accounts by class.
    class_calls: dict[str, int] = field(
        default_factory=lambda: {name: 0 for name in CLASSES if name != CallClass.EMERGENCY.label}
    )
    #: Open calls on trunks by level and direction; channels by level and kind.
    trunk_calls: dict[tuple[str, str], int] = field(default_factory=dict)
    trunk_channels: dict[tuple[str, str], int] = field(default_factory=dict)
    #: Accounts left out: unreadable, or in one currency too many.
    left_out: int = 0

    def add(self, config: AccountConfig, state: Any) -> None:
        """Count one account."""
        level = ROOT if config.parent is None else SUB
        key = (level, config.currency)
        if key not in self.purses and len(self.purses) >= 2 * CURRENCIES_MAX:
            self.left_out += 1
            return
        purse = self.purses.setdefault(key, Purse())
        purse.accounts += 1
        purse.balance_micros += state.balance
        purse.held_micros += state.held
        purse.used_micros += state.used
        self.states["disabled"] += not config.enabled
        self.states["low"] += state.low_at != 0
        self.states["exhausted"] += state.exhausted_at != 0
        self.states["recharge_pending"] += state.recharge_pending != 0
        if level == ROOT:
            for name in self.class_calls:
                self.class_calls[name] += getattr(state, f"calls_{name}")
        self._add_trunks(level, config, state)

    def _add_trunks(self, level: str, config: AccountConfig, state: Any) -> None:
        trunks = config.trunks
        for direction, calls, channels in (
            ("inbound", state.trunks_inbound, trunks.inbound),
            ("outbound", state.trunks_outbound, trunks.outbound),
        ):
            _add(self.trunk_calls, (level, direction), calls)
            _add(self.trunk_channels, (level, direction), channels)
        _add(self.trunk_channels, (level, "twoway"), trunks.twoway)


def _add(sums: dict[tuple[str, str], int], key: tuple[str, str], amount: int) -> None:
    sums[key] = sums.get(key, 0) + amount


async def take_census(
    client: StoreClient, pause: Callable[[float], Awaitable[None]] = asyncio.sleep
) -> Census:
    """Walk over all accounts of the store; raises StoreError if it fails meanwhile."""
    census = Census()
    first = "-"
    while True:
        page = await client.execute(
            "ZRANGEBYLEX", keys.ACCOUNTS, first, "+", "LIMIT", 0, PAGE, deadline_ms=_DEADLINE_MS
        )
        for packed in await asyncio.gather(*(_read(client, name.decode()) for name in page)):
            _count(census, packed)
        if len(page) < PAGE:
            break
        first = f"({page[-1].decode()}"
        await pause(PAUSE_SECONDS)
    if census.left_out:
        log.event("census_incomplete", level="warning", left_out=census.left_out)
    return census


async def _read(client: StoreClient, name: str) -> tuple[bytes | None, bytes | None]:
    """Return an account's configuration and state; None for what is not there."""
    root = await client.execute("GET", keys.root(name), deadline_ms=_DEADLINE_MS)
    if root is None:
        return None, None
    key = keys.account(keys.tag_of_root(root.decode()), name)
    config, state = await client.execute("HMGET", key, "c", "s", deadline_ms=_DEADLINE_MS)
    return config, state


def _count(census: Census, packed: tuple[bytes | None, bytes | None]) -> None:
    config, state = packed
    if config is None or state is None:
        # Closed, or entered and never made.
        return
    try:
        census.add(_decode_config(config), ACCOUNT_STATE.unpack(state))
    except (msgspec.DecodeError, struct.error):
        census.left_out += 1
