"""Who may talk to a hook listener: bearer tokens and an address allow-list."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import ipaddress
from collections.abc import Sequence

from authz.errors import ConfigError

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Access:
    """The rule of one listener: when both kinds are set, a caller must satisfy both.

    `tokens` are shared secrets; any of them opens. `allow` are addresses or networks in CIDR
    form. ConfigError names an entry that is neither, or a token that no header can carry.
    """

    def __init__(self, tokens: Sequence[str] = (), allow: Sequence[str] = ()) -> None:
        for token in tokens:
            if not token or not token.isascii() or not token.isprintable() or " " in token:
                raise ConfigError(
                    "hook.token: a token is printable ASCII without spaces, at least one character"
                )
        self._digests = tuple(_digest(token.encode()) for token in tokens)
        self._networks = tuple(_network(entry) for entry in allow)

    @property
    def restricts(self) -> bool:
        """Whether anybody is kept out at all."""
        return bool(self._digests or self._networks)

    def admits_address(self, host: str) -> bool:
        """Whether a peer's address is on the allow-list, or there is none."""
        if not self._networks:
            return True
        try:
            address = _plain_address(host)
        except ValueError:
            return False
        return any(address in network for network in self._networks)

    def admits_authorization(self, authorization: bytes | None) -> bool:
        """Whether an Authorization header's value carries a token, or none is needed.

        `Bearer <token>`, or `Basic` with the token as password: some switches know no other.
        """
        if not self._digests:
            return True
        presented = _digest(_credential(authorization or b""))
        # No early exit: the time must not tell which token was nearly right.
        matches = [hmac.compare_digest(presented, digest) for digest in self._digests]
        return any(matches)


def require_guard(hosts: Sequence[str], access: Access) -> None:
    """Refuse an open listener: ConfigError if a host is not loopback and nothing guards it."""
    if access.restricts:
        return
    for host in hosts:
        if not _plain_address(host).is_loopback:
            raise ConfigError(
                f"hook.listen: {host} can be reached from other machines; set hook.token "
                "(or hook.token_file) or hook.allow, or listen on 127.0.0.1 or [::1]"
            )


def _digest(secret: bytes) -> bytes:
    # Digests have one length, so that comparing them does not tell the length of the token.
    return hashlib.sha256(secret).digest()


def _credential(authorization: bytes) -> bytes:
    scheme, _, value = authorization.strip().partition(b" ")
    match scheme.lower():
        case b"bearer":
            return value.strip()
        case b"basic":
            try:
                pair = base64.b64decode(value.strip(), validate=True)
            except binascii.Error:
                return b""
            return pair.partition(b":")[2]
    return b""


def _network(entry: str) -> Network:
    try:
        return ipaddress.ip_network(entry)
    except ValueError as error:
        raise ConfigError(
            f"hook.allow: {entry!r} is no address or network ({error}); "
            "write 192.0.2.7, 192.0.2.0/24 or 2001:db8::/32"
        ) from None


def _plain_address(host: str) -> Address:
    # A listener on [::] sees IPv4 callers as ::ffff:192.0.2.7, link-local ones with a %zone.
    address = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address
