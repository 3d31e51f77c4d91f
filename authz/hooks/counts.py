"""What the hook listener counts: connections, answers, and how long they took."""

from __future__ import annotations

from typing import Final

from authz import meters

CONNECTIONS: Final = meters.counter("authz_hook_connections_total")
CONNECTIONS_REFUSED: Final = meters.counter("authz_hook_connections_refused_total")
#: Connections cut because their client broke a time limit.
TIMEOUTS: Final = meters.counter("authz_hook_timeouts_total")
#: Answers that found their connection gone.
ANSWERS_DROPPED: Final = meters.counter("authz_hook_answers_dropped_total")
OVERLOADED: Final = meters.counter("authz_hook_overloaded_total")
ACCESS_FAILURES: Final = meters.counter("authz_access_failures_total", "hook")
#: By (route, kind of status) and by route. A route without a label of its own is `other`.
ANSWERS: Final = meters.counters("authz_hook_answers_total")
_TIMES: Final = meters.histograms("authz_hook_answer_seconds")
_OTHER: Final = "other"


def count_answer(route: str, status: int, began_ns: int) -> None:
    """Count an answer to a request that was complete at `began_ns` (`meters.now_ns`)."""
    times = _TIMES.get(route)
    if times is None:
        route, times = _OTHER, _TIMES[_OTHER]
    times.observe_since(began_ns)
    ANSWERS[route, "2xx" if status < 300 else "4xx" if status < 500 else "5xx"].add()
