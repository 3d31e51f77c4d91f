"""What the hook listener counts: connections, answers, and how long they took."""

from __future__ import annotations

from typing import Final

from authz import meters
from authz_ext.routes import AnswerCounts

CONNECTIONS: Final = meters.counter("authz_hook_connections_total")
CONNECTIONS_REFUSED: Final = meters.counter("authz_hook_connections_refused_total")
#: Connections cut because their client broke a time limit.
TIMEOUTS: Final = meters.counter("authz_hook_timeouts_total")
#: Answers that found their connection gone.
ANSWERS_DROPPED: Final = meters.counter("authz_hook_answers_dropped_total")
OVERLOADED: Final = meters.counter("authz_hook_overloaded_total")
ACCESS_FAILURES: Final = meters.counter("authz_access_failures_total", "hook")
#: The route of requests that lead nowhere.
UNMATCHED: Final = "unmatched"
#: By (route, kind of status) and by route. A route without a label of its own is `other`.
_ANSWERS: Final = meters.counters("authz_hook_answers_total")
_TIMES: Final = meters.histograms("authz_hook_answer_seconds")
_OTHER: Final = "other"


def answers_of(route: str) -> AnswerCounts:
    """Return what counts the answers of a route."""
    if route not in _TIMES:
        route = _OTHER
    kinds = (_ANSWERS[route, kind] for kind in ("2xx", "4xx", "5xx"))
    return AnswerCounts(_TIMES[route], *kinds)
