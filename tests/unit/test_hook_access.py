"""Who may talk to a hook listener."""

from __future__ import annotations

import base64

import pytest

from authz.errors import ConfigError
from authz.hooks.access import Access, require_guard


def test_without_rules_everybody_is_admitted() -> None:
    access = Access()
    assert not access.restricts
    assert access.admits_address("203.0.113.9")
    assert access.admits_authorization(None)


@pytest.mark.parametrize(
    ("host", "is_admitted"),
    [
        ("192.0.2.7", True),
        ("192.0.2.8", False),
        ("198.51.100.200", True),
        ("::ffff:198.51.100.200", True),
        ("2001:db8::1", True),
        ("2001:db9::1", False),
        ("fe80::1%eth0", True),
        ("", False),
        ("no address", False),
    ],
)
def test_address_list(host: str, is_admitted: bool) -> None:
    access = Access(allow=["192.0.2.7", "198.51.100.0/24", "2001:db8::/32", "fe80::/10"])
    assert access.admits_address(host) is is_admitted


@pytest.mark.parametrize(
    ("authorization", "is_admitted"),
    [
        (b"Bearer first-token", True),
        (b"bearer   second-token ", True),
        (b"Basic " + base64.b64encode(b"switch:second-token"), True),
        (b"Basic " + base64.b64encode(b"first-token:x"), False),
        (b"Basic not-base64!", False),
        (b"Bearer", False),
        (b"Bearer first-toke", False),
        (b"Bearer first-tokenn", False),
        (b"first-token", False),
        (b"Digest first-token", False),
        (b"\xff\xfe", False),
        (b"", False),
        (None, False),
    ],
)
def test_tokens(authorization: bytes | None, is_admitted: bool) -> None:
    access = Access(tokens=["first-token", "second-token"])
    assert access.admits_authorization(authorization) is is_admitted


@pytest.mark.parametrize("token", ["", "two words", "ümlaut", "line\nend"])
def test_a_token_that_no_header_carries_is_refused(token: str) -> None:
    with pytest.raises(ConfigError, match=r"hook\.token"):
        Access(tokens=[token])


@pytest.mark.parametrize("entry", ["192.0.2.1/24", "192.0.2", "host.example", ""])
def test_an_entry_that_is_no_network_is_named(entry: str) -> None:
    with pytest.raises(ConfigError, match=r"hook\.allow") as caught:
        Access(allow=[entry])
    assert repr(entry) in str(caught.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"])
def test_loopback_needs_no_guard(host: str) -> None:
    require_guard([host], Access())


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "2001:db8::1", "fe80::1%lo"])
def test_a_reachable_listener_needs_a_guard(host: str) -> None:
    with pytest.raises(ConfigError, match=r"hook\.listen"):
        require_guard(["127.0.0.1", host], Access())
    require_guard([host], Access(tokens=["t"]))
    require_guard([host], Access(allow=["192.0.2.0/24"]))
