"""The link to one switch: one inbound connection, kept alive as long as anybody wants it.

It connects, logs in, subscribes, tells its handler, watches for silence, and does so again with
growing pauses whenever the connection is lost. What a lost connection means for calls is the
handler's: nothing is replayed by the switch, and a switch that cannot be reached is not a switch
without calls.
"""

from __future__ import annotations

import asyncio
import enum
import random
from typing import Final, Protocol

import msgspec

from authz import log, meters
from authz.errors import AuthzError
from authz.hooks.freeswitch import commands
from authz.hooks.freeswitch.connection import (
    COMMAND_TIMEOUT_SECONDS,
    EventSocketConnection,
    Traffic,
)
from authz.hooks.freeswitch.errors import SwitchError, SwitchRefused, SwitchUnreachable
from authz.hooks.freeswitch.events import Event

#: Asked for on every link; BACKGROUND_JOB carries the answers of background commands.
_OWN_EVENTS: Final = ("HEARTBEAT", "BACKGROUND_JOB")
_SILENCE_CHECKS: Final = 4
#: A connection that lasted so long was a good one: the next is tried without growing pauses.
_STEADY_SECONDS: Final = 5.0


_CONNECTS: Final = meters.counter("authz_freeswitch_connects_total")
_FAILURES: Final = meters.counter("authz_freeswitch_failures_total")


class LinkOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a link reaches its switch and how patient it is. Times are seconds."""

    name: str
    host: str
    port: int = 8021
    password: str = "ClueCon"
    #: Names of events beside HEARTBEAT and BACKGROUND_JOB.
    events: tuple[str, ...] = ()
    #: Subclasses of CUSTOM events.
    subclasses: tuple[str, ...] = ()
    connect_timeout_seconds: float = 5.0
    command_timeout_seconds: float = COMMAND_TIMEOUT_SECONDS
    #: After so long without a byte the switch is asked for a sign of life. Its own heartbeat
    #: comes every 20 s unless configured otherwise.
    silence_seconds: float = 45.0
    #: How often an idle switch is woken to look for events; 0 leaves it to its own 20 ms.
    nudge_seconds: float = 0.0
    retry_seconds_min: float = 0.5
    #: Parked calls wait for us meanwhile, so that it must not grow long.
    retry_seconds_max: float = 5.0


class LinkState(enum.Enum):
    """What a link is at; the values are labels of metrics."""

    #: Not running, or between two attempts.
    DOWN = "down"
    CONNECTING = "connecting"
    #: Connected and subscribed; the handler has what it needs.
    UP = "up"
    #: The switch did not let us in at the last attempt.
    REFUSED = "refused"


class LinkHandler(Protocol):
    """Who uses a link."""

    async def on_up(self, connection: EventSocketConnection, core_uuid: str) -> None:
        """The switch is connected and sends events, which come meanwhile as well.

        `core_uuid` is another one after a restart of the switch. Called again after each loss,
        and cancelled if the connection is lost first. An exception gives the connection up.
        """

    def on_event(self, event: Event) -> None:
        """Take one event, in the order of the switch, without blocking."""

    def on_down(self, reason: str) -> None:
        """The connection told of by `on_up` is lost. Its calls go on without us."""


class SwitchLink:
    """Keeps a connection to one switch; see the module. `run` it in a task."""

    def __init__(self, options: LinkOptions, handler: LinkHandler) -> None:
        self.options = options
        self.state = LinkState.DOWN
        self.traffic = Traffic()
        #: How many times the link came up, and how many attempts failed.
        self.connects = 0
        self.failures = 0
        #: The switch's identity at the last connection; a restart changes it.
        self.core_uuid = ""
        self.connection: EventSocketConnection | None = None
        self._handler = handler
        self._last_problem = ""

    async def run(self) -> None:
        """Keep the link until cancelled."""
        pause_seconds = self.options.retry_seconds_min
        try:
            while True:
                self.state = LinkState.CONNECTING
                if await self._live_guarded():
                    pause_seconds = self.options.retry_seconds_min
                # Agents that lost a switch together must not come back together.
                await asyncio.sleep(pause_seconds * random.uniform(0.5, 1.0))
                pause_seconds = min(2 * pause_seconds, self.options.retry_seconds_max)
        finally:
            self.state = LinkState.DOWN
            self._drop("the link is closed")

    async def _live_guarded(self) -> bool:
        """Do as `_live_once`; a defect, ours or the handler's, costs one connection and no more."""
        try:
            return await self._live_once()
        except Exception as error:
            log.event("switch_link_failed", level="error", switch=self.options.name, error=error)
            self.state = LinkState.DOWN
            self._drop("the link failed")
            return False

    async def _live_once(self) -> bool:
        """Connect and stay until the connection is lost; say whether it was up for a while."""
        options = self.options
        try:
            connection = await self._connect()
        except SwitchRefused as error:
            self._report(error)
            self.state = LinkState.REFUSED
            return False
        except AuthzError as error:
            self._report(error)
            self.state = LinkState.DOWN
            return False
        self._last_problem = ""
        self.connects += 1
        _CONNECTS.add()
        self.connection = connection
        self.state = LinkState.UP
        log.event("switch_connected", switch=options.name, core_uuid=self.core_uuid)
        began = asyncio.get_running_loop().time()
        await self._stay(connection)
        self._drop("the link is given up")
        self.state = LinkState.DOWN
        return asyncio.get_running_loop().time() - began >= _STEADY_SECONDS

    async def _connect(self) -> EventSocketConnection:
        options = self.options
        connection = await EventSocketConnection.connect(
            options.host,
            options.port,
            options.password,
            timeout_seconds=options.connect_timeout_seconds,
            on_event=self._handler.on_event,
            traffic=self.traffic,
            command_timeout_seconds=options.command_timeout_seconds,
            nudge_seconds=options.nudge_seconds,
        )
        try:
            core_uuid = await connection.api(commands.CORE_UUID)
            if not core_uuid:
                raise SwitchUnreachable("the switch does not say which one it is")
            self.core_uuid = core_uuid
            await connection.subscribe(*options.events, *_OWN_EVENTS, subclasses=options.subclasses)
        except BaseException:
            connection.abort("the subscription failed")
            raise
        return connection

    async def _stay(self, connection: EventSocketConnection) -> None:
        """Return when the connection is lost, silent, or not wanted by the handler."""
        tasks = [
            asyncio.create_task(self._tell_up(connection)),
            asyncio.create_task(self._watch(connection)),
        ]
        try:
            await connection.lost
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _tell_up(self, connection: EventSocketConnection) -> None:
        try:
            await self._handler.on_up(connection, self.core_uuid)
        except Exception as error:
            log.event("switch_not_taken_up", level="error", switch=self.options.name, error=error)
            connection.abort(f"the handler gave up: {error}")

    async def _watch(self, connection: EventSocketConnection) -> None:
        """Give the connection up when the switch neither speaks nor answers."""
        loop = asyncio.get_running_loop()
        silence_seconds = self.options.silence_seconds
        while True:
            await asyncio.sleep(silence_seconds / _SILENCE_CHECKS)
            # Where we do not read, silence says nothing of the switch.
            if connection.is_paused or loop.time() - connection.heard_at < silence_seconds:
                continue
            try:
                await connection.api(commands.PROBE)
            except SwitchError as error:
                connection.abort(f"silent for {silence_seconds:g} s, and then: {error}")

    def _drop(self, reason: str) -> None:
        connection, self.connection = self.connection, None
        if connection is None:
            return
        connection.abort(reason)
        reason = connection.lost.result() if connection.lost.done() else reason
        log.event("switch_lost", level="warning", switch=self.options.name, reason=reason)
        self._handler.on_down(reason)

    def _report(self, error: AuthzError) -> None:
        """Log what keeps the link down, once for as long as it is the same."""
        self.failures += 1
        _FAILURES.add()
        problem = f"{type(error).__name__}: {error}"
        if problem != self._last_problem:
            self._last_problem = problem
            name = "switch_refused" if isinstance(error, SwitchRefused) else "switch_unreachable"
            log.event(name, level="error", switch=self.options.name, error=error)
