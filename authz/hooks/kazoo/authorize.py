"""authz_req → authz_resp: the decision order of the contract's section 1.2, decided by our engine.

One script decides and charges account and reseller together, each at its own deck's price. What
the engine does not know is decided around it: excused accounts (`payers`), calls of one number
(`dids`), and soft limits. A soft limit lets pass what its own account refuses, and nothing
that another one does: the call is then its parent's, and the account is not charged.
"""

from __future__ import annotations

from typing import Final, Protocol

from msgspec import Struct, field

from authz import log
from authz.config.kazoo import KazooSettings
from authz.engine.engine import Engine
from authz.errors import InvalidInput, StoreError
from authz.hooks.kazoo.calls import Link
from authz.hooks.kazoo.deliveries import Complaints
from authz.hooks.kazoo.dids import DidLimits
from authz.hooks.kazoo.legs import Leg, read_leg
from authz.hooks.kazoo.limits import limits_of
from authz.hooks.kazoo.messages import AuthorizeAnswer, AuthorizeRequest
from authz.hooks.kazoo.payers import Payers, find_payers
from authz.hooks.kazoo.trunks import trunk_usage
from authz.hooks.kazoo.words import (
    BILLING_WORDS,
    HARD_LIMIT,
    LIMITS_DISABLED,
    LIMITS_ENFORCED,
    PER_MINUTE,
    SOFT_REASONS,
    refusal_word,
)
from authz.model import AuthorizeRequest as Question
from authz.model import Denial, Grant
from authz.reasons import CallClass
from authz.store.accounts import Account

#: Denials that concern another call, which keeps what it has.
_OTHERS_REASONS: Final = frozenset(("call_id_conflict",))


class Watcher(Protocol):
    """Who looks after the calls that were let through."""

    @property
    def is_full(self) -> bool:
        """Whether no more can be looked after."""

    def watch(self, leg: Leg, account: str, number: str, grant: Grant, link: Link) -> None:
        """Look after a call of `account`, which is reached by that broker."""


class _Refusal(Struct, frozen=True):
    """Which account refuses, in our words and in Kazoo's."""

    account: str
    reason: str
    word: str


class _Verdict(Struct):
    """What becomes of a channel: Kazoo's word for each account that was looked at."""

    words: dict[str, str] = field(default_factory=dict)
    is_authorized: bool = False
    is_soft: bool = False


class Authorizer:
    """Answers the questions of ecallmgrs."""

    def __init__(
        self, engine: Engine, settings: KazooSettings, dids: DidLimits, watcher: Watcher
    ) -> None:
        self._engine = engine
        self._context = engine.context
        self._settings = settings
        self._dids = dids
        self._watcher = watcher
        self._complaints = Complaints()

    async def decide(
        self, request: AuthorizeRequest, node: str, link: Link | None
    ) -> AuthorizeAnswer:
        """Return the answer for an ecallmgr; without a link, decide only and change nothing.

        Never raises for what a message says: what cannot be understood is refused.
        """
        leg = read_leg(request, node)
        number, class_code = self._context.rules.classify(leg.to)
        if leg.direction == "outbound" and class_code == CallClass.EMERGENCY:
            return await self._emergency(leg, number, request, link)
        if not leg.account or not leg.is_readable or not number:
            self._complaints.tell("kazoo_request_refused", call_id=leg.call_id,
                                  reason="no account, number or call id")  # fmt: skip
            return self._answer(leg, None, number, request, _Verdict())
        if self._watcher.is_full:
            # What nobody looks after is never ended in time.
            self._complaints.tell("kazoo_request_refused", call_id=leg.call_id,
                                  reason="kazoo.calls_max calls are watched")  # fmt: skip
            return self._answer(leg, None, number, request, _Verdict())
        try:
            payers = await find_payers(self._context, leg)
        except StoreError:
            return await self._without_store(leg, number, request, link)
        if payers is None:
            self._complaints.tell("kazoo_account_unknown", account=leg.account)
            return self._answer(leg, None, number, request, _Verdict())
        verdict = await self._judge(leg, number, payers, link)
        answer = self._answer(leg, payers, number, request, verdict)
        await self._add_usage(answer, leg, payers, verdict)
        return answer

    def refuse(self, request: AuthorizeRequest, node: str) -> AuthorizeAnswer:
        """Return the answer for a channel that could not be decided.

        Without one, ecallmgr lets the channel through, and nobody pays for it.
        """
        leg = read_leg(request, node)
        return self._answer(leg, None, "", request, _Verdict())

    # Deciding.

    async def _emergency(
        self, leg: Leg, number: str, request: AuthorizeRequest, link: Link | None
    ) -> AuthorizeAnswer:
        """Let an emergency call through at once, whatever is wrong with it otherwise."""
        if leg.account and leg.is_readable:
            answer = await self._engine.authorize(self._question(leg, leg.account, number, link))
            self._watch(leg, leg.account, number, answer, link)
        else:
            log.event("kazoo_emergency_unattributed", level="warning", call_id=leg.call_id)
        words = {leg.account: LIMITS_DISABLED, leg.reseller: LIMITS_DISABLED}
        return self._answer(leg, None, number, request, _Verdict(words, is_authorized=True))

    async def _without_store(
        self, leg: Leg, number: str, request: AuthorizeRequest, link: Link | None
    ) -> AuthorizeAnswer:
        """Let the engine decide by its policy for outages, in the account's own name."""
        verdict = _Verdict()
        answer = await self._engine.authorize(self._question(leg, leg.account, number, link))
        if isinstance(answer, Grant):
            verdict.is_authorized = True
            word = LIMITS_DISABLED if answer.seconds is None else PER_MINUTE
            verdict.words = {leg.account: word, leg.reseller: word}
            self._watch(leg, leg.account, number, answer, link)
        return self._answer(leg, None, number, request, verdict)

    async def _judge(self, leg: Leg, number: str, payers: Payers, link: Link | None) -> _Verdict:
        accounts = payers.chain.accounts
        verdict = _Verdict({one.id: LIMITS_DISABLED for one in accounts[: payers.excused]})
        if payers.disabled is not None:
            verdict.words = {payers.disabled.id: LIMITS_ENFORCED}
            return verdict
        position = payers.excused
        while position < len(accounts):
            answer = await self._ask(leg, number, payers, position, link)
            if isinstance(answer, Grant):
                self._take_grant(verdict, leg, accounts[position:], answer)
                self._watch(leg, accounts[position].id, number, answer, link)
                break
            refusing = _position_of(answer.account, accounts)
            verdict.words[answer.account] = answer.word
            if answer.reason not in SOFT_REASONS or not _is_soft(accounts[refusing], leg):
                log.event("kazoo_call_refused", level="debug", account=answer.account,
                          call_id=leg.call_id, reason=answer.reason)  # fmt: skip
                verdict.is_soft = False
                return verdict
            verdict.is_soft = True
            if refusing > position:
                # Who is below is charged after the call, from what its end tells.
                verdict.words.update({one.id: PER_MINUTE for one in accounts[position:refusing]})
                break
            position += 1
        verdict.is_authorized = not verdict.is_soft
        return verdict

    async def _ask(
        self, leg: Leg, number: str, payers: Payers, position: int, link: Link | None
    ) -> Grant | _Refusal:
        """Ask for the part of a chain that begins at `position`."""
        chain = payers.chain
        accounts = chain.accounts[position:]
        if link is not None:
            full = await self._dids.take(chain, accounts, leg.direction, number, leg.call_id)
            if full is not None:
                return _Refusal(full, "max_calls_exceeded", HARD_LIMIT)
        question = self._question(leg, accounts[0].id, number, link)
        try:
            answer = await self._engine.authorize(question)
        except InvalidInput as error:
            self._complaints.tell("kazoo_request_refused", call_id=leg.call_id, reason=error)
            refusal = _Refusal(accounts[0].id, "invalid", LIMITS_ENFORCED)
        else:
            if isinstance(answer, Grant):
                return answer
            refusal = _refusal_of(answer)
        if link is not None and refusal.reason not in _OTHERS_REASONS:
            await self._dids.leave(accounts[0].id, leg.direction, number, leg.call_id)
        return refusal

    def _question(self, leg: Leg, account: str, number: str, link: Link | None) -> Question:
        rate_number = None
        if leg.authorizing_type == "mobile":
            rate_number = self._settings.mobile_rate_number or None
        return Question(
            call_id=leg.call_id,
            account=account,
            # Kazoo has one number in several spellings, and a call asked about twice must be one.
            to=number,
            from_=leg.from_ or None,
            direction=leg.direction,
            switch=leg.node,
            rate_number=rate_number,
            dry_run=link is None,
        )

    def _watch(
        self, leg: Leg, account: str, number: str, answer: Grant | Denial, link: Link | None
    ) -> None:
        if link is not None and isinstance(answer, Grant) and answer.enforced:
            self._watcher.watch(leg, account, number, answer, link)

    def _take_grant(
        self, verdict: _Verdict, leg: Leg, accounts: tuple[Account, ...], answer: Grant
    ) -> None:
        if answer.legs:
            verdict.words.update({one.account: BILLING_WORDS[one.billing] for one in answer.legs})
            return
        is_exempt = leg.direction == "outbound" and answer.class_ == CallClass.TOLLFREE.label
        # Let through without the store, or by `enforce`: charged when it ends.
        word = LIMITS_DISABLED if is_exempt else PER_MINUTE
        verdict.words.update({one.id: word for one in accounts})

    # Answering.

    def _answer(
        self,
        leg: Leg,
        payers: Payers | None,
        number: str,
        request: AuthorizeRequest,
        verdict: _Verdict,
    ) -> AuthorizeAnswer:
        reseller = leg.reseller
        if payers is not None and reseller not in payers.chain.ids:
            reseller = (*payers.chain.ids, "")[1]
            if leg.reseller and leg.reseller != reseller:
                self._complaints.tell("kazoo_reseller_differs", account=leg.account,
                                      named=leg.reseller, parent=reseller)  # fmt: skip
        is_let_through = verdict.is_authorized or verdict.is_soft
        if reseller in ("", leg.account):
            # Its own reseller: there is no second leg that could refuse.
            reseller_word = LIMITS_DISABLED if is_let_through else LIMITS_ENFORCED
        else:
            reseller_word = verdict.words.get(reseller, LIMITS_ENFORCED)
        return AuthorizeAnswer(
            call_id=leg.call_id,
            is_authorized=verdict.is_authorized,
            soft_limit=verdict.is_soft,
            account_id=leg.account,
            account_billing=verdict.words.get(leg.account, LIMITS_ENFORCED),
            reseller_id=reseller or leg.account,
            reseller_billing=reseller_word,
            call_direction=request.call_direction,
            other_leg_call_id=request.other_leg_call_id,
            custom_channel_vars={"To": number} if number else {},
        )

    async def _add_usage(
        self, answer: AuthorizeAnswer, leg: Leg, payers: Payers, verdict: _Verdict
    ) -> None:
        """Add the trunk-usage strings. They inform: without the store they are left out."""
        chain = payers.chain
        try:
            states = await self._context.directory.states(chain)
        except StoreError:
            return
        for account, state in zip(chain.accounts, states or (), strict=False):
            word = verdict.words.get(account.id, "")
            usage = trunk_usage(account, state, word, leg.direction)
            if account.id == answer.account_id:
                answer.custom_channel_vars["Account-Trunk-Usage"] = usage
            elif account.id == answer.reseller_id:
                answer.custom_channel_vars["Reseller-Trunk-Usage"] = usage


def _refusal_of(denial: Denial) -> _Refusal:
    return _Refusal(denial.account, denial.reason, refusal_word(denial.reason))


def _position_of(account: str, accounts: tuple[Account, ...]) -> int:
    return next(place for place, one in enumerate(accounts) if one.id == account)


def _is_soft(account: Account, leg: Leg) -> bool:
    return limits_of(account).is_soft(leg.direction)


__all__ = ["Authorizer", "Watcher"]
