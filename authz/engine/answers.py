"""Builds what callers see from what scripts answer."""

from __future__ import annotations

from collections.abc import Sequence

from authz.engine.plans import Plan
from authz.model import Denial, Grant, GrantLeg, SettledLeg, Settlement
from authz.money import format_amount
from authz.reasons import BILLING_OF, REASONS, Billing, CallClass, Direction, Reason
from authz.store.accounts import Account, Chain

_EXTEND_AHEAD_SECONDS_MAX = 15


def extend_at(seconds: int | None, used_seconds: int, sign_of_life_seconds: int) -> int:
    """Return when, in seconds from answer, the switch should ask again."""
    if seconds is None:
        return used_seconds + sign_of_life_seconds
    return seconds - max(1, min(_EXTEND_AHEAD_SECONDS_MAX, (seconds - used_seconds) // 4))


def grant_legs(
    accounts: Sequence[Account], plan: Plan, values: Sequence[int], at: int
) -> tuple[GrantLeg, ...]:
    """Return the legs of a grant from a script's billing, held and credit left of each."""
    legs = []
    for index, account in enumerate(accounts):
        billing, held, credit = values[index * 3 : index * 3 + 3]
        rate = plan.rates[index]
        priced = billing == Billing.PER_MINUTE and rate is not None
        legs.append(
            GrantLeg(
                account.id,
                BILLING_OF[billing].label,
                rate.per_minute_text(at) if priced and rate is not None else "0",
                format_amount(held),
                None if account.unlimited else format_amount(credit),
            )
        )
    return tuple(legs)


def denial(
    call_id: str,
    reason: Reason,
    account: str,
    call_class: CallClass | None,
    direction: Direction,
    detail: str | None = None,
) -> Denial:
    """Return the denial for a reason, with its SIP status and hang-up cause."""
    return Denial(
        call_id=call_id,
        allowed=False,
        reason=reason.name,
        account=account,
        class_=None if call_class is None else call_class.label,
        sip_status=reason.sip_status,
        hangup_cause=reason.cause(direction.label),
        detail=detail or reason.meaning,
    )


def emergency_grant(
    call_id: str,
    number: str,
    used_seconds: int,
    sign_of_life_seconds: int,
    ring_seconds: int,
    *,
    dry_run: bool = False,
) -> Grant:
    """Return the grant of a call that nothing may refuse or end."""
    return Grant(
        call_id=call_id,
        allowed=True,
        reason=REASONS["ok"].name,
        class_=CallClass.EMERGENCY.label,
        number=number,
        seconds=None,
        final=False,
        extend_at=extend_at(None, used_seconds, sign_of_life_seconds),
        ring_seconds=ring_seconds,
        legs=(),
        dry_run=dry_run,
    )


def unenforced(
    refused: Denial, number: str, used_seconds: int, sign_of_life_seconds: int, ring_seconds: int
) -> Grant:
    """Return the grant that stands for a denial where denials are not enforced."""
    return Grant(
        call_id=refused.call_id,
        allowed=True,
        reason=refused.reason,
        class_=refused.class_ or CallClass.UNKNOWN.label,
        number=number,
        seconds=None,
        final=False,
        extend_at=extend_at(None, used_seconds, sign_of_life_seconds),
        ring_seconds=ring_seconds,
        legs=(),
        enforced=False,
    )


def degraded_grant(
    plan: Plan, seconds: int | None, used_seconds: int, sign_of_life_seconds: int, ring_seconds: int
) -> Grant:
    """Return a grant that was given without the store."""
    return Grant(
        call_id=plan.call_id,
        allowed=True,
        reason=REASONS["ok"].name,
        class_=plan.call_class.label,
        number=plan.number,
        seconds=seconds,
        final=False,
        extend_at=extend_at(seconds, used_seconds, sign_of_life_seconds),
        ring_seconds=ring_seconds,
        legs=(),
        degraded=True,
    )


def settlement(
    call_id: str, chain: Chain, seconds: int, values: Sequence[int], *, duplicate: bool
) -> Settlement:
    """Return the settlement from a script's billing, cost and balance of each leg."""
    legs = tuple(
        SettledLeg(
            account.id,
            BILLING_OF[values[index * 3]].label,
            format_amount(values[index * 3 + 1]),
            format_amount(values[index * 3 + 2]),
        )
        for index, account in enumerate(chain.accounts)
        if index * 3 < len(values)
    )
    return Settlement(
        call_id=call_id, settled=True, duplicate=duplicate, seconds=seconds, legs=legs
    )
