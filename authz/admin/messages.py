"""What the admin API takes and answers besides the records of the model."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct, field

from authz.model import AccountConfig, AccountId, CallId, CallState, Dialled, Seconds, SwitchName

#: Decks are named like accounts.
DeckId = AccountId
Currency = Annotated[str, Meta(pattern=r"^[A-Z]{3}$")]
PageLength = Annotated[int, Meta(ge=1, le=500)]
#: As long as a path of four account ids.
Cursor = Annotated[str, Meta(min_length=1, max_length=260)]
Direction = Literal["outbound", "inbound"]
#: RFC 3339 text with an offset, or Unix seconds.
MomentText = Annotated[str, Meta(min_length=1, max_length=40)]


class AccountPath(Struct, frozen=True, forbid_unknown_fields=True):
    """Which account."""

    id: AccountId


class AccountBody(AccountConfig, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An account's whole configuration. `id` may be repeated, as a GET has it."""

    id: AccountId | None = None


class AccountView(AccountConfig, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An account's configuration under its id; a PUT takes it back."""

    id: AccountId


class AccountListQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """Which accounts: the children of `parent`, those with `q` in the id, after `cursor`.

    `under` names the top of a tree: it comes first, each account before those below it.
    """

    parent: AccountId | None = None
    under: AccountId | None = None
    q: Annotated[str, Meta(min_length=1, max_length=64)] | None = None
    cursor: Cursor | None = None
    limit: PageLength = 100


class AccountList(Struct, frozen=True):
    """A page of accounts by id; `cursor` asks for the next, null: there is none."""

    accounts: tuple[AccountView, ...]
    cursor: str | None


class DeckPath(Struct, frozen=True, forbid_unknown_fields=True):
    """Which deck."""

    id: DeckId


class DeckImportQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """Where a deck file goes and how it is read; settings give what is left out.

    `direction` is that of lines that name none (both). `skip_bad` leaves bad lines out, or
    blocks their prefix. `dry_run` reports and compares and changes nothing.
    """

    id: DeckId
    currency: Currency | None = None
    timezone: str | None = None
    direction: Direction | None = None
    skip_bad: bool = False
    dry_run: bool = False


class LookupQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """Which row of a deck is in force for a number."""

    id: DeckId
    number: Dialled
    direction: Direction = "outbound"
    at: MomentText | None = None


class LookupAnswer(Struct, frozen=True, kw_only=True):
    """The row of the longest matching prefix, with its per-minute price."""

    deck: str
    version: str
    currency: str
    number: str
    class_: str = field(name="class")
    prefix: str
    description: str
    row_class: str | None
    blocked: bool
    rate: str
    connect_fee: str
    free_seconds: int


class PriceQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """What a call would cost an account's chain, or by one deck.

    With `seconds` (60 if neither is given): their cost. With `amount`: the seconds it buys.
    """

    to: Dialled
    account: AccountId | None = None
    deck: DeckId | None = None
    direction: Direction = "outbound"
    seconds: Seconds | None = None
    amount: str | None = None
    at: MomentText | None = None


class PriceLeg(Struct, frozen=True, kw_only=True):
    """One account's price; null where its deck has no row for the number.

    `trunk` says that a free trunk would carry the call instead, at no cost. `discount` is the
    percent that the account's discount has taken off `cost`; `rate` is the deck's.
    """

    account: str | None
    deck: str | None
    currency: str
    prefix: str | None
    description: str | None
    blocked: bool
    trunk: bool
    rate: str | None
    cost: str | None
    seconds: int | None
    discount: str | None


class PriceAnswer(Struct, frozen=True, kw_only=True):
    """An exact price. `cost`, `prefix` and `rate` are those of the first leg.

    `legs` has the account and its ancestors, leaf first, or the one deck that was asked for.
    Asked with `amount`, `seconds` is what it buys on every leg, and the costs are theirs.
    """

    number: str
    class_: str = field(name="class")
    direction: str
    at: str
    currency: str
    seconds: int | None
    cost: str | None
    rate: str | None
    prefix: str | None
    legs: tuple[PriceLeg, ...]


class CallListQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """Which open calls: those of an account and its descendants, or all."""

    account: AccountId | None = None
    cursor: Cursor | None = None
    limit: PageLength = 100


class CallList(Struct, frozen=True):
    """Some open calls, in no order; `cursor` asks for more, null: there are none.

    A call that is open all the while is listed at least once, in rare cases twice.
    """

    calls: tuple[CallState, ...]
    cursor: str | None


class CallQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """Which call."""

    call_id: CallId
    account: AccountId


class SwitchPath(Struct, frozen=True, forbid_unknown_fields=True):
    """Which switch."""

    name: SwitchName


class Health(Struct, frozen=True):
    """The process answers; `ready` also reaches its store."""

    status: Literal["live", "ready"]
