"""What the store knows of one call, for people and for switches that ask."""

from __future__ import annotations

from authz.engine.clock import format_moment
from authz.engine.context import Context
from authz.engine.plans import plan_from_record
from authz.engine.quotes import discount_text
from authz.model import CallLeg, CallState
from authz.money import format_amount
from authz.reasons import Billing
from authz.store import keys
from authz.store.accounts import Chain
from authz.store.constants import State
from authz.store.records import CallRecord, unpack_call, unpack_tombstone


async def call_state(context: Context, account: str, call_id: str) -> CallState | None:
    """Return the state of a call that is open, orphaned or settled within `closed_keep`."""
    chain = await context.directory.chain(account)
    if chain is None:
        return None
    packed = await context.client.execute("GET", keys.call(chain.tag, account, call_id))
    if packed is not None:
        record = unpack_call(packed)
        if record.state != State.ENDED:
            return describe_call(chain, call_id, record)
    return await _settled(context, chain, call_id)


def describe_call(chain: Chain, call_id: str, record: CallRecord) -> CallState:
    """Return a stored call in the words of the API."""
    head = record.head
    account = chain.accounts[0].id
    plan = plan_from_record(account, call_id, record)
    return CallState(
        call_id=call_id,
        account=account,
        state="open" if record.state == State.OPEN else "orphan",
        class_=record.call_class.label,
        direction=record.direction.label,
        number=record.tail.number,
        switch=record.tail.switch or None,
        authorized_at=format_moment(plan.authorized_at),
        used_seconds=head.used_seconds,
        seconds=None if head.granted_seconds < 0 else head.granted_seconds,
        final=bool(head.final),
        lease_until=format_moment(head.lease_ms // 1000),
        legs=tuple(
            CallLeg(
                account=one.id,
                billing=Billing(leg.billing).label,
                rate="0"
                if rate is None or leg.billing != Billing.PER_MINUTE
                else rate.per_minute_text(plan.authorized_at),
                # An orphan holds nothing; its record keeps what it would hold again.
                held=format_amount(leg.held if record.state == State.OPEN else 0),
                used=format_amount(leg.used if record.state == State.OPEN else leg.charged),
                discount=None
                if rate is None or leg.billing != Billing.PER_MINUTE
                else discount_text(rate),
            )
            for one, leg, rate in zip(chain.accounts, record.legs, plan.rates, strict=True)
        ),
    )


async def _settled(context: Context, chain: Chain, call_id: str) -> CallState | None:
    account = chain.accounts[0].id
    digest = keys.call_digest(account, call_id)
    hour = context.clock.now() // 3600
    for back in range(context.closed_hours + 1):
        packed = await context.client.execute(
            "HGET", b"%s%d" % (chain.closed_prefix, hour - back), digest
        )
        if packed is None:
            continue
        tombstone = unpack_tombstone(packed)
        return CallState(
            call_id=call_id,
            account=account,
            state="settled",
            class_=None,
            direction=None,
            number=None,
            switch=None,
            authorized_at=None,
            used_seconds=tombstone.seconds,
            seconds=None,
            final=True,
            lease_until=None,
            legs=tuple(
                CallLeg(
                    account=one.id,
                    billing=billing.label,
                    rate="0",
                    held="0",
                    used=format_amount(cost),
                )
                for one, billing, cost in zip(
                    chain.accounts, tombstone.billings, tombstone.costs, strict=False
                )
            ),
        )
    return None
