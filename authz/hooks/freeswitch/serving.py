"""Serving one switch: for as long as this process holds its lease, and while another does not.

The lease lies in the store. While the store is away nobody can take the switch over, so whoever
serves it goes on; as soon as the store says that another process has it, this one lets go. If only
this process has lost its way to the store, another one may have taken over: it has left its name on
the switch.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

from authz import log
from authz.config.freeswitch import FreeswitchSettings, SwitchSettings
from authz.engine.engine import Engine
from authz.errors import StoreError
from authz.hooks.freeswitch import commands
from authz.hooks.freeswitch.agent import EVENTS, SwitchAgent
from authz.hooks.freeswitch.connection import EventSocketConnection
from authz.hooks.freeswitch.desk import Desk
from authz.hooks.freeswitch.errors import CommandFailed, SwitchError
from authz.hooks.freeswitch.events import Event
from authz.hooks.freeswitch.link import LinkOptions, LinkState, SwitchLink
from authz.hooks.freeswitch.reconcile import YOUNG_SECONDS, end_missing, take_up_channels
from authz.hooks.freeswitch.settling import Settler
from authz.store.switches import SwitchBoard

#: How often the lease is renewed while it lasts, and how often a standby asks for it.
_RENEWALS: Final = 4
_STANDBY_SECONDS: Final = 1.0
#: How often requests of operators are looked for.
_REQUESTS_SECONDS: Final = 0.25
#: Events between the subscription and the link's word of it.
_EARLY_MAX: Final = 10_000
#: How often the store's calls are compared: the youngest are only judged the second time.
_PASSES: Final = 2
#: How often the store is tried again after a connection.
_STORE_SECONDS: Final = 2.0


class SwitchServer:
    """One switch of the settings, served by this process or stood by for; see the module."""

    def __init__(
        self,
        switch: SwitchSettings,
        settings: FreeswitchSettings,
        engine: Engine,
        settler: Settler,
        owner: str,
    ) -> None:
        """`owner` names this process, unlike any other of any host."""
        self.name = switch.name
        self.agent = SwitchAgent(Desk(switch.name, engine, settings, settler))
        self.is_served = False
        self._lease_seconds = settings.lease_seconds
        self._engine = engine
        self._owner = owner
        #: Whether the store has confirmed the lease when it was last asked.
        self._is_lease_certain = False
        self._board = SwitchBoard(engine.context.client, switch.name, owner)
        self.link = SwitchLink(
            LinkOptions(
                name=switch.name,
                host=switch.host,
                port=switch.port,
                password=settings.password_of(switch),
                events=EVENTS,
                silence_seconds=settings.silence_seconds,
                nudge_seconds=settings.nudge_ms / 1_000,
            ),
            self,
        )
        self._link_task: asyncio.Task[None] | None = None
        self._core_uuid = ""
        self._early: deque[Event] = deque(maxlen=_EARLY_MAX)

    @property
    def is_connected(self) -> bool:
        """Whether the switch is served here, and its calls can be supervised now."""
        return self.agent.desk.connection is not None and not self.agent.draining

    async def run(self) -> None:
        """Serve whenever the lease can be had, until cancelled."""
        try:
            while True:
                pause_seconds = await self._turn()
                await asyncio.sleep(pause_seconds)
        finally:
            await self._let_go()

    async def drain(self, limit_seconds: float) -> None:
        """Finish what is under way, then leave the switch to the next process."""
        await self.agent.drain(limit_seconds)
        await self._let_go()
        try:
            await self._board.leave()
        except StoreError as error:
            log.event("switch_lease_kept", level="warning", switch=self.name, error=error)

    async def _turn(self) -> float:
        """Ask for the lease once and do as the answer says; return how long to wait."""
        if self.agent.draining:
            return _STANDBY_SECONDS
        try:
            is_ours = await self._board.hold(self._lease_seconds)
            self._is_lease_certain = is_ours
        except StoreError:
            # Whoever serves goes on; whoever does not, waits.
            self._is_lease_certain = False
            is_ours = self.is_served and not await self._is_overtaken()
        if self._link_task is not None and self._link_task.done():
            log.event(
                "switch_served_anew",
                level="error",
                switch=self.name,
                error=None if self._link_task.cancelled() else self._link_task.exception(),
            )
            await self._let_go()
        if is_ours and not self.is_served:
            self._take_up()
        elif self.is_served and not is_ours:
            log.event("switch_taken_over", level="warning", switch=self.name)
            await self._let_go()
        return self._lease_seconds / _RENEWALS if self.is_served else _STANDBY_SECONDS

    def _take_up(self) -> None:
        log.event("switch_served", switch=self.name)
        self.is_served = True
        self._link_task = asyncio.get_running_loop().create_task(self._serve())

    async def _is_overtaken(self) -> bool:
        """Return whether another process has left its name on the switch, as far as can be seen."""
        connection = self.link.connection
        if connection is None:
            return False
        try:
            return await connection.api(commands.SERVED_BY) not in ("", self._owner)
        except SwitchError:
            return False

    async def _serve(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self.link.run())
            group.create_task(self._take_requests())

    async def _let_go(self) -> None:
        self.is_served = False
        task, self._link_task = self._link_task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        self.agent.desk.connection = None
        self.agent.legs.forget_all()

    async def _take_requests(self) -> None:
        """Do what operators ask for, as long as the switch can be told."""
        while True:
            await asyncio.sleep(_REQUESTS_SECONDS)
            if self.link.state is not LinkState.UP:
                continue
            try:
                requests = await self._board.take_requests()
            except StoreError:
                continue
            for request in requests:
                log.event("hangup_asked", call_id=request.call_id, account=request.account)
                self.agent.hang_up(request)

    # What the link tells.

    async def on_up(self, connection: EventSocketConnection, core_uuid: str) -> None:
        """Take up what the switch has; a restarted one has nothing of before."""
        if not self._is_lease_certain and await self._is_overtaken():
            # The next turn lets go.
            return
        try:
            await connection.api(commands.mark_served(self._owner))
        except CommandFailed as error:
            log.event("switch_not_marked", level="warning", switch=self.name, error=error)
        if self._has_restarted(core_uuid):
            self.agent.legs.forget_all()
        self.agent.desk.connection = connection
        while self._early:
            self.agent.on_event(self._early.popleft())
        await take_up_channels(self.agent, connection)
        # A store that is away must not keep the switch's calls waiting; its part can.
        for _ in range(_PASSES):
            while True:
                if await self._tell_store(connection, core_uuid):
                    break
                await asyncio.sleep(_STORE_SECONDS)
            await asyncio.sleep(YOUNG_SECONDS)

    def _has_restarted(self, core_uuid: str) -> bool:
        before, self._core_uuid = self._core_uuid, core_uuid
        return before not in ("", core_uuid)

    async def _tell_store(self, connection: EventSocketConnection, core_uuid: str) -> bool:
        """End in the store what the switch has no more; False: the store does not answer."""
        try:
            if await self._board.swap_core(core_uuid) not in (None, core_uuid):
                await self._engine.switch_restarted(self.name)
            await end_missing(self.agent, connection)
        except StoreError as error:
            log.event("switch_not_reconciled", level="warning", switch=self.name, error=error)
            return False
        return True

    def on_event(self, event: Event) -> None:
        """Take one event; those that come before the link is up wait for that."""
        if self.agent.desk.connection is None:
            self._early.append(event)
        else:
            self.agent.on_event(event)

    def on_down(self, reason: str) -> None:
        """Decide nothing until the switch is back; its own timers limit its calls."""
        self._early.clear()
        self.agent.desk.connection = None
