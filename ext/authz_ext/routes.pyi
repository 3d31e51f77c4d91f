"""Endpoints as connections serve them, and the counts of their answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from authz_ext.messages import JsonAnswers, Request, Response
from authz_ext.meters import Counter, Histogram

class AnswerCounts:
    """Counts the answers of one route: how long they took, and how many of each kind."""

    def __init__(
        self, seconds: Histogram, successes: Counter, refusals: Counter, failures: Counter
    ) -> None: ...
    def count(self, status: int, began_ns: int) -> None:
        """Count an answer to a request that was complete at `began_ns`."""

class Route:
    """What a pipeline does with the requests of one endpoint.

    `decode(request)` returns the payload of the other callables, and what `order_key` makes of it
    keeps requests of one call in order. Awaiting `answer(payload)` gives the response, or a
    result of which `results` makes one. `when_overloaded(payload)` returns what is answered beyond
    `overload_factor` times the requests that may be in the engine; None admits it all the same.
    What they raise becomes an answer.
    """

    def __init__(
        self,
        name: str,
        *,
        decode: Callable[[Request], Any],
        order_key: Callable[[Any], tuple[str, ...] | None],
        answer: Callable[[Any], Awaitable[Any]],
        results: JsonAnswers | None,
        when_overloaded: Callable[[Any], Response | None],
        overload_factor: int,
        must_complete: bool,
        counts: AnswerCounts,
    ) -> None: ...
    @property
    def name(self) -> str: ...
