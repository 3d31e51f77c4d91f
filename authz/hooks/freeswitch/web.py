"""The HTTP doors of FreeSWITCH on the hook listener: mod_xml_curl and mod_json_cdr."""

from __future__ import annotations

import msgspec

from authz import log
from authz.config import Settings
from authz.errors import SettledDifferently
from authz.hooks.freeswitch.cdr import MEDIA_TYPES, read_cdr
from authz.hooks.freeswitch.cdr_settle import CdrRules, Ignored, settle_of
from authz.hooks.freeswitch.curl_lookup import Question, read_form, read_lookup
from authz.hooks.freeswitch.dialplan_answers import DialplanAnswers
from authz.hooks.freeswitch.dialplan_xml import CONTENT_TYPE, NOT_FOUND
from authz.hooks.freeswitch.durations import GRANT_SECONDS_MIN
from authz.hooks.freeswitch.lookup import Lookup
from authz.hooks.freeswitch.refusals import Refusal, refusal_of
from authz.hooks.messages import UNSAID, OrderKey, Payload, Request, Response
from authz.hooks.routes import HookEngine, overload_denial
from authz.hooks.routing import CoroutineEndpoint, RouteTable
from authz.model import Denial, Grant, SettleRequest
from authz.reasons import REASONS

DIALPLAN_PATH = "/freeswitch/dialplan"
CDR_PATH = "/freeswitch/cdr"


class CdrAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    """What became of a CDR. `seconds` is what is booked, where it was booked before otherwise."""

    call_id: str
    result: str
    seconds: int | None = None


class Dialplan(CoroutineEndpoint):
    """`POST /freeswitch/dialplan`: one lookup of mod_xml_curl, answered by a dialplan.

    On anything but a document the switch goes on with its own dialplan, so a refusal is the answer
    to everything that goes wrong with a call of ours.
    """

    name = "dialplan"
    media_types = frozenset({UNSAID})
    overload_factor = 1

    def __init__(self, engine: HookEngine, settings: Settings) -> None:
        self._engine = engine
        self._contexts = settings.freeswitch.contexts
        self._longest_seconds = settings.freeswitch_web.longest_call_seconds
        self._find_payer = Lookup(settings.freeswitch.rules).find
        self._answers = DialplanAnswers(settings.freeswitch, settings.freeswitch_web)

    def decode(self, request: Request) -> Payload:
        """Return the question of the lookup, or None if it is not for us."""
        form = read_form(request.body)
        return read_lookup(form, self._contexts, self._find_payer, self._longest_seconds)

    def order_key(self, payload: Question | None) -> OrderKey:
        """Order by call."""
        return None if payload is None else (payload.request.account, payload.request.call_id)

    def when_overloaded(self, payload: Question | None) -> Response | None:
        """Refuse with reason `overloaded`; what needs no decision, and emergencies, go on."""
        if payload is None or self._engine.is_emergency(payload.request):
            return None
        return self._refusal(payload, refusal_of(overload_denial(payload.request)))

    async def answer(self, payload: Question | None) -> Response:
        """Ask the engine; whatever it raises is a refusal."""
        if payload is None:
            return Response(200, NOT_FOUND, CONTENT_TYPE)
        try:
            decision = await self._decide(payload)
        except Exception as error:
            log.event(
                "freeswitch_lookup_failed",
                level="error",
                error=error,
                call_id=payload.request.call_id,
            )
            decision = refusal_of(REASONS["store_unavailable"])
        if isinstance(decision, Refusal):
            return self._refusal(payload, decision)
        return Response(200, self._answers.released(payload, decision), CONTENT_TYPE)

    async def _decide(self, question: Question) -> Grant | Refusal:
        request = question.request
        if question.flaw is not None and not self._engine.is_emergency(request):
            return question.flaw
        decision = await self._engine.authorize(request)
        if isinstance(decision, Denial):
            return refusal_of(decision)
        if decision.seconds is not None and decision.seconds < GRANT_SECONDS_MIN:
            await self._engine.settle(
                SettleRequest(call_id=request.call_id, account=request.account, seconds=0)
            )
            return refusal_of(REASONS["insufficient_credit"], request.direction)
        return decision

    def _refusal(self, question: Question, refusal: Refusal) -> Response:
        body = self._answers.refused(question.context, refusal, is_answered=question.is_answered)
        return Response(200, body, CONTENT_TYPE)


class CallRecord(CoroutineEndpoint):
    """`POST /freeswitch/cdr`: settles the charged leg of a call from its CDR.

    200 only when there is nothing left to do: booked, spooled or not to be charged. At anything
    else mod_json_cdr keeps the record in a file, which `authz freeswitch import-cdrs` reads.
    """

    name = "cdr"
    media_types = MEDIA_TYPES
    must_complete = True

    def __init__(self, engine: HookEngine, settings: Settings) -> None:
        self._engine = engine
        self._rules = rules_of(settings)

    def decode(self, request: Request) -> Payload:
        """Return the settle that the record stands for, or why there is none."""
        return settle_of(read_cdr(request.body), self._rules)

    def order_key(self, payload: SettleRequest | Ignored) -> OrderKey:
        """Order by call."""
        return (payload.account, payload.call_id) if isinstance(payload, SettleRequest) else None

    async def answer(self, payload: SettleRequest | Ignored) -> Response:
        """Ask the engine."""
        if isinstance(payload, Ignored):
            return _told(CdrAnswer(payload.call_id, f"ignored: {payload.why}"))
        try:
            settled = await self._engine.settle(payload)
        except SettledDifferently as error:
            # The agent saw the call end first, by other numbers. What is booked stays.
            log.event(
                "cdr_settled_differently",
                level="warning",
                account=payload.account,
                call_id=payload.call_id,
                seconds=payload.seconds,
                booked_seconds=error.seconds,
            )
            return _told(CdrAnswer(payload.call_id, "settled differently", error.seconds))
        return Response(200, msgspec.json.encode(settled))


def rules_of(settings: Settings) -> CdrRules:
    """Return by what the settings judge CDRs."""
    return CdrRules(
        settings.freeswitch.contexts,
        Lookup(settings.freeswitch.rules).find,
        settings.freeswitch.rounding,
    )


def add_freeswitch_routes(routes: RouteTable, engine: HookEngine, settings: Settings) -> None:
    """Add both doors to the hook API."""
    routes.add("POST", DIALPLAN_PATH, Dialplan(engine, settings))
    routes.add("POST", CDR_PATH, CallRecord(engine, settings))


def _told(answer: CdrAnswer) -> Response:
    return Response(200, msgspec.json.encode(answer))
