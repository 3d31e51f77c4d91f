"""CHANNEL_DESTROY → settle: the exact cost of an ended channel, on every leg, once.

A settle carries number, direction and end, so that any process can book it, whoever decided the
call, and also one that was let through while nobody could be asked. The message is acknowledged
when this returns; it raises where neither the store nor the disk has taken the settle.
"""

from __future__ import annotations

from typing import Final

import msgspec

from authz import log
from authz.engine.engine import Engine
from authz.engine.excuses import ExcusedSettle
from authz.errors import CallUnknown, InvalidInput, SettledDifferently, StoreError
from authz.hooks.kazoo.calls import LiveCall
from authz.hooks.kazoo.dids import DidLimits
from authz.hooks.kazoo.encoding import from_gregorian
from authz.hooks.kazoo.excuses import excuses_of_ended, is_refused
from authz.hooks.kazoo.legs import Leg, read_leg
from authz.hooks.kazoo.messages import CallEvent
from authz.hooks.kazoo.words import PAID_WORDS
from authz.model import SECONDS_MAX, SettleRequest

_CAUSE_LENGTH_MAX: Final = 64
#: An end further from now than this is no time of Kazoo's (it is counted from another year).
_YEAR_SECONDS: Final = 366 * 86_400


class ChannelSettler:
    """Books ended channels."""

    def __init__(self, engine: Engine, dids: DidLimits) -> None:
        self._engine = engine
        self._dids = dids
        #: Channels booked since the start, and those that nobody could book.
        self.settled = 0
        self.failed = 0

    async def settle(self, event: CallEvent, node: str, call: LiveCall | None) -> None:
        """Book a channel that has ended; `call` is what this process knows of it.

        Raises StoreError, or SpoolFull: it is to be told again.
        """
        leg = read_leg(event, node)
        if call is not None and leg.account != call.account:
            leg = await self._attributed(leg, call)
        seconds = _talk_seconds(event, leg, call)
        if not self._is_ours(leg, seconds, call):
            return
        if seconds is None or seconds > SECONDS_MAX:
            # The call becomes an orphan, charged for what it was seen to use.
            self._fail(leg, seconds, "it does not say how long the call lasted, or nonsense")
            return
        number, _ = self._engine.context.rules.classify(leg.to)
        if call is not None and not number:
            number = call.number
        await self._book(leg, await self._request(leg, event, number, seconds))
        await self._dids.leave(leg.account, leg.direction, number, leg.call_id)

    def _is_ours(self, leg: Leg, seconds: int | None, call: LiveCall | None) -> bool:
        """Return whether the channel was, or should have been, decided."""
        if not leg.account or not leg.is_readable:
            if seconds != 0 and leg.is_asked_about:
                self._fail(leg, seconds, "no account or call id of ours")
            return False
        if call is not None or leg.is_asked_about:
            return True
        return leg.account_billing in PAID_WORDS or leg.reseller_billing in PAID_WORDS

    async def _attributed(self, leg: Leg, call: LiveCall) -> Leg:
        """Return the channel as its call's, if it bears no account, or one that has no such call.

        Who was let through pays. Two accounts may each have a call of that id, though.
        """
        if leg.account and leg.is_readable:
            try:
                if await self._engine.call(leg.account, leg.call_id) is not None:
                    return leg
                if await self._engine.call(call.account, leg.call_id) is None:
                    return leg
            except StoreError:
                return leg
        return msgspec.structs.replace(leg, account=call.account)

    async def _request(
        self, leg: Leg, event: CallEvent, number: str, seconds: int
    ) -> ExcusedSettle:
        try:
            chain = await self._engine.context.directory.chain(leg.account)
        except StoreError:
            chain = None
        cause = "".join(one for one in event.hangup_cause if one.isprintable())
        # Of a call that the store does not know there is nothing to book without talk, nor where
        # everybody has refused it.
        is_known_only = seconds == 0 or not number or _is_refused(leg)
        return ExcusedSettle(
            call_id=leg.call_id,
            account=leg.account,
            seconds=seconds,
            hangup_cause=cause[:_CAUSE_LENGTH_MAX] or None,
            ended_at=self._ended_at(event),
            to=None if is_known_only else number,
            from_=leg.from_ or None,
            direction=leg.direction,
            switch=leg.node,
            excuses=excuses_of_ended(leg, chain),
        )

    def _ended_at(self, event: CallEvent) -> int:
        now = self._engine.context.clock.now()
        told = from_gregorian(event.timestamp)
        return told if abs(now - told) < _YEAR_SECONDS else now

    async def _book(self, leg: Leg, request: SettleRequest) -> None:
        try:
            await self._engine.settle(request)
        except CallUnknown as error:
            if request.seconds and not _is_refused(leg):
                self._fail_request(request, f"call_unknown: {error}")
        except SettledDifferently as error:
            self._fail_request(request, f"settled_differently: {error}")
        except InvalidInput as error:
            self._fail_request(request, f"invalid: {error}")
        else:
            self.settled += 1

    def _fail_request(self, request: SettleRequest, reason: str) -> None:
        self.failed += 1
        log.event("call_not_settled", level="error", account=request.account,
                  call_id=request.call_id, seconds=request.seconds, reason=reason)  # fmt: skip

    def _fail(self, leg: Leg, seconds: int | None, reason: str) -> None:
        self.failed += 1
        log.event("call_not_settled", level="error", account=leg.account, call_id=leg.call_id,
                  seconds=seconds, reason=reason)  # fmt: skip


def _talk_seconds(event: CallEvent, leg: Leg, call: LiveCall | None) -> int | None:
    """Return how long a channel talked, None if nobody knows: a clock that was set back, say."""
    if event.billing_seconds is not None and event.billing_seconds >= 0:
        return event.billing_seconds
    is_unanswered = call is not None and call.answered_at is None
    return 0 if is_unanswered or _is_refused(leg) else None


def _is_refused(leg: Leg) -> bool:
    return is_refused(leg.account_billing, leg.reseller_billing)
