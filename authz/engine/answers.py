"""Builds what callers see from what scripts answer."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from authz.config.sections import CallSettings
from authz.engine.plans import Plan
from authz.engine.quotes import discount_text
from authz.model import Denial, Grant, GrantLeg, SettledLeg, Settlement
from authz.money import format_amount
from authz.reasons import BILLING_OF, REASONS, Billing, CallClass, Direction, Reason
from authz.store.accounts import Account, Chain

_EXTEND_AHEAD_SECONDS_MAX = 15
_OK = REASONS["ok"].name


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
                None if rate is None or billing != per_minute else discount_text(rate),
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


def grant(
    calls: CallSettings,
    call_id: str,
    call_class: CallClass,
    number: str,
    *,
    seconds: int | None = None,
    used_seconds: int = 0,
    final: bool = False,
    legs: tuple[GrantLeg, ...] = (),
    degraded: bool = False,
    dry_run: bool = False,
) -> Grant:
    """Return a grant until `seconds` after answer; None: nothing limits the call.

    Without legs it was given without the store: to an emergency call, or `degraded`.
    """
    return Grant(
        call_id=call_id,
        allowed=True,
        reason=_OK,
        class_=call_class.label,
        number=number,
        seconds=seconds,
        final=final,
        extend_at=extend_at(seconds, used_seconds, calls.sign_of_life_seconds),
        ring_seconds=calls.ring_seconds,
        legs=legs,
        degraded=degraded,
        dry_run=dry_run,
    )


def unenforced(calls: CallSettings, refused: Denial, number: str, used_seconds: int = 0) -> Grant:
    """Return the grant that stands for a denial where denials are not enforced."""
    allowed = grant(calls, refused.call_id, CallClass.UNKNOWN, number, used_seconds=used_seconds)
    return msgspec.structs.replace(
        allowed, reason=refused.reason, class_=refused.class_ or allowed.class_, enforced=False
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
