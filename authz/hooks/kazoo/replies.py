"""Where an answer goes: what the `Server-ID` of a request means.

It is the routing key of the exchange `targeted`, mostly the name of the asking process's queue.
With `pid://<pid>/<queue>` the queue is shared by several processes of a node, and a header of
the message says which of them is meant.
"""

from __future__ import annotations

from typing import Final, NamedTuple

_PID_SCHEME: Final = "pid://"
#: Of an AMQP routing key.
_KEY_BYTES_MAX: Final = 255


class Target(NamedTuple):
    """Routing key and AMQP headers of an answer."""

    routing_key: str
    headers: dict[str, str]


def target_of(server_id: str) -> Target | None:
    """Return where an answer goes; None if the asker has not said, or cannot be reached."""
    routing_key, headers = server_id, {}
    if server_id.startswith(_PID_SCHEME):
        pid, slash, routing_key = server_id[len(_PID_SCHEME) :].partition("/")
        if not slash:
            return None
        headers = {"Deliver-To-PID": pid}
    if not routing_key or len(routing_key.encode(errors="replace")) > _KEY_BYTES_MAX:
        return None
    return Target(routing_key, headers)
