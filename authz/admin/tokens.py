"""Tokens of the admin API: made, listed, revoked, recognised.

A token reads `authz_<id>_<secret>`: the id (16 hex digits) finds its record, the secret (43
characters for 256 random bits) proves it. The secret is told once, when the token is made.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import Annotated, Final

from msgspec import Meta, Struct

from authz import log
from authz.admin.callers import RESERVED_NAMES, Caller
from authz.admin.roles import Role
from authz.engine.clock import StoreClock, format_moment, parse_moment
from authz.errors import InvalidInput, NotFound, StoreError
from authz.model import AccountId
from authz.store.accounts import AccountDirectory
from authz.store.client import StoreClient
from authz.store.tokens import RoleName, TokenRecord, TokenStore

_SCHEME: Final = "authz"
_SECRET_BYTES: Final = 32
_ID_BYTES: Final = 8
_SECONDS_PER_DAY: Final = 86_400
#: What an unknown token is compared with, so that it takes as long as a known one.
_NO_DIGEST: Final = "0" * 64
#: Tokens whose use of today is remembered as written down.
_USES_MAX: Final = 4_096

TokenId = Annotated[
    str, Meta(pattern=r"^[0-9a-f]{16}$(?!\n)", description="The token's id, part of the token.")
]


class TokenRequest(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A token to be made; without `account` it reaches all, without `expires_at` for ever."""

    name: Annotated[
        str,
        Meta(
            pattern=r"^[A-Za-z0-9][A-Za-z0-9_.@-]{0,63}$(?!\n)",
            description="Its name in the log of changes.",
        ),
    ]
    role: Annotated[
        RoleName,
        Meta(description="What it may do: `read`, `operate` or `admin`, each more than the last."),
    ]
    account: (
        Annotated[AccountId, Meta(description="The top of the account tree that it is bound to.")]
        | None
    ) = None
    expires_at: (
        Annotated[
            str,
            Meta(
                min_length=1,
                max_length=40,
                description="When it ends, as RFC 3339 text with an offset.",
                examples=["2030-01-01T00:00:00Z"],
            ),
        ]
        | None
    ) = None


class TokenPath(Struct, frozen=True, forbid_unknown_fields=True):
    """Which token."""

    id: TokenId


class TokenView(Struct, frozen=True, kw_only=True):
    """A token without its secret. `last_used_on` is a day (UTC), null: never."""

    id: str
    name: str
    role: RoleName
    account: str | None
    created_at: str
    expires_at: str | None
    last_used_on: str | None


class NewToken(TokenView, frozen=True, kw_only=True):
    """A token that was made just now; `token` is told this once."""

    token: str


class TokenList(Struct, frozen=True):
    """All tokens, the oldest first."""

    tokens: tuple[TokenView, ...]


class CallerView(Struct, frozen=True, kw_only=True):
    """Who asks, as the daemon recognises them; `account` is the tree they are bound to."""

    name: str
    role: RoleName
    account: str | None
    token: str | None
    expires_at: str | None


class TokenExpired(Exception):
    """The token was a right one until its time ended."""


class TokenService:
    """Makes and recognises tokens. Every method raises StoreError when the store is away.

    A token is looked up in the store at every use: one that is revoked is refused from then on,
    by every process.
    """

    def __init__(self, client: StoreClient, directory: AccountDirectory, clock: StoreClock) -> None:
        self._store = TokenStore(client)
        self._directory = directory
        self._clock = clock
        self._used: dict[str, int] = {}

    async def create(self, request: TokenRequest) -> NewToken:
        """Make a token.

        Raises InvalidInput for a reserved name, an unknown account or an end that has passed,
        Conflict for a name in use or too many tokens.
        """
        if request.name in RESERVED_NAMES:
            raise InvalidInput("name", f"{request.name} is not the name of a token")
        now = self._clock.now()
        expires_at = None
        if request.expires_at is not None:
            expires_at = parse_moment(request.expires_at, "expires_at")
            if expires_at <= now:
                raise InvalidInput("expires_at", f"{request.expires_at} has passed")
        if request.account is not None and await self._directory.read(request.account) is None:
            raise InvalidInput("account", f"no account {request.account}")
        secret = secrets.token_urlsafe(_SECRET_BYTES)
        record = TokenRecord(
            id=secrets.token_hex(_ID_BYTES),
            name=request.name,
            role=request.role,
            account=request.account,
            created_at=now,
            expires_at=expires_at,
            digest=_digest(secret),
        )
        await self._store.add(record)
        view = _view(record, None)
        fields = {name: getattr(view, name) for name in view.__struct_fields__}
        return NewToken(**fields, token=f"{_SCHEME}_{record.id}_{secret}")

    async def all(self) -> TokenList:
        """Return all tokens, also those that have expired."""
        uses = await self._store.uses()
        records = await self._store.all()
        return TokenList(tuple(_view(record, uses.get(record.id)) for record in records))

    async def revoke(self, token_id: str) -> None:
        """End a token at once and for ever; raises NotFound."""
        if not await self._store.remove(token_id):
            raise NotFound(f"no token {token_id}")

    async def exist(self) -> bool:
        """Whether any token exists, so that nobody comes without one."""
        return await self._store.exist()

    async def recognise(self, token: str) -> Caller | None:
        """Return whose token this is, or None; raises TokenExpired."""
        scheme, _, rest = token.partition("_")
        token_id, _, secret = rest.partition("_")
        is_formed = scheme == _SCHEME and len(token_id) == 2 * _ID_BYTES and token_id.isalnum()
        record = await self._store.get(token_id) if is_formed else None
        expected = _NO_DIGEST if record is None else record.digest
        if not hmac.compare_digest(_digest(secret), expected) or record is None:
            return None
        if record.expires_at is not None and record.expires_at <= self._clock.now():
            raise TokenExpired
        await self._note_use(record.id)
        return Caller(
            record.name, Role.labelled(record.role), record.account, record.id, record.expires_at
        )

    async def _note_use(self, token_id: str) -> None:
        """Write the day down, once: it tells which tokens nobody needs any more."""
        day = self._clock.now() // _SECONDS_PER_DAY
        if self._used.get(token_id) == day:
            return
        if len(self._used) >= _USES_MAX:
            self._used.clear()
        self._used[token_id] = day
        try:
            await self._store.note_use(token_id, day)
        except StoreError as error:
            # The use counts, not its note; whoever uses the store next learns that it is away.
            log.event("token_use_not_noted", level="warning", error=error)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode(errors="surrogateescape")).hexdigest()


def _view(record: TokenRecord, used_day: int | None) -> TokenView:
    return TokenView(
        id=record.id,
        name=record.name,
        role=record.role,
        account=record.account,
        created_at=format_moment(record.created_at),
        expires_at=None if record.expires_at is None else format_moment(record.expires_at),
        last_used_on=(
            None if used_day is None else format_moment(used_day * _SECONDS_PER_DAY)[:10]
        ),
    )
