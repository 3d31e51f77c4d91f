"""Tells what is due, in the background of an office.

Every receiver is a lane with its own few attempts at a time, so that one that is slow or down
holds up nobody else.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NamedTuple

from authz import log
from authz.config import Settings
from authz.errors import ArchiveUnavailable, AuthzError, StoreError
from authz.events.endpoints import Endpoint, WebhookDirectory
from authz.events.mail import MailSender
from authz.events.messages import SendResult, Told
from authz.events.outbox import Claimed, Outbox
from authz.events.outlets import Outlet
from authz.events.routing import EMAIL, WEBHOOK
from authz.events.webhooks import WebhookSender
from authz.store.accounts import AccountDirectory

_POLL_SECONDS: Final = 1.0
_BURYING_SECONDS: Final = 10
_CLEANING_SECONDS: Final = 3_600
#: How far a claim reaches past the longest attempt.
_LEASE_MARGIN_SECONDS: Final = 5
_RECORD_TRIES_MAX: Final = 3
_FINISH_SECONDS: Final = 2

_Send = Callable[[Claimed, Told], Awaitable[SendResult]]


class _Lane(NamedTuple):
    """One receiver's part of the outbox, or all mails; `target` None takes any."""

    channel: str
    target: str | None


class DeliveryWorker:
    """Claims, sends and records, until it is cancelled. Any number may run on one archive."""

    def __init__(
        self,
        outbox: Outbox,
        webhooks: WebhookDirectory,
        directory: AccountDirectory,
        settings: Settings,
        outlets: Sequence[Outlet] = (),
    ) -> None:
        """Deliver what the outbox has to the receivers of the store and to the mail server."""
        self._outlets = outlets
        self._outbox = outbox
        self._directory = directory
        self._webhooks = webhooks
        self._settings = settings
        self._wake = asyncio.Event()
        self._running: dict[_Lane, set[asyncio.Task[None]]] = {}
        self._is_away = False

    def wake(self) -> None:
        """Look for work now instead of in a second."""
        self._wake.set()

    async def run(self) -> None:
        """Deliver until cancelled; archive or store that are away are only waited for."""
        webhook_sender = WebhookSender(self._settings.webhooks)
        mail_sender = MailSender(self._settings.email)
        buried_at, cleaned_at = -math.inf, time.monotonic()
        try:
            while True:
                # First of all: the archive that is opened with this needs a moment.
                await self._pause()
                try:
                    await self._dispatch(webhook_sender, mail_sender)
                    if time.monotonic() - buried_at >= _BURYING_SECONDS:
                        await self._bury()
                        buried_at = time.monotonic()
                    is_clean = time.monotonic() - cleaned_at < _CLEANING_SECONDS
                    # One batch a turn: nothing that is due waits for the broom.
                    if not is_clean and not await self._outbox.purge(int(time.time())):
                        cleaned_at = time.monotonic()
                    self._is_away = False
                except Exception as error:
                    self._note_trouble(error)
        finally:
            await self._end()
            await webhook_sender.close()

    async def _dispatch(self, webhook_sender: WebhookSender, mail_sender: MailSender) -> None:
        """Start what every lane has room for."""
        endpoints = {one.id: one for one in await self._webhooks.endpoints() if one.enabled}
        mail, hooks = self._settings.email, self._settings.webhooks
        for endpoint in endpoints.values():
            await self._fill(
                _Lane(WEBHOOK, endpoint.id),
                hooks.in_flight_max,
                hooks.timeout_seconds,
                _webhook_send(webhook_sender, endpoint),
            )
        if mail.host is not None:
            await self._fill(
                _Lane(EMAIL, None),
                mail.in_flight_max,
                mail.timeout_seconds,
                lambda claimed, told: mail_sender.send(claimed.target, told),
            )
        for outlet in self._outlets:
            await self._fill(
                _Lane(outlet.channel, outlet.target),
                outlet.in_flight_max,
                outlet.timeout_seconds,
                _outlet_send(outlet),
            )

    async def _fill(
        self, lane: _Lane, in_flight_max: int, timeout_seconds: int, send: _Send
    ) -> None:
        running = self._running.setdefault(lane, set())
        room = in_flight_max - len(running)
        if room <= 0:
            return
        lease_seconds = 2 * timeout_seconds + _LEASE_MARGIN_SECONDS
        now = int(time.time())
        for claimed in await self._outbox.claim(*lane, now, lease_seconds, room):
            task = asyncio.create_task(self._deliver(lane, claimed, send))
            running.add(task)
            task.add_done_callback(running.discard)

    async def _deliver(self, lane: _Lane, claimed: Claimed, send: _Send) -> None:
        """Attempt one delivery and record what became of it."""
        try:
            result = await self._attempt(claimed, send)
            if result.verdict == "gone" and lane.channel == WEBHOOK and lane.target is not None:
                await self._webhooks.disable(lane.target, "it answered 410 Gone")
            await self._record(lane, claimed, result)
        except AuthzError as error:
            # The lease runs out and it is sent again.
            log.event("delivery_not_recorded", level="warning", id=claimed.id, error=error)
        self.wake()

    async def _attempt(self, claimed: Claimed, send: _Send) -> SendResult:
        """Send it; what nobody foresaw counts as a failure too, lest it be tried for ever."""
        chain = await self._directory.chain(claimed.event["account"])
        currency = None if chain is None else chain.accounts[0].config.currency
        try:
            return await send(claimed, Told.of_row(claimed.event, currency))
        except Exception as error:
            log.event("delivery_failed", level="error", id=claimed.id, error=error)
            return SendResult("failed", f"{type(error).__name__}: {error}")

    async def _record(self, lane: _Lane, claimed: Claimed, result: SendResult) -> None:
        state = None
        for left in reversed(range(_RECORD_TRIES_MAX)):
            try:
                state = await self._outbox.record(claimed, result, int(time.time()))
                break
            except ArchiveUnavailable:
                if not left:
                    raise
                await asyncio.sleep(_POLL_SECONDS)
        log.event(
            "event_delivered" if result.verdict == "delivered" else "event_not_delivered",
            level="error" if state == "dead" else "info",
            id=claimed.id,
            channel=lane.channel,
            target=claimed.target,
            attempts=claimed.attempts,
            state=state,
            detail=result.error,
        )

    async def _bury(self) -> None:
        webhook_ids = await self._webhooks.enabled_now()
        has_mail = self._settings.email.host is not None
        others = [(one.channel, one.target) for one in self._outlets]
        buried = await self._outbox.bury_unwanted(
            webhook_ids, int(time.time()), has_mail=has_mail, others=others
        )
        if buried:
            log.event("deliveries_without_receiver", level="warning", deliveries=buried)

    def _note_trouble(self, error: Exception) -> None:
        """Tell once what is in the way; what is not expected, every time."""
        is_expected = isinstance(error, StoreError | ArchiveUnavailable)
        if not (is_expected and self._is_away):
            level: log.LevelName = "warning" if is_expected else "error"
            log.event("deliveries_wait", level=level, error=error)
        self._is_away = True

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(_POLL_SECONDS):
                await self._wake.wait()
        except TimeoutError:
            return
        self._wake.clear()

    async def _end(self) -> None:
        """Wait a moment for what is being sent, then cut it: it is sent again after its lease."""
        tasks = [task for running in self._running.values() for task in running]
        if tasks:
            await asyncio.wait(tasks, timeout=_FINISH_SECONDS)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _outlet_send(outlet: Outlet) -> _Send:
    async def send(claimed: Claimed, told: Told) -> SendResult:
        return await outlet.send(told)

    return send


def _webhook_send(sender: WebhookSender, endpoint: Endpoint) -> _Send:
    async def send(claimed: Claimed, told: Told) -> SendResult:
        return await sender.send(endpoint, told.id, told.payload())

    return send
