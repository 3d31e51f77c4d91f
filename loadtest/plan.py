"""What the parent tells each generator process, and what it hears from it."""

from __future__ import annotations

import struct
from typing import Final

import msgspec
from msgspec import Struct

from loadtest.schedule import Arrivals, Stretch

#: Kinds of requests, by the number that samples carry.
OPERATIONS: Final = ("authorize", "reserve", "settle", "emergency")
AUTHORIZE, RESERVE, SETTLE, EMERGENCY = range(4)
#: Outcome of every request that did what was asked; the others get numbers as they come.
OK: Final = "ok"
#: Begins the name of every outcome that is a failure, not a decision.
ERROR_PREFIX: Final = "error: "
#: A settle that the daemon keeps until its store answers again.
SPOOLED: Final = "202 spooled"
#: Before each message: its length in bytes.
FRAME: Final = struct.Struct("<I")


class Target(Struct, frozen=True):
    """Where the hook API is: a Unix socket, or host and port."""

    host: str = "127.0.0.1"
    port: int = 0
    unix_path: str | None = None

    @property
    def text(self) -> str:
        """The address as people write it."""
        return self.unix_path or f"{self.host}:{self.port}"


class CallKind(Struct, frozen=True):
    """One kind of call with the accounts that place it; as `scenario.CallPlan`."""

    accounts: tuple[str, ...]
    to: tuple[str, ...]
    weight: float
    talk_seconds: tuple[int, ...]
    unanswered: float
    direction: str
    ask_seconds: int | None
    emergency: bool


class Orders(Struct, frozen=True, kw_only=True):
    """What one generator process shall do, in its share of the whole."""

    target: Target
    connections: int
    calls: tuple[CallKind, ...]
    speed: float
    seed: str
    #: Begins every call id; no other process or run has the same.
    call_id_start: str
    stretches: tuple[Stretch, ...] = ()
    arrivals: Arrivals = "poisson"
    #: Not 0: keep so many calls going instead, each as fast as the answers come, for so long.
    calls_in_flight: int = 0
    closed_seconds: float = 0.0
    #: How long after the last arrival the calls may take to end.
    drain_seconds: float = 10.0


class Go(Struct, frozen=True):
    """The one message to a generator after its orders: begin at this `time.monotonic_ns`."""

    start_ns: int


class Samples(Struct, frozen=True, kw_only=True):
    """What a generator has measured since its last message: one item a request and array.

    `dues` (when it was to be sent), `latencies` (from then to its answer) and `lags` (how late
    the generator itself was) are unsigned 64-bit ns in the machine's byte order; `operations`
    are bytes, `outcomes` unsigned 16-bit indexes into `outcome_names`, the list so far.
    """

    operations: bytes
    outcomes: bytes
    dues: bytes
    latencies: bytes
    lags: bytes
    outcome_names: tuple[str, ...]
    in_flight: int
    #: Calls that live now.
    calls: int
    #: User and system time of the process so far, in ns.
    cpu_ns: int
    #: The generator is connected (first message) or has ended (last message).
    state: str = "running"


def encode_frame(message: Struct) -> bytes:
    """Return a message with its length before it."""
    data = msgspec.msgpack.encode(message)
    return FRAME.pack(len(data)) + data
