"""Nobody reaches the admin API from another machine unless there is a token."""

from __future__ import annotations

import ipaddress
import socket

from authz.config import Settings
from authz.errors import ConfigError, StoreError
from authz.store.client import StoreClient
from authz.store.tokens import TokenStore


async def require_admin_guard(
    listener: socket.socket | None, settings: Settings, store_url: str
) -> None:
    """Refuse an admin listener that other machines reach and nothing guards: ConfigError.

    A token in the settings guards it, or any in the store. A store that does not answer cannot
    tell of one: a daemon that shall start without its store needs the one in the settings.
    """
    if listener is None or settings.admin.token is not None:
        return
    host = str(listener.getsockname()[0])
    if ipaddress.ip_address(host.partition("%")[0]).is_loopback:
        return
    detail = "no token exists"
    try:
        if await _any_token(store_url):
            return
    except StoreError:
        detail = "the store does not answer, so that no token is known"
    raise ConfigError(
        f"admin.listen: {host} can be reached from other machines, and {detail}; set admin.token "
        "(or admin.token_file), make one with `authz token create` while the API listens on "
        "127.0.0.1 or [::1], or listen there only"
    )


async def _any_token(store_url: str) -> bool:
    client = await StoreClient.connect(store_url, client_name="authz-serve")
    try:
        return await TokenStore(client).exist()
    finally:
        await client.close()
