"""Who may do what: the roles of tokens, and how an operation says whose accounts it concerns.

Every operation declares both in its row of the table of routes, so that none can be forgotten:
the application refuses by them, and the OpenAPI document tells them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from enum import Enum, IntEnum, auto
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

from authz.store.tokens import RoleName

if TYPE_CHECKING:
    from authz.admin.services import Services


class Role(IntEnum):
    """What a token may do; each role may also do what those before it may."""

    #: Look at everything in its scope.
    READ = 1
    #: Move money, change accounts, end calls: the daily work.
    OPERATE = 2
    #: What prices, access and integrations follow from: decks, tokens, webhooks; closing accounts.
    ADMIN = 3

    @property
    def label(self) -> RoleName:
        """The role's name as tokens and documents have it."""
        return _LABELS[self]

    @classmethod
    def labelled(cls, label: RoleName) -> Self:
        """Return the role of this name."""
        return cls[label.upper()]


_LABELS: Final[dict[Role, RoleName]] = {
    Role.READ: "read",
    Role.OPERATE: "operate",
    Role.ADMIN: "admin",
}


class Reach(Enum):
    """The scope of an operation that names no account."""

    #: It concerns every account: only for tokens that are not bound to one tree.
    WHOLE = auto()
    #: It tells nothing of any account: for every token.
    ANY = auto()


class Within(NamedTuple):
    """The scope of an operation on the account that one of its parameters names.

    A token bound to a tree reads the tree's root and what is below; it changes only what is
    below. Any other account is, to it, one that does not exist.
    """

    #: The word of path or query that names the account.
    parameter: str
    #: Whether the root of the token's tree is taken where the parameter is absent; else a
    #: token bound to a tree must send it.
    is_filled: bool = False
    #: Other parameters that name an account, if they are sent.
    also: tuple[str, ...] = ()
    #: Parameters that such a token may not send: they reach beyond accounts.
    refused: tuple[str, ...] = ()
    #: Whether the operation makes the account where there is none, below the body's `parent`.
    may_create: bool = False


class Owner(NamedTuple):
    """The scope of an operation on something that belongs to an account.

    `find` is called with the services and the parameters and returns that account, or None for
    nothing that exists.
    """

    find: Callable[[Services, Any], Awaitable[str | None]]


Scope = Reach | Within | Owner
