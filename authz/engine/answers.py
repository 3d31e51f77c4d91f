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
    per_minute = Billing.PER_MINUTE
    return tuple(
        [
            GrantLeg(
                account.id,
                BILLING_OF[billing].label,
                "0" if rate is None or billing != per_minute else rate.per_minute_text(at),
                format_amount(held),
                None if account.unlimited else format_amount(credit),
            )
            for account, rate, billing, held, credit in zip(
                accounts, plan.rates, values[::3], values[1::3], values[2::3], strict=False
            )
        ]
    )


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
    # A call that was booked before may have had fewer legs than its chain has now.
    legs = tuple(
        [
            SettledLeg(
                account,
                BILLING_OF[billing].label,
                format_amount(charged),
                format_amount(balance),
            )
            for account, billing, charged, balance in zip(
                chain.ids, values[::3], values[1::3], values[2::3], strict=False
            )
        ]
    )
    return Settlement(
        call_id=call_id, settled=True, duplicate=duplicate, seconds=seconds, legs=legs
    )
