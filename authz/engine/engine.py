"""The engine: the one place that every switch-facing adapter asks.

It knows no HTTP, no AMQP and no event socket. Denials are values; an exception means that the
caller did something wrong or that nothing could be promised.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import msgspec

from authz import log
from authz.config import Settings
from authz.engine import authorize as authorizing
from authz.engine import reserve as reserving
from authz.engine import settle as settling
from authz.engine.answers import denial, grant, unenforced
from authz.engine.calls import Call, make_call, plan_of
from authz.engine.clock import parse_moment
from authz.engine.context import Context
from authz.engine.denials import DenialCounter
from authz.engine.excuses import ExcusedAuthorize
from authz.engine.failure import OutagePolicy
from authz.engine.inspect import call_state
from authz.engine.late import hand_over
from authz.engine.orphans import orphan_switch
from authz.engine.quotes import Decks
from authz.engine.spool import Spool, SpooledSettle
from authz.engine.spool_replay import Booking, DeadLetter
from authz.engine.spool_replay import Outcome as SpoolOutcome
from authz.errors import (
    CallTooOld,
    CallUnknown,
    InvalidInput,
    NotExecuted,
    SettledDifferently,
    SpoolFull,
    StoreError,
)
from authz.model import (
    SECONDS_MAX,
    AuthorizeRequest,
    CallState,
    Denial,
    Grant,
    ReserveRequest,
    Settlement,
    SettleRequest,
    Spooled,
    SwitchRestarted,
)
from authz.reasons import DIRECTIONS, REASONS, CallClass
from authz.store import keys
from authz.store.client import StoreClient
from authz.store.layouts import SETTLE
from authz_ext.numbers import NumberRules

_RELEASE_TRIES_MAX = 60
_RELEASE_PAUSE_SECONDS = 1


class Engine:
    """Decides, extends and settles calls of one process."""

    def __init__(
        self,
        client: StoreClient,
        decks: Decks,
        rules: NumberRules,
        settings: Settings,
        spool: Spool,
    ) -> None:
        self.context = Context(client, decks, rules, settings)
        self.outage = OutagePolicy(settings.failure)
        self.spool = spool
        self.denials = DenialCounter(self.context)
        self._settings = settings
        self._tasks: set[asyncio.Task[Any]] = set()

    def is_emergency(self, request: AuthorizeRequest) -> bool:
        """Return whether the request is always allowed, whatever the load."""
        call_class = self.context.rules.classify(request.to)[1]
        return call_class == CallClass.EMERGENCY and request.direction == "outbound"

    async def authorize(self, request: AuthorizeRequest) -> Grant | Denial:
        """Decide whether a call may start; see DESIGN's order in docs/ARCHITECTURE.md."""
        call = make_call(self.context, request)
        if call.is_emergency:
            return self._emergency(call)
        try:
            answer = await authorizing.authorize(self.context, call)
        except StoreError as error:
            return self._authorize_without_store(call, error)
        if self.outage.is_outage:
            self.outage.store_answered()
        if isinstance(answer, Denial):
            return self._denied(call, answer)
        return answer

    async def reserve(self, request: ReserveRequest) -> Grant | Denial:
        """Decide whether a running call may go on; with `to`, adopt one that is unknown."""
        emergency_number = self._emergency_number(request)
        try:
            answer = await reserving.reserve(self.context, request)
        except StoreError as error:
            answer = self._reserve_without_store(request, error)
        else:
            if self.outage.is_outage:
                self.outage.store_answered()
        if isinstance(answer, Grant):
            return answer
        calls = self._settings.calls
        if emergency_number is not None:
            return grant(
                calls,
                request.call_id,
                CallClass.EMERGENCY,
                emergency_number,
                used_seconds=request.used_seconds,
            )
        if not self.is_enforced(request.account):
            number = self.context.rules.normalize(request.to) if request.to else ""
            return unenforced(calls, answer, number, request.used_seconds)
        return answer

    async def settle(self, request: SettleRequest) -> Settlement | Spooled:
        """Book the end of a call exactly once, or keep it on disk until that is possible.

        Raises CallUnknown, SettledDifferently, SpoolFull and InvalidInput.
        """
        if request.answered_at is not None:
            parse_moment(request.answered_at, "answered_at")
        if request.ended_at is not None:
            parse_moment(request.ended_at, "ended_at")
        try:
            answer = await settling.settle(self.context, request)
        except CallTooOld:
            return await self._leave_to_office(request)
        except StoreError as error:
            return await self._spool(request, error)
        if self.outage.is_outage:
            self.outage.store_answered()
        if self.outage.has_let_through:
            self.outage.ended(request.account, request.call_id)
        return answer

    async def call(self, account: str, call_id: str) -> CallState | None:
        """Return what the store knows of a call, or None."""
        return await call_state(self.context, account, call_id)

    def is_enforced(self, account: str) -> bool:
        """Return whether the account's denials keep its calls from starting."""
        chain = self.context.directory.cached(account)
        return self._settings.calls.enforce and (chain is None or chain.accounts[0].config.enforce)

    async def switch_restarted(self, name: str) -> SwitchRestarted:
        """Make orphans of all calls that a switch had open before now."""
        return await orphan_switch(self.context, name)

    async def replay_spool(self) -> None:
        """Book what waits in this process's spool; settles that conflict become dead letters."""
        if self.spool.depth and self.context.client.connected:
            await self.spool.replay(self.book_spooled, self.bury_spooled)

    async def book_spooled(self, spooled: SpooledSettle) -> Booking:
        """Book one settle that was kept on disk; never spools again."""
        request = spooled.request
        if request.ended_at is None:
            request = msgspec.structs.replace(request, ended_at=spooled.received_at)
        try:
            answer = await settling.settle(self.context, request)
        except SettledDifferently as error:
            return Booking(SpoolOutcome.CONFLICT, f"settled_differently: {error}")
        except CallTooOld:
            return await self._leave_spooled_to_office(request)
        except CallUnknown as error:
            return Booking(SpoolOutcome.CONFLICT, f"call_unknown: {error}")
        except InvalidInput as error:
            return Booking(SpoolOutcome.CONFLICT, f"invalid: {error}")
        except StoreError:
            return Booking(SpoolOutcome.RETRY)
        return Booking(SpoolOutcome.DUPLICATE if answer.duplicate else SpoolOutcome.BOOKED)

    async def bury_spooled(self, letter: DeadLetter) -> None:
        """Tell the operator that a spooled settle cannot be booked."""
        request = None if letter.settle is None else letter.settle.request
        log.event(
            "settle_dead_letter",
            level="error",
            reason=letter.reason,
            file=letter.file,
            account=None if request is None else request.account,
            call_id=None if request is None else request.call_id,
        )

    async def close(self) -> None:
        """Finish what runs in the background."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self._settings.server.drain_seconds)
        for task in self._tasks:
            task.cancel()
        await self.context.resend.close()
        self.context.resend.forget()
        await self.spool.close()

    # Emergency calls, denials that are not enforced.

    def _emergency(self, call: Call) -> Grant:
        """Allow at once, before any I/O; the record follows."""
        request = call.request
        if not request.dry_run:
            self._remember_outside(call)
            self._in_background(self._record_emergency(call))
        return grant(
            self._settings.calls,
            request.call_id,
            call.call_class,
            call.number,
            dry_run=request.dry_run,
        )

    def _emergency_number(self, request: ReserveRequest) -> str | None:
        """Return the number that a running emergency call has dialled; None for other calls."""
        plan = self.context.memory.get(request.account, request.call_id)
        if plan is not None:
            return plan.number if plan.is_emergency else None
        if request.to is None or request.direction != "outbound":
            return None
        number, call_class = self.context.rules.classify(request.to)
        return number if call_class == CallClass.EMERGENCY else None

    async def _record_emergency(self, call: Call) -> None:
        request = call.request
        try:
            answer = await authorizing.authorize(self.context, call)
        except StoreError as error:
            log.event(
                "emergency_not_recorded",
                level="warning",
                account=request.account,
                call_id=request.call_id,
                error=error,
            )
            return
        if isinstance(answer, Denial):
            log.event(
                "emergency_not_recorded",
                level="warning",
                account=request.account,
                call_id=request.call_id,
                reason=answer.reason,
            )

    def _denied(self, call: Call, refused: Denial) -> Grant | Denial:
        request = call.request
        log.event(
            "call_denied",
            level="debug",
            account=request.account,
            call_id=request.call_id,
            reason=refused.reason,
        )
        is_enforced = self.is_enforced(request.account)
        is_tentative = isinstance(request, ExcusedAuthorize) and request.is_tentative
        if not request.dry_run and not (is_tentative and is_enforced):
            self.denials.count(refused.account, refused.reason, call.number, enforced=is_enforced)
        if is_enforced:
            return msgspec.structs.replace(refused, dry_run=request.dry_run)
        known = self.context.memory.get(request.account, request.call_id)
        # A refused repeat must not hide the call that runs under this id.
        if not request.dry_run and (known is None or not known.in_store):
            self._remember_outside(call)
        return unenforced(self._settings.calls, refused, call.number)

    def _remember_outside(self, call: Call) -> None:
        """Remember a call that runs without a record, so that its settle can be booked."""
        self.context.memory.put(plan_of(call, self.context.clock.now(), in_store=False))

    # The store is away.

    def _authorize_without_store(self, call: Call, error: StoreError) -> Grant | Denial:
        request, calls = call.request, self._settings.calls
        if isinstance(error, NotExecuted) and error.code == "OOM" and not call.is_exempt:
            return self._denied(call, self._refusal(call, "store_full"))
        self.outage.store_failed()
        asked = request.seconds or calls.chunk_seconds
        seconds = None
        if not call.is_exempt:
            seconds = self.outage.admit(request.account, request.call_id, asked)
            if seconds is None:
                if not request.dry_run and not isinstance(error, NotExecuted):
                    self._in_background(self._release(call))
                return self._denied(call, self._refusal(call, "store_unavailable"))
        self._remember_outside(call)
        return grant(
            calls, request.call_id, call.call_class, call.number, seconds=seconds, degraded=True
        )

    def _refusal(self, call: Call, reason: str) -> Denial:
        request = call.request
        return denial(
            request.call_id, REASONS[reason], request.account, call.call_class, call.direction
        )

    async def _release(self, call: Call) -> None:
        """Take back a call that was refused here, should its script have allowed it after all."""
        request = call.request
        for _ in range(_RELEASE_TRIES_MAX):
            try:
                chain = await self.context.directory.chain(request.account)
                if chain is None:
                    return
                await self.context.run(
                    "release",
                    chain,
                    request.call_id,
                    [
                        SETTLE.pack(attempt=call.attempt, closed_hours=self.context.closed_hours),
                        b"",
                        keys.call_member(request.account, request.call_id),
                    ],
                    self._settings.store.settle_deadline_ms,
                )
                return
            except StoreError:
                await asyncio.sleep(_RELEASE_PAUSE_SECONDS)
        log.event(
            "release_given_up", level="warning", account=request.account, call_id=request.call_id
        )

    def _reserve_without_store(self, request: ReserveRequest, error: StoreError) -> Grant | Denial:
        self.outage.store_failed()
        calls = self._settings.calls
        plan = self.context.memory.get(request.account, request.call_id)
        direction = DIRECTIONS[request.direction] if plan is None else plan.direction
        if not self.outage.may_extend():
            return denial(
                request.call_id,
                REASONS["store_unavailable"],
                request.account,
                None if plan is None else plan.call_class,
                direction,
            )
        log.event(
            "call_extended_without_store",
            level="debug",
            account=request.account,
            call_id=request.call_id,
            error=error,
        )
        number, call_class = "", CallClass.UNKNOWN
        if plan is not None:
            number, call_class = plan.number, plan.call_class
        elif request.to is not None:
            number, class_code = self.context.rules.classify(request.to)
            call_class = CallClass(class_code)
        return grant(
            calls,
            request.call_id,
            call_class,
            number,
            seconds=min(request.used_seconds + calls.chunk_seconds, SECONDS_MAX),
            used_seconds=request.used_seconds,
            degraded=True,
        )

    async def _leave_to_office(self, request: SettleRequest) -> Spooled:
        """Let the office process look into the archive, which alone knows of such old calls."""
        try:
            late = self._self_contained(request)
            await hand_over(self.context.client, late, self.context.clock.now())
        except StoreError as error:
            return await self._spool(request, error)
        self.outage.ended(request.account, request.call_id)
        return Spooled(request.call_id)

    async def _leave_spooled_to_office(self, request: SettleRequest) -> Booking:
        try:
            await hand_over(self.context.client, request, self.context.clock.now())
        except (StoreError, SpoolFull):
            return Booking(SpoolOutcome.RETRY)
        return Booking(SpoolOutcome.BOOKED)

    def _self_contained(self, request: SettleRequest) -> SettleRequest:
        """Return the settle with all that this process knows of its call."""
        plan = self.context.memory.get(request.account, request.call_id)
        if plan is None or request.to is not None or not plan.dialled:
            return request
        return msgspec.structs.replace(
            request,
            to=plan.dialled,
            direction=plan.direction.label,
            ended_at=request.ended_at or self.context.clock.now(),
            rate_number=plan.rate_number,
        )

    async def _spool(self, request: SettleRequest, error: StoreError) -> Spooled:
        self.outage.store_failed()
        now = self.context.clock.now()
        await self.spool.append(SpooledSettle.of(self._self_contained(request), now))
        self.outage.ended(request.account, request.call_id)
        log.event(
            "settle_spooled",
            level="warning",
            account=request.account,
            call_id=request.call_id,
            error=error,
        )
        return Spooled(request.call_id)

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
