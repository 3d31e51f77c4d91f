"""An admin API that other machines reach needs a token before the daemon starts."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from authz.admin.tokens import TokenRequest, TokenService
from authz.config import Settings
from authz.config.sections import AdminSettings
from authz.engine.clock import StoreClock
from authz.errors import ConfigError
from authz.server.admin_guard import require_admin_guard
from authz.store.accounts import AccountDirectory
from authz.store.client import StoreClient

NOWHERE = "redis://127.0.0.1:1"


def settings(token: str | None = None) -> Settings:
    return Settings(state_dir=Path("/nowhere"), admin=AdminSettings(token=token))


def bound(host: str) -> socket.socket:
    """Return a socket that is bound and listens to nobody."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.bind((host, 0))
    return listener


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1"])
async def test_this_hosts_own_address_needs_no_token(host: str) -> None:
    with bound(host) as listener:
        await require_admin_guard(listener, settings(), NOWHERE)
    await require_admin_guard(None, settings(), NOWHERE)


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
async def test_any_other_needs_one_in_the_settings_or_in_the_store(
    host: str, store_url: str, store: StoreClient
) -> None:
    tokens = TokenService(store, AccountDirectory(store), StoreClock())
    with bound(host) as listener:
        await require_admin_guard(listener, settings("a-token-of-the-settings"), NOWHERE)
        with pytest.raises(ConfigError, match=r"admin\.listen: .* no token exists"):
            await require_admin_guard(listener, settings(), store_url)
        made = await tokens.create(TokenRequest(name="first", role="admin"))
        await require_admin_guard(listener, settings(), store_url)
        with pytest.raises(ConfigError, match="the store does not answer"):
            await require_admin_guard(listener, settings(), NOWHERE)
        await tokens.revoke(made.id)
        with pytest.raises(ConfigError, match="no token exists"):
            await require_admin_guard(listener, settings(), store_url)
