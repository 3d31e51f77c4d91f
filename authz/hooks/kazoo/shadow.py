"""Shadow mode: hear every question, answer none, and tell where jonny5 decides otherwise.

Questions come on queues of our own, beside those of jonny5 and hotornot; their answers are the
broadcasts that they send anyway. Nothing is written: every decision is a dry run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from msgspec import Struct

from authz import log, meters
from authz.config.kazoo import KazooSettings
from authz.engine.engine import Engine
from authz.errors import StoreError
from authz.hooks.kazoo.authorize import Authorizer
from authz.hooks.kazoo.broker import APP_NAME, KazooBroker
from authz.hooks.kazoo.calls import Link
from authz.hooks.kazoo.comparison import Difference, compare_decisions, compare_rates
from authz.hooks.kazoo.deliveries import Delivery
from authz.hooks.kazoo.dids import DidLimits
from authz.hooks.kazoo.legs import Leg
from authz.hooks.kazoo.messages import AuthorizeAnswer, AuthorizeRequest, RateAnswer, RateRequest
from authz.hooks.kazoo.rating import find_rate
from authz.hooks.kazoo.topology import Source
from authz.model import Grant
from authz.reasons import Excuse

#: Questions that wait for the other answer, and how long.
_WAITING_MAX: Final = 20_000
_WAITING_SECONDS: Final = 30
_LOOK_SECONDS: Final = 5
#: Differences that are logged in a minute; all are counted.
_LOGGED_MAX: Final = 600
_LOGGED_SECONDS: Final = 60
_COMPARED: Final = meters.counters("authz_kazoo_shadow_total")

Answer = AuthorizeAnswer | RateAnswer


class _Question(Struct):
    """A question on which one side has decided, or both. `None` is an answer, too: no rate."""

    at: float
    account: str = ""
    ours: Answer | None = None
    theirs: Answer | None = None
    has_ours: bool = False
    has_theirs: bool = False


class _Nobody:
    """Looks after no call: none is let through here."""

    is_full = False

    def watch(
        self, leg: Leg, number: str, grant: Grant, link: Link, excuses: Mapping[str, Excuse]
    ) -> None:
        """Do nothing."""


class Shadow:
    """A `BrokerUser` that compares."""

    def __init__(self, engine: Engine, settings: KazooSettings) -> None:
        """Decide by the engine's accounts and decks, without a trace."""
        self._context = engine.context
        self._settings = settings
        self._authorizer = Authorizer(engine, settings, DidLimits(engine.context), _Nobody())
        self._questions: dict[tuple[str, str], _Question] = {}
        self._logged = 0
        self._unlogged = 0
        self._minute_began_at = 0.0

    # As a user of brokers.

    def attach(self, broker: KazooBroker) -> None:
        """Listen to questions and to the answers that others broadcast."""
        broker.consume(Source.REQUESTS, "authz", "authz_req", self.take_authorize)
        broker.consume(Source.EVENTS, "authz", "authz_resp", self.take_decision)
        if self._settings.rates:
            broker.consume(Source.RATES, "rate", "req", self.take_rate)
            broker.consume(Source.EVENTS, "rate", "resp", self.take_rated)

    async def on_up(self, broker: KazooBroker) -> None:
        """Give up on questions that nobody answers, as long as the broker is connected."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            self.expire(asyncio.get_running_loop().time() - _WAITING_SECONDS)

    def on_down(self, broker: KazooBroker) -> None:
        """Forget what waits: its answer may have been missed."""
        self._questions.clear()

    async def drain(self, limit_seconds: float) -> None:
        """Have nothing to finish."""

    # Questions, and what we would have said.

    async def take_authorize(self, delivery: Delivery[AuthorizeRequest]) -> None:
        """Decide a call without a trace."""
        message, header = delivery.message, delivery.header
        key = ("authorize", header.msg_id)
        account = message.variable("Account-ID")
        ours = await self._authorizer.decide(message, header.node, None)
        self._note(key, account=account, ours=ours, has_ours=True)

    async def take_rate(self, delivery: Delivery[RateRequest]) -> None:
        """Look a rate up."""
        key = ("rate", delivery.header.msg_id)
        try:
            ours = await find_rate(self._context, delivery.message)
        except StoreError:
            # There is nothing to compare with.
            return
        self._note(key, account=delivery.message.account_id, ours=ours, has_ours=True)

    # What they said.

    async def take_decision(self, delivery: Delivery[AuthorizeAnswer]) -> None:
        """Note jonny5's decision; another daemon of ours is no witness."""
        if delivery.header.app_name != APP_NAME:
            key = ("authorize", delivery.header.msg_id)
            self._note(key, theirs=delivery.message, has_theirs=True)

    async def take_rated(self, delivery: Delivery[RateAnswer]) -> None:
        """Note hotornot's rate."""
        if delivery.header.app_name != APP_NAME:
            key = ("rate", delivery.header.msg_id)
            self._note(key, theirs=delivery.message, has_theirs=True)

    # Both together.

    def expire(self, before: float) -> None:
        """Give up on questions from before that moment of the loop's clock."""
        while self._questions:
            key, question = next(iter(self._questions.items()))
            if question.at > before and len(self._questions) <= _WAITING_MAX:
                return
            del self._questions[key]
            # An answer without a question is one to a question from before we listened.
            if question.has_ours and question.at <= before:
                subject = key[0]
                if subject == "rate" and question.ours is None:
                    # Nor has hotornot a rate: it broadcasts none.
                    _COMPARED[subject, "same"].add()
                    continue
                _COMPARED[subject, "unanswered"].add()
                self._log("kazoo_shadow_unanswered", subject, key[1], question)

    def _note(self, key: tuple[str, str], **fields: Any) -> None:
        now = asyncio.get_running_loop().time()
        question = self._questions.setdefault(key, _Question(now))
        for name, value in fields.items():
            setattr(question, name, value)
        if question.has_ours and question.has_theirs:
            del self._questions[key]
            self._compare(key, question)
        elif len(self._questions) > _WAITING_MAX:
            self.expire(now - _WAITING_SECONDS)

    def _compare(self, key: tuple[str, str], question: _Question) -> None:
        subject, msg_id = key
        differences = _differences(question)
        if not differences:
            _COMPARED[subject, "same"].add()
            return
        _COMPARED[subject, differences[0].cause].add()
        for one in differences:
            self._log("kazoo_shadow_differs", subject, msg_id, question, one)

    def _log(
        self,
        name: str,
        subject: str,
        msg_id: str,
        question: _Question,
        difference: Difference | None = None,
    ) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._minute_began_at >= _LOGGED_SECONDS:
            if self._unlogged:
                log.event("kazoo_shadow_unlogged", level="warning", count=self._unlogged)
            self._minute_began_at, self._logged, self._unlogged = now, 0, 0
        if self._logged >= _LOGGED_MAX:
            self._unlogged += 1
            return
        self._logged += 1
        answer = question.ours or question.theirs
        log.event(
            name,
            level="warning",
            subject=subject,
            msg_id=msg_id,
            call_id="" if answer is None else answer.call_id,
            account=question.account,
            field=None if difference is None else difference.field,
            ours=None if difference is None else difference.ours,
            theirs=None if difference is None else difference.theirs,
            cause=None if difference is None else difference.cause,
            defect=None if difference is None else difference.defect or None,
        )


def _differences(question: _Question) -> tuple[Difference, ...]:
    ours, theirs = question.ours, question.theirs
    if isinstance(theirs, RateAnswer):
        return compare_rates(ours if isinstance(ours, RateAnswer) else None, theirs)
    if isinstance(ours, AuthorizeAnswer) and isinstance(theirs, AuthorizeAnswer):
        return compare_decisions(ours, theirs)
    return ()
