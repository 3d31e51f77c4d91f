"""What a token that is bound to one account tree may reach, and what its answers must not tell.

An account outside the tree is treated as one that does not exist: the same answer, after the
same number of questions to the store.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Any, Final, NamedTuple, TypeVar

import msgspec
from msgspec import Struct

from authz.admin.messages import AccountBody
from authz.admin.problems import Problem
from authz.admin.roles import Owner, Reach, Within
from authz.admin.routes import Body, Route
from authz.admin.services import Services
from authz.engine.postings import CreditRequest, DebitRequest
from authz.errors import Conflict, InvalidInput, NotFound
from authz.model import CHAIN_LENGTH_MAX, AccountConfig
from authz.problems import ProblemDocument, problem
from authz.store import keys

_ACCOUNT_FIELDS: Final = ("account", "origin")
T = TypeVar("T")


class Place(IntEnum):
    """Where an account is, seen from a tree."""

    OUTSIDE = 0
    TOP = 1
    BELOW = 2


class Tree(NamedTuple):
    """The tree of one token. `above` are the ancestors of its top: not part of it."""

    services: Services
    top: str
    above: frozenset[str]

    @classmethod
    async def of(cls, services: Services, top: str) -> Tree:
        """Return the tree of an account; Problem when it has been closed."""
        chain = await services.context.directory.chain(top)
        if chain is None:
            detail = f"account {top}, to which this token is bound, is closed"
            raise Problem(problem(403, "account_closed", detail, account=top))
        return cls(services, top, frozenset(chain.ids[1:]))

    async def place(self, account_id: str) -> Place:
        """Return where an account is; takes as long for one that does not exist."""
        client = self.services.context.client
        tag = await self.services.context.directory.tag_of(self.top) or keys.TAGS[0]
        root = await client.execute("GET", keys.root(account_id))
        is_near = root is not None and keys.tag_of_root(root.decode()) == tag
        path: list[str] = []
        current: str | None = account_id if is_near else None
        for _ in range(CHAIN_LENGTH_MAX):
            # What is not there is asked for as well, lest the time tell what is.
            config = await client.execute("HGET", keys.account(tag, current or account_id), "c")
            if current is not None and config is not None:
                path.append(current)
                current = msgspec.json.decode(config, type=_Parent).parent
        return self._place_of(path)

    def _place_of(self, path: list[str]) -> Place:
        if self.top not in path:
            return Place.OUTSIDE
        return Place.TOP if path[0] == self.top else Place.BELOW

    def admit_route(self, route: Route) -> None:
        """Raise Problem for an operation that is not about the accounts of one tree."""
        if route.scope is Reach.WHOLE:
            raise out_of_scope(f"this concerns more than the accounts of {self.top}")

    async def admit(self, route: Route, parameters: Any) -> Any:
        """Return the parameters, the tree filled in where they name no account.

        Raises Problem for what such a token may not do, NotFound for an account outside.
        """
        scope = route.scope
        if isinstance(scope, Reach):
            return parameters
        if isinstance(scope, Owner):
            owner = await scope.find(self.services, parameters)
            await self._require(owner, route, "nothing is known by this id")
            return parameters
        for name in scope.refused:
            if getattr(parameters, name) is not None:
                raise out_of_scope(f"a token of {self.top} may not use it", field=name)
        for name in scope.also:
            other = getattr(parameters, name)
            if other is not None and await self.place(other) is Place.OUTSIDE:
                raise NotFound(f"no account {other}")
        named = getattr(parameters, scope.parameter)
        if named is None:
            if not scope.is_filled:
                raise out_of_scope(f"a token of {self.top} names an account", scope.parameter)
            return msgspec.structs.replace(parameters, **{scope.parameter: self.top})
        if not scope.may_create:
            await self._require(named, route, f"no account {named}")
        return parameters

    async def _require(self, account_id: str | None, route: Route, unknown: str) -> None:
        place = Place.OUTSIDE if account_id is None else await self.place(account_id)
        if place is Place.OUTSIDE:
            raise NotFound(unknown)
        if place is Place.TOP and route.changes:
            raise out_of_scope(f"a token of {self.top} changes only accounts below it")

    async def admit_body(self, route: Route, parameters: Any, body: Any) -> None:
        """Raise Problem, NotFound or Conflict for a body that reaches further than the tree."""
        if isinstance(route.scope, Within) and route.scope.may_create:
            await self._admit_put(parameters.id, body)
        elif isinstance(body, CreditRequest) and body.call_id is not None:
            # It gives every leg of the call its part back, that of the top as well.
            raise out_of_scope("a refund by call reaches beyond the accounts below", "call_id")
        elif isinstance(body, DebitRequest) and body.scope != "self" and self.above:
            detail = f'{self.top} has accounts above it: send "scope": "self"'
            raise out_of_scope(detail, "scope")
        elif route.body is Body.MERGE_PATCH:
            await self._admit_config(parameters.id, body)

    async def _admit_put(self, account_id: str, body: AccountBody) -> None:
        place = await self.place(account_id)
        if place is Place.TOP:
            raise out_of_scope(f"a token of {self.top} changes only accounts below it")
        if place is Place.OUTSIDE:
            if body.parent is None:
                detail = f"a token of {self.top} makes accounts below it only"
                raise out_of_scope(detail, "parent")
            if await self.place(body.parent) is Place.OUTSIDE:
                raise InvalidInput("parent", f"no account {body.parent}")
            client = self.services.context.client
            if await client.execute("EXISTS", keys.root(account_id)):
                detail = f"account {account_id} belongs to another tree, or did and is closed"
                raise Conflict(detail)
        config = {name: getattr(body, name) for name in _GUARDED}
        await self._admit_config(account_id, config, parent=body.parent)

    async def _admit_config(
        self, account_id: str, changes: Mapping[str, Any], parent: str | None = None
    ) -> None:
        """Refuse what decides about the operator's money rather than about the account.

        Decks are the operator's: an account may have none or that of an account above it, else
        their prices could be read. `enforce` off would let calls pass that nobody can pay.
        """
        record = await self.services.context.directory.read(account_id)
        before = AccountConfig(parent=parent) if record is None else record.config
        if changes.get("enforce", True) is False and before.enforce:
            raise out_of_scope("only a token of all accounts lets refused calls pass", "enforce")
        deck = changes.get("deck")
        if deck is None or deck == before.deck:
            return
        decks: list[str | None] = []
        chain = await self.services.context.directory.chain(before.parent or account_id)
        for one in () if chain is None else chain.accounts:
            if one.id not in self.above:
                decks.append(one.config.deck)
        if deck not in decks:
            raise out_of_scope("is not the deck of an account above this one", "deck")

    def cut(self, answer: T) -> T:
        """Return an answer without the legs and names of accounts above the tree's top."""
        if not self.above:
            return answer
        cut: T = _without(answer, self.above)
        return cut

    def cut_problem(self, document: ProblemDocument) -> ProblemDocument:
        """Return a problem document that names no account above the tree's top."""
        if document.account not in self.above:
            return document
        detail = f"an account above {self.top} cannot bear it"
        return msgspec.structs.replace(document, account=None, detail=detail)


_GUARDED: Final = ("deck", "enforce")


class _Parent(Struct):
    """As much of a stored configuration as tells the way up."""

    parent: str | None = None


def out_of_scope(detail: str, field: str | None = None) -> Problem:
    """Return the problem of a token that is bound to a tree and reaches further."""
    return Problem(problem(403, "out_of_scope", detail, field=field))


def _without(value: Any, hidden: frozenset[str]) -> Any:
    if isinstance(value, Struct):
        changes = {}
        for name in value.__struct_fields__:
            before = getattr(value, name)
            after = _without(before, hidden)
            if name == "parent" and before in hidden:
                after = None
            if after is not before:
                changes[name] = after
        return msgspec.structs.replace(value, **changes) if changes else value
    if isinstance(value, tuple) and not hasattr(value, "_fields"):
        kept = tuple(
            _without(one, hidden)
            for one in value
            if not any(getattr(one, name, None) in hidden for name in _ACCOUNT_FIELDS)
        )
        return value if kept == value else kept
    return value
