"""What the daemon remembers of a call: the rates it is pinned to, and how its legs pay."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence

from msgspec import Struct

from authz.reasons import BILLING_OF, Billing, CallClass, Direction
from authz.store.records import CallRecord, pack_tail_rates, pack_tail_words
from authz_ext.rating import Rate

REMEMBERED_CALLS_MAX = 200_000
#: Billings that time does not charge.
_BY_CHANNEL = frozenset((Billing.TRUNK, Billing.BURST))


class Plan(Struct, kw_only=True, gc=False):
    """One call as this process knows it; `attempt` proves it current to the scripts.

    `rates` has, per leg, the pinned rate, or None for a leg that time does not charge.
    `in_store` is False for a call that was let through without the store.
    """

    account: str
    call_id: str
    attempt: int
    call_class: CallClass
    direction: Direction
    number: str
    dialled: str
    switch: str
    rates: tuple[Rate | None, ...]
    billings: tuple[Billing, ...]
    authorized_at: int
    in_store: bool = True
    rate_number: str | None = None

    def costs(self, seconds: int, answered_at: int) -> tuple[int, ...]:
        """Return what `seconds` of talk cost every leg, in micros."""
        return tuple(
            [
                0 if rate is None or billing in _BY_CHANNEL else rate.cost(seconds, answered_at)
                for rate, billing in zip(self.rates, self.billings, strict=True)
            ]
        )

    @property
    def is_emergency(self) -> bool:
        """Whether the call is one that nothing may refuse or end."""
        return self.call_class == CallClass.EMERGENCY and self.direction == Direction.OUTBOUND

    @property
    def limiting_rates(self) -> list[tuple[int, Rate]]:
        """Return (leg, rate) of the legs that credit can cut short."""
        return [
            (leg, rate)
            for leg, (rate, billing) in enumerate(zip(self.rates, self.billings, strict=True))
            if billing == Billing.PER_MINUTE and rate is not None and not rate.is_free
        ]


def plan_from_record(account: str, call_id: str, record: CallRecord) -> Plan:
    """Return the plan of a call that another process has authorized."""
    return Plan(
        account=account,
        call_id=call_id,
        attempt=record.head.attempt,
        call_class=record.call_class,
        direction=record.direction,
        number=record.tail.number,
        dialled=record.tail.dialled,
        switch=record.tail.switch,
        rates=tuple(Rate.unpack(rate) if rate else None for rate in record.tail.rates),
        billings=tuple(BILLING_OF[leg.billing] for leg in record.legs),
        authorized_at=record.head.authorized_us // 1_000_000,
    )


def pack_rates(rates: Sequence[Rate | None]) -> bytes:
    """Return the rates as a call's tail ends with them."""
    return pack_tail_rates([b"" if rate is None else rate.pack() for rate in rates])


def pack_tail(number: str, dialled: str, switch: str, packed_rates: bytes) -> bytes:
    """Return the tail under which a call's rates are pinned in the store."""
    return pack_tail_words(number, dialled, switch) + packed_rates


def request_digest(dialled: str, direction: str, switch: str | None) -> bytes:
    """Return the 8 bytes that tell a repeated authorize from another one with the same id."""
    text = f"{dialled}\0{direction}\0{switch or ''}"
    return hashlib.blake2b(text.encode(), digest_size=8).digest()


class CallMemory:
    """Plans of this process's latest calls; a forgotten one is read from the store."""

    def __init__(self, calls_max: int = REMEMBERED_CALLS_MAX) -> None:
        self._plans: OrderedDict[tuple[str, str], Plan] = OrderedDict()
        self._calls_max = calls_max

    def get(self, account: str, call_id: str) -> Plan | None:
        """Return the plan of a call, if remembered."""
        return self._plans.get((account, call_id))

    def put(self, plan: Plan) -> None:
        """Remember a plan, forgetting the oldest beyond the bound."""
        self._plans[plan.account, plan.call_id] = plan
        if len(self._plans) > self._calls_max:
            self._plans.popitem(last=False)

    def forget(self, account: str, call_id: str) -> Plan | None:
        """Drop a plan: the call has ended, or its record has changed."""
        return self._plans.pop((account, call_id), None)
