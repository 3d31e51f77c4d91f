"""How commands change something: as `session.run`, with an entry in the log of changes."""

from __future__ import annotations

import os
import pwd
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from authz.admin.services import Services
from authz.cli.main import Invocation
from authz.cli.session import run
from authz.errors import AuthzError
from authz.problems import problem_of

T = TypeVar("T")


def run_change(
    invocation: Invocation,
    action: str,
    target: str | None,
    work: Callable[[Services], Awaitable[T]],
    detail: Mapping[str, Any] | None = None,
) -> T:
    """Do `work` as `session.run` does and log it, done or refused, as the change `action`.

    `target` is what is changed, `detail` what was asked for; secrets in it are left out.
    """

    async def logged(services: Services) -> T:
        status = 200
        known = {name: value for name, value in (detail or {}).items() if value is not None}
        try:
            return await work(services)
        except AuthzError as error:
            document = problem_of(error)
            status = 500 if document is None else document.status
            known["reason"] = str(error)
            raise
        except BaseException:
            status = 500
            raise
        finally:
            await services.changes.record(
                who=f"cli:{_user()}",
                remote=socket.gethostname(),
                action=f"authz {action}",
                target=target,
                status=status,
                detail=known,
            )

    return run(invocation, logged)


def _user() -> str:
    user_id = os.getuid()
    try:
        return pwd.getpwuid(user_id).pw_name
    except KeyError:
        # A container's user often has no name.
        return str(user_id)
