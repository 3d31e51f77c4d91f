"""Where a webhook may lead: only to public addresses, unless a setting says otherwise.

A name is resolved here, every address that it has is judged, and exactly those are connected to,
so that a name cannot turn to another address between the check and the connection.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from typing import Final

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver
from yarl import URL

from authz.errors import InvalidInput

_URL_LENGTH_MAX: Final = 2_048
#: NAT64: the address of an IPv4 host inside.
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
#: All there is of public IPv6; what lies outside is local, reserved, or IPv4 in disguise.
_GLOBAL_UNICAST: Final = ipaddress.IPv6Network("2000::/3")
#: A name whose end is a number is an address in disguise (127.1, 0x7f000001).
_NUMERIC_LABEL: Final = re.compile(r"(?:^|\.)(?:[0-9]+|0[xX][0-9a-fA-F]*)\.?\Z")
_IP = ipaddress.IPv4Address | ipaddress.IPv6Address


class AddressRefused(OSError):
    """The receiver has an address that is not public."""


def is_public(text: str) -> bool:
    """Return whether an address is one of a single host on the Internet."""
    address: _IP = ipaddress.ip_address(text)
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is None and (address.teredo is not None or address not in _GLOBAL_UNICAST):
            return False
        if inner is not None:
            address = inner
    return address.is_global and not address.is_multicast


def check_url(text: str, field: str, *, allow_private: bool) -> None:
    """Raise InvalidInput naming `field` unless the URL can be that of a receiver.

    A name is not resolved: it may not be known yet, and may lead elsewhere later.
    """
    if len(text) > _URL_LENGTH_MAX or not text.isascii() or not text.isprintable() or " " in text:
        raise InvalidInput(field, f"is not a URL of at most {_URL_LENGTH_MAX} ASCII characters")
    try:
        url = URL(text)
        port = url.port
    except ValueError as error:
        raise InvalidInput(field, f"is not a URL: {error}") from None
    if url.scheme != "https" and not (url.scheme == "http" and allow_private):
        raise InvalidInput(field, "does not start with https://")
    if not url.host or port == 0:
        raise InvalidInput(field, "names no host")
    if url.user is not None or url.password is not None:
        raise InvalidInput(field, "has a user or a password, which would be stored and logged")
    if url.fragment:
        raise InvalidInput(field, "has a fragment, which is never sent")
    if not _is_literal(url.host) and _NUMERIC_LABEL.search(url.host):
        raise InvalidInput(field, f"{url.host} is neither a name nor an address")
    if not allow_private and _is_literal(url.host) and not is_public(url.host):
        raise InvalidInput(field, f"{url.host} is not a public address (webhooks.allow_private)")


def check_literal(host: str, *, allow_private: bool) -> None:
    """Raise AddressRefused for a host that is itself an address and not a public one.

    The HTTP client asks no resolver about such a host.
    """
    if not allow_private and _is_literal(host) and not is_public(host):
        raise AddressRefused(f"{host} is not a public address")


class GuardedResolver(AbstractResolver):
    """Resolves names and refuses those that lead to any address that is not public."""

    def __init__(self, *, allow_private: bool, inner: AbstractResolver | None = None) -> None:
        """Ask `inner`, the system's resolver by default."""
        self._allow_private = allow_private
        self._inner = ThreadedResolver() if inner is None else inner

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the host's addresses; raise AddressRefused if one of them is not public."""
        found = await self._inner.resolve(host, port, family)
        if not self._allow_private:
            for one in found:
                if not is_public(one["host"]):
                    raise AddressRefused(f"{host} leads to {one['host']}, not a public address")
        return found

    async def close(self) -> None:
        """Close the inner resolver."""
        await self._inner.close()


def _is_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
