"""Signatures and addresses of webhooks, held against the reference library and the registries."""

from __future__ import annotations

import base64
import datetime as dt
import secrets
import socket
import time
from typing import Any

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from authz.errors import InvalidInput
from authz.events.addresses import (
    AddressRefused,
    GuardedResolver,
    check_literal,
    check_url,
    is_public,
)
from authz.events.signing import check_secret, mask_secret, new_secret, signature_header


def headers(message_id: str, sent_at: int, body: bytes, keys: list[str]) -> dict[str, str]:
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(sent_at),
        "webhook-signature": signature_header(message_id, sent_at, body, keys),
    }


def test_the_reference_library_accepts_our_signature() -> None:
    secret, body, now = new_secret(), b'{"type": "balance.low"}', int(time.time())
    signed = headers("evt_1", now, body, [secret])
    assert Webhook(secret).verify(body, signed) == {"type": "balance.low"}
    moment = dt.datetime.fromtimestamp(now, dt.UTC)
    assert Webhook(secret).sign("evt_1", moment, body.decode()) == signed["webhook-signature"]


def test_during_a_rotation_either_secret_verifies() -> None:
    old, new, other = new_secret(), new_secret(), new_secret()
    body, now = b"{}", int(time.time())
    signed = headers("evt_1", now, body, [new, old])
    assert len(signed["webhook-signature"].split(" ")) == 2
    assert Webhook(old).verify(body, signed) == Webhook(new).verify(body, signed) == {}
    with pytest.raises(WebhookVerificationError):
        Webhook(other).verify(body, signed)


@pytest.mark.parametrize("change", ["body", "id", "time"])
def test_whatever_is_changed_breaks_the_signature(change: str) -> None:
    secret, body, now = new_secret(), b'{"a":1}', int(time.time())
    signed = headers("evt_1", now, body, [secret])
    if change == "id":
        signed["webhook-id"] = "evt_2"
    if change == "time":
        signed["webhook-timestamp"] = str(now - 1)
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(b'{"a":2}' if change == "body" else body, signed)


def test_secrets_are_checked_and_masked() -> None:
    secret = new_secret()
    check_secret(secret, "secret")
    assert new_secret() != secret
    assert mask_secret(secret) == f"whsec_…{secret[-4:]}"
    for size in (24, 64):
        check_secret("whsec_" + base64.b64encode(secrets.token_bytes(size)).decode(), "secret")
    short = base64.b64encode(secrets.token_bytes(23)).decode()
    for wrong in ("", "whsec_", "whsec_!!!!", f"whsec_{short}", secret[6:], secret + "\n", "ä"):
        with pytest.raises(InvalidInput) as caught:
            check_secret(wrong, "webhooks[0].secret")
        assert caught.value.field == "webhooks[0].secret"


PRIVATE = [
    "127.0.0.1", "127.9.9.9", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254",
    "100.64.0.1", "192.0.2.1", "198.18.0.1", "224.0.0.1", "239.1.1.1", "240.0.0.1",
    "255.255.255.255", "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254",
    "ff02::1", "ff0e::1", "2001:db8::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1",
    "64:ff9b::7f00:1", "64:ff9b::a00:1", "2002:7f00:1::", "2002:0a00:0001::1",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2", "fec0::1", "::127.0.0.1", "::808:808", "64:ff9b:1::1",
    "4000::1",
]  # fmt: skip


@pytest.mark.parametrize("address", PRIVATE)
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(address)
    with pytest.raises(AddressRefused):
        check_literal(address, allow_private=False)
    check_literal(address, allow_private=True)


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808::1"],
)
def test_addresses_that_are_public(address: str) -> None:
    assert is_public(address)
    check_literal(address, allow_private=False)


@pytest.mark.parametrize(
    "url",
    [
        "http://example.net/", "ftp://example.net/", "example.net", "//example.net", "https://",
        "https://:443/", "https://user@example.net/", "https://user:pass@example.net/",
        "https://example.net/#part", "https://127.0.0.1/", "https://[::1]:8443/x",
        "https://169.254.169.254/latest", "https://[::ffff:10.0.0.1]/", "https://example.net:0/",
        "https://example.net:99999/", "https://exa mple.net/", "https://127.1/", "https://0x7f000001/",
        "https://2130706433/", "https://example.net/\n",
        "https://ex\u00e4mple.net/", "https://example.net/" + "x" * 2_100, "",
    ],
)  # fmt: skip
def test_a_url_that_no_receiver_may_have(url: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        check_url(url, "url", allow_private=False)
    assert caught.value.field == "url"


def test_urls_that_receivers_may_have() -> None:
    check_url("https://example.net/hook?x=1", "url", allow_private=False)
    check_url("https://8.8.8.8:8443/", "url", allow_private=False)
    check_url("http://127.0.0.1:8080/", "url", allow_private=True)
    check_url("http://localhost/", "url", allow_private=True)


class Names(AbstractResolver):
    """A resolver that knows what it is told, one answer after the other."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)

    async def resolve(
        self, host: str, port: int = 0, family: Any = socket.AF_INET
    ) -> list[ResolveResult]:
        return [
            {"hostname": host, "host": one, "port": port, "family": family, "proto": 0, "flags": 0}
            for one in self.answers.pop(0)
        ]

    async def close(self) -> None:
        """Nothing is open."""


async def test_a_name_is_refused_if_any_of_its_addresses_is_private() -> None:
    names = Names(["8.8.8.8"], ["8.8.8.8", "10.0.0.1"], ["127.0.0.1"])
    resolver = GuardedResolver(allow_private=False, inner=names)
    assert [one["host"] for one in await resolver.resolve("a.example", 443)] == ["8.8.8.8"]
    for _ in range(2):
        with pytest.raises(AddressRefused, match=r"a\.example leads to"):
            await resolver.resolve("a.example", 443)
    lax = GuardedResolver(allow_private=True, inner=Names(["127.0.0.1"]))
    assert len(await lax.resolve("a.example", 80)) == 1
    await resolver.close()


@pytest.mark.parametrize("host", ["localhost", "2130706433", "0x7f.1", "127.1"])
async def test_other_spellings_of_this_host_are_resolved_before_they_are_judged(host: str) -> None:
    resolver = GuardedResolver(allow_private=False)
    with pytest.raises(OSError, match=r"not a public address|Name or service"):
        await resolver.resolve(host, 80)
