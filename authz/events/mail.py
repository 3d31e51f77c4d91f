"""Mails: an event in words, as plain text and HTML, handed to one mail server."""

from __future__ import annotations

import asyncio
import contextlib
import html
import ssl
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP as SMTP_POLICY
from email.utils import format_datetime
from typing import Any, Final

import aiosmtplib

from authz.config.alerts import EmailSettings
from authz.engine.clock import format_moment, moment_of
from authz.event_types import EVENT_TYPES, FACTS
from authz.events.messages import SendResult, Told

_ERROR_LENGTH_MAX: Final = 200
_PERMANENT: Final = 500
_LEAVE_SECONDS: Final = 2
_WORDS: Final[dict[str, str]] = {
    "amount": "Amount",
    "balance": "Balance",
    "call": "Call",
    "count": "Calls",
    "credit_limit": "Credit limit",
    "detail": "Reason given",
    "granted": "Granted seconds",
    "inbound": "Inbound calls on trunks",
    "limit": "Limit",
    "outbound": "Outbound calls on trunks",
    "period": "Period",
    "prefixes": "Prefixes",
    "reason": "Reason",
    "recharge": "Recharge",
    "seconds": "Seconds",
    "spend": "Spent",
    "threshold": "Threshold",
}


def compose(settings: EmailSettings, address: str, told: Told) -> EmailMessage:
    """Return the mail of an event; the same event gives the same Message-ID every time."""
    message = EmailMessage(policy=SMTP_POLICY)
    domain = settings.sender.rpartition("@")[2]
    subject = f"{told.account}: {told.event.replace('.', ' ').replace('_', ' ')}"
    if "balance" in told.facts:
        subject += f" ({_amount(told, 'balance')})"
    message["From"] = Address("authz", addr_spec=settings.sender)
    message["To"] = Address(addr_spec=address)
    message["Subject"] = subject
    message["Date"] = format_datetime(moment_of(told.at))
    message["Message-ID"] = f"<{told.id}@{domain}>"
    # So that no robot answers (RFC 3834).
    message["Auto-Submitted"] = "auto-generated"
    rows = _rows(told)
    meaning = _meaning(told)
    message.set_content(_plain(meaning, rows))
    message.add_alternative(_html(meaning, rows), subtype="html")
    return message


class MailSender:
    """Hands mails to the server of the settings, one connection each."""

    def __init__(self, settings: EmailSettings) -> None:
        """Use the settings' server; they name one."""
        self._settings = settings
        self._tls: ssl.SSLContext | None = None

    async def send(self, address: str, told: Told) -> SendResult:
        """Send one mail; return what became of it, also when the server hangs."""
        settings = self._settings
        client: aiosmtplib.SMTP | None = None
        try:
            message = compose(settings, address, told)
            async with asyncio.timeout(settings.timeout_seconds):
                client = await self._client()
                await client.connect()
                if settings.username is not None and settings.password is not None:
                    await client.login(settings.username, settings.password)
                await client.sendmail(settings.sender, [address], message.as_bytes())
        except TimeoutError:
            return SendResult("failed", f"no answer within {settings.timeout_seconds} s")
        except aiosmtplib.SMTPRecipientsRefused as error:
            return _refusal(error.recipients[0])
        except (aiosmtplib.SMTPSenderRefused, aiosmtplib.SMTPDataError) as error:
            return _refusal(error)
        except (aiosmtplib.SMTPException, OSError, ValueError) as error:
            return SendResult("failed", _text(error))
        finally:
            if client is not None:
                await _leave(client)
        return SendResult("delivered")

    async def _client(self) -> aiosmtplib.SMTP:
        settings = self._settings
        if settings.security != "none" and self._tls is None:
            self._tls = await asyncio.to_thread(ssl.create_default_context, cafile=settings.ca_file)
        return aiosmtplib.SMTP(
            hostname=settings.host,
            port=settings.port,
            use_tls=settings.security == "tls",
            start_tls=settings.security == "starttls",
            tls_context=self._tls,
            timeout=settings.timeout_seconds,
        )


async def _leave(client: aiosmtplib.SMTP) -> None:
    """Take leave: the mail is accepted or not by now, whatever the server says to that."""
    with contextlib.suppress(aiosmtplib.SMTPException, OSError, TimeoutError):
        async with asyncio.timeout(_LEAVE_SECONDS):
            await client.quit()
    client.close()


def _refusal(error: aiosmtplib.SMTPResponseException) -> SendResult:
    """Return what an answer about this one mail means: 4xx may pass later, 5xx never will."""
    text = _text(error)
    return SendResult("refused" if error.code >= _PERMANENT else "failed", text)


def _meaning(told: Told) -> str:
    known = EVENT_TYPES.get(told.event)
    return told.event if known is None else known.meaning.replace("`", "")


def _rows(told: Told) -> list[tuple[str, str]]:
    rows = [("Account", told.account), ("Event", told.event), ("Time", format_moment(told.at))]
    for name in told.facts:
        value = _amount(told, name) if FACTS.get(name) == "amount" else _line(told.facts[name])
        if value:
            rows.append((_WORDS.get(name, name), value))
    return [*rows, ("Id", told.id)]


def _amount(told: Told, name: str) -> str:
    amount = str(told.facts[name])
    return amount if told.currency is None else f"{amount} {told.currency}"


def _line(value: Any) -> str:
    """Return a fact as one line of printable text."""
    return " ".join("".join(one if one.isprintable() else " " for one in str(value)).split())


def _plain(meaning: str, rows: list[tuple[str, str]]) -> str:
    width = max(len(name) for name, _ in rows)
    lines = [f"{name + ':':<{width + 2}}{value}" for name, value in rows]
    return "\n".join([meaning, "", *lines, ""])


def _html(meaning: str, rows: list[tuple[str, str]]) -> str:
    cells = "".join(
        f'<tr><th align="left">{html.escape(name)}</th><td>{html.escape(value)}</td></tr>\n'
        for name, value in rows
    )
    return (
        "<!doctype html>\n<html><body>\n"
        f"<p>{html.escape(meaning)}</p>\n<table>\n{cells}</table>\n</body></html>\n"
    )


def _text(error: Exception) -> str:
    return _line(f"{type(error).__name__}: {error}")[:_ERROR_LENGTH_MAX]
