"""Commands on their way to a switch: those that wait, and those whose answers are owed.

Answers carry no name; each belongs to the oldest command that has none. So a command whose caller
went away keeps its place once it is sent, and is never sent if it was not.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, Final

from authz.errors import ProtocolError
from authz.hooks.freeswitch.errors import CommandNotSent, OutcomeUnknown, SwitchError
from authz.hooks.freeswitch.frames import Frame

#: Commands sent and not answered. The switch runs them one after the other anyway.
IN_FLIGHT_MAX: Final = 256
#: Commands that wait to be sent; more are refused at once.
QUEUED_MAX: Final = 16_384


class Command:
    """A command on its way. `is_sent` tells a caller whose patience ends what is known."""

    __slots__ = ("answer", "data", "is_sent")

    def __init__(self, data: bytes, answer: asyncio.Future[Frame]) -> None:
        self.data = data
        self.answer = answer
        self.is_sent = False


class CommandQueue:
    """The commands of one connection, in order."""

    __slots__ = ("_in_flight", "_loop", "_queued")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._queued: deque[Command] = deque()
        self._in_flight: deque[Command] = deque()

    @property
    def in_flight(self) -> int:
        """How many commands are sent and not answered, those given up included."""
        return len(self._in_flight)

    @property
    def queued(self) -> int:
        """How many commands wait to be sent."""
        return len(self._queued)

    def add(self, data: bytes) -> Command:
        """Queue a command. Raises CommandNotSent if too many wait already."""
        if len(self._queued) >= QUEUED_MAX:
            raise CommandNotSent(f"{QUEUED_MAX} commands already wait to be sent")
        command = Command(data, self._loop.create_future())
        self._queued.append(command)
        return command

    def take_sendable(self) -> list[bytes]:
        """Return what may be sent now; from here on it counts as sent."""
        parts = []
        while self._queued and len(self._in_flight) < IN_FLIGHT_MAX:
            command = self._queued.popleft()
            if command.answer.done():
                continue  # its caller went away
            command.is_sent = True
            parts.append(command.data)
            self._in_flight.append(command)
        return parts

    def take_answer(self, frame: Frame) -> None:
        """Give the answer to its command. Raises ProtocolError if none is owed."""
        if not self._in_flight:
            raise ProtocolError("an answer to nothing")
        command = self._in_flight.popleft()
        if not command.answer.done():
            command.answer.set_result(frame)

    def fail(self, reason: str) -> None:
        """Tell every caller what is known of its command, now that the connection is gone."""
        for command in self._queued:
            fail_future(command.answer, CommandNotSent(reason))
        for command in self._in_flight:
            fail_future(command.answer, OutcomeUnknown(reason))
        self._queued.clear()
        self._in_flight.clear()


def fail_future(future: asyncio.Future[Any], error: SwitchError) -> None:
    """Set an error on a future that nobody may be waiting for, unless it is done."""
    if not future.done():
        future.set_exception(error)
        # Whoever waits gets it; where nobody does, the loop need not complain of it.
        future.exception()
