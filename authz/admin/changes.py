"""The log of changes: every change made or refused, by whom, over the API or by a command.

An entry is written when the change has ended and before its answer is sent: to the log of the
process always, to the store's stream as well as it can. When the store does not take it, the
log line says so; a change of money is in the ledger in any case.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from authz import log
from authz.engine.clock import StoreClock
from authz.errors import StoreError
from authz.store.changes import Change, append_change
from authz.store.client import StoreClient

#: Longest detail, in bytes of JSON; of a longer one only the length is kept.
DETAIL_BYTES_MAX: Final = 4_096
_TEXT_LENGTH_MAX: Final = 256
#: No request of ours is nested deeper; a stranger's patch may be.
_DEPTH_MAX: Final = 8
_SECRET_NAME: Final = re.compile(r"secret|token|password|authorization|credential", re.IGNORECASE)
_HIDDEN: Final = "***"


class ChangeLog:
    """Writes entries; readers find them in the archive."""

    def __init__(self, client: StoreClient, clock: StoreClock) -> None:
        self._client = client
        self._clock = clock

    async def record(
        self,
        *,
        who: str,
        remote: str,
        action: str,
        target: str | None,
        status: int,
        detail: Mapping[str, Any],
    ) -> None:
        """Write one entry; raises nothing when the store is away."""
        change = Change(
            at=self._clock.now(),
            who=who,
            remote=remote,
            action=action,
            target=_text(target or ""),
            status=status,
            detail=detail_text(detail),
        )
        try:
            await append_change(self._client, change)
        except StoreError as error:
            fields = msgspec.structs.asdict(change)
            log.event("change_not_recorded", level="error", error=error, **fields)


def detail_text(detail: Mapping[str, Any]) -> str:
    """Return a detail as JSON of bounded length, in which no secret is left."""
    data = msgspec.json.encode(_without_secrets(detail), enc_hook=str)
    if len(data) > DETAIL_BYTES_MAX:
        data = msgspec.json.encode({"bytes": len(data)})
    return data.decode()


def _without_secrets(value: Any, name: str = "", depth: int = 0) -> Any:
    if (_SECRET_NAME.search(name) and value is not None) or depth > _DEPTH_MAX:
        return _HIDDEN
    if isinstance(value, msgspec.Struct):
        value = _sent(value)
    if isinstance(value, Mapping):
        return {
            _text(str(key)): _without_secrets(inner, str(key), depth + 1)
            for key, inner in value.items()
        }
    if isinstance(value, list | tuple):
        return [_without_secrets(inner, depth=depth + 1) for inner in value]
    return _text(log.mask_url(value)) if isinstance(value, str) else value


def _text(text: str) -> str:
    """Return what of a text can be written: a terminal may pass bytes that are no text."""
    return text[:_TEXT_LENGTH_MAX].encode(errors="replace").decode()


def _sent(struct: msgspec.Struct) -> dict[str, Any]:
    """Return what of a request differs from its defaults, as callers call it."""
    sent = {}
    for field in msgspec.structs.fields(struct):
        value = getattr(struct, field.name)
        default = field.default
        if field.default_factory is not msgspec.NODEFAULT:
            default = field.default_factory()
        if field.required or value != default:
            sent[field.encode_name] = value
    return sent
