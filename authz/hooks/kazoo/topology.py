"""Exchanges and queues as Kazoo declares them (the contract's section 2.1), and our own.

Whoever declares one that exists must say exactly the same, or the broker refuses. So the
exchanges and the queues that jonny5 and hotornot share with us are as they declare them.
"""

from __future__ import annotations

import enum
from typing import Any, Final, NamedTuple

from authz.config.kazoo import KazooSettings
from authz.hooks.kazoo import messages

#: Type by name. None of them is durable, deleted with its last queue, or internal.
EXCHANGES: Final = {
    "callmgr": "topic",
    "callevt": "topic",
    "targeted": "direct",
    "notifications": "topic",
    "metaflow": "topic",
}

#: Routing keys of what we send to all.
AUTHORIZE_BROADCAST: Final = "authz.authorize.broadcast"
RATE_BROADCAST: Final = "rate.resp.broadcast"
CHANNELS_QUERY: Final = "call.status_req.channels"

#: Answers worked on at a time: each has all channels of a node.
_ANSWERS_MAX: Final = 4
_DAY_MS: Final = 24 * 3600 * 1000


class Source(enum.StrEnum):
    """Where messages come from; each is a queue with a channel and a limit of its own."""

    #: Questions for us. Shared by all who answer: each goes to one.
    REQUESTS = "requests"
    #: Questions for rates, likewise.
    RATES = "rates"
    #: Ends of channels, to be charged. Shared by our processes: each goes to one.
    HANGUPS = "hangups"
    #: All that happens, to be known: every process gets everything.
    EVENTS = "events"
    #: Answers to what we have asked.
    ANSWERS = "answers"


class Route(NamedTuple):
    """How a kind of message gets to us."""

    exchange: str
    routing_key: str
    body: type[messages.Body]


def _call_event(name: str) -> Route:
    return Route("callevt", f"call.{name}.*", messages.CallEvent)


_HANGUPS: Final = ("CHANNEL_DESTROY", "CHANNEL_DISCONNECTED")
_EVENTS: Final = (
    "CHANNEL_CREATE",
    "CHANNEL_ANSWER",
    "CHANNEL_BRIDGE",
    "CHANNEL_UNBRIDGE",
    "CHANNEL_CONNECTED",
    *_HANGUPS,
)
#: By source, category and name.
ROUTES: Final[dict[tuple[Source, str, str], Route]] = {
    (Source.REQUESTS, "authz", "authz_req"): Route(
        "callmgr", "authz.authorize", messages.AuthorizeRequest
    ),
    (Source.REQUESTS, "authz", "balance_check_req"): Route(
        "callmgr", "authz.balance_check", messages.BalanceRequest
    ),
    (Source.RATES, "rate", "req"): Route("callmgr", "rate.req", messages.RateRequest),
    **{(Source.HANGUPS, "call_event", name): _call_event(name) for name in _HANGUPS},
    **{(Source.EVENTS, "call_event", name): _call_event(name) for name in _EVENTS},
    (Source.EVENTS, "authz", "authz_resp"): Route(
        "callmgr", AUTHORIZE_BROADCAST, messages.AuthorizeAnswer
    ),
    (Source.EVENTS, "rate", "resp"): Route("callmgr", RATE_BROADCAST, messages.RateAnswer),
    (Source.ANSWERS, "call_event", "query_channels_resp"): Route(
        "targeted", "", messages.ChannelsAnswer
    ),
}


class QueuePlan(NamedTuple):
    """A queue to declare. `name` "" lets the broker name it, for us alone."""

    name: str
    arguments: dict[str, Any]
    #: Messages that we work on at a time; the broker keeps the others.
    prefetch: int
    is_durable: bool = False
    #: Whether it goes with its last consumer.
    is_auto_delete: bool = True


#: As every queue of Kazoo's is declared that says nothing else.
KAZOO_ARGUMENTS: Final = {"x-max-length": 100, "x-message-ttl": 60_000}
#: Nobody else declares these. A burst of events that overtakes us must not cost one of them:
#: a hundred are half a second of a busy cluster.
_PRIVATE_ARGUMENTS: Final = {"x-max-length": 100_000, "x-message-ttl": 60_000}
#: Hang-ups are money. The queue stays while none of our processes runs, for a day.
_HANGUP_ARGUMENTS: Final = {
    "x-max-length": 1_000_000,
    "x-message-ttl": _DAY_MS,
    "x-expires": _DAY_MS,
}


def queue_plan(source: Source, settings: KazooSettings) -> QueuePlan:
    """Return the queue of a source. In shadow mode none that is shared with jonny5 is touched."""
    is_shared = settings.mode == "active"
    match source:
        case Source.REQUESTS if is_shared:
            return QueuePlan(settings.request_queue, KAZOO_ARGUMENTS, settings.deciding_max)
        case Source.RATES if is_shared:
            return QueuePlan(settings.rate_queue, KAZOO_ARGUMENTS, settings.deciding_max)
        case Source.HANGUPS if is_shared:
            return QueuePlan(
                settings.hangup_queue,
                _HANGUP_ARGUMENTS,
                settings.deciding_max,
                is_durable=True,
                is_auto_delete=False,
            )
        case Source.ANSWERS:
            return QueuePlan("", _PRIVATE_ARGUMENTS, _ANSWERS_MAX)
    return QueuePlan("", _PRIVATE_ARGUMENTS, settings.events_max)
