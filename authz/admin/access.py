"""Who may use the admin API: whoever has a token; while there is none, programs of this host."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections import OrderedDict
from typing import Final
from urllib.parse import urlsplit

from aiohttp import web

from authz.admin.attempts import FailedAttempts
from authz.admin.callers import ANONYMOUS, SETTING, Caller
from authz.admin.problems import Problem
from authz.admin.tokens import TokenExpired, TokenService
from authz.problems import problem

_LOOPBACK_NAMES: Final = frozenset({"localhost", "127.0.0.1", "::1"})
#: Tokens that were right before, which wrong ones from the same address do not keep out.
_KNOWN_MAX: Final = 1_024


class Access:
    """The rule of one application."""

    def __init__(self, setting: str | None, tokens: TokenService) -> None:
        """`setting` is the token of the settings, which has every right."""
        self._setting = None if setting is None else _digest(setting)
        self._tokens = tokens
        self._attempts = FailedAttempts()
        self._known: OrderedDict[bytes, None] = OrderedDict()

    async def identify(self, request: web.Request) -> Caller:
        """Return who makes the request; raise Problem for nobody, StoreError without a store."""
        scheme, _, token = request.headers.get("Authorization", "").strip().partition(" ")
        if not token:
            if self._setting is None and _is_local(request) and not await self._tokens.exist():
                _refuse_browsers(request)
                return ANONYMOUS
            raise Problem(problem(401, "token_missing", "send Authorization: Bearer <token>"))
        token = token.strip()
        digest = _digest(token)
        address = request.remote or ""
        if digest not in self._known:
            self._check_attempts(address)
        caller = await self._bearer(token, digest) if scheme.lower() == "bearer" else None
        if caller is None:
            self._known.pop(digest, None)
            self._attempts.note(address)
            raise Problem(problem(401, "token_wrong", "there is no such token, or not any more"))
        self._known[digest] = None
        self._known.move_to_end(digest)
        if len(self._known) > _KNOWN_MAX:
            self._known.popitem(last=False)
        return caller

    def _check_attempts(self, address: str) -> None:
        wait_seconds = self._attempts.wait_seconds(address)
        if wait_seconds:
            detail = f"too many wrong tokens from this address; wait {wait_seconds} seconds"
            raise Problem(problem(429, "too_many_attempts", detail), retry_seconds=wait_seconds)

    async def _bearer(self, token: str, digest: bytes) -> Caller | None:
        # Before the store is asked: this one opens also while the store is away.
        if self._setting is not None and hmac.compare_digest(digest, self._setting):
            return SETTING
        try:
            return await self._tokens.recognise(token)
        except TokenExpired:
            raise Problem(problem(401, "token_expired", "ask for a new token")) from None


def _digest(token: str) -> bytes:
    # Digests have one length, so that comparing them does not tell the length of the token.
    return hashlib.sha256(token.encode(errors="surrogateescape")).digest()


def _is_local(request: web.Request) -> bool:
    """Whether the connection came in at an address that only this host reaches.

    The listener is guarded at the start; but the last token may be revoked after that.
    """
    name = request.transport.get_extra_info("sockname") if request.transport else None
    if not isinstance(name, tuple):
        return False
    return ipaddress.ip_address(str(name[0]).partition("%")[0]).is_loopback


def is_own_host(request: web.Request) -> bool:
    """Whether a program of this host asks; raises Problem for what a web page may have sent."""
    if not _is_local(request):
        return False
    _refuse_browsers(request)
    return True


def _refuse_browsers(request: web.Request) -> None:
    """Refuse what a web page in the operator's browser may send to this host by itself.

    A page of another site carries its Origin; one whose name was made to resolve to this host
    carries that name.
    """
    host = urlsplit(f"//{request.host}").hostname
    if host not in _LOOPBACK_NAMES:
        detail = "without a token the API is used as 127.0.0.1, [::1] or localhost only"
        raise Problem(problem(403, "host_refused", detail, field="Host"))
    origin = request.headers.get("Origin")
    if origin is not None and urlsplit(origin).netloc != request.host:
        detail = "without a token no web page of another origin may use the API"
        raise Problem(problem(403, "origin_refused", detail, field="Origin"))
