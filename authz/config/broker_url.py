"""The URL of a message broker, with the options that RabbitMQ's own clients know in it."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from msgspec import Struct

from authz.errors import ConfigError

_PLAIN: Final = "amqp"
_ENCRYPTED: Final = "amqps"
#: Files of options that concern encryption, and whether the broker's certificate must be trusted.
_FILES: Final = ("cacertfile", "certfile", "keyfile")
_VERIFY: Final = "verify"
_TRUST: Final = {"verify_peer": True, "verify_none": False}
_HEARTBEAT: Final = "heartbeat"
_HEARTBEAT_SECONDS_MAX: Final = 600
_OPTIONS: Final = (*_FILES, _VERIFY, _HEARTBEAT)


class BrokerUrl(Struct, frozen=True, kw_only=True):
    """A broker's address without its options, and these."""

    #: With user and password; no query.
    address: str
    is_encrypted: bool
    #: None: the authorities that the system trusts.
    ca_file: str | None = None
    #: Our own certificate, for brokers that ask for one.
    certificate_file: str | None = None
    key_file: str | None = None
    is_verified: bool = True
    heartbeat_seconds: int | None = None


def parse_broker_url(url: str) -> BrokerUrl:
    """Read a URL; raise ConfigError, whose text never shows the password."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigError(f"url: {error}") from error
    if parts.scheme not in (_PLAIN, _ENCRYPTED) or not host:
        raise ConfigError("url does not start with amqp:// or amqps:// and a host")
    is_encrypted = parts.scheme == _ENCRYPTED
    options = _options(parts.query, is_encrypted=is_encrypted)
    if "keyfile" in options and "certfile" not in options:
        raise ConfigError("url: keyfile needs certfile")
    return BrokerUrl(
        address=parts._replace(query="", fragment="").geturl(),
        is_encrypted=is_encrypted,
        ca_file=options.get("cacertfile"),
        certificate_file=options.get("certfile"),
        key_file=options.get("keyfile"),
        is_verified=_TRUST[options.get(_VERIFY, "verify_peer")],
        heartbeat_seconds=int(options[_HEARTBEAT]) if _HEARTBEAT in options else None,
    )


def _options(query: str, *, is_encrypted: bool) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in _OPTIONS:
            raise ConfigError(f"url: {name!r} is none of its options: {', '.join(_OPTIONS)}")
        if name in options or not value:
            raise ConfigError(f"url: {name} is given twice or is empty")
        if name != _HEARTBEAT and not is_encrypted:
            # Who writes it believes that the connection is encrypted.
            raise ConfigError(f"url: {name} needs amqps://")
        options[name] = value
    if options.get(_VERIFY, "verify_peer") not in _TRUST:
        raise ConfigError(f"url: verify must be one of {', '.join(_TRUST)}")
    heartbeat = options.get(_HEARTBEAT, "1")
    if not (heartbeat.isascii() and heartbeat.isdigit()) or not (
        1 <= int(heartbeat) <= _HEARTBEAT_SECONDS_MAX
    ):
        raise ConfigError(f"url: heartbeat must be from 1 to {_HEARTBEAT_SECONDS_MAX} seconds")
    return options
