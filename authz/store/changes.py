"""The stream of changes: what operators and programs have done, for the archive to keep."""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from authz.store import keys
from authz.store.client import StoreClient

#: About so many are kept for an archive that does not come; then the oldest go.
CHANGES_MAX: Final = 100_000


class Change(Struct, frozen=True, kw_only=True):
    """One change, done or refused.

    `who` is a token's name, `admin.token`, `anonymous` (this host, while there is no token) or
    `cli:<user>`; `remote` an address, or this host's name; `action` a route (`PUT /v1/…/{id}`) or
    a command. `status` is the HTTP status; a command's is 200, or what its error would be over
    HTTP. `detail` is a JSON object of what was asked for, without secrets.
    """

    at: int
    who: str
    remote: str
    action: str
    target: str
    status: int
    detail: str


async def append_change(client: StoreClient, change: Change) -> None:
    """Append a change to the stream; raises StoreError."""
    fields: list[str | int] = []
    for name in change.__struct_fields__:
        fields += (name, getattr(change, name))
    await client.execute("XADD", keys.changes(), "MAXLEN", "~", CHANGES_MAX, "*", *fields)
