"""Accounts that a call costs nothing: what an adapter in this process adds to its questions.

An excused account's leg is `free`: nothing is held or charged, and no rate is needed. The account
itself must be there and enabled, its destination policy holds, and the call is among its calls.
The hook API has no word for it: who may say so is the adapter that knows why.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from msgspec import field

from authz.model import AuthorizeRequest, ReserveRequest, SettleRequest
from authz.reasons import Excuse
from authz.store.accounts import Chain

#: By the account's id; accounts that are not of the call's chain do no harm.
Excuses = Mapping[str, Excuse]

NO_EXCUSES: Final[Excuses] = MappingProxyType({})


class ExcusedAuthorize(AuthorizeRequest, frozen=True, kw_only=True):
    """An authorize. `judged_on` is the chain by whose configuration the excuses were found.

    Asked with any other chain in use, the engine raises AccountsChanged and changes nothing.
    `is_tentative`: a denial is not the last word, and whoever asks counts it if it comes to that.
    """

    excuses: dict[str, Excuse] = field(default_factory=dict)
    judged_on: Chain | None = None
    is_tentative: bool = False


class ExcusedReserve(ReserveRequest, frozen=True, kw_only=True):
    """A reserve. Its excuses count only if it adopts the call: a known one has its billings."""

    excuses: dict[str, Excuse] = field(default_factory=dict)


class ExcusedSettle(SettleRequest, frozen=True, kw_only=True, omit_defaults=True):
    """A settle. Its excuses count only for a call that the store does not know."""

    excuses: dict[str, Excuse] = field(default_factory=dict)


def excuses_of(request: AuthorizeRequest | ReserveRequest | SettleRequest) -> Excuses:
    """Return what a request excuses; those of the hook API excuse nobody."""
    if isinstance(request, ExcusedAuthorize | ExcusedReserve | ExcusedSettle):
        return request.excuses
    return NO_EXCUSES
