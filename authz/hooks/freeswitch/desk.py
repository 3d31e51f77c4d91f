"""What the parts of one switch's agent share: engine, settings, the connection, the clock."""

from __future__ import annotations

import asyncio
import enum
from typing import Final, Protocol

from authz.config.freeswitch import FreeswitchSettings
from authz.engine.engine import Engine
from authz.hooks.freeswitch import commands
from authz.hooks.freeswitch.charged_call import ChargedCall, Phase
from authz.hooks.freeswitch.connection import EventSocketConnection
from authz.hooks.freeswitch.errors import CommandNotSent
from authz.hooks.freeswitch.events import Event
from authz.hooks.freeswitch.limits import US, SwitchClock
from authz.hooks.freeswitch.lookup import NOBODY, Lookup
from authz.hooks.freeswitch.settling import Settler

#: The switch's timers are too coarse to be moved more often than such chunks ask for.
CHUNK_SECONDS_MIN: Final = 10


class Alarm(enum.Enum):
    """Why a call is woken later."""

    #: Time to ask for more time.
    ASK = "ask"
    #: The caller is to hear that the call ends soon.
    WARN = "warn"
    #: The leg has stood without a callee for a while.
    ALONE = "alone"
    #: Nobody has answered in time.
    RING = "ring"
    #: A refused leg has not hung up.
    REFUSED = "refused"
    #: The last event of a leg that is gone has not come.
    GONE = "gone"


class Alarms(Protocol):
    """Wakes a call later; of alarms of one kind the last one set counts."""

    def set_alarm(self, call: ChargedCall, alarm: Alarm, in_us: int) -> None:
        """Wake the call after so many microseconds."""

    def clear_alarm(self, call: ChargedCall, alarm: Alarm) -> None:
        """Let an alarm be, if it is set."""


class Desk:
    """One switch's engine, settings and connection."""

    def __init__(
        self, name: str, engine: Engine, settings: FreeswitchSettings, settler: Settler
    ) -> None:
        self.name = name
        self.engine = engine
        self.settings = settings
        self.settler = settler
        self.lookup = Lookup(settings.rules)
        self.clock = SwitchClock()
        self.connection: EventSocketConnection | None = None
        #: Legs that are known, the waiting ones included.
        self.live = 0
        chunk_seconds = engine.context.settings.calls.chunk_seconds
        #: What is asked for at a time, None for what the settings say.
        self.chunk_seconds = CHUNK_SECONDS_MIN if chunk_seconds < CHUNK_SECONDS_MIN else None

    @property
    def connected(self) -> EventSocketConnection:
        """The switch's connection. Raises CommandNotSent while there is none."""
        if self.connection is None or not self.connection.is_open:
            raise CommandNotSent("the switch is not connected")
        return self.connection

    def here_us(self) -> int:
        """Return the time of this process, by the clock of its event loop."""
        return int(asyncio.get_running_loop().time() * US)

    def hear(self, call: ChargedCall, channel: Event) -> None:
        """Note that the switch has just told of the leg."""
        call.heard_us = self.here_us()
        if channel.timestamp_us is not None:
            self.clock.observe(channel.timestamp_us, call.heard_us)

    def elapsed_us(self, call: ChargedCall) -> int:
        """Return for how long the leg has been charged."""
        now_us = self.clock.now_us(self.here_us())
        return 0 if now_us is None else call.elapsed_us(now_us)

    def settle(self, call: ChargedCall, seconds: int, ended_us: int | None, cause: str) -> None:
        """Have the leg's present call settled, if anybody pays for it."""
        call.is_authorized = False
        if call.account == NOBODY:
            return
        self.settler.submit(call.settle_request(self.name, seconds, ended_us, cause))

    async def kill(self, call: ChargedCall, cause: str) -> None:
        """Hang the leg up. What it owes is settled by its last event."""
        await self.connected.api(commands.uuid_kill(call.uuid, cause))
        call.phase = Phase.ENDING
