"""The live calls that a process knows, in its memory alone: what is shared is in the store."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Final, Protocol

from msgspec import Struct

from authz.hooks.kazoo.broker import NodeChannels
from authz.hooks.kazoo.legs import Leg
from authz.model import DirectionName
from authz.reasons import Excuse

#: Calls that have ended, so that an event overtaken by their end wakes none of them.
_ENDED_MAX: Final = 20_000


class Link(Protocol):
    """What a call needs of its zone's broker; `KazooBroker` is one."""

    zone: str

    @property
    def is_up(self) -> bool:
        """Whether it is connected."""

    async def publish_hangup(self, call_id: str) -> bool:
        """Order a call to be hung up; False: nobody carries it out. Raises KazooError."""

    async def query_channels(self, seconds: float | None = None) -> list[NodeChannels]:
        """Return the live channels of every ecallmgr that answers. Raises KazooError."""


class LiveCall(Struct, kw_only=True, eq=False):
    """One call. Moments are of the event loop's clock, in seconds."""

    call_id: str
    account: str
    #: Whose legs are free in it, should the store not know it.
    excuses: dict[str, Excuse] = {}
    direction: DirectionName
    number: str
    node: str
    link: Link
    #: The FreeSWITCH, as events name it.
    switch: str = ""
    #: Whether this process extends it; others only look whether somebody does.
    is_own: bool = True
    granted_seconds: int | None = None
    is_final: bool = False
    extend_at_seconds: int = 0
    began_at: float
    #: When the switch has last told of it.
    heard_at: float
    answered_at: float | None = None
    #: When it was last asked for more time while it was ringing.
    ring_asked_at: float
    is_warned: bool = False
    #: How often it was ordered to be hung up.
    hangups: int = 0
    #: How many complete surveys in a row have missed it.
    missed: int = 0
    #: Which of its alarms counts.
    alarm: int = 0
    is_working: bool = False

    def elapsed_seconds(self, now: float) -> float:
        """Return for how long it has been charged."""
        return 0.0 if self.answered_at is None else max(0.0, now - self.answered_at)


def new_call(
    leg: Leg, number: str, link: Link, now: float, excuses: Mapping[str, Excuse]
) -> LiveCall:
    """Return a channel's call of which nothing more is known."""
    return LiveCall(
        call_id=leg.call_id,
        account=leg.account,
        excuses=dict(excuses),
        direction=leg.direction,
        number=number,
        node=leg.node,
        link=link,
        began_at=now,
        heard_at=now,
        ring_asked_at=now,
    )


class CallBook:
    """The live calls by their ids."""

    def __init__(self, calls_max: int) -> None:
        self._calls: dict[str, LiveCall] = {}
        self._calls_max = calls_max
        self._ended: OrderedDict[str, LiveCall | None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._calls)

    @property
    def is_full(self) -> bool:
        """Whether no more calls are taken in."""
        return len(self._calls) >= self._calls_max

    def __iter__(self) -> Iterator[LiveCall]:
        """Yield every call; calls may begin and end meanwhile."""
        return iter(list(self._calls.values()))

    def get(self, call_id: str) -> LiveCall | None:
        """Return a live call."""
        return self._calls.get(call_id)

    def has_ended(self, call_id: str) -> bool:
        """Return whether a call has ended not long ago."""
        return call_id in self._ended

    def find(self, call_id: str) -> LiveCall | None:
        """Return a call that is live, or has ended not long ago."""
        return self._calls.get(call_id) or self._ended.get(call_id)

    def add(self, call: LiveCall) -> bool:
        """Take in a call; False: it has ended already, or there are too many."""
        if self.has_ended(call.call_id):
            return False
        if call.call_id not in self._calls and self.is_full:
            return False
        self._calls[call.call_id] = call
        return True

    def end(self, call_id: str) -> LiveCall | None:
        """Note a call's end, known or not; return what is known of it."""
        call = self._calls.pop(call_id, None) or self._ended.get(call_id)
        self._ended[call_id] = call
        self._ended.move_to_end(call_id)
        if len(self._ended) > _ENDED_MAX:
            self._ended.popitem(last=False)
        return call

    def drop(self, call: LiveCall) -> None:
        """Look after a call no more, which may well go on."""
        self._calls.pop(call.call_id, None)
