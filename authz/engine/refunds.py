"""How much each leg of a settled call gets back: the same part of what it was charged."""

from __future__ import annotations

import asyncio
import struct
from typing import NamedTuple

from authz.archived import LedgerArchive
from authz.errors import Conflict, NotFound
from authz.money import format_amount
from authz.store import keys
from authz.store.accounts import Chain
from authz.store.client import StoreClient
from authz.store.constants import PerLeg
from authz.store.layouts import REFERENCE
from authz.store.records import Tombstone, unpack_tombstone

_SECONDS_PER_HOUR = 3600


class RefundPlan(NamedTuple):
    """A refund as the script checks it. `amount` names it: that of the first charged leg."""

    call_id: str
    digest: bytes
    refunded_key: bytes
    #: What was given back before, packed as in the store; empty if nothing was.
    given: bytes
    amount: int
    amounts: tuple[int, ...]
    #: The reference is known already: the amounts of the legs are those booked then, not here.
    known: bool
    #: Of a call without tombstone: costs, then what was given back before, of every leg, packed.
    archived: bytes = b""

    @property
    def per_leg(self) -> PerLeg:
        """Who says what the call was charged."""
        return PerLeg.ARCHIVE if self.archived else PerLeg.TOMBSTONE


class _Charged(NamedTuple):
    """What each leg was charged, and what an archive knows to be given back of it."""

    costs: tuple[int, ...]
    given: tuple[int, ...]
    is_archived: bool


async def plan_refund(
    client: StoreClient,
    chain: Chain,
    call_id: str,
    reference: str,
    amount: int | None,
    hours: range,
    archive: LedgerArchive | None = None,
) -> RefundPlan:
    """Return what each leg gets back of a call whose tombstone lies in one of `hours`, or that
    is archived.

    `amount` is what the first charged leg gets back; None: all that is left of the call. Raises
    NotFound for an unknown call, Conflict for more than what is left, and ArchiveUnavailable when
    only the archive could tell.
    """
    account_id = chain.accounts[0].id
    digest = keys.call_digest(account_id, call_id)
    refunded_key = keys.refunded(chain.tag, account_id, call_id)
    packed = await client.execute("GET", keys.reference(chain.tag, account_id, reference))
    if packed is not None:
        known_amount = REFERENCE.unpack(packed).amount if amount is None else amount
        zeros = (0,) * len(chain.accounts)
        return RefundPlan(call_id, digest, refunded_key, b"", known_amount, zeros, True)
    charged = await _find_charged(client, chain, call_id, hours, archive)
    given = await client.execute("GET", refunded_key) or b""
    legs = len(charged.costs)
    before = struct.unpack(f">{legs}q", given) if given else charged.given
    first = next((leg for leg, cost in enumerate(charged.costs) if cost > 0), None)
    rest = 0 if first is None else charged.costs[first] - before[first]
    if first is None or rest <= 0 or (amount is not None and amount > rest):
        raise Conflict(f"of call {call_id} only {format_amount(rest)} can be given back")
    if amount is None:
        amount = rest
    amounts = share_refund(charged.costs, before, first, amount)
    archived = b""
    if charged.is_archived:
        archived = struct.pack(f">{2 * legs}q", *charged.costs, *charged.given)
    return RefundPlan(call_id, digest, refunded_key, given, amount, amounts, False, archived)


def share_refund(
    costs: tuple[int, ...], before: tuple[int, ...], first: int, amount: int
) -> tuple[int, ...]:
    """Return what each leg gets when leg `first` gets `amount`, in proportion to the costs.

    Rounded half up over all refunds of the call, so that any number of parts that make up the
    whole for one leg make up the whole for each.
    """
    total = before[first] + amount
    cost_first = costs[first]
    return tuple(
        max(0, (2 * cost * total + cost_first) // (2 * cost_first) - given)
        for cost, given in zip(costs, before, strict=True)
    )


async def _find_charged(
    client: StoreClient, chain: Chain, call_id: str, hours: range, archive: LedgerArchive | None
) -> _Charged:
    account_id = chain.accounts[0].id
    tombstone = await _find_tombstone(client, chain, keys.call_digest(account_id, call_id), hours)
    if tombstone is not None:
        return _Charged(tombstone.costs, (0,) * len(tombstone.costs), False)
    detail = f"no settled call {call_id} of account {account_id}"
    if archive is None:
        raise NotFound(f"{detail}; without the archive it is known for {len(hours)} hours")
    await archive.catch_up(account_id)
    call = await archive.call(account_id, call_id)
    if call is None or not call.is_final or len(call.costs) != len(chain.accounts):
        raise NotFound(detail)
    return _Charged(call.costs, call.given, True)


async def _find_tombstone(
    client: StoreClient, chain: Chain, digest: bytes, hours: range
) -> Tombstone | None:
    found = await asyncio.gather(
        *(client.execute("HGET", chain.closed_prefix + b"%d" % hour, digest) for hour in hours)
    )
    packed = next((one for one in found if one is not None), None)
    return None if packed is None else unpack_tombstone(packed)


def tombstone_hours(now: int, closed_hours: int) -> range:
    """Return the hours in whose hashes a tombstone may lie, newest first."""
    hour = now // _SECONDS_PER_HOUR
    return range(hour, hour - closed_hours - 1, -1)
