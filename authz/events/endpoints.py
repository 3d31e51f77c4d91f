"""Receivers of webhooks: one document in the store, so that every host sends to the same.

It is replaced as a whole, and only if it is still what the caller has read, so that of two
changes at a time none is lost.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from typing import Annotated, Final, NamedTuple, TypeVar

import msgspec
from msgspec import Meta, Struct

from authz.config.alerts import WebhookSettings
from authz.engine.clock import format_moment
from authz.errors import Conflict, InvalidInput, NotFound
from authz.event_types import is_pattern, matches
from authz.events.addresses import check_url
from authz.events.signing import check_secret, mask_secret, new_secret
from authz.model import AccountId
from authz.store import keys
from authz.store.client import StoreClient
from authz.store.scripts import load_scripts

ENDPOINTS_MAX: Final = 64
#: Every round of a race over the document is won by somebody.
_ATTEMPTS_MAX: Final = 100
_KEEP_MS: Final = 1_000

WebhookId = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$(?!\n)")]
EventPattern = Annotated[str, Meta(min_length=1, max_length=64)]
T = TypeVar("T")


class Endpoint(Struct, frozen=True, kw_only=True):
    """A receiver as the store keeps it. `account` is the top of the tree whose events it gets."""

    id: str
    url: str
    events: tuple[str, ...] = ()
    account: str | None = None
    enabled: bool = True
    description: str = ""
    created_at: int
    secret: str
    #: The secret before, and the second from which on it signs no more.
    previous_secret: str | None = None
    previous_until: int = 0
    #: Why it was switched off, where the daemon did so itself.
    disabled_reason: str = ""

    def secrets_at(self, now: int) -> list[str]:
        """Return the secrets that sign at a second, the present one first."""
        if self.previous_secret is not None and now < self.previous_until:
            return [self.secret, self.previous_secret]
        return [self.secret]

    def wants(self, event: str, line: Sequence[str]) -> bool:
        """Return whether it is told of an event of an account with these ancestors (and itself)."""
        concerns = self.account is None or self.account in line
        return self.enabled and concerns and matches(self.events, event)


class _Document(Struct, frozen=True):
    version: int = 0
    endpoints: tuple[Endpoint, ...] = ()


class WebhookBody(Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """A receiver as an operator writes it. `events` are names or patterns; none means all.

    `account` limits it to one account and those below. Without `secret` one is made for a new
    receiver, and an existing one keeps its own.
    """

    url: Annotated[str, Meta(min_length=1, max_length=2_048)]
    id: WebhookId | None = None
    events: Annotated[tuple[EventPattern, ...], Meta(max_length=32)] = ()
    account: AccountId | None = None
    enabled: bool = True
    description: Annotated[str, Meta(max_length=160)] = ""
    secret: Annotated[str, Meta(max_length=128)] | None = None


class WebhookView(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A receiver as the API shows it. `secret` is there only when it was made just now."""

    id: str
    url: str
    events: tuple[str, ...]
    account: str | None
    enabled: bool
    description: str
    created_at: str
    secret_hint: str
    #: Until when the secret before still signs as well.
    previous_secret_until: str | None
    disabled_reason: str = ""
    secret: str | None = None


class WebhookList(Struct, frozen=True):
    """All receivers, by id. `version` changes with every change of any."""

    webhooks: tuple[WebhookView, ...]
    version: int = 0


class WebhookListBody(Struct, forbid_unknown_fields=True, frozen=True):
    """All receivers there shall be; with `version`, only if nobody changed any since."""

    webhooks: Annotated[tuple[WebhookBody, ...], Meta(max_length=ENDPOINTS_MAX)]
    version: int | None = None


class StoredWebhook(NamedTuple):
    """A receiver as a change has left it; `created` says that it is new."""

    view: WebhookView
    created: bool


class WebhookDirectory:
    """Reads and changes the receivers; safe in any number of processes at once.

    Every method raises StoreError when the store does not answer.
    """

    def __init__(self, client: StoreClient, settings: WebhookSettings) -> None:
        """Keep them in this client's store."""
        self._client = client
        self._settings = settings
        self._script = load_scripts()["replace"]
        self._known: tuple[Endpoint, ...] = ()
        self._known_until_ms = 0

    async def endpoints(self) -> tuple[Endpoint, ...]:
        """Return the receivers as they were at most a second ago."""
        now_ms = time.monotonic_ns() // 1_000_000
        if now_ms >= self._known_until_ms:
            self._known = (await self._read())[1].endpoints
            self._known_until_ms = now_ms + _KEEP_MS
        return self._known

    async def enabled_now(self) -> tuple[str, ...]:
        """Return the ids of the receivers that are switched on, as they are at this moment."""
        _, document = await self._read()
        return tuple(one.id for one in document.endpoints if one.enabled)

    async def all(self) -> WebhookList:
        """Return every receiver, without secrets."""
        _, document = await self._read()
        return _list(document, {})

    async def get(self, webhook_id: str) -> WebhookView:
        """Return one receiver, without its secret; raises NotFound."""
        return _view(await self.find(webhook_id))

    async def find(self, webhook_id: str) -> Endpoint:
        """Return one receiver with its secrets; raises NotFound."""
        _, document = await self._read()
        return _find(document, webhook_id)

    async def replace_all(self, body: WebhookListBody) -> WebhookList:
        """Make these the receivers; those that keep their id keep their secret.

        New secrets are in the answer. Raises InvalidInput naming the field, or Conflict.
        """
        made: dict[str, str] = {}

        def change(document: _Document) -> tuple[tuple[Endpoint, ...], None]:
            made.clear()
            if body.version is not None and body.version != document.version:
                raise Conflict(f"the webhooks are at version {document.version} by now")
            known = {one.id: one for one in document.endpoints}
            wanted: dict[str, Endpoint] = {}
            for place, one in enumerate(body.webhooks):
                endpoint = self._endpoint(one, one.id, known, made, f"webhooks[{place}].")
                if endpoint.id in wanted:
                    raise InvalidInput(f"webhooks[{place}].id", f"{endpoint.id} is there twice")
                wanted[endpoint.id] = endpoint
            return tuple(wanted.values()), None

        document, _ = await self._change(change)
        return _list(document, made)

    async def put(self, webhook_id: str, body: WebhookBody) -> StoredWebhook:
        """Create or replace one receiver. Raises InvalidInput or Conflict (too many)."""
        made: dict[str, str] = {}

        def change(document: _Document) -> tuple[tuple[Endpoint, ...], bool]:
            made.clear()
            known = {one.id: one for one in document.endpoints}
            is_new = webhook_id not in known
            endpoint = self._endpoint(body, webhook_id, known, made, "")
            return tuple((known | {webhook_id: endpoint}).values()), is_new

        document, created = await self._change(change)
        return StoredWebhook(_view(_find(document, webhook_id), made.get(webhook_id)), created)

    async def remove(self, webhook_id: str) -> None:
        """Forget a receiver; raises NotFound."""

        def change(document: _Document) -> tuple[tuple[Endpoint, ...], None]:
            gone = _find(document, webhook_id)
            return tuple(one for one in document.endpoints if one is not gone), None

        await self._change(change)

    async def rotate(self, webhook_id: str) -> WebhookView:
        """Give a receiver a new secret, which is in the answer; the old one signs on for a while.

        Raises NotFound.
        """
        secret = new_secret()

        def change(document: _Document) -> tuple[tuple[Endpoint, ...], None]:
            old = _find(document, webhook_id)
            rotated = self._with_secret(old, secret)
            return tuple(rotated if one is old else one for one in document.endpoints), None

        document, _ = await self._change(change)
        return _view(_find(document, webhook_id), secret)

    async def disable(self, webhook_id: str, reason: str) -> None:
        """Switch a receiver off that wants nothing any more; one that is gone stays so."""

        def change(document: _Document) -> tuple[tuple[Endpoint, ...], None]:
            return tuple(
                msgspec.structs.replace(one, enabled=False, disabled_reason=reason)
                if one.id == webhook_id
                else one
                for one in document.endpoints
            ), None

        await self._change(change)

    def _endpoint(
        self,
        body: WebhookBody,
        webhook_id: str | None,
        known: dict[str, Endpoint],
        made: dict[str, str],
        where: str,
    ) -> Endpoint:
        """Return what the body makes of a receiver; new secrets are added to `made`."""
        check_url(body.url, f"{where}url", allow_private=self._settings.allow_private)
        for place, pattern in enumerate(body.events):
            if not is_pattern(pattern):
                detail = f"{pattern!r} is neither an event nor a pattern such as balance.*"
                raise InvalidInput(f"{where}events[{place}]", detail)
        if body.secret is not None:
            check_secret(body.secret, f"{where}secret")
        if body.id not in (None, webhook_id):
            raise InvalidInput(f"{where}id", f"is {body.id}, but the path says {webhook_id}")
        webhook_id = webhook_id or _new_id(body.url, known)
        old = known.get(webhook_id)
        if old is None:
            secret = body.secret
            if secret is None:
                secret = made[webhook_id] = new_secret()
            old = Endpoint(id=webhook_id, url=body.url, created_at=int(time.time()), secret=secret)
        elif body.secret is not None and body.secret != old.secret:
            old = self._with_secret(old, body.secret)
        return msgspec.structs.replace(
            old,
            url=body.url,
            events=body.events,
            account=body.account,
            enabled=body.enabled,
            description=body.description,
            disabled_reason="",
        )

    def _with_secret(self, endpoint: Endpoint, secret: str) -> Endpoint:
        return msgspec.structs.replace(
            endpoint,
            secret=secret,
            previous_secret=endpoint.secret,
            previous_until=int(time.time()) + self._settings.rotation_hours * 3600,
        )

    async def _read(self) -> tuple[bytes, _Document]:
        data: bytes | None = await self._client.execute("GET", keys.webhooks())
        if data is None:
            return b"", _Document()
        return data, msgspec.json.decode(data, type=_Document)

    async def _change(
        self, change: Callable[[_Document], tuple[tuple[Endpoint, ...], T]]
    ) -> tuple[_Document, T]:
        """Replace the document by what `change` makes of it, as often as it takes."""
        for _ in range(_ATTEMPTS_MAX):
            data, document = await self._read()
            endpoints, result = change(document)
            if len(endpoints) > ENDPOINTS_MAX:
                raise Conflict(f"there are {ENDPOINTS_MAX} webhooks already")
            changed = _Document(
                document.version + 1, tuple(sorted(endpoints, key=lambda one: one.id))
            )
            replaced = await self._client.call_script(
                self._script,
                [keys.webhooks()],
                [hashlib.sha1(data).hexdigest().encode(), msgspec.json.encode(changed)],
            )
            if replaced:
                self._known_until_ms = 0
                return changed, result
        raise Conflict("the webhooks keep changing")


def _new_id(url: str, known: dict[str, Endpoint]) -> str:
    """Return an id that is not used: the same request twice makes no second receiver."""
    name = f"wh_{hashlib.blake2b(url.encode(), digest_size=6).hexdigest()}"
    if name in known and known[name].url != url:
        raise Conflict(f"webhook {name} has another URL by now; choose an id")
    return name


def _find(document: _Document, webhook_id: str) -> Endpoint:
    for one in document.endpoints:
        if one.id == webhook_id:
            return one
    raise NotFound(f"no webhook {webhook_id}")


def _list(document: _Document, made: dict[str, str]) -> WebhookList:
    views = tuple(_view(one, made.get(one.id)) for one in document.endpoints)
    return WebhookList(views, document.version)


def _view(endpoint: Endpoint, secret: str | None = None) -> WebhookView:
    is_rotating = len(endpoint.secrets_at(int(time.time()))) > 1
    return WebhookView(
        id=endpoint.id,
        url=endpoint.url,
        events=endpoint.events,
        account=endpoint.account,
        enabled=endpoint.enabled,
        description=endpoint.description,
        created_at=format_moment(endpoint.created_at),
        secret_hint=mask_secret(endpoint.secret),
        previous_secret_until=format_moment(endpoint.previous_until) if is_rotating else None,
        disabled_reason=endpoint.disabled_reason,
        secret=secret,
    )
