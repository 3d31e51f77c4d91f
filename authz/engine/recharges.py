"""Requested recharges: what a payment system answers, and what no traffic would bring about.

A script asks for a recharge when a balance falls below its threshold (`lua/includes/events.lua`).
Whoever takes the money answers `succeeded` or `failed`. Expiry, the next try after a failure and
the end of an interval are looked after here, because an empty account has no calls that would.
"""

from __future__ import annotations

import asyncio
import re
from typing import Annotated, Final, Literal, NamedTuple

from msgspec import Meta, Struct

from authz import log
from authz.engine.account_tree import AccountTree
from authz.engine.clock import StoreClock, format_moment
from authz.engine.postings import (
    REFERENCE_KEEP_SECONDS,
    CreditRequest,
    Description,
    Posted,
    PostingRefused,
    PostingService,
)
from authz.errors import AuthzError, Conflict, InvariantError, NotExecuted, NotFound
from authz.model import ACCOUNT_ID_PATTERN
from authz.money import format_amount, parse_amount
from authz.reasons import CallClass, Outcome
from authz.store import keys
from authz.store.accounts import AccountDirectory, Chain
from authz.store.client import StoreClient
from authz.store.constants import Kind, RechargeState
from authz.store.layouts import RECHARGE_REQUEST, REFERENCE
from authz.store.scripts import load_scripts
from authz.validation import parse_bucket_cursor

#: How long a request that never came to anything is remembered: as long as a reference.
REQUEST_KEEP_SECONDS: Final = REFERENCE_KEEP_SECONDS
_CHECKS_PAGE: Final = 100
_SCAN_FIELDS: Final = 500
#: Requests that one question looks through, so that it ends soon also where few match.
_EXAMINED_MAX: Final = 20_000
#: Accounts looked at in one pass over a bucket; more wait for the next.
_CHECKS_MAX: Final = 1_000
_SWEEP_SECONDS: Final = 15
#: Old requests are looked for once in so many passes (an hour).
_PASSES_PER_CLEANING: Final = 240
_ATTEMPTS_MAX: Final = 100
_ID = re.compile(r"(?P<account>.+)-(?P<number>[1-9][0-9]{0,14})\Z")
_ACCOUNT = re.compile(ACCOUNT_ID_PATTERN)

StateName = Literal["pending", "expired", "failed"]


class RechargeSucceeded(Struct, forbid_unknown_fields=True, frozen=True):
    """The money is there. `amount`, if given, must be what was asked for."""

    amount: str | None = None
    description: Description = ""


class RechargeFailed(Struct, forbid_unknown_fields=True, frozen=True):
    """The money could not be had; `detail` says why and is passed on in the event."""

    detail: Annotated[str, Meta(max_length=160)] = ""


class RechargeAnswer(Struct, frozen=True):
    """What was noted of a failed recharge; `duplicate`: it was known before."""

    recharge: str
    account: str
    state: StateName
    duplicate: bool


class RechargeView(Struct, frozen=True, kw_only=True):
    """A requested recharge that waits for its money, or has done so in vain.

    One that is credited is in the account's transactions and in `recharge.succeeded`.
    """

    id: str
    account: str
    state: StateName
    amount: str
    requested_at: str
    changed_at: str


class RechargeList(Struct, frozen=True):
    """Some recharges, in no order; `cursor` asks for more, null: there are none."""

    recharges: tuple[RechargeView, ...]
    cursor: str | None


class _Named(NamedTuple):
    """A recharge's id taken apart."""

    account: str
    number: int
    tag: str


class _RechargeScript:
    """Runs the script about one account's recharges."""

    def __init__(self, client: StoreClient, directory: AccountDirectory, clock: StoreClock) -> None:
        self._client = client
        self._directory = directory
        self._clock = clock
        self._script = load_scripts()["recharge"]

    async def run(
        self,
        verb: str,
        tag: str,
        account_id: str,
        recharge_id: str = "",
        number: int = 0,
        detail: str = "",
    ) -> int:
        """Run the script on an account as it is now; return its outcome."""
        for _ in range(_ATTEMPTS_MAX):
            chain = await self._directory.chain(account_id)
            if chain is None:
                raise NotFound(f"no account {account_id}")
            reply = await self._call(chain, verb, tag, recharge_id, number, detail)
            if reply[0] == Outcome.STALE_TIME:
                self._clock.correct(reply[1])
            elif reply[0] in (Outcome.STALE_CONFIG, Outcome.ACCOUNT_MISSING):
                self._directory.forget(account_id)
            elif reply[0] > 0:
                raise InvariantError(f"the recharge script answered {reply[0]}")
            else:
                return reply[0]
        raise NotExecuted(f"account {account_id} kept changing")

    async def _call(
        self, chain: Chain, verb: str, tag: str, recharge_id: str, number: int, detail: str
    ) -> list[int]:
        now = self._clock.now()
        account = chain.accounts[0]
        period = account.period(now)
        reply: list[int] = await self._client.call_script(
            self._script,
            [
                keys.account(tag, account.id),
                keys.bucket(tag),
                keys.ledger(tag),
                keys.events(tag),
                keys.reference(tag, account.id, recharge_id),
            ],
            [
                verb.encode(),
                account.limits(CallClass.UNKNOWN, now),
                period.valid_from,
                period.valid_until,
                number,
                detail.encode(),
            ],
        )
        return reply


class RechargeService:
    """Takes answers to recharges; safe in any number of processes at once.

    Every method raises StoreError when the store does not answer; the same again finds out.
    """

    def __init__(
        self,
        client: StoreClient,
        directory: AccountDirectory,
        clock: StoreClock,
        postings: PostingService,
    ) -> None:
        self._client = client
        self._directory = directory
        self._clock = clock
        self._postings = postings
        self._script = _RechargeScript(client, directory, clock)

    async def succeeded(
        self, recharge_id: str, request: RechargeSucceeded
    ) -> Posted | PostingRefused:
        """Credit a requested recharge, once, also one that has expired or failed since.

        Raises NotFound for one that was never asked for or is longer ago than 35 days, Conflict
        for another amount than the requested.
        """
        named = await self._name(recharge_id)
        asked = await self._amount_of(named, recharge_id)
        if request.amount is not None and parse_amount(request.amount) != asked:
            raise Conflict(
                f"recharge {recharge_id} is of {format_amount(asked)}, not of {request.amount}"
            )
        credit = CreditRequest(
            kind="recharge",
            reference=recharge_id,
            amount=format_amount(asked),
            description=request.description,
        )
        return await self._postings.credit(named.account, credit)

    async def failed(self, recharge_id: str, request: RechargeFailed) -> RechargeAnswer:
        """Note that a recharge failed: it is asked for again with back-off.

        Raises NotFound as `succeeded`, Conflict when it is credited already.
        """
        named = await self._name(recharge_id)
        outcome = await self._script.run(
            "fail", named.tag, named.account, recharge_id, named.number, request.detail
        )
        if outcome == Outcome.REFERENCE_CONFLICT:
            raise Conflict(f"recharge {recharge_id} is credited already")
        if outcome == Outcome.UNKNOWN_RECHARGE:
            raise _unknown(recharge_id)
        duplicate = outcome == Outcome.DUPLICATE
        return RechargeAnswer(recharge_id, named.account, "failed", duplicate)

    def account_of(self, recharge_id: str) -> str | None:
        """Return the account that a recharge's id names, or None if it can be nobody's."""
        match = _ID.match(recharge_id)
        if match is None or not _ACCOUNT.fullmatch(match["account"]):
            return None
        return match["account"]

    async def page(
        self,
        account: str | None,
        state: StateName | None,
        cursor: str | None,
        limit: int,
        tree: AccountTree | None = None,
    ) -> RechargeList:
        """Return about `limit` recharges that are not credited, of a tree if one is given.

        Raises NotFound for an unknown account, InvalidInput for a forged cursor.
        """
        tags = keys.TAGS
        if account is not None:
            tag = await self._directory.tag_of(account)
            if tag is None:
                raise NotFound(f"no account {account}")
            tags = (tag,)
        elif tree is not None:
            tags = (keys.TAGS[tree.bucket],)
        bucket, position = parse_bucket_cursor(cursor, len(tags))
        found: dict[str, RechargeView] = {}
        examined = 0
        while bucket < len(tags) and len(found) < limit and examined < _EXAMINED_MAX:
            answer = await self._client.execute(
                "HSCAN", keys.recharges(tags[bucket]), position, "COUNT", _SCAN_FIELDS
            )
            position = int(answer[0])
            for view in map(_view, answer[1][::2], answer[1][1::2]):
                if account not in (None, view.account) or state not in (None, view.state):
                    continue
                if tree is None or await tree.contains(view.account):
                    found[view.id] = view
            examined += len(answer[1]) // 2
            bucket += position == 0
        next_cursor = f"{bucket}-{position}" if bucket < len(tags) else None
        return RechargeList(tuple(found.values()), next_cursor)

    async def _name(self, recharge_id: str) -> _Named:
        account = self.account_of(recharge_id)
        tag = None if account is None else await self._directory.tag_of(account)
        if account is None or tag is None:
            raise _unknown(recharge_id)
        return _Named(account, int(recharge_id.rpartition("-")[2]), tag)

    async def _amount_of(self, named: _Named, recharge_id: str) -> int:
        """Return what was asked for, in micros, also of a recharge that is credited since."""
        packed = await self._client.execute("HGET", keys.recharges(named.tag), recharge_id)
        if packed is not None:
            return int(RECHARGE_REQUEST.unpack(packed).amount)
        packed = await self._client.execute(
            "GET", keys.reference(named.tag, named.account, recharge_id)
        )
        if packed is not None:
            known = REFERENCE.unpack(packed)
            if known.kind == Kind.RECHARGE:
                return int(known.amount)
        raise _unknown(recharge_id)


class RechargeSweeper:
    """Looks at accounts whose recharge is due or too long pending, bucket by bucket.

    Any number may run: each look is one script, which decides by the store's own time.
    """

    def __init__(self, client: StoreClient, directory: AccountDirectory, clock: StoreClock) -> None:
        self._client = client
        self._script = _RechargeScript(client, directory, clock)
        self._passes = 0

    async def run(self) -> None:
        """Sweep until cancelled; a store that is away is only waited for."""
        while True:
            try:
                await self.sweep()
            except Exception as error:
                level: log.LevelName = "warning" if isinstance(error, AuthzError) else "error"
                log.event("recharge_sweep_failed", level=level, error=error)
            await asyncio.sleep(_SWEEP_SECONDS)

    async def sweep(self) -> int:
        """Pass once over all buckets; return how many accounts were looked at."""
        now = int((await self._client.execute("TIME"))[0])
        looked = 0
        for tag in keys.TAGS:
            looked += await self._sweep_bucket(tag, now)
        if self._passes % _PASSES_PER_CLEANING == 0:
            for tag in keys.TAGS:
                await self._forget_old(tag, now)
        self._passes += 1
        return looked

    async def _sweep_bucket(self, tag: str, now: int) -> int:
        looked = 0
        while looked < _CHECKS_MAX:
            due = await self._client.execute(
                "ZRANGEBYSCORE", keys.recharge_checks(tag), 0, now, "LIMIT", 0, _CHECKS_PAGE
            )
            for name in due:
                await self._check(tag, name.decode())
            looked += len(due)
            if len(due) < _CHECKS_PAGE:
                break
        return looked

    async def _check(self, tag: str, account_id: str) -> None:
        """Expire what waited too long and ask for what is due now, as a call would."""
        try:
            await self._script.run("check", tag, account_id)
        except NotFound:
            # A closed account needs no money.
            await self._client.execute("ZREM", keys.recharge_checks(tag), account_id)

    async def _forget_old(self, tag: str, now: int) -> None:
        cursor = b"0"
        while True:
            cursor, fields = await self._client.execute(
                "HSCAN", keys.recharges(tag), cursor, "COUNT", _SCAN_FIELDS
            )
            old = [
                name
                for name, packed in zip(fields[::2], fields[1::2], strict=True)
                if RECHARGE_REQUEST.unpack(packed).requested_at < now - REQUEST_KEEP_SECONDS
            ]
            if old:
                await self._client.execute("HDEL", keys.recharges(tag), *old)
            if cursor == b"0":
                return


def _view(name: bytes, packed: bytes) -> RechargeView:
    record = RECHARGE_REQUEST.unpack(packed)
    recharge_id = name.decode()
    return RechargeView(
        id=recharge_id,
        account=recharge_id.rpartition("-")[0],
        state=_STATES[record.state],
        amount=format_amount(record.amount),
        requested_at=format_moment(record.requested_at),
        changed_at=format_moment(record.changed_at),
    )


_STATES: Final[dict[int, StateName]] = {
    RechargeState.PENDING: "pending",
    RechargeState.EXPIRED: "expired",
    RechargeState.FAILED: "failed",
}


def _unknown(recharge_id: str) -> NotFound:
    return NotFound(
        f"no recharge {recharge_id[:80]} was asked for; a request is remembered for 35 days"
    )
