"""Surveys: which channels the ecallmgrs have, against the calls that we and the store believe in.

They are the evidence on which calls are extended. A channel that we do not know is taken in, one
whose answer we have missed is charged from now on, and a call that its own ecallmgr does not have
any more, and no other one either, becomes an orphan. An ecallmgr that does not answer ends none.
"""

from __future__ import annotations

import asyncio
from typing import Final

from msgspec import Struct

from authz import log
from authz.config.kazoo import KazooSettings
from authz.engine.engine import Engine
from authz.engine.switches import claim_ended, open_calls_of
from authz.errors import AuthzError, StoreError
from authz.hooks.kazoo.calls import CallBook, Link, LiveCall
from authz.hooks.kazoo.encoding import from_gregorian
from authz.hooks.kazoo.excuses import excuses_by_words, is_let_through
from authz.hooks.kazoo.hangups import Hangups
from authz.hooks.kazoo.messages import Channel
from authz.hooks.kazoo.midcall import Supervisor
from authz.model import SECONDS_MAX

_US: Final = 1_000_000
_INTERVAL_SECONDS_MIN: Final = 1
#: How often it is looked whether calls have begun meanwhile.
_LOOK_SECONDS: Final = 1.0
#: A call this young may have begun while its ecallmgr was answering.
YOUNG_SECONDS: Final = 10
#: A channel must be missed by so many surveys in a row.
_MISSES: Final = 2
#: Channels that are looked at before others get a turn: questions must not wait for a whole node.
_AT_ONCE: Final = 500


class Survey(Struct):
    """What the ecallmgrs of a zone have answered."""

    channels: dict[str, Channel]
    #: By call id, the ecallmgr that told of it.
    nodes: dict[str, str]
    #: Who has answered.
    answered: set[str]


class Surveyor:
    """Surveys the zones."""

    def __init__(
        self,
        engine: Engine,
        settings: KazooSettings,
        book: CallBook,
        supervisor: Supervisor,
        hangups: Hangups,
    ) -> None:
        self._engine = engine
        self._settings = settings
        self._book = book
        self._supervisor = supervisor
        self._hangups = hangups
        #: Calls taken in and calls made orphans since the start.
        self.adopted = 0
        self.missed = 0

    @property
    def interval_seconds(self) -> float:
        """How long from the end of one survey to the next.

        While calls live there are two in a chunk: a call is extended on evidence younger than that.
        """
        if not len(self._book):
            return self._settings.reconcile_seconds
        chunk = self._engine.context.settings.calls.chunk_seconds
        pause = max(_INTERVAL_SECONDS_MIN, chunk // 2 - self._settings.query_seconds)
        return min(self._settings.reconcile_seconds, pause)

    async def run(self, link: Link) -> None:
        """Survey a zone again and again, first against the store; until cancelled."""
        is_first = True
        while True:
            try:
                survey = await self.survey(link)
                if is_first:
                    await self.end_missing(survey)
                    is_first = False
            except AuthzError as error:
                log.event("kazoo_survey_failed", level="warning", zone=link.zone, error=error)
            await self._until_due()

    async def _until_due(self) -> None:
        """Wait for the next survey. The first call of a quiet time does not wait for its end."""
        loop = asyncio.get_running_loop()
        ended_at = loop.time()
        while True:
            left_seconds = ended_at + self.interval_seconds - loop.time()
            if left_seconds <= 0:
                return
            await asyncio.sleep(min(left_seconds, _LOOK_SECONDS))

    async def survey(self, link: Link) -> Survey:
        """Ask a zone's ecallmgrs once, and act on what they say. Raises KazooError, StoreError."""
        asked_at = asyncio.get_running_loop().time()
        survey = Survey({}, {}, set())
        for answer in await link.query_channels():
            survey.answered.add(answer.node)
            self._hangups.know(answer.node, link)
            for channel in answer.channels:
                survey.channels[channel.call_id] = channel
                survey.nodes[channel.call_id] = answer.node
        for number, channel in enumerate(survey.channels.values(), 1):
            self._take(channel, survey.nodes[channel.call_id], link, asked_at)
            if number % _AT_ONCE == 0:
                await asyncio.sleep(0)
        for number, call in enumerate(self._book, 1):
            if number % _AT_ONCE == 0:
                await asyncio.sleep(0)
            # It may have ended meanwhile.
            if call.link is link and self._book.get(call.call_id) is call:
                await self._compare(call, survey, asked_at)
        return survey

    def _take(self, channel: Channel, node: str, link: Link, asked_at: float) -> None:
        """Go on with a live channel, known or not."""
        call = self._book.get(channel.call_id)
        if call is None:
            call = self._adopt(channel, node, link)
            if call is None:
                return
        self._supervisor.hear(call)
        # Where its ecallmgr answers is where orders reach it; events come from other zones as well.
        call.link = link
        call.switch = call.switch or channel.switch_nodename
        if channel.is_answered and call.answered_at is None and call.began_at < asked_at:
            # When it was answered nobody has told: not before the channel was there.
            elapsed_seconds = self._elapsed_seconds(channel)
            self._supervisor.answered(call, min(elapsed_seconds, self._age(call)))

    def _elapsed_seconds(self, channel: Channel) -> int:
        """Return for how long a channel has been there, by either way in which that is told."""
        began_at = from_gregorian(channel.timestamp)
        age = self._engine.context.clock.now() - began_at if channel.timestamp else 0
        return max(0, channel.elapsed_seconds, age if age <= SECONDS_MAX else 0)

    def _age(self, call: LiveCall) -> float:
        """Return the longest time for which a call may have been answered."""
        return asyncio.get_running_loop().time() - call.began_at

    def _adopt(self, channel: Channel, node: str, link: Link) -> LiveCall | None:
        is_let = is_let_through(channel.account_billing, channel.reseller_billing)
        if not channel.account_id or not is_let or self._book.has_ended(channel.call_id):
            return None
        now = asyncio.get_running_loop().time()
        number, _ = self._engine.context.rules.classify(channel.destination)
        call = LiveCall(
            call_id=channel.call_id,
            account=channel.account_id,
            excuses=excuses_by_words(
                channel.account_id,
                channel.account_billing,
                channel.reseller_id,
                channel.reseller_billing,
            ),
            direction="inbound" if channel.call_direction == "inbound" else "outbound",
            number=number,
            node=node,
            link=link,
            switch=channel.switch_nodename,
            began_at=now - self._elapsed_seconds(channel),
            heard_at=now,
            ring_asked_at=now,
        )
        if not self._book.add(call):
            return None
        self.adopted += 1
        self._supervisor.start(call, None)
        return call

    async def _compare(self, call: LiveCall, survey: Survey, asked_at: float) -> None:
        """End a call that its own ecallmgr, and every other one that answered, has no more."""
        if call.call_id in survey.channels or call.node not in survey.answered:
            return
        if call.began_at > asked_at - YOUNG_SECONDS:
            return
        call.missed += 1
        if call.missed >= _MISSES:
            self._supervisor.stop(call)
            await self._orphan(call.account, call.call_id)

    async def end_missing(self, survey: Survey) -> None:
        """Make orphans of the store's open calls that an ecallmgr has no more. Raises StoreError.

        For the time in which nobody of ours has listened; only where the survey is complete.
        """
        context = self._engine.context
        for node in survey.answered:
            young_us = (context.clock.now() - YOUNG_SECONDS - self._settings.query_seconds) * _US
            async for call in open_calls_of(context, node):
                is_known = self._book.get(call.call_id) is not None
                is_live = is_known or call.call_id in survey.channels
                if not is_live and call.authorized_us < young_us:
                    await self._orphan(call.account, call.call_id)

    async def _orphan(self, account: str, call_id: str) -> None:
        try:
            if await claim_ended(self._engine.context, account, call_id):
                self.missed += 1
                log.event("kazoo_call_missed", level="warning", account=account, call_id=call_id)
        except StoreError as error:
            # Its lease ends by itself.
            log.event("kazoo_call_missed", level="warning", call_id=call_id, error=error)
