"""Requests of one connection: worked on side by side, answered in the order they came."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from authz_ext.known import KnownHeads
from authz_ext.messages import Heads, Request, Response
from authz_ext.meters import Counter
from authz_ext.routes import AnswerCounts, Route

class Traffic:
    """What the pipelines of one process share; make it inside the running loop."""

    #: No further request is wanted on any connection.
    draining: bool

    def __init__(
        self,
        *,
        in_flight_max: int,
        pipelined_max: int,
        explain: Callable[[Exception, str], Response],
        unmatched: AnswerCounts,
        overloaded: Counter,
        dropped: Counter,
    ) -> None:
        """`explain(error, route)` returns the answer that tells of an error."""

    @property
    def heads(self) -> Heads: ...
    @property
    def in_flight(self) -> int:
        """How many requests are in the engine."""

    def note_quiet(self) -> None:
        """Hear that a draining process may have nothing left to do."""

class Exchange:
    """One request and the place of its answer among those of its connection."""

    #: None until the request has led somewhere.
    route: Route | None
    #: None until it is admitted.
    request: Request | None
    response: Response | None
    #: Nothing follows its answer on the connection.
    is_last: bool

    def __init__(
        self, is_last: bool = False, head_only: bool = False, is_http_1_0: bool = False
    ) -> None: ...

class Connection(Protocol):
    """What the pipeline needs of the connection it answers on."""

    @property
    def is_receiving(self) -> bool:
        """Whether a further request has begun to arrive."""

    def send(self, data: bytes, is_last: bool) -> None:
        """Write answers; after the last one nothing is read or written any more."""

    def on_progress(self) -> None:
        """Some answers have been sent, so there may be room for more requests."""

    def abort(self) -> None:
        """Cut the connection."""

class Pipeline:
    """The exchanges of one connection.

    At most `pipelined_max` are with the engine; what the connection has read beyond that waits
    here, no more than one read's worth, because a full pipeline pauses reading. Requests of one
    call are worked on one after the other.
    """

    #: Tell the connection of every progress, not only while draining; it may wait for some.
    reports_progress: bool

    def __init__(self, traffic: Traffic, connection: Connection) -> None: ...
    @property
    def is_empty(self) -> bool:
        """Whether every request so far has been answered."""

    @property
    def is_full(self) -> bool:
        """Whether the connection should stop reading."""

    def append(self, exchange: Exchange) -> None:
        """Take the next request of the connection, complete or already answered.

        ValueError for one that is neither answered nor admitted.
        """

    def take_known(self, data: bytes, start: int, heads: KnownHeads) -> int:
        """Take requests as long as their heads are known; return where the first other begins."""

    def hold(self) -> None:
        """The client does not read its answers: send none and start nothing."""

    def release(self) -> None:
        """The client reads again."""

    def close(self) -> None:
        """The connection is gone. What runs goes on; of the rest only what must complete."""
