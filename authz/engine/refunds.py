"""How much each leg of a settled call gets back: the same part of what it was charged."""

from __future__ import annotations

import asyncio
import struct
from typing import NamedTuple

from authz.errors import Conflict, NotFound
from authz.money import format_amount
from authz.store import keys
from authz.store.accounts import Chain
from authz.store.client import StoreClient
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


async def plan_refund(
    client: StoreClient,
    chain: Chain,
    call_id: str,
    reference: str,
    amount: int | None,
    hours: range,
) -> RefundPlan:
    """Return what each leg gets back of a call whose tombstone lies in one of `hours`.

    `amount` is what the first charged leg gets back; None: all that is left of the call. Raises
    NotFound without a tombstone, and Conflict for more than what is left.
    """
    account_id = chain.accounts[0].id
    digest = keys.call_digest(account_id, call_id)
    refunded_key = keys.refunded(chain.tag, account_id, call_id)
    packed = await client.execute("GET", keys.reference(chain.tag, account_id, reference))
    if packed is not None:
        known_amount = REFERENCE.unpack(packed).amount if amount is None else amount
        zeros = (0,) * len(chain.accounts)
        return RefundPlan(call_id, digest, refunded_key, b"", known_amount, zeros, True)
    tombstone = await _find_tombstone(client, chain, digest, hours)
    if tombstone is None:
        raise NotFound(
            f"no settled call {call_id} of account {account_id}; "
            f"a call can be refunded for {len(hours)} hours"
        )
    given = await client.execute("GET", refunded_key) or b""
    legs = len(tombstone.costs)
    before = struct.unpack(f">{legs}q", given) if given else (0,) * legs
    first = next((leg for leg, cost in enumerate(tombstone.costs) if cost > 0), None)
    rest = 0 if first is None else tombstone.costs[first] - before[first]
    if first is None or rest <= 0 or (amount is not None and amount > rest):
        raise Conflict(f"of call {call_id} only {format_amount(rest)} can be given back")
    if amount is None:
        amount = rest
    amounts = share_refund(tombstone.costs, before, first, amount)
    return RefundPlan(call_id, digest, refunded_key, given, amount, amounts, False)


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
