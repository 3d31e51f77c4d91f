"""An event as receivers are told of it, whatever the way there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from msgspec import Meta, Struct

from authz.engine.clock import format_moment
from authz.event_types import facts_of
from authz.model import AccountId

_encode = msgspec.json.Encoder().encode
_decode_facts = msgspec.json.Decoder(dict[str, str]).decode


PageLength = Annotated[int, Meta(ge=1, le=500)]
Cursor = Annotated[str, Meta(min_length=1, max_length=256)]
MomentText = Annotated[str, Meta(min_length=1, max_length=40)]
StateName = Literal["pending", "delivered", "dead"]
SortName = Literal["at", "-at"]


class EventQuery(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which events: of one account, of a name or pattern, in a window; the newest first.

    `under` is the top of a tree: the events of all accounts in it that are not closed.
    `sort=at` has the oldest first. `start` and `end` are dates (UTC), RFC 3339 times or Unix
    seconds; `end` is the first moment outside, or the last day inside.
    """

    account: AccountId | None = None
    under: AccountId | None = None
    event: (
        Annotated[
            str,
            Meta(
                pattern=r"^[a-z_.*]{1,64}$(?!\n)",
                description="Only events of this name, or of these: `balance.*`.",
            ),
        ]
        | None
    ) = None
    start: MomentText | None = None
    end: MomentText | None = None
    sort: SortName = "-at"
    cursor: Cursor | None = None
    limit: PageLength = 100


class EventView(Struct, frozen=True, kw_only=True):
    """An event as the API lists it; `data` has its facts, amounts as decimal strings."""

    id: str
    event: str
    account: str
    at: str
    data: dict[str, Any]


class EventPage(Struct, frozen=True):
    """Some events; `cursor` asks for the next, null: there are no more for now."""

    events: tuple[EventView, ...]
    cursor: str | None


class DeliveryQuery(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which deliveries: in a state, over a channel, to a receiver, of an event; newest first."""

    state: Annotated[StateName, Meta(description="Only those in this state.")] | None = None
    channel: (
        Annotated[Literal["webhook", "email", "kazoo"], Meta(description="Only by this channel.")]
        | None
    ) = None
    target: (
        Annotated[
            str,
            Meta(
                pattern=r"^[!-~]{1,320}$(?!\n)",
                description="Only to this webhook (its id) or e-mail address.",
            ),
        ]
        | None
    ) = None
    event_id: (
        Annotated[
            str, Meta(pattern=r"^[!-~]{1,64}$(?!\n)", description="Only of the event of this id.")
        ]
        | None
    ) = None
    cursor: Cursor | None = None
    limit: PageLength = 100


class DeliveryView(Struct, frozen=True, kw_only=True):
    """What became of telling one event to one receiver."""

    id: str
    event_id: str
    event: str
    account: str
    channel: str
    target: str
    state: str
    attempts: int
    #: Of a pending one: when it is tried next, or given up as lost if it is being tried now.
    next_attempt_at: str | None
    last_error: str
    created_at: str
    delivered_at: str | None


class DeliveryPage(Struct, frozen=True):
    """Some deliveries; `cursor` asks for the next, null: there are no more."""

    deliveries: tuple[DeliveryView, ...]
    cursor: str | None


class Retried(Struct, frozen=True):
    """How many dead letters are sent again."""

    deliveries: int


class WebhookTest(Struct, frozen=True, kw_only=True):
    """What a receiver made of a test message."""

    webhook: str
    delivered: bool
    error: str
    milliseconds: int


class Told(NamedTuple):
    """An event with its facts as callers read them. `currency` is None for a closed account."""

    id: str
    event: str
    account: str
    at: int
    facts: dict[str, Any]
    currency: str | None

    @classmethod
    def of_row(cls, row: Mapping[str, Any], currency: str | None) -> Told:
        """Return what a row of the archive's `events` says."""
        facts = facts_of(_decode_facts(row["data"]))
        return cls(row["id"], row["event"], row["account"], row["at"], facts, currency)

    def payload(self) -> bytes:
        """Return the body of a webhook: type, timestamp and data."""
        data = {"account": self.account, **self.facts}
        if self.currency is not None:
            data["currency"] = self.currency
        return _encode({"type": self.event, "timestamp": format_moment(self.at), "data": data})


class SendResult(NamedTuple):
    """What became of one attempt.

    `verdict`: `delivered`, `failed` (may pass later), `refused` (never will) or `gone` (the
    receiver wants nothing any more). `wait_seconds` is how long it asked to wait, if it did.
    """

    verdict: Literal["delivered", "failed", "refused", "gone"]
    error: str = ""
    wait_seconds: int = 0


def event_view(row: Mapping[str, Any]) -> EventView:
    """Return a row of the archive's `events` as the API lists it."""
    told = Told.of_row(row, None)
    return EventView(
        id=told.id,
        event=told.event,
        account=told.account,
        at=format_moment(told.at),
        data=told.facts,
    )
