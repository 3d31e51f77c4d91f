"""Tells Kazoo's notifications of low balances and recharges, as its own tasks did.

Events come through the outbox, each at least once: while the broker is away they wait, with the
same pauses as a webhook's.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from typing import Final

import msgspec

from authz.config.kazoo import KazooSettings
from authz.errors import InvalidInput
from authz.events.messages import SendResult, Told
from authz.events.outlets import Outlet
from authz.hooks.kazoo.broker import KazooBroker
from authz.hooks.kazoo.encoding import to_gregorian
from authz.hooks.kazoo.errors import KazooError
from authz.hooks.kazoo.imports.documents import UNIT_MICROS
from authz.hooks.kazoo.messages import LowBalance, Topup
from authz.money import format_amount, parse_amount

CHANNEL: Final = "kazoo"
_LOW: Final = "balance.low"
_SUCCEEDED: Final = "recharge.succeeded"
_FAILED: Final = "recharge.failed"
#: Kazoo's accounts; others are not its business.
_KAZOO_ACCOUNT: Final = re.compile(r"[0-9a-f]{32}\Z")


class KazooNotifications:
    """An `Outlet` to the notifications of one zone."""

    channel = CHANNEL
    in_flight_max = 10
    timeout_seconds = 10

    def __init__(self, broker: KazooBroker) -> None:
        """`broker` is used for nothing else; `run` connects it."""
        self.target = broker.zone
        self._broker = broker

    def wants(self, event: str, account_ids: Sequence[str]) -> bool:
        """Say whether Kazoo has a notification for it."""
        is_kazoos = bool(account_ids) and _KAZOO_ACCOUNT.match(account_ids[0]) is not None
        return is_kazoos and event in (_LOW, _SUCCEEDED, _FAILED)

    async def send(self, told: Told) -> SendResult:
        """Publish one, and wait for the broker's word that somebody will get it."""
        try:
            body = notification_of(told)
        except (InvalidInput, KeyError) as error:
            return SendResult("refused", f"the event has no such fact: {error}")
        try:
            async with asyncio.timeout(self.timeout_seconds):
                is_heard = await self._broker.notify(body)
        except (KazooError, TimeoutError) as error:
            return SendResult("failed", str(error) or "the broker has not answered in time")
        if not is_heard:
            return SendResult("failed", "nobody listens to Kazoo's notifications")
        return SendResult("delivered")

    async def run(self) -> None:
        """Keep the broker connected until cancelled."""
        await self._broker.run()


def kazoo_outlets(settings: KazooSettings) -> tuple[Outlet, ...]:
    """Return what tells Kazoo: nothing beside a jonny5, whose cluster tells its users itself."""
    if not (settings.is_used and settings.notifications and settings.mode == "active"):
        return ()
    zone, urls = next(iter(settings.zones.items()))
    return (KazooNotifications(KazooBroker(zone, urls, settings)),)


def notification_of(told: Told) -> LowBalance | Topup:
    """Return Kazoo's message for an event. Raises KeyError or InvalidInput for a missing fact."""
    if told.event == _LOW:
        units = parse_amount(told.facts["balance"]) // UNIT_MICROS
        return LowBalance(account_id=told.account, current_balance=units)
    is_success = told.event == _SUCCEEDED
    amount = format_amount(parse_amount(told.facts["amount"]))
    return Topup(
        account_id=told.account,
        amount=msgspec.Raw(amount.encode()),
        response="approved" if is_success else str(told.facts.get("detail") or "declined"),
        success=is_success,
        timestamp=to_gregorian(told.at),
    )
