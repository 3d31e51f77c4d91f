"""Calls driven straight through the scripts, at costs that a test names itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from books import Books

from authz.engine.steps import pack_costs, pack_steps
from authz.reasons import Billing, CallClass, Direction
from authz.store import keys
from authz.store.accounts import Chain
from authz.store.constants import Policy
from authz.store.layouts import AUTHORIZE, LEG_REQUEST, RESERVE, SETTLE
from authz.store.records import CallTail, ledger_strings

_HOURS = 24
_ATTEMPT = 1
#: No test of deadlines: hundreds of these may wait for each other.
_DEADLINE_MS = 90_000


async def _run(
    books: Books,
    name: str,
    account: str,
    call_id: str,
    arguments: Sequence[bytes],
    *,
    call_class: CallClass = CallClass.NATIONAL,
) -> list[Any]:
    chain = await _chain(books, account)
    limits = [one.limits(call_class, books.clock.now()) for one in chain.accounts]
    hour_keys = chain.hour_keys(books.clock.now())
    named = {"authorize": hour_keys.filters, "settle": hour_keys.tombstones}
    prepared = chain.prepared(name, named.get(name, ()))
    reply: list[Any] = await books.client.call_prepared(
        prepared, call_id, [*arguments, *limits], _DEADLINE_MS
    )
    return reply


async def _chain(books: Books, account: str) -> Chain:
    books.directory.forget(account)
    chain = await books.directory.chain(account, _DEADLINE_MS)
    assert chain is not None
    return chain


async def authorize(
    books: Books,
    account: str,
    call_id: str,
    holds: Sequence[int],
    *,
    call_class: CallClass = CallClass.NATIONAL,
    direction: Direction = Direction.OUTBOUND,
    trunk_covered: bool = False,
    exempt: bool = False,
) -> list[Any]:
    """Ask for 60 seconds that hold `holds` (leaf first, in micros); return the script's answer."""
    chain = await _chain(books, account)
    valid_from, valid_until = chain.validity(books.clock.now())
    numbers = AUTHORIZE.pack(
        attempt=_ATTEMPT,
        valid_from=valid_from,
        valid_until=valid_until,
        call_class=call_class,
        direction=direction,
        legs=len(holds),
        exempt=exempt,
        second_try=1,
        steps=1,
        uncharged_seconds=-1,
        ring_seconds=180,
        grace_seconds=30,
        life_seconds=300,
        closed_hours=_HOURS,
        hour=books.clock.now() // 3600,
    )
    leg_requests = [
        LEG_REQUEST.pack(has_rate=1, limiting=1, needs_credit=0, trunk_covered=trunk_covered)
        for _ in holds
    ]
    tail = CallTail("+14155550100", "+14155550100", "", (b"",) * len(holds)).pack()
    return await _run(
        books,
        "authorize",
        account,
        call_id,
        [
            numbers,
            keys.call_digest(account, call_id),
            keys.call_member(account, call_id),
            b"question",
            tail,
            b"".join(leg_requests) + pack_steps([(60, holds)], len(holds)),
        ],
        call_class=call_class,
    )


async def reserve(
    books: Books,
    account: str,
    call_id: str,
    used: Sequence[int],
    holds: Sequence[int],
    *,
    used_seconds: int = 30,
) -> list[Any]:
    """Report use that cost `used`, and ask for 120 seconds that hold `holds`."""
    chain = await _chain(books, account)
    valid_from, valid_until = chain.validity(books.clock.now())
    numbers = RESERVE.pack(
        attempt=_ATTEMPT,
        valid_from=valid_from,
        valid_until=valid_until,
        legs=len(holds),
        second_try=1,
        steps=1,
        used_seconds=used_seconds,
        uncharged_seconds=-1,
        grace_seconds=30,
        life_seconds=300,
    )
    names = [one.id for one in chain.accounts]
    return await _run(
        books,
        "reserve",
        account,
        call_id,
        [
            numbers,
            pack_costs(used),
            keys.call_member(account, call_id),
            pack_steps([(120, holds)], len(holds)),
            ledger_strings(names, call_id),
        ],
    )


async def _end(
    books: Books, script: str, account: str, call_id: str, third: bytes, costs: Sequence[int],
    **numbers: int,
) -> list[Any]:  # fmt: skip
    chain = await _chain(books, account)
    valid_from, valid_until = chain.validity(books.clock.now())
    packed = SETTLE.pack(
        attempt=_ATTEMPT,
        valid_from=valid_from,
        valid_until=valid_until,
        legs=len(costs),
        closed_hours=_HOURS,
        hour=books.clock.now() // 3600,
        ring_seconds=180,
        **numbers,
    )
    names = [one.id for one in chain.accounts]
    return await _run(
        books,
        script,
        account,
        call_id,
        [
            *([packed + pack_costs(costs)] if script == "settle" else [packed]),
            keys.call_digest(account, call_id),
            third,
            *([] if script == "settle" else [pack_costs(costs)]),
            ledger_strings(names, call_id),
        ],
    )


async def settle(
    books: Books, account: str, call_id: str, costs: Sequence[int], seconds: int = 60
) -> list[Any]:
    """Settle an open or orphaned call at `costs`."""
    member = keys.call_member(account, call_id)
    return await _end(books, "settle", account, call_id, member, costs, seconds=seconds)


async def orphan(
    books: Books, account: str, call_id: str, legs: int, used_seconds: int = 0
) -> list[Any]:
    """Claim a call as an orphan, whatever its lease says."""
    member = keys.call_member(account, call_id)
    return await _end(
        books, "orphan", account, call_id, member, (0,) * legs,
        force=1, used_seconds=used_seconds, policy=Policy.CHARGE_REPORTED,
    )  # fmt: skip


async def settled_call(books: Books, account: str, call_id: str, costs: Sequence[int]) -> list[Any]:
    """Book a call that cost `costs` (leaf first, in micros) from its settle alone."""
    billings = bytes([Billing.PER_MINUTE] * len(costs))
    return await _end(books, "book", account, call_id, billings, costs, seconds=60)
