"""What the words of the admin API mean, for its document: one meaning a word, wherever it stands.

A field whose Struct says its own meaning keeps that one.
"""

from __future__ import annotations

from typing import Any, Final

_TIME: Final = "RFC 3339 text with an offset, or Unix seconds"

#: Words of paths and queries: meaning and an example.
PARAMETERS: Final[dict[str, tuple[str, Any]]] = {
    "account": ("The id of an account.", "acme-sales"),
    "action": ("Only changes by this route or command.", "PUT /v1/accounts/{id}"),
    "amount": ("How much money, as a decimal text; asks for the seconds it buys.", "10.00"),
    "at": (f"At which time: {_TIME}; now by default.", "2026-11-30T18:00:00Z"),
    "call_id": ("The switch's id of a call.", "c1"),
    "class": ("Only calls to numbers of this class.", "national"),
    "currency": ("The currency of the prices; that of the deck in force by default.", "USD"),
    "cursor": ("The `cursor` of the page before; the first page without.", "acme-sales"),
    "deck": ("The id of a deck.", "retail"),
    "destination": ("Only calls to numbers that begin so.", "+44"),
    "direction": ("The account's view: `outbound` when its user places the call.", "outbound"),
    "dry_run": ("Report and compare, and change nothing.", True),
    "end": (f"Until when: {_TIME}, or a date.", "2026-12-01T00:00:00Z"),
    "event": ("Only events of this name.", "balance.low"),
    "id": ("The id of what the path names.", "acme"),
    "kind": ("Only movements of this kind.", "payment"),
    "limit": ("Most items of a page.", 100),
    "month": ("Which month.", "2026-11"),
    "name": ("The name of a switch.", "fs1"),
    "number": ("A number as it is dialled.", "+442071838750"),
    "origin": ("Only what came from this account.", "acme-sales"),
    "parent": ("Only the children of this account.", "acme"),
    "q": ("Only ids with this text in them, whatever its case.", "sales"),
    "seconds": ("How long a call.", 60),
    "skip_bad": ("Leave bad lines out, or block their prefix, instead of refusing all.", False),
    "sort": ("By what, a minus for the largest or latest first.", "-booked"),
    "start": (f"From when: {_TIME}, or a date.", "2026-11-01T00:00:00Z"),
    "state": ("Only those in this state.", "dead"),
    "target": ("Only changes of what has this id.", "acme-sales"),
    "timezone": ("An IANA zone; that of the deck in force by default.", "Europe/Paris"),
    "to": ("The number dialled.", "+14155550100"),
    "under": ("Only this account and those below it.", "acme"),
    "who": ("Only changes by this token or user.", "billing"),
}

#: Fields of an account.
ACCOUNT_FIELDS: Final[dict[str, str]] = {
    "parent": "The account above; it never changes. Without one, the account is a master.",
    "currency": "Its currency; it never changes, and is that of its parent.",
    "timezone": "The IANA zone of its days and months.",
    "enabled": "Off: its calls and those of all below it are refused.",
    "enforce": "Off: calls are decided and charged as usual, but refused ones pass.",
    "credit_limit": "How far it may go below 0, as a decimal text, or `unlimited`.",
    "per_minute": "Whether its calls may be charged by its deck.",
    "deck": "The id of its rate table; null: that of its parent, then the default.",
    "trunks": "Its flat-rate channels.",
    "trunk_classes": "The classes of numbers that its trunks carry.",
    "max_calls": "Most calls at a time.",
    "max_calls_by_class": "Most calls at a time by class of number.",
    "max_calls_per_second": "Most calls that may begin in a second.",
    "max_call_seconds": "Longest call.",
    "max_call_cost": "Dearest call, as a decimal text.",
    "max_rate": "Dearest price per minute, before discounts, that may be dialled.",
    "discounts": "Percent off its calls by class of number, 0 to 100 with at most two decimals.",
    "min_first_seconds": "Least time that must be paid for before a call starts.",
    "blocked_classes": "Classes of numbers that may not be dialled.",
    "blocked_prefixes": "Prefixes that may not be dialled; of several the longest decides.",
    "allowed_prefixes": "If there are any: the only prefixes that may be dialled.",
    "daily_spend_limit": "Most that may be spent in a day, as a decimal text.",
    "monthly_spend_limit": "Most that may be spent in a month, as a decimal text.",
    "low_balance": "When to warn of a low balance.",
    "auto_recharge": "When to ask for a recharge, and for how much.",
    "metadata": "Texts of your own by name, 16 KiB at most.",
}

#: Fields that are amounts of money: decimal texts with at most six decimals.
AMOUNTS: Final = frozenset(
    {
        "amount", "credit_limit", "daily_spend_limit", "max_call_cost", "max_rate",
        "monthly_cap", "monthly_spend_limit", "threshold",
    }
)  # fmt: skip
AMOUNT_PATTERN: Final = r"^-?[0-9]{1,9}(\.[0-9]{1,6})?$"
CREDIT_LIMIT_PATTERN: Final = r"^([0-9]{1,9}(\.[0-9]{1,6})?|unlimited)$"

#: An example of each body, by the name of its Struct.
BODIES: Final[dict[str, Any]] = {
    "AccountBody": {
        "parent": "acme", "deck": "retail", "credit_limit": "20", "max_calls": 10,
        "trunks": {"outbound": 2}, "blocked_classes": ["premium", "satellite"],
        "low_balance": {"threshold": "5", "repeat_hours": 24},
    },
    "AccountPatch": {"enabled": False, "max_calls": None, "trunks": {"outbound": 4}},
    "CreditRequest": {"amount": "25.00", "kind": "payment", "reference": "invoice-4711"},
    "DebitRequest": {
        "amount": "0.07", "kind": "sms", "reference": "sms-981", "quantity": 1, "unit": "sms",
    },
    "RechargeFailed": {"detail": "the card was declined"},
    "RechargeSucceeded": {"amount": "25.00", "description": "card payment 981"},
    "WebhookBody": {
        "url": "https://crm.example/authz", "events": ["balance.*", "recharge.due"],
        "description": "customer relations",
    },
    "WebhookListBody": {
        "webhooks": [{"id": "crm", "url": "https://crm.example/authz", "events": ["balance.*"]}],
    },
    "TokenRequest": {"name": "acme-portal", "role": "operate", "account": "acme"},
}  # fmt: skip

DECK_EXAMPLE: Final = (
    "prefix,description,price,increment\n1,North America,0.01,6\n44,United Kingdom,0.0137,1\n"
)
