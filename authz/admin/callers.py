"""Who makes a request: the bearer of a token, or a program of this host while there is none."""

from __future__ import annotations

from contextvars import ContextVar
from typing import NamedTuple

from authz.admin.roles import Role


class Caller(NamedTuple):
    """Whom the application has recognised, and what that one may do."""

    name: str
    role: Role
    #: The top of the account tree that the token is bound to; None: every account.
    account: str | None = None
    #: None without a token, or with the one of the settings.
    token_id: str | None = None
    expires_at: int | None = None


#: Programs of this host while no token exists.
ANONYMOUS = Caller("anonymous", Role.ADMIN)
#: The bearer of the token in the settings.
SETTING = Caller("admin.token", Role.ADMIN)
#: What no token may be called, lest the log of changes be read wrongly.
RESERVED_NAMES = frozenset({ANONYMOUS.name, SETTING.name})

#: Whose request is being served.
current_caller: ContextVar[Caller] = ContextVar("current_caller", default=ANONYMOUS)
