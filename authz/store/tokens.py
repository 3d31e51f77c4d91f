"""Tokens of the admin API as the store keeps them, so that every host knows the same ones.

What is kept of a secret is its SHA-256: it is 256 random bits, which no slow hash protects better.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec
from msgspec import Struct

from authz.errors import Conflict, InvariantError
from authz.store import keys
from authz.store.client import StoreClient

RoleName = Literal["read", "operate", "admin"]
#: Tokens that may exist at a time.
TOKENS_MAX: Final = 1_000


class TokenRecord(Struct, frozen=True, kw_only=True):
    """One token without its secret. Times are Unix seconds."""

    id: str
    name: str
    role: RoleName
    account: str | None
    created_at: int
    expires_at: int | None
    #: SHA-256 of the secret part, in hex.
    digest: str


class TokenStore:
    """Reads and writes the records. Every method raises StoreError when the store is away."""

    def __init__(self, client: StoreClient) -> None:
        self._client = client

    async def add(self, record: TokenRecord) -> None:
        """Keep a new token; Conflict when there are too many, or one of its name.

        Two that are added at the same moment may share a name: their ids tell them apart.
        """
        present = await self.all()
        if len(present) >= TOKENS_MAX:
            raise Conflict(f"there are {TOKENS_MAX} tokens; revoke those that nobody uses")
        if any(one.name == record.name for one in present):
            raise Conflict(f"a token is called {record.name}; revoke it or choose another name")
        data = msgspec.json.encode(record)
        if not await self._client.execute("HSETNX", keys.tokens(), record.id, data):
            raise InvariantError("a random token id has come up twice")

    async def get(self, token_id: str) -> TokenRecord | None:
        """Return a token as it is kept now, or None."""
        data = await self._client.execute("HGET", keys.tokens(), token_id)
        return None if data is None else _decode(data)

    async def all(self) -> tuple[TokenRecord, ...]:
        """Return all tokens, the oldest first."""
        flat = await self._client.execute("HGETALL", keys.tokens())
        return tuple(
            sorted(map(_decode, flat[1::2]), key=lambda record: (record.created_at, record.id))
        )

    async def exist(self) -> bool:
        """Whether there is any token."""
        return bool(await self._client.execute("EXISTS", keys.tokens()))

    async def remove(self, token_id: str) -> bool:
        """Forget a token; False if there is none."""
        removed = await self._client.execute("HDEL", keys.tokens(), token_id)
        await self._client.execute("HDEL", keys.token_uses(), token_id)
        return bool(removed)

    async def note_use(self, token_id: str, day: int) -> None:
        """Write down the day (days since 1970-01-01) on which a token was used."""
        await self._client.execute("HSET", keys.token_uses(), token_id, day)

    async def uses(self) -> dict[str, int]:
        """Return the day of last use by token id."""
        flat = await self._client.execute("HGETALL", keys.token_uses())
        return {
            token_id.decode(): int(day) for token_id, day in zip(flat[::2], flat[1::2], strict=True)
        }


def _decode(data: bytes) -> TokenRecord:
    try:
        return msgspec.json.decode(data, type=TokenRecord)
    except msgspec.MsgspecError as error:
        raise InvariantError(f"a token's record is unreadable: {error}") from error
