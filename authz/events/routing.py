"""Whom an event concerns: the rows of the outbox, inserted together with their event."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec
from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from authz import log
from authz.config.alerts import EmailSettings
from authz.event_types import EVENT_TYPES, facts_of, matches
from authz.events.endpoints import Endpoint, WebhookDirectory
from authz.events.outlets import Outlet
from authz.ledger.schema import deliveries
from authz.store.accounts import AccountDirectory, alert_addresses

WEBHOOK: Final = "webhook"
EMAIL: Final = "email"
PENDING: Final = "pending"
DELIVERED: Final = "delivered"
DEAD: Final = "dead"
_decode_facts = msgspec.json.Decoder(dict[str, str]).decode

#: A row of the archive's `events`, by column.
EventRow = Mapping[str, Any]


class _Line(NamedTuple):
    """What routing needs of an account: itself and its ancestors, leaf first, and its mails."""

    ids: tuple[str, ...]
    addresses: tuple[str, ...]


class Router:
    """Turns new events into deliveries. The archive's drain calls `on_events`."""

    def __init__(
        self,
        directory: AccountDirectory,
        webhooks: WebhookDirectory,
        settings: EmailSettings,
        wake: Callable[[], None],
        outlets: Sequence[Outlet] = (),
    ) -> None:
        """Read accounts and receivers of the store; `wake` is called when there is work."""
        self._outlets = outlets
        self._directory = directory
        self._webhooks = webhooks
        self._settings = settings
        self._wake = wake

    async def on_events(self, connection: AsyncConnection, rows: Sequence[EventRow]) -> None:
        """Insert the deliveries of new events, in the transaction that inserts the events.

        Raises StoreError when the store does not answer: the transaction must be undone then.
        """
        endpoints = await self._webhooks.endpoints()
        created_at = int(time.time())
        # What an operator changed a moment ago must hold, so that every batch asks anew.
        lines = {name: await self._line_of(name) for name in {row["account"] for row in rows}}
        wanted: list[dict[str, Any]] = []
        for row in rows:
            _write_log_line(row)
            for channel, target in self._receivers(row["event"], lines[row["account"]], endpoints):
                wanted.append(_delivery(row["id"], channel, target, created_at))
        if wanted:
            await connection.execute(insert(deliveries), wanted)
            self._wake()

    async def _line_of(self, account_id: str) -> _Line:
        """Return an account's line as it is now; of a closed account only its own name."""
        self._directory.forget(account_id)
        chain = await self._directory.chain(account_id)
        if chain is None:
            return _Line((account_id,), ())
        named = (alert_addresses(one.config) for one in chain.accounts)
        return _Line(chain.ids, next((one for one in named if one is not None), ()))

    def _receivers(
        self, event: str, line: _Line, endpoints: Sequence[Endpoint]
    ) -> list[tuple[str, str]]:
        """Return channel and target of everybody who is told, each once."""
        found = [(WEBHOOK, one.id) for one in endpoints if one.wants(event, line.ids)]
        mail = self._settings
        if mail.host is not None:
            addresses: dict[str, None] = {}
            if matches(mail.events, event):
                addresses |= dict.fromkeys(mail.to)
            if matches(mail.account_events, event):
                addresses |= dict.fromkeys(line.addresses)
            found += [(EMAIL, address) for address in addresses]
        found += [(one.channel, one.target) for one in self._outlets if one.wants(event, line.ids)]
        return found


def _delivery(event_id: str, channel: str, target: str, created_at: int) -> dict[str, Any]:
    digest = hashlib.blake2b(f"{channel}:{target}".encode(), digest_size=6).hexdigest()
    return {
        "id": f"dlv_{event_id.removeprefix('evt_')}_{digest}",
        "event_id": event_id,
        "channel": channel,
        "target": target,
        "state": PENDING,
        "attempts": 0,
        "next_attempt_at": created_at,
        "last_error": "",
        "created_at": created_at,
        "delivered_at": None,
    }


def _write_log_line(row: EventRow) -> None:
    """Tell the operator's log; a line may come twice when the archive was away in between."""
    known = EVENT_TYPES.get(row["event"])
    facts = {
        ("reported_" + name if name in _LOG_FIELDS else name): value
        for name, value in facts_of(_decode_facts(row["data"])).items()
    }
    log.event(
        "account_event",
        level="info" if known is None else known.level,
        id=row["id"],
        type=row["event"],
        account=row["account"],
        at=row["at"],
        **facts,
    )


#: Facts that a line of the log calls otherwise.
_LOG_FIELDS: Final = frozenset({"id", "type", "account", "at", "level", "error"})
