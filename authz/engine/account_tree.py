"""An account and all below it, in the order of the tree: each before its children, these by id.

The tree is read from the sets of children alone, a few names at a time, so that a page of a
small tree costs the same however many other accounts there are.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Final, NamedTuple, Self

from authz.errors import InvalidInput, NotFound
from authz.model import CHAIN_LENGTH_MAX
from authz.store import keys
from authz.store.accounts import AccountDirectory
from authz.store.client import StoreClient

#: Names of one set that are read at a time.
NAMES_MAX: Final = 500
#: Accounts of a tree that one page looks through.
_EXAMINED_MAX: Final = 2_000
#: Between the ids of a cursor, which names a path: no id holds it.
_SEPARATOR: Final = "/"


class Names(NamedTuple):
    """Some account ids in the order of the tree; `cursor` asks for more, None: no more."""

    names: tuple[str, ...]
    cursor: str | None


class AccountTree:
    """The tree below (and with) one account."""

    def __init__(
        self, client: StoreClient, directory: AccountDirectory, tag: str, path: Sequence[str]
    ) -> None:
        """Use `of` instead; `path` leads from the root of all to the top of this tree."""
        self._client = client
        self._directory = directory
        self._tag = tag
        self._above = len(path) - 1
        self._top = path[-1]

    @classmethod
    async def of(cls, client: StoreClient, directory: AccountDirectory, top: str) -> Self:
        """Return the tree of this account; raises NotFound."""
        chain = await directory.chain(top)
        if chain is None:
            raise NotFound(f"no account {top}")
        return cls(client, directory, chain.tag, chain.ids[::-1])

    @property
    def bucket(self) -> int:
        """The index of the bucket in which the tree's records are."""
        return keys.TAGS.index(self._tag)

    async def contains(self, account_id: str) -> bool:
        """Whether this account is the tree's top or below it."""
        chain = await self._directory.chain(account_id)
        return chain is not None and self._top in chain.ids

    async def after(self, cursor: str | None, wanted: str, limit: int) -> Names:
        """Return up to `limit` ids with `wanted` in them, those after `cursor`.

        Raises InvalidInput for a cursor that is not of this tree.
        """
        found: list[str] = []
        examined = 0
        async for path in self._walk(() if cursor is None else await self._path_of(cursor)):
            examined += 1
            if wanted in path[-1].lower():
                found.append(path[-1])
            if len(found) == limit or examined == _EXAMINED_MAX:
                return Names(tuple(found), _SEPARATOR.join(path))
        return Names(tuple(found), None)

    async def _path_of(self, cursor: str) -> tuple[str, ...]:
        """Return the path that a cursor names, as far as its accounts still exist, and one more."""
        path = tuple(cursor.split(_SEPARATOR))
        if path[0] == self._top:
            for place in range(1, len(path)):
                chain = await self._directory.chain(path[place])
                if chain is None:
                    # Closed since; what came after it still does.
                    return path[: place + 1]
                if chain.ids[1:2] != (path[place - 1],):
                    break
            else:
                return path
        raise InvalidInput("cursor", "is not the cursor of an earlier page")

    async def _walk(self, start: tuple[str, ...]) -> AsyncIterator[tuple[str, ...]]:
        """Yield the path of each account that comes after the one at `start`."""
        if not start:
            start = (self._top,)
            yield start
        # What is below comes first, then what follows, level by level upwards.
        async for path in self._below(start, None):
            yield path
        for length in range(len(start) - 1, 0, -1):
            async for path in self._below(start[:length], start[length]):
                yield path

    async def _below(
        self, parent: tuple[str, ...], after: str | None
    ) -> AsyncIterator[tuple[str, ...]]:
        """Yield the paths of the children of `parent` after one, each with what is below it."""
        if self._above + len(parent) >= CHAIN_LENGTH_MAX:
            return
        index = keys.children(self._tag, parent[-1])
        while True:
            names = await names_after(self._client, index, after)
            for name in names:
                path = (*parent, name)
                yield path
                async for inner in self._below(path, None):
                    yield inner
            if len(names) < NAMES_MAX:
                return
            after = names[-1]


async def names_after(client: StoreClient, index: bytes, cursor: str | None) -> list[str]:
    """Return the next ids of an index, by id."""
    first = "-" if cursor is None else f"({cursor}"
    names = await client.execute("ZRANGEBYLEX", index, first, "+", "LIMIT", 0, NAMES_MAX)
    return [name.decode() for name in names]
