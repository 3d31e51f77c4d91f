"""Who may use the admin API: whoever has the token, or, without one, programs of this host."""

from __future__ import annotations

import hashlib
import hmac
from urllib.parse import urlsplit

from aiohttp import web

from authz.admin.problems import Problem
from authz.problems import problem

_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


class Access:
    """The rule of one application. The listener guards that no other host comes without a token."""

    def __init__(self, token: str | None) -> None:
        self._digest = None if token is None else _digest(token)

    def check(self, request: web.Request) -> None:
        """Raise Problem unless the request may be served."""
        if self._digest is None:
            _refuse_browsers(request)
            return
        scheme, _, token = request.headers.get("Authorization", "").strip().partition(" ")
        if not token:
            raise Problem(problem(401, "token_missing", "send Authorization: Bearer <token>"))
        presented = _digest(token.strip())
        if scheme.lower() != "bearer" or not hmac.compare_digest(presented, self._digest):
            raise Problem(problem(401, "token_wrong", "this is not admin.token"))


def _digest(token: str) -> bytes:
    # Digests have one length, so that comparing them does not tell the length of the token.
    return hashlib.sha256(token.encode(errors="surrogateescape")).digest()


def _refuse_browsers(request: web.Request) -> None:
    """Refuse what a web page in the operator's browser may send to this host by itself.

    A page of another site carries its Origin; one whose name was made to resolve to this host
    carries that name.
    """
    host = urlsplit(f"//{request.host}").hostname
    if host not in _LOOPBACK_NAMES:
        detail = "without admin.token the API is used as 127.0.0.1, [::1] or localhost only"
        raise Problem(problem(403, "host_refused", detail, field="Host"))
    origin = request.headers.get("Origin")
    if origin is not None and urlsplit(origin).netloc != request.host:
        detail = "without admin.token no web page of another origin may use the API"
        raise Problem(problem(403, "origin_refused", detail, field="Origin"))
