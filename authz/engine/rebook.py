"""Books again what the store has lost and its archive has kept: with the same amounts and names.

For `authz archive repair --accept-archive`. Everything is booked under what made it unique, so
that whoever says it again, now or later, finds it booked.
"""

from __future__ import annotations

from typing import cast

from msgspec import Struct

from authz.engine import settle as settling
from authz.engine.context import ATTEMPTS_MAX, Context
from authz.engine.postings import (
    CreditKind,
    CreditRequest,
    DebitKind,
    DebitRequest,
    PostingRefused,
    PostingService,
)
from authz.engine.steps import pack_costs
from authz.errors import CallUnknown, Conflict, NotExecuted, NotFound
from authz.model import SettleRequest
from authz.money import format_amount
from authz.reasons import CallClass, Outcome
from authz.store import keys
from authz.store.accounts import Chain
from authz.store.constants import Kind
from authz.store.layouts import SETTLE
from authz.store.records import ledger_strings


class LostEntry(Struct, frozen=True, kw_only=True):
    """A ledger entry that only the archive has: amounts per leg, leaf first.

    Of a call, `costs` is what each leg was charged in all, and `charged` how much of that the
    store still knows; None if it knows nothing of the call.
    """

    sequence: int
    kind: Kind
    reference: str
    accounts: tuple[str, ...]
    amounts: tuple[int, ...]
    description: str
    refunded_call: str
    number: str
    seconds: int
    started_at: int
    call_class: int
    direction: int
    billings: tuple[int, ...]
    costs: tuple[int, ...] = ()
    charged: tuple[int, ...] | None = None


async def rebook(context: Context, entry: LostEntry) -> bool:
    """Book a lost entry again; return False if it is booked already.

    Raises NotFound for an account that is gone, Conflict if its name is used otherwise, and
    StoreError.
    """
    if entry.kind == Kind.CALL:
        return await _rebook_call(context, entry)
    # Without an archive, which would call it a duplicate.
    postings = PostingService(
        context.client, context.directory, context.clock, closed_hours=context.closed_hours
    )
    first = next((amount for amount in entry.amounts if amount), 0)
    if first > 0:
        request = CreditRequest(
            # As it was booked, whatever may be asked for today.
            kind=cast("CreditKind", entry.kind.label),
            amount=format_amount(first),
            call_id=entry.refunded_call or None,
            reference=entry.reference,
            description=entry.description,
        )
        posted = await postings.credit(entry.accounts[0], request)
    else:
        debit = DebitRequest(
            kind=cast("DebitKind", entry.kind.label),
            amount=format_amount(0 - first),
            reference=entry.reference,
            description=entry.description,
            scope="tree" if len(entry.accounts) > 1 else "self",
        )
        posted = await postings.debit(entry.accounts[0], debit)
    if isinstance(posted, PostingRefused):
        raise Conflict(posted.detail)
    return not posted.duplicate


async def _rebook_call(context: Context, entry: LostEntry) -> bool:
    account = entry.accounts[0]
    for _ in range(ATTEMPTS_MAX):
        chain = await context.directory.chain(account)
        if chain is None:
            raise NotFound(f"no account {account}")
        reply = await context.run(
            "book",
            chain,
            entry.reference,
            _book_arguments(context, chain, entry),
            context.settings.store.settle_deadline_ms,
        )
        if reply[0] == Outcome.STALE_CALL:
            return await _settle_open(context, entry)
        if not context.is_stale(reply, chain):
            if reply[0] == Outcome.SETTLED_DIFFERENTLY:
                raise Conflict(f"call {entry.reference} is settled with {reply[1]} seconds")
            return bool(reply[0] != Outcome.DUPLICATE)
    raise NotExecuted(f"account {account} kept changing")


async def _settle_open(context: Context, entry: LostEntry) -> bool:
    """Settle a call whose settle was lost, so that the store believes it open."""
    request = SettleRequest(
        call_id=entry.reference,
        account=entry.accounts[0],
        seconds=entry.seconds,
        ended_at=entry.started_at + entry.seconds,
    )
    try:
        answer = await settling.settle(context, request)
    except CallUnknown as error:
        raise Conflict(str(error)) from error
    return not answer.duplicate


def _book_arguments(context: Context, chain: Chain, entry: LostEntry) -> list[bytes]:
    now = context.clock.now()
    valid_from, valid_until = chain.validity(now)
    costs = pack_costs(entry.costs)
    if entry.charged is not None:
        costs += pack_costs(entry.charged)
    numbers = SETTLE.pack(
        valid_from=valid_from,
        valid_until=valid_until,
        legs=len(chain.accounts),
        seconds=entry.seconds,
        started_at=entry.started_at,
        closed_hours=context.closed_hours,
        call_class=entry.call_class,
        direction=entry.direction,
        force=entry.charged is not None,
    )
    return [
        numbers,
        keys.call_digest(entry.accounts[0], entry.reference),
        bytes(entry.billings),
        costs,
        ledger_strings(chain.ids, entry.reference, entry.number, entry.description),
        *chain.limits(CallClass(entry.call_class), now),
    ]
