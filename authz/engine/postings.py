"""Credits, debits and refunds: money that no call moves.

A debit goes to an account and all its ancestors (`scope` `self`: that account only), a credit to
the named account only, a refund of a call to each of its legs. Each is booked once per account
and reference, so that whoever got no answer asks again.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Annotated, Any, Final, Literal, NamedTuple

import msgspec
from msgspec import Meta, Struct

from authz.archived import ArchivedPosting, LedgerArchive
from authz.engine.clock import StoreClock
from authz.engine.known_references import check_same, find_known
from authz.engine.refunds import RefundPlan, plan_refund, tombstone_hours
from authz.engine.resend import ResendWindow
from authz.engine.steps import pack_costs
from authz.errors import Conflict, InvalidInput, InvariantError, NotExecuted, NotFound
from authz.model import CallId
from authz.money import BOUND_UNITS, format_amount, parse_amount
from authz.reasons import BY_CODE, REASONS, CallClass, Outcome
from authz.store import keys
from authz.store.accounts import Account, AccountDirectory, Chain, available
from authz.store.client import StoreClient
from authz.store.constants import SPEND_KINDS, Kind, PerLeg
from authz.store.layouts import POSTING
from authz.store.records import ledger_strings
from authz.store.scripts import load_scripts

#: How long a reference is known in the store; the archive knows it for ever.
REFERENCE_KEEP_SECONDS: Final = 35 * 86_400
#: Every round of a race over one account or one call is won by somebody.
_ATTEMPTS_MAX: Final = 100

_RECHARGE_NUMBER = re.compile(r"[1-9][0-9]{0,14}\Z")

Reference = Annotated[str, Meta(min_length=1, max_length=128, pattern=r"^[!-~]+$(?!\n)")]
Description = Annotated[str, Meta(max_length=160)]
Quantity = Annotated[int, Meta(ge=0, le=1_000_000_000_000)]
Unit = Annotated[str, Meta(min_length=1, max_length=32)]
CreditKind = Literal["payment", "recharge", "refund", "manual", "adjustment"]
DebitKind = Literal["sms", "asr", "mobile_data", "recurring", "manual", "adjustment"]


class CreditRequest(Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Money for one account; with `kind` `refund` and `call_id`, back from a call of it.

    Of a refund, `amount` is what the first charged leg gets back, the account's own wherever it
    was charged, and the other legs get the same part of theirs; without it they get back all
    that is left. `reference` of a requested recharge (`acme-3`) also answers that request.
    """

    kind: CreditKind
    reference: Reference
    amount: str | None = None
    call_id: CallId | None = None
    description: Description = ""
    quantity: Quantity | None = None
    unit: Unit | None = None


class DebitRequest(Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """A charge to an account and its ancestors, even into the negative.

    With `require_available` it is booked only if every leg has it, and for what counts as spend
    only within the spend limits.
    """

    amount: str
    kind: DebitKind
    reference: Reference
    scope: Literal["tree", "self"] = "tree"
    require_available: bool = False
    description: Description = ""
    quantity: Quantity | None = None
    unit: Unit | None = None


class PostedLeg(Struct, frozen=True):
    """One account's movement (negative: a charge) and what it has since; null: unlimited.

    `amount` is null for a refund that was booked before: its ledger entry tells.
    """

    account: str
    amount: str | None
    balance: str
    available: str | None


class Posted(Struct, frozen=True):
    """The posting is booked; `duplicate` says that it was before this request.

    Of a duplicate, `legs` has what each account has now.
    """

    account: str
    reference: str
    kind: str
    duplicate: bool
    sequence: int
    legs: tuple[PostedLeg, ...]
    posted: bool = True


class PostingRefused(Struct, frozen=True):
    """Nothing was booked. `account` is the one that lacks the money, or would pass the bound."""

    account: str
    reference: str
    reason: str
    detail: str
    posted: bool = False


_Book = Callable[[], Awaitable[Posted | PostingRefused]]


class _Posting(NamedTuple):
    """A posting in the store's numbers: what every leg is moved by, leaf first."""

    kind: Kind
    #: Names the posting: the same reference with another amount is a conflict.
    amount: int
    amounts: tuple[int, ...]
    require_available: bool = False
    #: Number of the requested recharge that this answers, or 0.
    recharge: int = 0


class PostingService:
    """Books credits, debits and refunds; safe in any number of processes at once.

    Raises StoreError when the store does not answer: OutcomeUnknown leaves open whether it was
    booked, and the same request again finds out.
    """

    def __init__(
        self,
        client: StoreClient,
        directory: AccountDirectory,
        clock: StoreClock,
        *,
        closed_hours: int = 24,
        resend: ResendWindow | None = None,
        archive: LedgerArchive | None = None,
    ) -> None:
        """Book on the accounts of `directory`; the archive knows what the store has forgotten."""
        self._client = client
        self._directory = directory
        self._clock = clock
        self._closed_hours = closed_hours
        self._resend = resend
        self._archive = archive
        self._script = load_scripts()["post"]

    async def credit(self, account_id: str, request: CreditRequest) -> Posted | PostingRefused:
        """Book a credit, or a refund of a call.

        Raises NotFound for an unknown account or call, InvalidInput, or Conflict for a
        reference used otherwise and for more than the call was charged.
        """
        amount = None if request.amount is None else _positive(request.amount)
        if request.call_id is not None and request.kind != "refund":
            raise InvalidInput("call_id", "only a refund names a call")
        if amount is None and request.call_id is None:
            raise InvalidInput("amount", "is missing; only a refund of a call may leave it out")
        known = await find_known(self._archive, account_id, request.reference)
        if known is not None:
            if known.refunded_call != (request.call_id or ""):
                raise Conflict(f"reference {request.reference} of account {account_id} is used")
            return await self._known(account_id, request, known, amount)
        book = partial(self._credit, account_id, request, amount)
        return await self._perform(account_id, book, book)

    async def debit(self, account_id: str, request: DebitRequest) -> Posted | PostingRefused:
        """Book a debit on the account and, unless its scope is `self`, on all its ancestors.

        Raises NotFound for an unknown account, InvalidInput, or Conflict for a reference used
        otherwise.
        """
        amount = _positive(request.amount)
        known = await find_known(self._archive, account_id, request.reference)
        if known is not None:
            return await self._known(account_id, request, known, -amount)
        # What was booked once is booked again whatever is available by then.
        unconditional = msgspec.structs.replace(request, require_available=False)
        return await self._perform(
            account_id,
            partial(self._debit, account_id, request, amount),
            partial(self._debit, account_id, unconditional, amount),
        )

    async def _known(
        self,
        account_id: str,
        request: CreditRequest | DebitRequest,
        known: ArchivedPosting,
        amount: int | None,
    ) -> Posted:
        """Answer a posting that the archive knows; raises Conflict if it was another one."""
        kind = Kind[request.kind.upper()]
        check_same(known, account_id, request.reference, kind, amount)
        chain = await self._chain(account_id)
        states = await self._directory.states(chain)
        if states is None:
            raise NotFound(f"no account {account_id}")
        legs = []
        for account, state, moved in zip(chain.accounts, states, known.amounts, strict=False):
            left = available(state, account)
            legs.append(
                PostedLeg(
                    account.id,
                    None if known.refunded_call else format_amount(moved),
                    format_amount(state.balance),
                    None if left is None else format_amount(left),
                )
            )
        return Posted(account_id, request.reference, kind.label, True, known.sequence, tuple(legs))

    async def _perform(
        self, account_id: str, book: _Book, book_again: _Book
    ) -> Posted | PostingRefused:
        posted = await book()
        if self._resend is not None and isinstance(posted, Posted):
            tag = await self._directory.tag_of(account_id)
            if tag is not None and not posted.duplicate:
                self._resend.observe(tag, posted.sequence)
            self._resend.remember(book_again)
        return posted

    async def _credit(
        self, account_id: str, request: CreditRequest, amount: int | None
    ) -> Posted | PostingRefused:
        text = _text(request)
        for _ in range(_ATTEMPTS_MAX):
            chain = await self._chain(account_id)
            if request.call_id is None:
                if amount is None:
                    raise InvariantError("a credit without call and amount")
                plan = None
                posting = _Posting(Kind[request.kind.upper()], amount, (amount,))
                posting = posting._replace(recharge=_recharge_number(account_id, request))
            else:
                plan = await plan_refund(
                    self._client,
                    chain,
                    request.call_id,
                    request.reference,
                    amount,
                    tombstone_hours(self._clock.now(), self._closed_hours),
                    self._archive,
                )
                posting = _Posting(Kind.REFUND, plan.amount, plan.amounts)
            answer = await self._post(chain, request.reference, text, posting, plan)
            if answer is not None:
                return answer
        raise NotExecuted("the account or the call kept changing while money was booked")

    async def _debit(
        self, account_id: str, request: DebitRequest, amount: int
    ) -> Posted | PostingRefused:
        text = _text(request)
        for _ in range(_ATTEMPTS_MAX):
            chain = await self._chain(account_id)
            legs = len(chain.accounts) if request.scope == "tree" else 1
            posting = _Posting(
                Kind[request.kind.upper()],
                -amount,
                (-amount,) * legs,
                require_available=request.require_available,
            )
            answer = await self._post(chain, request.reference, text, posting, None)
            if answer is not None:
                return answer
        raise NotExecuted("the account kept changing while money was booked")

    async def _chain(self, account_id: str) -> Chain:
        chain = await self._directory.chain(account_id)
        if chain is None:
            raise NotFound(f"no account {account_id}")
        return chain

    async def _post(
        self,
        chain: Chain,
        reference: str,
        text: str,
        posting: _Posting,
        refund: RefundPlan | None,
    ) -> Posted | PostingRefused | None:
        """Run the script; None when what it was given is stale and must be read again."""
        now = self._clock.now()
        valid_from, valid_until = chain.validity(now)
        accounts = chain.accounts[: len(posting.amounts)]
        numbers = POSTING.pack(
            amount=posting.amount,
            kind=posting.kind,
            legs=len(accounts),
            require_available=posting.require_available,
            counts_as_spend=posting.kind in SPEND_KINDS,
            valid_from=valid_from,
            valid_until=valid_until,
            keep_seconds=REFERENCE_KEEP_SECONDS,
            recharge=posting.recharge,
            per_leg=PerLeg.NONE if refund is None else refund.per_leg,
        )
        reference_key = keys.reference(chain.tag, accounts[0].id, reference)
        reply = await self._client.call_script(
            self._script,
            [
                reference_key,
                reference_key if refund is None else refund.refunded_key,
                chain.closed_prefix,
                chain.bucket_key,
                chain.ledger_key,
                chain.events_key,
                *chain.account_keys,
            ],
            [
                numbers,
                b"" if refund is None else refund.digest + refund.given,
                self._closed_hours,
                pack_costs(posting.amounts),
                ledger_strings(
                    [account.id for account in accounts],
                    reference,
                    description=text,
                    refunded_call="" if refund is None else refund.call_id,
                ),
                *(account.limits(CallClass.UNKNOWN, now) for account in accounts),
                b"" if refund is None else refund.archived,
            ],
        )
        if self._is_stale(chain, reply):
            return None
        return _answer(accounts, reference, posting, reply, refund)

    def _is_stale(self, chain: Chain, reply: list[Any]) -> bool:
        outcome = reply[0]
        if outcome == Outcome.STALE_TIME:
            self._clock.correct(reply[1])
            return True
        if outcome in (Outcome.STALE_CONFIG, Outcome.ACCOUNT_MISSING):
            self._directory.forget(chain.accounts[0].id)
            return True
        # Somebody has refunded the same call meanwhile: what is left is read again.
        return bool(outcome == Outcome.STALE_CALL)


def _answer(
    accounts: Sequence[Account],
    reference: str,
    posting: _Posting,
    reply: list[Any],
    refund: RefundPlan | None,
) -> Posted | PostingRefused:
    outcome = reply[0]
    leaf = accounts[0].id
    if outcome == Outcome.REFERENCE_CONFLICT:
        raise Conflict(
            f"reference {reference} of account {leaf} is used with another amount or kind"
        )
    if outcome == Outcome.UNKNOWN_CALL:
        raise NotFound(f"account {leaf} has no such settled call")
    if outcome == Outcome.OUT_OF_RANGE:
        account = accounts[reply[1] - 1].id
        detail = f"the balance of {account} would pass ±{BOUND_UNITS} units"
        return PostingRefused(account, reference, REASONS["amount_out_of_range"].name, detail)
    if outcome > 0:
        account = accounts[reply[1] - 1].id
        needed = format_amount(-posting.amounts[reply[1] - 1])
        detail = f"{account} has {format_amount(reply[2])} left of {needed}"
        return PostingRefused(account, reference, BY_CODE[outcome].name, detail)
    if outcome not in (0, Outcome.DUPLICATE):
        raise InvariantError(f"the post script answered {outcome}")
    duplicate = outcome == Outcome.DUPLICATE
    legs = []
    for leg, account in enumerate(accounts):
        balance, credit = reply[2 + 2 * leg : 4 + 2 * leg]
        legs.append(
            PostedLeg(
                account.id,
                None if duplicate and refund else format_amount(posting.amounts[leg]),
                format_amount(balance),
                None if account.unlimited else format_amount(credit),
            )
        )
    return Posted(leaf, reference, posting.kind.label, duplicate, reply[1], tuple(legs))


def _positive(text: str) -> int:
    amount = parse_amount(text)
    if amount <= 0:
        raise InvalidInput("amount", "must be above 0")
    return amount


def _text(request: CreditRequest | DebitRequest) -> str:
    """Return the description that the ledger entry keeps, led by quantity and unit."""
    if request.quantity is None:
        if request.unit is not None:
            raise InvalidInput("unit", "needs a quantity")
        return request.description
    measured = f"{request.quantity} {request.unit or ''}".rstrip()
    return f"{measured}; {request.description}" if request.description else measured


def _recharge_number(account_id: str, request: CreditRequest) -> int:
    """Return the number of the requested recharge that this credit answers, or 0."""
    account, _, number = request.reference.rpartition("-")
    if request.kind == "recharge" and account == account_id and _RECHARGE_NUMBER.match(number):
        return int(number)
    return 0
