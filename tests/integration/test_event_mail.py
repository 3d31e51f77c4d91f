"""Mails about events, handed to a real mail server that may refuse, delay, hang or cut."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from alerting import Office, open_office
from receivers import MailBox, closed_port, open_mailbox
from world import World

from authz.config.alerts import EmailSettings, EventSettings
from authz.errors import InvalidInput
from authz.events.mail import MailSender, compose
from authz.events.messages import Told


@pytest.fixture
async def world(store_url: str, tmp_path: Path) -> AsyncIterator[World]:
    world = await World.start(store_url, tmp_path)
    yield world
    await world.close()


@pytest.fixture
async def box() -> AsyncIterator[MailBox]:
    async with open_mailbox() as box:
        yield box


@pytest.fixture
async def office(world: World, tmp_path: Path, box: MailBox) -> AsyncIterator[Office]:
    settings = mail_settings(box, to=("noc@example.net",), events=("balance.low",))
    retry = EventSettings(retry_seconds=1, attempts_max=3)
    async with open_office(world, tmp_path, None, email=settings, events=retry) as office:
        yield office


def mail_settings(box: MailBox, **fields: Any) -> EmailSettings:
    """Return settings for a mailbox on this host."""
    fields = {"security": "none", "sender": "authz@example.net", "timeout_seconds": 1, **fields}
    return EmailSettings(host="127.0.0.1", port=box.port, **fields)


def told(**facts: Any) -> Told:
    """Return an event with these facts."""
    return Told("evt_1_2_0", "recharge.failed", "acme", 1_800_000_000, facts, "USD")


# --- who gets what ---------------------------------------------------------------------------


async def test_operators_and_the_accounts_own_get_one_mail_each(
    office: Office, box: MailBox
) -> None:
    office.start()
    await office.world.account("master", "100", metadata={"alert_email": "boss@example.org"})
    own = {"alert_email": "a@example.com, b@example.com,noc@example.net"}
    await office.fall_low("sub", parent="master", metadata=own)
    rows = await office.settled("delivered", "delivered", "delivered")
    assert [row.target for row in rows] == ["a@example.com", "b@example.com", "noc@example.net"]
    assert sorted(str(mail["To"]) for mail in box.mails) == [row.target for row in rows]
    assert {mail["Message-ID"] for mail in box.mails} == {f"<{rows[0].event_id}@example.net>"}
    assert [envelope.rcpt_tos for envelope in box.envelopes] == [
        [str(mail["To"])] for mail in box.mails
    ]


async def test_an_account_that_names_nobody_is_told_of_to_whom_its_parent_names(
    office: Office,
) -> None:
    await office.world.account("master", "100", metadata={"alert_email": "boss@example.org"})
    await office.fall_low("sub", parent="master")
    await office.fall_low("quiet", parent="master", metadata={"alert_email": ""})
    targets = [row.target for row in await office.rows()]
    assert targets == ["boss@example.org", "noc@example.net", "noc@example.net"]


async def test_without_a_mail_server_nothing_is_mailed(world: World, tmp_path: Path) -> None:
    settings = EmailSettings(to=("noc@example.net",))
    async with open_office(world, tmp_path, None, email=settings) as office:
        await office.fall_low(metadata={"alert_email": "a@example.com"})
        assert await office.rows() == []


@pytest.mark.parametrize(
    "text",
    ["nobody", "a@b c", "a@example.com\nBcc: b@example.com", "<a@example.com>", "a@", "@b",
     "a@example.com;b@example.com", "ä@example.com", "a@-x.net", ",".join(["a@b.net"] * 11)],
)  # fmt: skip
async def test_a_wrong_address_is_refused_where_it_is_written(world: World, text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        await world.account("acme", metadata={"alert_email": text})
    assert caught.value.field == "metadata.alert_email"


# --- what it says ----------------------------------------------------------------------------


def test_a_mail_says_what_happened_in_plain_text_and_html() -> None:
    settings = EmailSettings(sender="authz@example.net")
    event = Told(
        "evt_1_2_0", "balance.low", "acme", 1_800_000_000,
        {"balance": "4.99", "threshold": "5"}, "EUR",
    )  # fmt: skip
    mail = compose(settings, "a@example.com", event)
    assert mail["Subject"] == "acme: balance low (4.99 EUR)"
    assert mail["From"] == "authz <authz@example.net>"
    assert mail["Auto-Submitted"] == "auto-generated"
    assert mail["Message-ID"] == compose(settings, "b@example.com", event)["Message-ID"]
    plain, rich = (part.get_content() for part in mail.iter_parts())
    assert "Balance:   4.99 EUR" in plain
    assert "Threshold: 5 EUR" in plain
    assert "<td>4.99 EUR</td>" in rich
    assert len(mail.as_bytes().splitlines()) > 20


def test_what_a_caller_wrote_cannot_become_markup_or_a_header() -> None:
    detail = "<script>alert(1)</script>\r\nBcc: victim@example.com\r\n\r\n.\r\n\x00"
    mail = compose(EmailSettings(), "a@example.com", told(amount="20", detail=detail))
    assert mail["Bcc"] is None
    plain, rich = (part.get_content() for part in mail.iter_parts())
    assert "<script>" not in rich
    assert "&lt;script&gt;" in rich
    assert "Reason given: <script>alert(1)</script> Bcc: victim@example.com ." in plain


# --- servers that misbehave ------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["RCPT", "DATA"])
async def test_what_is_refused_for_now_is_sent_again(
    office: Office, box: MailBox, stage: str
) -> None:
    box.stage, box.answers = stage, ["451 4.7.1 greylisted, try again later"]
    office.start()
    await office.fall_low()
    (row,) = await office.settled("delivered")
    assert (row.attempts, len(box.mails)) == (2, 1)


@pytest.mark.parametrize("stage", ["RCPT", "DATA"])
async def test_what_is_refused_for_good_is_a_dead_letter_at_once(
    office: Office, box: MailBox, stage: str
) -> None:
    box.stage, box.answers = stage, ["550 5.1.1 no such user"]
    office.start()
    await office.fall_low()
    (row,) = await office.settled("dead")
    assert row.attempts == 1
    assert "no such user" in row.last_error
    assert box.mails == []


@pytest.mark.parametrize(
    ("fault", "error"), [("hang", "no answer within 1 s"), ("cut", "SMTPServerDisconnected")]
)
async def test_hanging_and_cutting_in_the_middle_are_failures(
    office: Office, box: MailBox, fault: str, error: str
) -> None:
    box.fault = fault
    office.start()
    await office.fall_low()
    (row,) = await office.failed()
    assert error in row.last_error
    box.fault = None
    await office.settled("delivered")
    assert len(box.mails) == 1


async def test_a_server_that_is_away_is_tried_until_the_attempts_end(
    world: World, tmp_path: Path
) -> None:
    email = EmailSettings(
        host="127.0.0.1", port=closed_port(), security="none", to=("a@example.net",), events=()
    )
    retry = EventSettings(attempts_max=2, retry_seconds=1)
    async with open_office(world, tmp_path, None, email=email, events=retry) as office:
        office.start()
        await office.fall_low()
        (row,) = await office.settled("dead")
        assert row.attempts == 2


# --- TLS and login ---------------------------------------------------------------------------


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, ssl.SSLContext]:
    """A certificate for 127.0.0.1, and a server's context with it."""
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-keyout", key, "-out", cert, "-days", "2", "-subj", "/CN=127.0.0.1",
         "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    return cert, context


async def test_a_mail_goes_over_starttls_with_a_login(
    certificate: tuple[Path, ssl.SSLContext],
) -> None:
    cert, context = certificate
    async with open_mailbox(context, ("authz", "s3cret")) as box:
        settings = mail_settings(
            box, security="starttls", ca_file=cert, username="authz", password="s3cret"
        )
        assert (await MailSender(settings).send("a@example.com", told())).verdict == "delivered"
        wrong = mail_settings(
            box, security="starttls", ca_file=cert, username="authz", password="wrong"
        )
        result = await MailSender(wrong).send("a@example.com", told())
        assert (result.verdict, "SMTPAuthenticationError" in result.error) == ("failed", True)
        # A certificate that nobody vouches for, and a server without STARTTLS: no mail, no login.
        for untrusted in (mail_settings(box, security="starttls"), mail_settings(box)):
            result = await MailSender(untrusted).send("a@example.com", told())
            assert result.verdict != "delivered"
    async with open_mailbox() as plain:
        result = await MailSender(mail_settings(plain, security="starttls")).send(
            "a@example.com", told()
        )
        assert (result.verdict, plain.mails) == ("failed", [])
    assert len(box.mails) == 1
