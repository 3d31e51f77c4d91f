"""Plans of calls, from the store's records and into them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from authz.reasons import billings_of
from authz.store.records import CallRecord, pack_tail_rates
from authz_ext.plans import CallMemory, Plan, call_key
from authz_ext.rating import Rate

__all__ = [
    "REMEMBERED_CALLS_MAX", "CallMemory", "Plan", "call_key", "pack_rates", "plan_from_record",
]  # fmt: skip

#: Calls whose plans a process keeps.
REMEMBERED_CALLS_MAX: Final = 200_000


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
        billings=billings_of(*(leg.billing for leg in record.legs)),
        authorized_at=record.head.authorized_us // 1_000_000,
    )


def pack_rates(rates: Sequence[Rate | None]) -> bytes:
    """Return the rates as a call's tail ends with them."""
    return pack_tail_rates([b"" if rate is None else rate.pack() for rate in rates])
