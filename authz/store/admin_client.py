"""redis-py on the same URLs, for where its many commands matter and its speed does not."""

from __future__ import annotations

from typing import Any, Final

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from authz.store.url import parse_store_url

_TIMEOUT_SECONDS: Final = 5.0


def admin_client(url: str, *, client_name: str = "authz-admin") -> Redis:
    """Return a redis-py client for a store's URL; it connects when first used.

    It answers in bytes and never repeats a command by itself. Close it with `aclose`. Raises
    ConfigError for a URL that is wrong.
    """
    address = parse_store_url(url)
    common: dict[str, Any] = {
        "db": address.database,
        "username": address.username,
        "password": address.password,
        "client_name": client_name,
        "socket_timeout": _TIMEOUT_SECONDS,
        "socket_connect_timeout": _TIMEOUT_SECONDS,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
    }
    if address.socket_path:
        return Redis(unix_socket_path=address.socket_path, **common)
    options = address.tls_options
    if options is None:
        return Redis(host=address.host, port=address.port, **common)
    return Redis(
        host=address.host,
        port=address.port,
        ssl=True,
        ssl_ca_certs=options.ca_file,
        ssl_certfile=options.certificate_file,
        ssl_keyfile=options.key_file,
        ssl_cert_reqs="required" if options.verify_certificate else "none",
        ssl_check_hostname=options.verify_hostname and options.verify_certificate,
        **common,
    )
