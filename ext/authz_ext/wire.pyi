"""The usual way of a command to the store and of its reply back."""

from __future__ import annotations

import asyncio
from typing import Any, Final, Never, final

from authz_ext.meters import Histogram
from authz_ext.packing import PreparedCall
from authz_ext.prompt import Reply

#: No deadline is to be looked at.
NEVER_NS: Final[int]

@final
class Command(Reply[Any]):
    """A command on its way, and what it will be answered; made by a wire."""

    #: Whether it is a script call that was sent again.
    is_repeated: bool

    @property
    def script(self) -> Any:
        """The script that it calls (`authz.store.scripts.Script`), or None."""

    @property
    def packed(self) -> bytes | None:
        """Its bytes; None once it is sent and will not be again."""

    @property
    def deadline_ns(self) -> int:
        """The moment by which it is to be answered."""

@final
class Line:
    """Commands in the order in which they came."""

    @property
    def count(self) -> int:
        """How many there are, those that nobody waits for included."""

    def open(self) -> list[Command]:
        """Return the commands that somebody still waits for."""

    def clear(self) -> None:
        """Let go of all commands."""

class Wire:
    """The usual work of a connection. A class derived from it does what is rare.

    `data_received` is called by the event loop, with whole replies or pieces of them.
    """

    #: Commands that wait to be sent, and those that are sent and not answered.
    _queued: Line
    _in_flight: Line
    #: What bytes are given to; without one, and while paused, commands stay in the queue.
    _transport: asyncio.Transport | None
    _paused: bool
    #: Whether all bytes that came are read, up to the end of a reply.
    _is_between_replies: bool
    #: Whether a command was answered in time since this was last set to False.
    _has_answered: bool
    #: When deadlines are looked at next.
    _sweep_at_ns: int
    #: Why no further command is taken; None while they are.
    refusal: str | None

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        replies: Histogram,
        *,
        queued_max: int,
        in_flight_max: int,
    ) -> None: ...
    def submit(self, packed: bytes, deadline_ns: int, script: Any = None) -> Command:
        """Queue a packed command, which may call a script, and return its reply, to be awaited.

        Raises NotExecuted when nothing can be sent any more or the queue is full.
        """

    def call(
        self, prepared: PreparedCall, call_id: str, arguments: list[bytes], deadline_ms: int
    ) -> Command:
        """Queue a prepared call of a script, to be answered within that time; as `submit`."""

    def repeat(self, command: Command) -> None:
        """Queue a call of a script again that has not been given its reply yet; as `submit`."""

    def flush(self) -> None:
        """Send what is queued, as far as there is room for it, in one write."""

    def data_received(self, data: bytes) -> None:
        """Hand each complete reply to the command it belongs to."""

    def next_answered(self) -> Command | None:
        """Take the command to which the next reply belongs, its time being counted, or None."""

    # What a derived class does.

    def refuse(self) -> Never:
        """Raise the error of a command that cannot be queued."""

    def fail_late(self, commands: list[Command]) -> None:
        """Fail commands whose deadline has passed before they were sent."""

    def sweep_no_later_than(self, deadline_ns: int) -> None:
        """See to it that deadlines are looked at then, and set `_sweep_at_ns`."""

    def read_any(self, data: bytes, start: int) -> None:
        """Read replies of any kind, from `start` on; see `_is_between_replies`."""

    def keep(self, data: bytes, start: int) -> None:
        """Keep bytes to be read together with the next ones."""

    def close_if_finished(self) -> None:
        """Close when nothing is queued or in flight; called while there is a `refusal`."""
