"""The one table of events: what each means, and which facts it carries.

The scripts raise them, webhooks and mails tell them, `docs/alerts.md` is generated from here and
a test holds the scripts to it. An amount is micros in the store and a decimal string outside.
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any, Final, Literal, NamedTuple

from authz.money import format_amount

#: A `call` is named as the leases name it, by account and id; callers read the id.
FactKind = Literal["amount", "number", "call", "text"]

#: Every fact that an event may carry, besides `account` and `at`.
FACTS: Final[dict[str, FactKind]] = {
    "amount": "amount",
    "balance": "amount",
    "credit_limit": "amount",
    "limit": "amount",
    "spend": "amount",
    "threshold": "amount",
    "count": "number",
    "granted": "number",
    "inbound": "number",
    "outbound": "number",
    "seconds": "number",
    "call": "call",
    "detail": "text",
    "period": "text",
    "prefixes": "text",
    "reason": "text",
    "recharge": "text",
}


class EventType(NamedTuple):
    """One row: an event's name, when it is raised, its facts, and how bad it is."""

    name: str
    meaning: str
    facts: tuple[str, ...]
    #: Of its line in the log. None is an error: that is for what is wrong with the daemon.
    level: Literal["info", "warning"] = "warning"


CALL_DENIED: Final = "call.denied"
RATE_MISSING: Final = "rate.missing"
#: What `POST /v1/webhooks/{id}/test` sends; no account has it.
WEBHOOK_TEST: Final = "webhook.test"

_ROWS = (
    EventType("balance.low",
              "Balance less reported use has reached `low_balance.threshold`. Once a crossing, or "
              "again after `repeat_hours`.", ("balance", "threshold")),
    EventType("balance.exhausted",
              "Balance less reported use and credit limit together have reached 0.",
              ("balance", "credit_limit")),
    EventType("balance.restored",
              "A credit, or a new limit, has lifted an exhausted account above 0.",
              ("balance", "credit_limit"), "info"),
    EventType("recharge.due",
              "Please recharge: answer `POST /v1/recharges/{recharge}/succeeded` or `failed` "
              "within an hour.", ("recharge", "amount", "balance"), "info"),
    EventType("recharge.succeeded", "A recharge was credited.",
              ("recharge", "amount", "balance"), "info"),
    EventType("recharge.failed",
              "A recharge was reported as failed; it is asked for again after a while.",
              ("recharge", "amount", "detail")),
    EventType("recharge.expired",
              "Nobody answered for a recharge within an hour; money that comes later is still "
              "taken.", ("recharge", "amount")),
    EventType("spend_limit.warning", "80 % of a day's or month's spend limit is spent.",
              ("period", "spend", "limit")),
    EventType("spend_limit.reached", "A day's or month's spend limit is spent.",
              ("period", "spend", "limit")),
    EventType("trunks.exhausted",
              "A call found no free trunk; at most once a minute.",
              ("inbound", "outbound")),
    EventType("trunks.burst",
              "A call took a trunk beyond those that are paid for; at most once a minute.",
              ("inbound", "outbound")),
    EventType("call.orphaned",
              "A call was not heard of until its lease ended, and was settled provisionally.",
              ("call", "seconds")),
    EventType("call.overrun", "A call was longer than it was granted; all of it was charged.",
              ("call", "granted", "seconds")),
    EventType(CALL_DENIED,
              "Calls of the account were refused for this reason, so many since the last event; "
              "at most once a minute for each reason.", ("count", "reason"), "info"),
    EventType(RATE_MISSING,
              "Calls found no row in the account's deck; `prefixes` has up to 20 beginnings of "
              "the numbers. At most once a minute.", ("count", "prefixes")),
)  # fmt: skip

EVENT_TYPES: Final[dict[str, EventType]] = {row.name: row for row in _ROWS}


def facts_of(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return an event's facts as callers read them: amounts as decimals, numbers as numbers.

    `raw` has them as the store keeps them, all texts. What this version does not know or
    understand stays as it is.
    """
    return {name: _shown(name, value) for name, value in raw.items()}


def _shown(name: str, value: Any) -> Any:
    kind = FACTS.get(name, "text")
    try:
        if kind == "amount":
            return format_amount(int(value))
        if kind == "number":
            return int(value)
    except ValueError:
        # Whatever a newer script may write here must not hold up all other events.
        return value
    return value.partition(":")[2] if kind == "call" else value


def is_pattern(text: str) -> bool:
    """Return whether the text is an event's name, or a pattern such as `balance.*` that has any."""
    return any(fnmatchcase(name, text) for name in EVENT_TYPES) and not set(text) & set("?[]")


def matches(patterns: tuple[str, ...], event: str) -> bool:
    """Return whether an event is meant by one of the patterns; no pattern means all."""
    return not patterns or any(fnmatchcase(event, pattern) for pattern in patterns)
