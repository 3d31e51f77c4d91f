"""From a call to the money, on a running daemon: each event told, also when processes are killed.

A balance falls through its thresholds; a receiver is told, a mail is sent, a recharge is asked
for, paid and credited. Killed between attempt and record, the receiver may hear the same message
again, under the same id, but never none.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from audit_helper import assert_clean_audit
from daemons import Daemon
from processes import is_alive, until
from receivers import Inbox, MailBox, answer_with, open_inbox, open_mailbox

from authz.store.client import StoreClient

DECK = "prefix,description,price,increment\n1,North America,1.00,60\n"


@pytest.fixture
async def inbox() -> AsyncIterator[Inbox]:
    async with open_inbox() as inbox:
        yield inbox


@pytest.fixture
async def box() -> AsyncIterator[MailBox]:
    async with open_mailbox() as box:
        yield box


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
def timeout_seconds() -> int:
    """How long an attempt may take: a short one makes leases end soon."""
    return 3


@pytest.fixture
async def daemon(tmp_path: Path, box: MailBox, timeout_seconds: int) -> AsyncIterator[Daemon]:
    daemon = Daemon(
        tmp_path / "state",
        AUTHZ_WEBHOOKS__ALLOW_PRIVATE="true",
        AUTHZ_WEBHOOKS__TIMEOUT_SECONDS=str(timeout_seconds),
        AUTHZ_EVENTS__RETRY_SECONDS="1",
        AUTHZ_EMAIL__HOST="127.0.0.1",
        AUTHZ_EMAIL__PORT=str(box.port),
        AUTHZ_EMAIL__SECURITY="none",
        AUTHZ_EMAIL__TIMEOUT_SECONDS=str(timeout_seconds),
        AUTHZ_EMAIL__ACCOUNT_EVENTS="balance.low",
        AUTHZ_ARCHIVE__DELAY_SECONDS="0",
    )
    await daemon.start()
    await daemon.ready()
    yield daemon
    await daemon.stop()


class Business:
    """A daemon's operator, switch and payment system."""

    def __init__(self, daemon: Daemon, http: aiohttp.ClientSession, inbox: Inbox) -> None:
        self.daemon = daemon
        self.http = http
        self.inbox = inbox
        self.secret = ""

    async def ask(self, method: str, url: str, body: Any = None) -> Any:
        """Return the document of a request that must succeed."""
        data = {"data": body} if isinstance(body, str) else {"json": body}
        async with self.http.request(method, url, **data) as response:
            assert response.status < 300, await response.text()
            return await response.json()

    async def admin(self, method: str, path: str, body: Any = None) -> Any:
        """Ask the admin API."""
        return await self.ask(method, f"{self.daemon.admin}/v1{path}", body)

    async def open(self) -> None:
        """Create an account with 10 that is low at 5 and wants 20 below 6; name the receiver."""
        await self.admin("PUT", "/decks/retail", DECK)
        config = {
            "deck": "retail",
            "low_balance": {"threshold": "5"},
            "auto_recharge": {"threshold": "6", "amount": "20"},
            "metadata": {"alert_email": "boss@acme.example"},
        }
        await self.admin("PUT", "/accounts/acme", config)
        credit = {"amount": "10", "kind": "payment", "reference": "first"}
        await self.admin("POST", "/accounts/acme/credits", credit)
        events = {"url": self.inbox.url, "events": ["balance.*", "recharge.*"]}
        self.secret = (await self.admin("PUT", "/webhooks/crm", events))["secret"]

    async def call(self, minutes: int) -> None:
        """Lead a call of some minutes, at 1 each."""
        call = {"call_id": "c1", "account": "acme"}
        hook = f"{self.daemon.hook}/v1"
        start = {**call, "to": "+14155550100", "seconds": 60 * minutes}
        for _ in range(1_800):
            # A trial, since calls that are denied for want of a rate are told of as well.
            trial = await self.ask("POST", f"{hook}/authorize", {**start, "dry_run": True})
            if trial["reason"] != "no_rate":
                break
            # A deck is in use everywhere within a second.
            await asyncio.sleep(0.05)
        grant = await self.ask("POST", f"{hook}/authorize", start)
        assert grant["allowed"], grant
        await self.ask("POST", f"{hook}/settle", {**call, "seconds": 60 * minutes})

    def told(self) -> Counter[str]:
        """Return how many different messages of each type have come, all rightly signed."""
        seen = {}
        for place, (headers, body) in enumerate(self.inbox.requests):
            self.inbox.verified(self.secret, place)
            before = seen.setdefault(headers["webhook-id"], body)
            assert before == body
        return Counter(json.loads(body)["type"] for body in seen.values())

    async def paid(self) -> None:
        """Wait for the request of a recharge; answer it twice, as payment systems do."""
        await until(lambda: self.told()["recharge.due"] == 1)
        answers = [
            await self.admin("POST", "/recharges/acme-1/succeeded", {"amount": "20"})
            for _ in range(2)
        ]
        assert [one["duplicate"] for one in answers] == [False, True]

    async def end(self) -> None:
        """Wait until everything is told; prove that the money came once."""
        await until(lambda: self.told()["recharge.succeeded"] == 1)
        balance = (await self.admin("GET", "/accounts/acme/balance"))["balance"]
        assert balance == "24"
        states = await self.states()
        assert set(states) == {"delivered"}, states
        assert self.told() == Counter(
            {"balance.low": 1, "recharge.due": 1, "recharge.succeeded": 1}
        )
        client = await StoreClient.connect(self.daemon.store_url)
        try:
            await assert_clean_audit(client)
        finally:
            await client.close()

    async def states(self) -> list[str]:
        """Wait until nothing is on its way any more; return the states of all deliveries."""
        for _ in range(1_800):
            page = await self.admin("GET", "/deliveries")
            states = [one["state"] for one in page["deliveries"]]
            if "pending" not in states:
                return states
            await asyncio.sleep(0.05)
        return states


async def kill_office(daemon: Daemon) -> None:
    pid = daemon.child("office")
    os.kill(pid, signal.SIGKILL)
    await until(lambda: daemon.child("office") != pid)


async def kill_all(daemon: Daemon) -> None:
    await daemon.kill()
    await daemon.start()


@pytest.mark.parametrize("timeout_seconds", [30])
async def test_a_falling_balance_ends_in_one_of_each(
    daemon: Daemon, http: aiohttp.ClientSession, inbox: Inbox, box: MailBox
) -> None:
    business = Business(daemon, http, inbox)
    await business.open()
    await business.call(6)
    await business.paid()
    await business.end()
    assert len(inbox.requests) == 3
    (mail,) = box.mails
    assert (mail["To"], mail["Subject"]) == ("boss@acme.example", "acme: balance low (4 USD)")
    logged = [event["type"] for event in daemon.logged("account_event")]
    assert sorted(logged) == ["balance.low", "recharge.due", "recharge.succeeded"]


@pytest.mark.parametrize("kill", [kill_office, kill_all])
async def test_a_kill_between_attempt_and_record_loses_no_message(
    daemon: Daemon,
    http: aiohttp.ClientSession,
    inbox: Inbox,
    box: MailBox,
    kill: Callable[[Daemon], Awaitable[None]],
) -> None:
    business = Business(daemon, http, inbox)
    await business.open()
    unanswered = asyncio.Event()

    async def keep_waiting(_request: web.Request) -> web.StreamResponse:
        await unanswered.wait()
        return web.Response(status=204)

    # Both the receiver and the mail server have the message when the sender dies.
    inbox.respond = keep_waiting
    box.fault = "hang"
    await business.call(6)
    try:
        await until(lambda: len(inbox.requests) >= 2 and box.tries >= 1)
    except TimeoutError:
        told = (len(inbox.requests), box.tries, await business.admin("GET", "/deliveries"))
        raise AssertionError(f"{told}, {daemon.events}") from None
    first = set(inbox.ids)
    inbox.respond, box.fault = answer_with(204), None
    await kill(daemon)
    unanswered.set()
    await daemon.ready()
    await business.paid()
    await business.end()
    repeated = [one for one, count in Counter(inbox.ids).items() if count > 1]
    assert set(repeated) == first
    assert len({mail["Message-ID"] for mail in box.mails}) == 1
    assert is_alive(daemon.child("office"))


async def test_a_kill_of_the_store_before_archiving_loses_no_message(
    daemon: Daemon, http: aiohttp.ClientSession, inbox: Inbox, box: MailBox
) -> None:
    business = Business(daemon, http, inbox)
    await business.open()
    await business.call(6)
    await daemon.kill_store()
    await until(lambda: len(daemon.logged("store_started")) == 2)
    await daemon.ready()
    await business.paid()
    await business.end()
    assert len({mail["Message-ID"] for mail in box.mails}) == 1
