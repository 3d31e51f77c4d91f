"""Receivers of events for tests: a web server and a mail server that can misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import email
import email.policy
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from email.message import EmailMessage
from typing import Any

from aiohttp import web
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from standardwebhooks.webhooks import Webhook

Respond = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Inbox:
    """A web server on a free port. Each request is kept, then answered as `respond` says."""

    def __init__(self) -> None:
        self.url = ""
        self.requests: list[tuple[dict[str, str], bytes]] = []
        #: How many are being answered, and the most there ever were.
        self.open = self.open_max = 0
        self.respond: Respond = answer_with(204)

    @property
    def ids(self) -> list[str]:
        """The ids of all messages, in the order of their coming."""
        return [headers["webhook-id"] for headers, _ in self.requests]

    def verified(self, secret: str, place: int = -1) -> Any:
        """Return the payload of a message whose signature the reference library accepts."""
        headers, body = self.requests[place]
        return Webhook(secret).verify(body, headers)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Keep a request and answer it."""
        self.open += 1
        self.open_max = max(self.open_max, self.open)
        try:
            headers = {name.lower(): value for name, value in request.headers.items()}
            self.requests.append((headers, await request.read()))
            return await self.respond(request)
        finally:
            self.open -= 1


def answer_with(status: int, text: str = "", headers: dict[str, str] | None = None) -> Respond:
    """Return a behaviour: answer with this."""

    async def respond(_request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, text=text, headers=headers)

    return respond


async def hang(_request: web.Request) -> web.StreamResponse:
    """Never answer: a behaviour."""
    await asyncio.Event().wait()
    raise AssertionError


async def drop(request: web.Request) -> web.StreamResponse:
    """Cut the connection instead of answering: a behaviour."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


@contextlib.asynccontextmanager
async def open_inbox(port: int = 0) -> AsyncIterator[Inbox]:
    """Serve an inbox on 127.0.0.1."""
    inbox = Inbox()
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", inbox.handle)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    inbox.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    try:
        yield inbox
    finally:
        await runner.cleanup()


class MailBox:
    """What a mail server has accepted, and what it answers instead of accepting.

    `answers` are given one by one at `stage` (`RCPT`, `DATA`); None, or none left, accepts.
    """

    def __init__(self) -> None:
        self.port = 0
        self.mails: list[EmailMessage] = []
        self.envelopes: list[Envelope] = []
        self.stage = "DATA"
        self.answers: list[str | None] = []
        self.tries = 0
        #: At DATA: neither accept nor refuse, but leave the client waiting or cut it off.
        self.fault: str | None = None
        self.writers: list[asyncio.Transport] = []

    def _answer(self, stage: str) -> str | None:
        if stage != self.stage or not self.answers:
            return None
        return self.answers.pop(0)

    async def handle_RCPT(
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: Any
    ) -> str:
        """Answer RCPT TO."""
        self.tries += 1
        refusal = self._answer("RCPT")
        if refusal is not None:
            return refusal
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, _session: Session, envelope: Envelope) -> str:
        """Answer the end of a mail."""
        if self.fault == "hang":
            await asyncio.Event().wait()
        if self.fault == "cut":
            assert server.transport is not None
            server.transport.abort()
            return "451 gone"
        refusal = self._answer("DATA")
        if refusal is not None:
            return refusal
        assert isinstance(envelope.content, bytes)
        self.envelopes.append(envelope)
        parsed = email.message_from_bytes(envelope.content, policy=email.policy.SMTP)
        assert isinstance(parsed, EmailMessage)
        self.mails.append(parsed)
        return "250 OK"


@contextlib.asynccontextmanager
async def open_mailbox(
    tls: ssl.SSLContext | None = None, login: tuple[str, str] | None = None
) -> AsyncIterator[MailBox]:
    """Serve a mailbox on 127.0.0.1; with `tls` by STARTTLS only, with `login` for that user."""
    box = MailBox()

    def authenticate(
        _server: Any, _session: Any, _envelope: Any, _mechanism: str, data: Any
    ) -> AuthResult:
        assert login is not None
        assert isinstance(data, LoginPassword)
        is_right = (data.login.decode(), data.password.decode()) == login
        return AuthResult(success=is_right, handled=False)

    def protocol() -> SMTP:
        return SMTP(
            box,
            tls_context=tls,
            require_starttls=tls is not None,
            authenticator=authenticate if login is not None else None,
            auth_required=login is not None,
            enable_SMTPUTF8=True,
            loop=asyncio.get_running_loop(),
        )

    server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", 0)
    box.port = server.sockets[0].getsockname()[1]
    try:
        yield box
    finally:
        server.close()


def closed_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
