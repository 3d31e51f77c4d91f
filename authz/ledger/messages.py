"""What is asked of an account's history, and what is answered; knows no database.

Amounts are decimal strings, times RFC 3339 in UTC unless they say otherwise.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct, field

from authz.model import AccountId, ClassName, DirectionName

MomentText = Annotated[str, Meta(min_length=1, max_length=40)]
KindName = Literal[
    "call", "payment", "recharge", "manual", "sms", "asr", "mobile_data", "recurring",
    "refund", "adjustment",
]  # fmt: skip
#: The beginning of a number; of one in E.164 the plus may be left out.
Destination = Annotated[str, Meta(pattern=r"^\+?[0-9*#]{1,20}$(?!\n)")]
SortName = Literal["booked", "-booked", "amount", "-amount"]
PageLength = Annotated[int, Meta(ge=1, le=500)]
Cursor = Annotated[str, Meta(min_length=1, max_length=128)]


class MovementQuery(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which movements of account `id`; what is left out restricts nothing.

    `start` and `end` are dates of the account's time zone, RFC 3339 times or Unix seconds; a
    date as `end` includes that day. `destination` is how the number begins. `origin` is the
    account that the movement came from, `under` that account or any below it.
    """

    id: AccountId
    start: MomentText | None = None
    end: MomentText | None = None
    kind: KindName | None = None
    direction: DirectionName | None = None
    class_: ClassName | None = field(default=None, name="class")
    destination: Destination | None = None
    origin: AccountId | None = None
    under: AccountId | None = None


class TransactionQuery(MovementQuery, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which page of them in which order; a minus is the descending one.

    By `amount`, the window is at most 31 days long. A page has 100 where `limit` is left out.
    """

    sort: SortName = "-booked"
    cursor: Cursor | None = None
    limit: PageLength | None = None


class StatementQuery(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Of which account and month, such as `2026-11`; without one, the month that is running."""

    id: AccountId
    month: Annotated[str, Meta(pattern=r"^[0-9]{4}-[0-9]{2}$(?!\n)")] | None = None


class Transaction(Struct, frozen=True, kw_only=True, gc=False):
    """One movement of an account's balance; a negative `amount` is a charge.

    `origin` is the account that it came from: the account itself or one below it. `balance` is
    the account's after it. What only calls have (`direction`, `class`, `number`, `seconds`,
    `billing`) is null for all else, which has a `reference` instead of a `call_id`; the refund of
    a call has both. `marks`: `degraded` (granted while the store was away), `reopened` (was an
    orphan once), `provisional` (an orphan's charge that the switch may still correct),
    `correction` (the difference to it, or its reversal), `unknown` (booked from the report of
    its end alone).
    """

    id: str
    account: str
    origin: str
    booked_at: str
    started_at: str
    kind: str
    marks: tuple[str, ...]
    direction: str | None
    class_: str | None = field(name="class")
    number: str | None
    seconds: int | None
    billing: str | None
    amount: str
    balance: str
    call_id: str | None
    reference: str | None
    description: str


class TransactionPage(Struct, frozen=True, kw_only=True):
    """Some transactions of a window; `cursor` asks for the next, null: there are no more.

    An open side of the window is null.
    """

    account: str
    currency: str
    timezone: str
    start: str | None
    end: str | None
    transactions: tuple[Transaction, ...]
    cursor: str | None


class UsageSums(Struct, frozen=True, kw_only=True):
    """Sums over some movements; a negative amount was charged.

    `calls` counts each call once and `seconds` what it was charged for in the end, also when
    an orphan's settlement was corrected.
    """

    entries: int
    calls: int
    seconds: int
    amount: str


class KindSums(UsageSums, frozen=True, kw_only=True):
    """Sums of one kind."""

    kind: str


class ClassSums(UsageSums, frozen=True, kw_only=True):
    """Sums of the calls to one class of number."""

    class_: str = field(name="class")


class BillingSums(UsageSums, frozen=True, kw_only=True):
    """Sums of the calls that paid in one way."""

    billing: str


class OriginSums(UsageSums, frozen=True, kw_only=True):
    """Sums of what came from one account."""

    origin: str


class UsageAnswer(Struct, frozen=True, kw_only=True):
    """What an account used in a window; each list adds up to the total, or to its calls.

    `by_origin` has the accounts that were charged most; `more_origins` says that there are
    others.
    """

    account: str
    currency: str
    timezone: str
    start: str | None
    end: str | None
    total: UsageSums
    by_kind: tuple[KindSums, ...]
    by_class: tuple[ClassSums, ...]
    by_billing: tuple[BillingSums, ...]
    by_origin: tuple[OriginSums, ...]
    more_origins: bool


class Statement(Struct, frozen=True, kw_only=True):
    """A month of an account, by the time of booking in its time zone.

    `opening_balance` (what rolls over from the month before) and the amounts of `totals` make
    `closing_balance`. `complete` says that the month is over and that nothing will change.
    """

    account: str
    currency: str
    timezone: str
    month: str
    start: str
    end: str
    complete: bool
    opening_balance: str
    totals: tuple[KindSums, ...]
    closing_balance: str
