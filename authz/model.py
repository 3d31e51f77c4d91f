"""The words of the daemon as typed records: requests, answers, accounts.

Requests and answers carry money as decimal strings, as callers see it. Inside the engine and
the store it is integer micros.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Literal

from msgspec import Meta, Struct, field

CALL_ID_LENGTH_MAX = 255
# `$` alone would also match before a final line end, and JSON Schema knows no `\Z`.
_VISIBLE_PATTERN = r"^[!-~]+$(?!\n)"
ACCOUNT_ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.@-]{0,63}$(?!\n)"
CHAIN_LENGTH_MAX = 4
#: Longest duration anybody may name, in seconds (about 31 days).
SECONDS_MAX = 2_678_400

CallId = Annotated[str, Meta(min_length=1, max_length=CALL_ID_LENGTH_MAX, pattern=_VISIBLE_PATTERN)]
AccountId = Annotated[str, Meta(pattern=ACCOUNT_ID_PATTERN)]
Dialled = Annotated[str, Meta(min_length=1, max_length=128)]
Seconds = Annotated[int, Meta(ge=0, le=SECONDS_MAX)]
SwitchName = Annotated[str, Meta(min_length=1, max_length=64, pattern=_VISIBLE_PATTERN)]
DirectionName = Literal["outbound", "inbound"]
#: RFC 3339 text or whole Unix seconds; the engine turns both into seconds.
Moment = str | int


class AuthorizeRequest(Struct, forbid_unknown_fields=True, frozen=True, gc=False):
    """May this call start? `seconds` asks for that much time instead of one chunk."""

    call_id: CallId
    account: AccountId
    to: Dialled
    from_: Annotated[str, Meta(max_length=128)] | None = field(default=None, name="from")
    direction: DirectionName = "outbound"
    switch: SwitchName | None = None
    seconds: Annotated[int, Meta(ge=1, le=SECONDS_MAX)] | None = None
    rate_number: Dialled | None = None
    dry_run: bool = False


class ReserveRequest(Struct, forbid_unknown_fields=True, frozen=True, gc=False):
    """May this call go on? With `to` it adopts a call that the store does not know."""

    call_id: CallId
    account: AccountId
    used_seconds: Seconds
    seconds: Annotated[int, Meta(ge=1, le=SECONDS_MAX)] | None = None
    to: Dialled | None = None
    from_: Annotated[str, Meta(max_length=128)] | None = field(default=None, name="from")
    direction: DirectionName = "outbound"
    switch: SwitchName | None = None
    rate_number: Dialled | None = None


class SettleRequest(Struct, forbid_unknown_fields=True, frozen=True, gc=False):
    """The call has ended after `seconds` of talk; 0 means never answered."""

    call_id: CallId
    account: AccountId
    seconds: Seconds
    hangup_cause: Annotated[str, Meta(max_length=64, pattern=r"^[^\x00-\x1f\x7f]*\Z")] | None = None
    answered_at: Moment | None = None
    ended_at: Moment | None = None
    to: Dialled | None = None
    from_: Annotated[str, Meta(max_length=128)] | None = field(default=None, name="from")
    direction: DirectionName | None = None
    switch: SwitchName | None = None
    rate_number: Dialled | None = None


class GrantLeg(Struct, frozen=True, gc=False, omit_defaults=True):
    """One account's part in a grant. `available` is null for an unlimited account."""

    account: str
    billing: str
    rate: str
    held: str
    available: str | None
    #: Percent that the account does not pay of what the rate makes, as a decimal; null: none.
    discount: str | None = None


class Grant(Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """The call may run until `seconds` after its answer; null: nothing limits it."""

    call_id: str
    allowed: bool
    reason: str
    class_: str = field(name="class")
    number: str
    seconds: int | None
    final: bool
    extend_at: int
    ring_seconds: int
    legs: tuple[GrantLeg, ...]
    enforced: bool = True
    degraded: bool = False
    dry_run: bool = False


class Denial(Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """The call may not start or go on. `account` is the one whose rule decided."""

    call_id: str
    allowed: bool
    reason: str
    account: str
    class_: str | None = field(name="class")
    sip_status: int
    hangup_cause: str
    detail: str
    dry_run: bool = False


class SettledLeg(Struct, frozen=True, gc=False):
    """One account's charge for a call and its balance after it."""

    account: str
    billing: str
    charged: str
    balance: str


class Settlement(Struct, frozen=True, gc=False):
    """The call is booked. `duplicate` says that it was booked before this request."""

    call_id: str
    settled: bool
    duplicate: bool
    seconds: int
    legs: tuple[SettledLeg, ...]


class Spooled(Struct, frozen=True):
    """The store is away; the settle is safe on disk here and will be booked exactly once."""

    call_id: str
    settled: bool = False
    spooled: bool = True


class CallLeg(Struct, frozen=True, omit_defaults=True):
    """One account's part in an open call."""

    account: str
    billing: str
    rate: str
    held: str
    used: str
    #: Percent of the rate that the account does not pay, as a decimal; null: none.
    discount: str | None = None


class CallState(Struct, frozen=True, kw_only=True):
    """What the store knows of a call that is open, orphaned or settled."""

    call_id: str
    account: str
    state: Literal["open", "orphan", "settled"]
    class_: str | None = field(name="class")
    direction: str | None
    number: str | None
    switch: str | None
    authorized_at: str | None
    used_seconds: int
    seconds: int | None
    final: bool
    lease_until: str | None
    legs: tuple[CallLeg, ...]


class SwitchRestarted(Struct, frozen=True):
    """How many open calls of a restarted switch became orphans."""

    switch: str
    orphaned: int


class Trunks(Struct, forbid_unknown_fields=True, frozen=True):
    """Flat-rate channels; burst is counted above the others, -1 leaves nothing over."""

    inbound: Annotated[int, Meta(ge=0, le=1_000_000)] = 0
    outbound: Annotated[int, Meta(ge=0, le=1_000_000)] = 0
    twoway: Annotated[int, Meta(ge=0, le=1_000_000)] = 0
    burst: Annotated[int, Meta(ge=-1, le=1_000_000)] = 0


class LowBalance(Struct, forbid_unknown_fields=True, frozen=True):
    """Warn at or below `threshold` (decimal), again after `repeat_hours` if set."""

    threshold: str
    repeat_hours: Annotated[int, Meta(ge=1, le=8760)] | None = None


class AutoRecharge(Struct, forbid_unknown_fields=True, frozen=True):
    """Ask for (`request`) or give (`credit`) `amount` when the balance falls below `threshold`."""

    threshold: str
    amount: str
    enabled: bool = True
    mode: Literal["request", "credit"] = "request"
    min_interval_hours: Annotated[int, Meta(ge=0, le=8760)] = 24
    monthly_cap: str | None = None


ClassName = Literal[
    "emergency", "tollfree", "premium", "caribbean",
    "national", "international", "satellite", "unknown",
]  # fmt: skip
Prefix = Annotated[str, Meta(pattern=r"^\+?[0-9*#]{1,20}$(?!\n)")]
Limit = Annotated[int, Meta(ge=0, le=1_000_000)]


class AccountConfig(Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """What an operator may set on an account. Amounts are decimal strings; null is no limit."""

    parent: AccountId | None = None
    currency: Annotated[str, Meta(pattern=r"^[A-Z]{3}$(?!\n)")] = "USD"
    timezone: str = "UTC"
    enabled: bool = True
    enforce: bool = True
    #: A decimal string of at least 0, or "unlimited".
    credit_limit: str = "0"
    per_minute: bool = True
    deck: str | None = None
    trunks: Trunks = Trunks()
    trunk_classes: tuple[ClassName, ...] = ("national",)
    max_calls: Limit | None = None
    max_calls_by_class: dict[ClassName, Limit] = {}  # msgspec copies it
    max_calls_per_second: Annotated[int, Meta(ge=0, le=100_000)] | None = None
    max_call_seconds: Seconds | None = None
    max_call_cost: str | None = None
    #: Dearest per-minute price that this account may dial, as a decimal string.
    max_rate: str | None = None
    #: Percent, with at most two decimals, that each of its calls to numbers of a class costs less.
    discounts: dict[ClassName, Decimal] = {}  # msgspec copies it
    min_first_seconds: Seconds | None = None
    blocked_classes: tuple[ClassName, ...] = ()
    blocked_prefixes: tuple[Prefix, ...] = ()
    allowed_prefixes: tuple[Prefix, ...] = ()
    daily_spend_limit: str | None = None
    monthly_spend_limit: str | None = None
    low_balance: LowBalance | None = None
    auto_recharge: AutoRecharge | None = None
    metadata: dict[str, str] = {}  # msgspec copies it
