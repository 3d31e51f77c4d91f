"""The Kazoo agent: its message brokers, which of Kazoo's requests it answers, how calls end."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from msgspec import Struct

from authz.config.broker_url import parse_broker_url
from authz.config.fields import about
from authz.errors import ConfigError

#: A word of a routing key, or the name of a queue.
_QUEUE_PATTERN: Final = r"^[A-Za-z0-9_.@-]{1,200}$(?!\n)"
_NODE_PATTERN: Final = r"^[A-Za-z0-9_.@-]{1,128}$(?!\n)"

Mode = Literal["shadow", "active"]
HangupWay = Literal["metaflow", "switch"]
Costs = Literal["exact", "kazoo"]


class BrokerSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A message broker of Kazoo's."""

    url: Annotated[
        str,
        about(
            "amqp:// or amqps:// URL with user, password and virtual host. Options of amqps:// are "
            "RabbitMQ's own: cacertfile (else the system's authorities are trusted), certfile and "
            "keyfile for a broker that asks for a certificate, verify=verify_none to trust any "
            "broker; of both, heartbeat in seconds (10).",
            secret=True,
        ),
    ]
    zone: Annotated[
        str,
        about(
            "The zone that it serves. Of several with one zone the first that can be reached is "
            "used.",
            pattern=_NODE_PATTERN,
        ),
    ] = "local"


class KazooSettings(Struct, frozen=True, kw_only=True):
    """Calls of Kazoo: the brokers where its applications ask, in place of jonny5 and hotornot."""

    brokers: Annotated[
        tuple[BrokerSettings, ...], about("The message brokers of the cluster, one a zone.")
    ] = ()
    mode: Annotated[
        Mode,
        about(
            "shadow: answer nothing, hold nothing, and log where jonny5 decides otherwise. "
            "active: answer in its place."
        ),
    ] = "shadow"
    node: Annotated[
        str,
        about("Our name in messages; empty for authz@ and the host's name.",
              pattern=r"^[A-Za-z0-9_.@-]{0,128}$(?!\n)"),
    ] = ""  # fmt: skip
    request_queue: Annotated[
        str,
        about(
            "Queue of the questions for authorization and balances. With jonny5's name, both may "
            "run for a while, and each question goes to one of them.",
            pattern=_QUEUE_PATTERN,
        ),
    ] = "jonny5_listener"
    rate_queue: Annotated[
        str, about("Queue of the questions for rates.", pattern=_QUEUE_PATTERN)
    ] = "hotornot_listener"  # fmt: skip
    hangup_queue: Annotated[
        str,
        about(
            "Queue of hang-ups, shared by all of our processes. It keeps them for a day while "
            "none of ours runs; jonny5's own would lose them after a minute.",
            pattern=_QUEUE_PATTERN,
        ),
    ] = "authz_hangups"
    rates: Annotated[
        bool, about("Whether rates are told as well, in place of hotornot.")
    ] = True  # fmt: skip
    hangup_by: Annotated[
        HangupWay,
        about(
            "How a call is ended whose credit has ended. metaflow: through Kazoo's application "
            "konami, which must run. switch: by its FreeSWITCH, which must be one of "
            "freeswitch.switches under the name that Kazoo's events have for it. Where one way "
            "reaches nobody, or has not ended the call after seconds, the other one is tried, too."
        ),
    ] = "metaflow"
    costs: Annotated[
        Costs,
        about(
            "How imported rates round: exact, or kazoo, which cuts every cost to 1/10000 as "
            "Kazoo's invoices have it."
        ),
    ] = "exact"
    mobile_rate_number: Annotated[
        str,
        about(
            "The number by whose rate calls of mobile devices (Authorizing-Type mobile) are "
            "priced; empty for the dialled one. Give its row of the deck a class that no trunk "
            "carries.",
            pattern=r"^(\+?[0-9]{1,20})?$(?!\n)",
        ),
    ] = ""
    notifications: Annotated[
        bool, about("Whether low balances and recharges are told to Kazoo's notifications.")
    ] = True  # fmt: skip
    deciding_max: Annotated[
        int,
        about(
            "Questions that are worked on at a time; the broker keeps the rest, and hands them "
            "to other hosts.",
            ge=1,
            le=10_000,
        ),
    ] = 200
    events_max: Annotated[
        int, about("Events that are worked on at a time.", ge=1, le=60_000)
    ] = 1_000  # fmt: skip
    calls_max: Annotated[
        int, about("Live calls that are watched at a time.", ge=1, le=1_000_000)
    ] = 100_000  # fmt: skip
    query_seconds: Annotated[
        int,
        about(
            "How long answers to a question for live channels are collected; below half of "
            "calls.chunk_seconds.",
            ge=1,
            le=30,
        ),
    ] = 2
    reconcile_seconds: Annotated[
        int,
        about(
            "How often all channels are compared with ours. While calls live that is done twice in "
            "calls.chunk_seconds, if that is more often.",
            ge=10,
            le=86_400,
        ),
    ] = 300
    warning_seconds: Annotated[
        int,
        about("How long before the end of a call that cannot be paid the warning comes.", ge=3,
              le=600),
    ] = 20  # fmt: skip

    @property
    def is_used(self) -> bool:
        """Whether there is a broker to serve."""
        return bool(self.brokers)

    @property
    def zones(self) -> dict[str, tuple[str, ...]]:
        """URLs of the brokers by zone, in the order in which they are tried."""
        zones: dict[str, tuple[str, ...]] = {}
        for broker in self.brokers:
            zones[broker.zone] = (*zones.get(broker.zone, ()), broker.url)
        return zones


def check_kazoo(settings: KazooSettings, chunk_seconds: int) -> None:
    """Refuse what no single field shows to be wrong; raise ConfigError.

    `chunk_seconds` is how long a call goes on without evidence that it lives.
    """
    if settings.is_used and 2 * settings.query_seconds >= chunk_seconds:
        raise ConfigError(
            f"kazoo.query_seconds: {settings.query_seconds} must be below half of "
            f"calls.chunk_seconds, {chunk_seconds}: calls are seen to live too late to be extended"
        )
    for number, broker in enumerate(settings.brokers, 1):
        try:
            parse_broker_url(broker.url)
        except ConfigError as error:
            raise ConfigError(f"kazoo.brokers: broker {number}: {error}") from error
    queues = (settings.request_queue, settings.rate_queue, settings.hangup_queue)
    for name in queues:
        if queues.count(name) > 1:
            raise ConfigError(f"kazoo: two of its queues are called {name}")
