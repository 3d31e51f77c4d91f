"""Sending one event to one receiver over HTTP, after the Standard Webhooks specification."""

from __future__ import annotations

import asyncio
import importlib.metadata
import secrets
import time
from typing import Final

import aiohttp
from yarl import URL

from authz.config.alerts import WebhookSettings
from authz.event_types import WEBHOOK_TEST
from authz.events.addresses import AddressRefused, GuardedResolver, check_literal
from authz.events.endpoints import Endpoint
from authz.events.messages import SendResult, Told, WebhookTest
from authz.events.signing import signature_header

_ANSWER_BYTES_MAX: Final = 1_024
_ERROR_LENGTH_MAX: Final = 200
_WAIT_SECONDS_MAX: Final = 86_400
_HEADER_BYTES_MAX: Final = 16_384


class WebhookSender:
    """Sends; nothing of an answer is believed but its status, and little of it is read."""

    def __init__(self, settings: WebhookSettings, resolver: GuardedResolver | None = None) -> None:
        """Connect to public addresses only, unless the settings allow others."""
        self._settings = settings
        self._session = aiohttp.ClientSession(
            # One connection an event: the address is judged when it is made.
            connector=aiohttp.TCPConnector(
                resolver=resolver or GuardedResolver(allow_private=settings.allow_private),
                use_dns_cache=False,
                force_close=True,
                limit=0,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            max_line_size=_HEADER_BYTES_MAX,
            max_field_size=_HEADER_BYTES_MAX,
            headers={"User-Agent": f"authz/{importlib.metadata.version('authz')}"},
        )

    async def send(self, endpoint: Endpoint, message_id: str, body: bytes) -> SendResult:
        """Post a signed body; return what became of it, also when the receiver hangs."""
        sent_at = int(time.time())
        headers = {
            "Content-Type": "application/json",
            "webhook-id": message_id,
            "webhook-timestamp": str(sent_at),
            "webhook-signature": signature_header(
                message_id, sent_at, body, endpoint.secrets_at(sent_at)
            ),
        }
        try:
            async with asyncio.timeout(self._settings.timeout_seconds):
                return await self._post(URL(endpoint.url), body, headers)
        except TimeoutError:
            return SendResult("failed", f"no answer within {self._settings.timeout_seconds} s")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return SendResult("failed", _text(error))

    async def close(self) -> None:
        """Close every connection."""
        await self._session.close()

    async def _post(self, url: URL, body: bytes, headers: dict[str, str]) -> SendResult:
        if url.scheme != "https" and not self._settings.allow_private:
            raise AddressRefused(f"{url.scheme} is not https (webhooks.allow_private)")
        check_literal(url.host or "", allow_private=self._settings.allow_private)
        async with self._session.post(
            url, data=body, headers=headers, allow_redirects=False
        ) as answer:
            if 200 <= answer.status < 300:
                return SendResult("delivered")
            said = (await answer.content.read(_ANSWER_BYTES_MAX)).decode(errors="replace")
            error = _printable(f"{answer.status} {answer.reason or ''}: {said}")
            if answer.status == 410:
                return SendResult("gone", error)
            return SendResult("failed", error, _wait_seconds(answer))


async def send_test(settings: WebhookSettings, endpoint: Endpoint) -> WebhookTest:
    """Send a signed `webhook.test` now, once; return what came of it."""
    message_id = f"evt_test_{secrets.token_hex(8)}"
    told = Told(message_id, WEBHOOK_TEST, endpoint.account or "", int(time.time()), {}, None)
    sender = WebhookSender(settings)
    began_ns = time.monotonic_ns()
    try:
        result = await sender.send(endpoint, message_id, told.payload())
    finally:
        await sender.close()
    return WebhookTest(
        webhook=endpoint.id,
        delivered=result.verdict == "delivered",
        error=result.error,
        milliseconds=(time.monotonic_ns() - began_ns) // 1_000_000,
    )


def _wait_seconds(answer: aiohttp.ClientResponse) -> int:
    """Return for how long a busy receiver asks to be left alone; its dates are not understood."""
    text = answer.headers.get("Retry-After", "")
    if answer.status not in (429, 503) or not text.isascii() or not text.isdecimal():
        return 0
    return min(int(text[:9]), _WAIT_SECONDS_MAX)


def _text(error: BaseException) -> str:
    cause = error.__cause__
    told = f"{type(error).__name__}: {error}" if cause is None else f"{error}: {cause}"
    return _printable(told)


def _printable(text: str) -> str:
    shown = "".join(one if one.isprintable() else " " for one in text)
    return " ".join(shown.split())[:_ERROR_LENGTH_MAX]
