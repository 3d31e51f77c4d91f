"""Builds what callers see from what scripts answer."""

from __future__ import annotations

from typing import Final

import msgspec

from authz.config.sections import CallSettings
from authz.engine.plans import Plan
from authz.engine.quotes import discount_text
from authz.model import Denial, Grant, GrantLeg, SettledLeg, Settlement
from authz.reasons import BILLING_OF, REASONS, CallClass, Direction, Reason
from authz.store.accounts import Chain
from authz_ext.legs import LegWriter

_EXTEND_AHEAD_SECONDS_MAX = 15
_OK = REASONS["ok"].name
_legs: Final = LegWriter(
    grant_leg=GrantLeg,
    settled_leg=SettledLeg,
    labels=[billing.label for billing in BILLING_OF],
    discount_text=discount_text,
)


def extend_at(seconds: int | None, used_seconds: int, sign_of_life_seconds: int) -> int:
    """Return when, in seconds from answer, the switch should ask again."""
    if seconds is None:
        return used_seconds + sign_of_life_seconds
    return seconds - max(1, min(_EXTEND_AHEAD_SECONDS_MAX, (seconds - used_seconds) // 4))


def grant_legs(
    chain: Chain, plan: Plan, reply: list[int], first: int, at: int
) -> tuple[GrantLeg, ...]:
    """Return the legs of a grant from a script's billing, held and credit left of each.

    They begin at place `first` of its answer; rates are told as at store second `at`.
    """
    return _legs.granted(chain.ids, chain.are_unlimited, plan.rates, reply, first, at)


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
    call_id: str, chain: Chain, seconds: int, reply: list[int], first: int, *, duplicate: bool
) -> Settlement:
    """Return the settlement from a script's billing, cost and balance of each leg.

    They begin at place `first` of its answer.
    """
    legs = _legs.settled(chain.ids, reply, first)
    return Settlement(call_id, True, duplicate, seconds, legs)
