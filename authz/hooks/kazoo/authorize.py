"""authz_req → authz_resp: the decision order of the contract's section 1.2, decided by our engine.

One script decides and charges account and reseller together, each at its own deck's price. What
the engine does not know is decided around it: excused accounts (`excuses`), calls of one number
(`dids`), and soft limits. A soft limit lets pass what its own account refuses, and nothing
that another one does: that account's leg is then free, and asked for once more.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Protocol

from msgspec import Struct, field

from authz import log
from authz.config.kazoo import KazooSettings
from authz.engine.engine import Engine
from authz.engine.excuses import NO_EXCUSES, ExcusedAuthorize
from authz.errors import AccountsChanged, InvalidInput, StoreError
from authz.hooks.kazoo.calls import Link
from authz.hooks.kazoo.deliveries import Complaints
from authz.hooks.kazoo.dids import DidLimits
from authz.hooks.kazoo.excuses import excuses_by_limits
from authz.hooks.kazoo.legs import Leg, read_leg
from authz.hooks.kazoo.limits import limits_of
from authz.hooks.kazoo.messages import AuthorizeAnswer, AuthorizeRequest, Variables
from authz.hooks.kazoo.trunks import trunk_usage
from authz.hooks.kazoo.words import (
    BILLING_WORDS,
    HARD_LIMIT,
    LIMITS_DISABLED,
    LIMITS_ENFORCED,
    PER_MINUTE,
    REFUSED_WORDS,
    SOFT_REASONS,
    refusal_word,
)
from authz.model import Denial, Grant
from authz.reasons import REASONS, Billing, CallClass, Excuse
from authz.store.accounts import Chain

#: Denials that concern another call, which keeps what it has.
_OTHERS_REASONS: Final = frozenset(("call_id_conflict",))
#: How often a question is judged anew whose accounts change meanwhile.
_ATTEMPTS_MAX: Final = 4


class Watcher(Protocol):
    """Who looks after the calls that were let through."""

    @property
    def is_full(self) -> bool:
        """Whether no more can be looked after."""

    def watch(
        self, leg: Leg, number: str, grant: Grant, link: Link, excuses: Mapping[str, Excuse]
    ) -> None:
        """Look after a call, which is reached by that broker."""


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
            chain, verdict = await self._decide_by_accounts(leg, number, link)
        except StoreError:
            return await self._without_store(leg, number, request, link)
        answer = self._answer(leg, chain, number, request, verdict)
        if chain is not None:
            await self._add_usage(answer, leg, chain, verdict)
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
            try:
                answer = await self._engine.authorize(self._question(leg, number, link))
                self._watch(leg, number, answer, link, {})
            except Exception as error:
                # No fault of ours keeps anybody from an emergency number.
                log.event("kazoo_emergency_unrecorded", level="error", call_id=leg.call_id,
                          error=error)  # fmt: skip
        else:
            log.event("kazoo_emergency_unattributed", level="warning", call_id=leg.call_id)
        words = {leg.account: LIMITS_DISABLED, leg.reseller: LIMITS_DISABLED}
        return self._answer(leg, None, number, request, _Verdict(words, is_authorized=True))

    async def _without_store(
        self, leg: Leg, number: str, request: AuthorizeRequest, link: Link | None
    ) -> AuthorizeAnswer:
        """Let the engine decide by its policy for outages, in the account's own name."""
        verdict = _Verdict()
        answer = await self._engine.authorize(self._question(leg, number, link))
        if isinstance(answer, Grant):
            verdict.is_authorized = True
            word = LIMITS_DISABLED if answer.seconds is None else PER_MINUTE
            verdict.words = {leg.account: word, leg.reseller: word}
            self._watch(leg, number, answer, link, {})
        return self._answer(leg, None, number, request, verdict)

    async def _decide_by_accounts(
        self, leg: Leg, number: str, link: Link | None
    ) -> tuple[Chain | None, _Verdict]:
        """Decide by the accounts of the channel's chain. Raises StoreError."""
        deadline_ms = self._context.settings.store.decision_deadline_ms
        for _ in range(_ATTEMPTS_MAX):
            chain = await self._context.directory.chain(leg.account, deadline_ms)
            if chain is None:
                self._complaints.tell("kazoo_account_unknown", account=leg.account)
                return None, _Verdict()
            try:
                return chain, await self._judge(leg, number, chain, link)
            except AccountsChanged:
                continue
        raise AccountsChanged(f"account {leg.account} kept changing")

    async def _judge(self, leg: Leg, number: str, chain: Chain, link: Link | None) -> _Verdict:
        excuses = excuses_by_limits(chain, leg)
        verdict = _Verdict(dict.fromkeys(excuses, LIMITS_DISABLED))
        while True:
            answer = await self._ask(leg, number, chain, excuses, link)
            if isinstance(answer, Grant):
                self._take_grant(verdict, leg, chain, excuses, answer)
                self._watch(leg, number, answer, link, excuses)
                verdict.is_authorized = not verdict.is_soft
                return verdict
            verdict.words[answer.account] = answer.word
            if (
                answer.reason not in SOFT_REASONS
                or excuses.get(answer.account) is Excuse.LIMITS
                or answer.account not in _soft_accounts(chain, leg)
            ):
                log.event("kazoo_call_refused", level="debug", account=answer.account,
                          call_id=leg.call_id, reason=answer.reason)  # fmt: skip
                self._count(answer, number, link, is_final=True)
                verdict.is_soft = False
                # Who is above has not been asked (1.2).
                for account in chain.ids[chain.ids.index(answer.account) + 1 :]:
                    verdict.words.pop(account, None)
                return verdict
            self._count(answer, number, link, is_final=False)
            verdict.is_soft = True
            excuses[answer.account] = Excuse.LIMITS

    def _count(self, refusal: _Refusal, number: str, link: Link | None, *, is_final: bool) -> None:
        """Count a refused channel; one that a soft limit lets pass may only lack a rate (B6)."""
        if link is not None and refusal.reason in REASONS:
            self._engine.denials.count(refusal.account, refusal.reason, number, enforced=is_final)

    async def _ask(
        self,
        leg: Leg,
        number: str,
        chain: Chain,
        excuses: Mapping[str, Excuse],
        link: Link | None,
    ) -> Grant | _Refusal:
        if link is not None:
            limiting = [one for one in chain.accounts if excuses.get(one.id) is not Excuse.LIMITS]
            full = await self._dids.take(chain, limiting, leg.direction, number, leg.call_id)
            if full is not None and self._engine.is_enforced(leg.account):
                return _Refusal(full, "max_calls_exceeded", HARD_LIMIT)
        question = self._question(leg, number, link, chain, excuses)
        try:
            answer = await self._engine.authorize(question)
        except InvalidInput as error:
            self._complaints.tell("kazoo_request_refused", call_id=leg.call_id, reason=error)
            refusal = _Refusal(leg.account, "invalid", LIMITS_ENFORCED)
        else:
            if isinstance(answer, Grant):
                return answer
            refusal = _refusal_of(answer)
        if link is not None and refusal.reason not in _OTHERS_REASONS:
            await self._dids.leave(leg.account, leg.direction, number, leg.call_id)
        return refusal

    def _question(
        self,
        leg: Leg,
        number: str,
        link: Link | None,
        chain: Chain | None = None,
        excuses: Mapping[str, Excuse] = NO_EXCUSES,
    ) -> ExcusedAuthorize:
        rate_number = None
        if leg.authorizing_type == "mobile":
            rate_number = self._settings.mobile_rate_number or None
        return ExcusedAuthorize(
            call_id=leg.call_id,
            account=leg.account,
            # Kazoo has one number in several spellings, and a call asked about twice must be one.
            to=number,
            from_=leg.from_ or None,
            direction=leg.direction,
            switch=leg.node,
            rate_number=rate_number,
            dry_run=link is None,
            excuses=dict(excuses),
            judged_on=chain,
            is_tentative=chain is not None,
        )

    def _watch(
        self,
        leg: Leg,
        number: str,
        answer: Grant | Denial,
        link: Link | None,
        excuses: Mapping[str, Excuse],
    ) -> None:
        if link is not None and isinstance(answer, Grant) and answer.enforced:
            self._watcher.watch(leg, number, answer, link, excuses)

    def _take_grant(
        self,
        verdict: _Verdict,
        leg: Leg,
        chain: Chain,
        excuses: Mapping[str, Excuse],
        answer: Grant,
    ) -> None:
        """Name the legs. Who has refused, and was passed by its soft limit, keeps its word."""
        is_exempt = leg.direction == "outbound" and answer.class_ == CallClass.TOLLFREE.label
        # Let through without the store, or by `enforce`: charged when it ends.
        unlooked = LIMITS_DISABLED if is_exempt else PER_MINUTE
        words = {one.id: unlooked for one in chain.accounts}
        words.update(dict.fromkeys(excuses, LIMITS_DISABLED))
        for one in answer.legs:
            words[one.account] = BILLING_WORDS[one.billing]
            is_free = one.billing == Billing.FREE.label and not is_exempt
            if is_free and one.account not in excuses and one.account in _soft_accounts(chain, leg):
                # The question is repeated: a soft limit has let the call through before.
                words[one.account] = LIMITS_ENFORCED
                verdict.is_soft = True
        refused = {one: word for one, word in verdict.words.items() if word in REFUSED_WORDS}
        verdict.words = words | refused

    # Answering.

    def _answer(
        self,
        leg: Leg,
        chain: Chain | None,
        number: str,
        request: AuthorizeRequest,
        verdict: _Verdict,
    ) -> AuthorizeAnswer:
        reseller = leg.reseller
        if chain is not None and reseller not in chain.ids:
            reseller = (*chain.ids, "")[1]
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
            custom_channel_vars=_echoed(request, number),
        )

    async def _add_usage(
        self, answer: AuthorizeAnswer, leg: Leg, chain: Chain, verdict: _Verdict
    ) -> None:
        """Add the trunk-usage strings. They inform: without the store they are left out."""
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


def _echoed(request: AuthorizeRequest, number: str) -> Variables:
    """Return what ecallmgr writes back onto the channel: the number as it was rated, and flags."""
    found: Variables = {"To": number} if number else {}
    flags = request.custom_channel_vars.get("Outbound-Flags")
    if flags and isinstance(flags, str | list):
        found["Outbound-Flags"] = flags
    return found


def _refusal_of(denial: Denial) -> _Refusal:
    return _Refusal(denial.account, denial.reason, refusal_word(denial.reason))


def _soft_accounts(chain: Chain, leg: Leg) -> set[str]:
    """Return who of a chain lets calls pass beyond its limits."""
    return {one.id for one in chain.accounts if limits_of(one).is_soft(leg.direction)}


__all__ = ["Authorizer", "Watcher"]
