"""The agent of Kazoo's calls: which message goes to which part, and what becomes of live calls."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

from authz import log
from authz.config.kazoo import KazooSettings
from authz.engine.engine import Engine
from authz.errors import StoreError
from authz.hooks.kazoo.authorize import Authorizer
from authz.hooks.kazoo.balances import check_balances
from authz.hooks.kazoo.broker import KazooBroker
from authz.hooks.kazoo.calls import CallBook, Link, LiveCall, new_call
from authz.hooks.kazoo.deliveries import Delivery
from authz.hooks.kazoo.dids import DidLimits
from authz.hooks.kazoo.encoding import from_gregorian
from authz.hooks.kazoo.excuses import excuses_by_words, is_let_through
from authz.hooks.kazoo.hangups import Hangups
from authz.hooks.kazoo.legs import Leg, read_leg
from authz.hooks.kazoo.messages import (
    AuthorizeRequest,
    BalanceAnswer,
    BalanceRequest,
    CallEvent,
    RateAnswer,
    RateRequest,
)
from authz.hooks.kazoo.midcall import Supervisor
from authz.hooks.kazoo.rating import find_rate
from authz.hooks.kazoo.reconcile import Surveyor
from authz.hooks.kazoo.settling import ChannelSettler
from authz.hooks.kazoo.topology import Source
from authz.model import Grant
from authz.reasons import Excuse

#: How old an event may be; a clock that is wrong must not cost anybody more.
_EVENT_AGE_SECONDS_MAX: Final = 10
_DESTROY: Final = "CHANNEL_DESTROY"
_DISCONNECTED: Final = "CHANNEL_DISCONNECTED"
#: Events that only prove that a channel lives.
_SIGNS_OF_LIFE: Final = (
    "CHANNEL_CREATE",
    "CHANNEL_BRIDGE",
    "CHANNEL_UNBRIDGE",
    "CHANNEL_CONNECTED",
)


class KazooAgent:
    """A `BrokerUser` that decides, prices, supervises and settles calls in active mode."""

    def __init__(self, engine: Engine, settings: KazooSettings, owner: str) -> None:
        """`owner` is this process's name among those that serve the same brokers."""
        self._engine = engine
        self._settings = settings
        self.book = CallBook(settings.calls_max)
        dids = DidLimits(engine.context)
        self.hangups = Hangups(engine.context.client, settings, self.book, owner)
        self.supervisor = Supervisor(engine, settings, self.book, self.hangups, dids)
        self.authorizer = Authorizer(engine, settings, dids, self)
        self.settler = ChannelSettler(engine, dids)
        self.surveyor = Surveyor(engine, settings, self.book, self.supervisor, self.hangups)

    # As a user of brokers.

    def attach(self, broker: KazooBroker) -> None:
        """Say which messages are wanted."""
        consume = broker.consume
        consume(Source.REQUESTS, "authz", "authz_req", self.take_authorize)
        consume(Source.REQUESTS, "authz", "balance_check_req", self.take_balance_check)
        if self._settings.rates:
            consume(Source.RATES, "rate", "req", self.take_rate)
        for name in (_DESTROY, _DISCONNECTED):
            consume(Source.HANGUPS, "call_event", name, self.take_hangup)
        consume(Source.EVENTS, "call_event", "CHANNEL_ANSWER", self.take_answer)
        consume(Source.EVENTS, "call_event", _DESTROY, self.take_end)
        for name in _SIGNS_OF_LIFE:
            consume(Source.EVENTS, "call_event", name, self.take_sign_of_life)

    async def on_up(self, broker: KazooBroker) -> None:
        """Find the live calls again, and look after them as long as the broker is connected."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.surveyor.run(broker))
            group.create_task(self.hangups.run(broker))

    def on_down(self, broker: KazooBroker) -> None:
        """Keep the calls: without evidence none is extended, and at its end each is hung up."""

    async def drain(self, limit_seconds: float) -> None:
        """Finish what is under way, and leave the calls to others."""
        await self.supervisor.drain(limit_seconds)
        await self.hangups.leave()

    # Questions.

    async def take_authorize(self, delivery: Delivery[AuthorizeRequest]) -> None:
        """Decide a channel, and tell who asked and all who follow decisions."""
        header, broker = delivery.header, delivery.broker
        try:
            answer = await self.authorizer.decide(delivery.message, header.node, broker)
        except Exception as error:
            log.event("kazoo_not_decided", level="error", error=error,
                      call_id=delivery.message.call_id)  # fmt: skip
            answer = self.authorizer.refuse(delivery.message, header.node)
        await broker.reply(header, answer)
        await broker.broadcast(header, answer)

    async def take_balance_check(self, delivery: Delivery[BalanceRequest]) -> None:
        """Say which accounts can go on; nothing without the store, by which nobody is cut off."""
        try:
            context = self._engine.context
            balances = await check_balances(context, delivery.message.accounts)
        except StoreError:
            return
        await delivery.broker.reply(delivery.header, BalanceAnswer(balances=balances))

    async def take_rate(self, delivery: Delivery[RateRequest]) -> None:
        """Tell a call's rate, or that there is none."""
        header, broker = delivery.header, delivery.broker
        answer = await find_rate(self._engine.context, delivery.message)
        if answer is not None:
            await broker.reply(header, answer)
            await broker.broadcast(header, answer)
        elif delivery.message.send_empty:
            await broker.reply(header, RateAnswer())

    # Ends, each told to one process.

    async def take_hangup(self, delivery: Delivery[CallEvent]) -> None:
        """Book an ended channel; returns once that is safe."""
        header, event = delivery.header, delivery.message
        if header.event_name == _DISCONNECTED:
            # Its ecallmgr has lost the switch, which may well go on with the call: a charge now
            # would be the last word. If it is gone, surveys miss it, and it becomes an orphan.
            return
        await self.settler.settle(event, header.node, self.book.find(event.call_id))
        self._end(event.call_id)

    # Events, told to every process.

    async def take_end(self, delivery: Delivery[CallEvent]) -> None:
        """Look after an ended call no more."""
        self._end(delivery.message.call_id)

    async def take_answer(self, delivery: Delivery[CallEvent]) -> None:
        """Start a call's clock."""
        event = delivery.message
        leg = read_leg(event, delivery.header.node)
        call = self.book.get(leg.call_id) or self._adopt(leg, delivery.broker)
        if call is None:
            return
        self._note(call, leg, event, delivery.broker)
        now = self._engine.context.clock.now()
        age = now - from_gregorian(event.timestamp)
        self.supervisor.answered(call, min(max(0, age), _EVENT_AGE_SECONDS_MAX))

    async def take_sign_of_life(self, delivery: Delivery[CallEvent]) -> None:
        """Note that a channel lives."""
        call = self.book.get(delivery.message.call_id)
        if call is not None:
            leg = read_leg(delivery.message, delivery.header.node)
            self._note(call, leg, delivery.message, delivery.broker)

    @property
    def is_full(self) -> bool:
        """Whether no more calls can be looked after."""
        return self.book.is_full

    def watch(
        self, leg: Leg, number: str, grant: Grant, link: Link, excuses: Mapping[str, Excuse]
    ) -> None:
        """Look after a call that was let through here."""
        call = self.book.get(leg.call_id)
        if call is None or call.account != leg.account:
            now = asyncio.get_running_loop().time()
            call = new_call(leg, number, link, now, excuses)
            if not self.book.add(call):
                return
        call.is_own = True
        self.hangups.know(leg.node, link)
        self.supervisor.start(call, grant)

    def _adopt(self, leg: Leg, link: Link) -> LiveCall | None:
        """Take in a call that another process looks after."""
        is_let = is_let_through(leg.account_billing, leg.reseller_billing)
        if not leg.account or not is_let or not leg.is_readable:
            return None
        number, _ = self._engine.context.rules.classify(leg.to)
        now = asyncio.get_running_loop().time()
        excuses = excuses_by_words(
            leg.account, leg.account_billing, leg.reseller, leg.reseller_billing
        )
        call = new_call(leg, number, link, now, excuses)
        if not self.book.add(call):
            return None
        self.hangups.know(leg.node, link)
        self.supervisor.start(call, None)
        return call

    def _note(self, call: LiveCall, leg: Leg, event: CallEvent, link: Link) -> None:
        self.supervisor.hear(call)
        call.switch = event.switch_nodename or call.switch
        self.hangups.know(leg.node, link)

    def _end(self, call_id: str) -> None:
        call = self.book.end(call_id)
        if call is not None:
            self.supervisor.stop(call)
