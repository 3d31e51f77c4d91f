"""The engine with its meters on: what it decides, books and refuses, and how long that takes.

Dry runs are not counted: they decide nothing.
"""

from __future__ import annotations

from authz import meters
from authz.engine.engine import Engine
from authz.engine.spool import SpooledSettle
from authz.engine.spool_replay import Booking, Outcome
from authz.errors import CallUnknown, InvalidInput, SettledDifferently, SpoolFull
from authz.model import (
    AuthorizeRequest,
    Denial,
    Grant,
    ReserveRequest,
    Settlement,
    SettleRequest,
    Spooled,
)
from authz.reasons import CallClass

_AUTHORIZES = meters.counters("authz_decisions_total", "authorize")
_RESERVES = meters.counters("authz_decisions_total", "reserve")
_STARTS = meters.counters("authz_call_starts_total")
_AUTHORIZE_TIME = meters.histogram("authz_decision_seconds", "authorize")
_RESERVE_TIME = meters.histogram("authz_decision_seconds", "reserve")
_SETTLE_TIME = meters.histogram("authz_decision_seconds", "settle")
_SETTLES = meters.counters("authz_settles_total")
_SETTLED_CALLS = meters.counters("authz_settled_calls_total")
_SETTLED_SECONDS = meters.counters("authz_settled_call_seconds_total")
_REPLAYS = meters.counters("authz_spool_replays_total")
_UNKNOWN_CLASS = CallClass.UNKNOWN.label


class MeteredEngine(Engine):
    """An engine that counts."""

    async def authorize(self, request: AuthorizeRequest) -> Grant | Denial:
        """Decide as the engine does, and count the decision."""
        started_ns = meters.now_ns()
        answer = await super().authorize(request)
        if not request.dry_run:
            _AUTHORIZE_TIME.observe_since(started_ns)
            count_authorize(request, answer)
        return answer

    async def reserve(self, request: ReserveRequest) -> Grant | Denial:
        """Decide as the engine does, and count the decision."""
        started_ns = meters.now_ns()
        answer = await super().reserve(request)
        _RESERVE_TIME.observe_since(started_ns)
        _RESERVES[_outcome_of(answer), answer.reason].add()
        return answer

    async def settle(self, request: SettleRequest) -> Settlement | Spooled:
        """Book as the engine does, and count what became of it."""
        started_ns = meters.now_ns()
        try:
            answer = await super().settle(request)
        except (SettledDifferently, CallUnknown, InvalidInput, SpoolFull) as error:
            _SETTLES[_refusal_of(error)].add()
            raise
        _SETTLE_TIME.observe_since(started_ns)
        if isinstance(answer, Spooled):
            _SETTLES["spooled"].add()
        else:
            _count_settlement(answer)
        return answer

    async def book_spooled(self, spooled: SpooledSettle) -> Booking:
        """Book as the engine does, and count it unless it must be tried again."""
        booking = await super().book_spooled(spooled)
        if booking.outcome is not Outcome.RETRY:
            _REPLAYS[booking.outcome.value].add()
        return booking


def count_authorize(request: AuthorizeRequest, answer: Grant | Denial) -> None:
    """Count a decision on a new call, also one that no engine was asked for."""
    outcome = _outcome_of(answer)
    _AUTHORIZES[outcome, answer.reason].add()
    _STARTS[answer.class_ or _UNKNOWN_CLASS, request.direction, outcome].add()


def _outcome_of(answer: Grant | Denial) -> str:
    if isinstance(answer, Denial):
        return "denied"
    if not answer.enforced:
        return "unenforced"
    return "degraded" if answer.degraded else "allowed"


def _refusal_of(error: Exception) -> str:
    match error:
        case SettledDifferently():
            return "settled_differently"
        case CallUnknown():
            return "call_unknown"
        case SpoolFull():
            return "not_kept"
    return "invalid"


def _count_settlement(answer: Settlement) -> None:
    if answer.duplicate:
        _SETTLES["duplicate"].add()
        return
    _SETTLES["booked"].add()
    billing = answer.legs[0].billing
    _SETTLED_CALLS[billing].add()
    _SETTLED_SECONDS[billing].add(answer.seconds)
