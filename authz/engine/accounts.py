"""Accounts as operators keep them: create, replace, patch, close, read, list.

Parent, currency and root of an account never change, and an id once closed is never used again.
The key that names an account's root is written first, so that a crash in between leaves nothing
but a claim that the same request fulfils later.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from authz.engine.account_tree import NAMES_MAX, AccountTree, names_after
from authz.engine.clock import StoreClock
from authz.errors import Conflict, InvalidInput, NotFound
from authz.model import ACCOUNT_ID_PATTERN, CHAIN_LENGTH_MAX, AccountConfig
from authz.money import format_amount
from authz.reasons import CallClass, Outcome
from authz.store import keys
from authz.store.accounts import (
    Account,
    AccountDirectory,
    AccountRecord,
    check_config,
    encode_config,
)
from authz.store.client import StoreClient
from authz.store.scripts import load_scripts
from authz.validation import invalid_input

#: Accounts of one page of a list, and ids that one page may look through for them.
PAGE_LENGTH_MAX: Final = 500
_EXAMINED_MAX: Final = 10_000
#: Every round of a race over one account is won by somebody.
_ATTEMPTS_MAX: Final = 100
_MUST_NOT_EXIST: Final = 0
_WHATEVER_IT_IS: Final = -1
_ID = re.compile(ACCOUNT_ID_PATTERN)


class Stored(NamedTuple):
    """An account as a change has left it; `created` says that it did not exist before."""

    record: AccountRecord
    created: bool


class AccountPage(NamedTuple):
    """Some accounts in the order of their ids; `cursor` asks for the next, None: no more."""

    records: tuple[AccountRecord, ...]
    cursor: str | None


class AccountService:
    """Changes and reads accounts; safe in any number of processes at once.

    Every method raises StoreError when the store does not answer; all changes may be repeated.
    """

    def __init__(self, client: StoreClient, directory: AccountDirectory, clock: StoreClock) -> None:
        self._client = client
        self._directory = directory
        self._clock = clock
        self._script = load_scripts()["account"]

    async def put(self, account_id: str, config: AccountConfig) -> Stored:
        """Create an account or replace its configuration, never its balance.

        A deck that does not exist yet is taken: it may be published later. Raises InvalidInput
        naming the field, or Conflict for another parent or currency and for a closed id.
        """
        _check_id(account_id)
        check_config(config)
        for _ in range(_ATTEMPTS_MAX):
            existing = await self._directory.read(account_id)
            if existing is None:
                root = await self._claim_root(account_id, config)
                stored = await self._write(account_id, root, config, _MUST_NOT_EXIST)
            else:
                _check_unchanged(existing.config, config)
                root = await self._root_of(account_id)
                stored = await self._write(account_id, root, config, _WHATEVER_IT_IS)
            if stored is not None:
                return stored
        raise Conflict(f"account {account_id} keeps changing")

    async def patch(self, account_id: str, changes: Mapping[str, object]) -> Stored:
        """Apply an RFC 7386 merge patch to a configuration; null takes a field's default.

        Raises NotFound, InvalidInput naming the field, or Conflict as `put`.
        """
        for _ in range(_ATTEMPTS_MAX):
            existing = await self._directory.read(account_id)
            if existing is None:
                raise NotFound(f"no account {account_id}")
            config = patched(existing.config, changes)
            check_config(config)
            _check_unchanged(existing.config, config)
            root = await self._root_of(account_id)
            stored = await self._write(account_id, root, config, existing.state.version)
            if stored is not None:
                return stored
        raise Conflict(f"account {account_id} keeps changing")

    async def read(self, account_id: str) -> AccountRecord:
        """Return an account as it is now; raises NotFound."""
        record = await self._directory.read(account_id)
        if record is None:
            raise NotFound(f"no account {account_id}")
        return record

    async def close(self, account_id: str) -> None:
        """Close an account for ever; Conflict with open calls, children or a balance."""
        record = await self.read(account_id)
        tag = keys.tag_of_root(await self._root_of(account_id))
        reply = await self._client.call_script(
            self._script,
            _script_keys(tag, account_id, record.config.parent),
            [b"close", b"", b"", account_id.encode(), b""],
        )
        self._directory.forget(account_id)
        if reply[0] == Outcome.ACCOUNT_MISSING:
            raise NotFound(f"no account {account_id}")
        if reply[0] == Outcome.NOT_EMPTY:
            calls, balance, children = reply[1:]
            raise Conflict(
                f"account {account_id} has {calls} open calls, a balance of "
                f"{format_amount(balance)} and {children} children"
            )
        await self._client.execute("ZREM", keys.ACCOUNTS, account_id)

    async def page(
        self,
        *,
        parent: str | None = None,
        under: str | None = None,
        q: str | None = None,
        cursor: str | None = None,
        limit: int = 100,
    ) -> AccountPage:
        """Return up to `limit` accounts after `cursor`: all, the children of `parent`, or a tree.

        They come by id; those of the tree of `under` with every account before those below it.
        `q` is looked for anywhere in the id, whatever its case. A page may hold fewer than
        `limit` and yet have a cursor: one request looks through 10,000 ids at most, of a tree
        2,000. Raises NotFound for an unknown parent or top, InvalidInput for a limit outside 1
        to 500.
        """
        if not 1 <= limit <= PAGE_LENGTH_MAX:
            raise InvalidInput("limit", f"must be from 1 to {PAGE_LENGTH_MAX}")
        tree = await self.tree(under)
        if parent is not None:
            await self.read(parent)
            if tree is not None and not await tree.contains(parent):
                raise NotFound(f"no account {parent}")
        elif tree is not None:
            found = await tree.after(cursor, (q or "").lower(), limit)
            return AccountPage(await self._records(found.names), found.cursor)
        index = keys.ACCOUNTS
        if parent is not None:
            index = keys.children(keys.tag_of_root(await self._root_of(parent)), parent)
        return await self._indexed(index, cursor, q.lower() if q else "", limit)

    async def tree(self, top: str | None) -> AccountTree | None:
        """Return the tree of an account, None for None; raises NotFound."""
        if top is None:
            return None
        return await AccountTree.of(self._client, self._directory, top)

    async def _indexed(
        self, index: bytes, cursor: str | None, wanted: str, limit: int
    ) -> AccountPage:
        records: list[AccountRecord] = []
        for _ in range(_EXAMINED_MAX // NAMES_MAX):
            names = await names_after(self._client, index, cursor)
            matching = [name for name in names if wanted in name.lower()]
            more = len(matching) > limit - len(records)
            matching = matching[: limit - len(records)]
            records += await self._records(matching)
            if not more and len(names) < NAMES_MAX:
                return AccountPage(tuple(records), None)
            cursor = matching[-1] if more else names[-1]
            if more or len(records) == limit:
                break
        return AccountPage(tuple(records), cursor)

    async def _records(self, names: Sequence[str]) -> tuple[AccountRecord, ...]:
        found = await asyncio.gather(*map(self._directory.read, names))
        return tuple(record for record in found if record is not None)

    async def _root_of(self, account_id: str) -> str:
        root: bytes | None = await self._client.execute("GET", keys.root(account_id))
        if root is None:
            raise NotFound(f"no account {account_id}")
        return root.decode()

    async def _claim_root(self, account_id: str, config: AccountConfig) -> str:
        """Write down, before the account, to which tree it belongs; for ever."""
        root = account_id
        if config.parent is not None:
            await self._check_parent(config.parent, config.currency)
            root = await self._root_of(config.parent)
        await self._client.execute("SET", keys.root(account_id), root, "NX")
        if await self._root_of(account_id) != root:
            raise Conflict(f"account {account_id} belongs to another tree, or did and is closed")
        await self._client.execute("ZADD", keys.ACCOUNTS, 0, account_id)
        return root

    async def _check_parent(self, parent: str, currency: str) -> None:
        chain = await self._directory.chain(parent)
        if chain is None:
            raise InvalidInput("parent", f"no account {parent}")
        if len(chain.accounts) >= CHAIN_LENGTH_MAX:
            raise InvalidInput(
                "parent", f"{parent} has {CHAIN_LENGTH_MAX - 1} accounts above it already"
            )
        wanted = chain.accounts[0].config.currency
        if currency != wanted:
            raise InvalidInput("currency", f"must be {wanted}, as that of its parent {parent}")

    async def _write(
        self, account_id: str, root: str, config: AccountConfig, expected: int
    ) -> Stored | None:
        """Run the script; None when somebody else was faster and the account is to be reread."""
        tag = keys.tag_of_root(root)
        limits = Account(account_id, 0, config).limits(CallClass.UNKNOWN, self._clock.now())
        reply = await self._client.call_script(
            self._script,
            _script_keys(tag, account_id, config.parent),
            [b"put", encode_config(config), expected, account_id.encode(), limits],
        )
        self._directory.forget(account_id)
        if reply[0] == Outcome.STALE_CONFIG:
            return None
        if reply[0] == Outcome.ACCOUNT_MISSING:
            if reply[1] == 2 and config.parent is not None:
                self._directory.forget(config.parent)
                raise InvalidInput("parent", f"account {config.parent} is closed")
            if expected > 0:
                raise NotFound(f"no account {account_id}")
            raise Conflict(f"account {account_id} was closed; its id is never used again")
        record = await self._directory.read(account_id)
        return None if record is None else Stored(record, bool(reply[2]))


def patched(config: AccountConfig, changes: Mapping[str, object]) -> AccountConfig:
    """Return a configuration after an RFC 7386 merge patch; raises InvalidInput."""
    merged = _merge(msgspec.to_builtins(config), changes)
    try:
        return msgspec.convert(merged, AccountConfig)
    except msgspec.ValidationError as error:
        raise invalid_input(error) from None


def _merge(target: object, changes: Mapping[str, object]) -> dict[str, Any]:
    merged: dict[str, Any] = dict(target) if isinstance(target, dict) else {}
    for name, value in changes.items():
        if value is None:
            merged.pop(name, None)
        elif isinstance(value, Mapping):
            merged[name] = _merge(merged.get(name), value)
        else:
            merged[name] = value
    return merged


def _check_id(account_id: str) -> None:
    if not _ID.fullmatch(account_id):
        raise InvalidInput("id", f"{account_id[:80]!r} does not match {ACCOUNT_ID_PATTERN}")


def _check_unchanged(existing: AccountConfig, wanted: AccountConfig) -> None:
    for name in ("parent", "currency"):
        before, after = getattr(existing, name), getattr(wanted, name)
        if before != after:
            raise Conflict(f"{name} never changes: it is {before}, not {after}")


def _script_keys(tag: str, account_id: str, parent: str | None) -> list[bytes]:
    return [
        keys.account(tag, account_id),
        keys.bucket(tag),
        keys.children(tag, parent or ""),
        keys.children(tag, account_id),
        keys.account(tag, parent or account_id),
        keys.events(tag),
    ]
