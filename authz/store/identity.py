"""What a store says of itself: how its keys are spread, and whose data it holds."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from authz.errors import ConfigError
from authz.store import keys
from authz.store.layouts import LAYOUT_NUMBER

if TYPE_CHECKING:
    from authz.store.client import StoreClient


async def check_store_identity(client: StoreClient) -> str:
    """Return the identity of the store's data; written at the first start, checked at every one.

    Raises ConfigError when the store was laid out with another number of buckets or another
    generation of records than this daemon's: it would look for accounts in the wrong places.
    """
    expected = {b"buckets": keys.BUCKETS, b"layout": LAYOUT_NUMBER}
    for field, number in expected.items():
        await client.execute("HSETNX", keys.STORE_IDENTITY, field, number)
    await client.execute("HSETNX", keys.STORE_IDENTITY, "id", secrets.token_hex(16))
    names = (*expected, b"id")
    found = dict(
        zip(names, await client.execute("HMGET", keys.STORE_IDENTITY, *names), strict=True)
    )
    for field, number in expected.items():
        if found[field] != b"%d" % number:
            raise ConfigError(
                f"store.url: the store at {client.address} has {field.decode()} "
                f"{found[field].decode(errors='replace')}, this daemon needs {number}; "
                "it belongs to another version of authz"
            )
    return str(found[b"id"].decode())
