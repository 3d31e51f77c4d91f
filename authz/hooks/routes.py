"""The endpoints of the hook API: thin callers of the engine."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import cached_property
from operator import attrgetter
from typing import Any, ClassVar, Protocol

import msgspec

from authz.engine.metered import count_authorize
from authz.errors import CallUnknown
from authz.hooks.bodies import JsonBody
from authz.hooks.messages import JSON, UNSAID, OrderKey, Request, Response
from authz.hooks.problems import Problem, retry_after
from authz.hooks.routing import CoroutineEndpoint, Endpoint, RouteTable, convert, query_parameters
from authz.model import (
    AccountId,
    AuthorizeRequest,
    CallId,
    CallState,
    Denial,
    Grant,
    ReserveRequest,
    Settlement,
    SettleRequest,
    Spooled,
    SwitchName,
    SwitchRestarted,
)
from authz.reasons import REASONS
from authz_ext.messages import JsonAnswers
from authz_ext.routes import Route

_encode = msgspec.json.Encoder().encode


class HookEngine(Protocol):
    """What the hook endpoints need of the engine."""

    def is_emergency(self, request: AuthorizeRequest) -> bool:
        """Whether this is an outbound emergency call, which is admitted whatever the load."""

    async def authorize(self, request: AuthorizeRequest) -> Grant | Denial:
        """Decide whether a call may start."""

    async def reserve(self, request: ReserveRequest) -> Grant | Denial:
        """Decide whether a call may go on."""

    async def settle(self, request: SettleRequest) -> Settlement | Spooled:
        """Book a call's cost; raises CallUnknown, SettledDifferently, SpoolFull."""

    async def call(self, account: str, call_id: str) -> CallState | None:
        """Return what is known of a call."""

    async def switch_restarted(self, name: str) -> SwitchRestarted:
        """Make orphans of a restarted switch's older calls."""


class _CallEndpoint(Endpoint):
    """A POST about one call: a JSON body, answered in order among requests of that call.

    Nothing of Python runs between the body's bytes and the engine, nor between the engine's result
    and the answer's bytes.
    """

    media_types = frozenset({JSON, UNSAID})
    body: ClassVar[JsonBody[Any]]

    def __init__(self, ask: Callable[[Any], Awaitable[Any]]) -> None:
        """`ask` is what of the engine returns a result of which JSON is made."""
        self._ask = ask

    @cached_property
    def route(self) -> Route:
        """Decode, ask the engine, encode; a settle that waits in the spool is 202."""
        by_call = attrgetter("account", "call_id")
        results = JsonAnswers(_encode, {Spooled: 202})
        return self.route_by(self.body.decode_body, by_call, self._ask, results)


def overload_denial(request: AuthorizeRequest) -> Denial:
    """Return, and count, the denial of a call that there is no time to decide."""
    reason = REASONS["overloaded"]
    denial = Denial(
        call_id=request.call_id,
        allowed=False,
        reason=reason.name,
        account=request.account,
        class_=None,
        sip_status=reason.sip_status,
        hangup_cause=reason.cause(request.direction),
        detail=reason.meaning,
        dry_run=request.dry_run,
    )
    if not request.dry_run:
        count_authorize(request, denial)
    return denial


class Authorize(_CallEndpoint):
    """`POST /v1/authorize`: a decision, always 200. Under overload a denial, never a 503."""

    name = "authorize"
    overload_factor = 1
    body = JsonBody(AuthorizeRequest)

    def __init__(self, engine: HookEngine) -> None:
        super().__init__(engine.authorize)
        self._is_emergency = engine.is_emergency

    def when_overloaded(self, payload: AuthorizeRequest) -> Response | None:
        """Deny with reason `overloaded`, but never an emergency call."""
        if self._is_emergency(payload):
            return None
        return Response(200, _encode(overload_denial(payload)))


class Reserve(_CallEndpoint):
    """`POST /v1/reserve`: a decision for a running call, always 200."""

    name = "reserve"
    body = JsonBody(ReserveRequest)


class Settle(_CallEndpoint):
    """`POST /v1/settle`: 200 when booked, 202 when it waits in the spool."""

    name = "settle"
    must_complete = True
    body = JsonBody(SettleRequest)


class CallQuery(msgspec.Struct, frozen=True):
    """Which call `GET /v1/calls/{call_id}?account=` asks for."""

    call_id: CallId
    account: AccountId


class ShowCall(CoroutineEndpoint):
    """`GET /v1/calls/{call_id}?account=`: the call's state."""

    name = "call"

    def __init__(self, engine: HookEngine) -> None:
        self._engine = engine

    def decode(self, request: Request) -> CallQuery:
        """Return the path's and the query's words."""
        words = {**request.parameters, **query_parameters(request.query, frozenset({"account"}))}
        return convert(words, CallQuery)

    def order_key(self, payload: CallQuery) -> OrderKey:
        """Order by call."""
        return payload.account, payload.call_id

    async def answer(self, payload: CallQuery) -> Response:
        """Ask the engine; CallUnknown if it has no record."""
        state = await self._engine.call(payload.account, payload.call_id)
        if state is None:
            raise CallUnknown
        return Response(200, _encode(state))


class SwitchPath(msgspec.Struct, frozen=True):
    """Which switch `POST /v1/switches/{name}/restarted` speaks of."""

    name: SwitchName


class RestartedSwitch(CoroutineEndpoint):
    """`POST /v1/switches/{name}/restarted`: its older open calls become orphans."""

    name = "switch_restarted"
    must_complete = True

    def __init__(self, engine: HookEngine) -> None:
        self._engine = engine

    def decode(self, request: Request) -> SwitchPath:
        """Return the path's word; the body must be empty or an empty object."""
        if request.body.strip() not in (b"", b"{}"):
            raise Problem(400, "invalid_input", "this request takes no body")
        return convert(request.parameters, SwitchPath)

    async def answer(self, payload: SwitchPath) -> Response:
        """Ask the engine."""
        return Response(200, _encode(await self._engine.switch_restarted(payload.name)))


class Live(CoroutineEndpoint):
    """`GET /livez`: the process answers."""

    name = "livez"
    is_open = True

    def decode(self, request: Request) -> None:
        """Nothing is asked."""

    def when_overloaded(self, payload: None) -> Response | None:
        """A busy process is alive."""
        return None

    async def answer(self, payload: None) -> Response:
        """Say so."""
        return Response(200, b'{"status":"live"}')


class Ready(CoroutineEndpoint):
    """`GET /readyz`: 200 while `readiness` names no obstacle, else 503 with its text."""

    name = "readyz"
    is_open = True

    def __init__(self, readiness: Callable[[], str | None]) -> None:
        self._readiness = readiness

    def decode(self, request: Request) -> None:
        """Nothing is asked."""

    async def answer(self, payload: None) -> Response:
        """Ask `readiness`, which must not wait for anything."""
        obstacle = self._readiness()
        if obstacle is not None:
            raise Problem(503, "not_ready", obstacle, headers=retry_after(1))
        return Response(200, b'{"status":"ready"}')


def hook_routes(engine: HookEngine, readiness: Callable[[], str | None]) -> RouteTable:
    """Return the table of the hook API. Adapters add their own endpoints to it.

    `readiness` returns None or what the process waits for.
    """
    routes = RouteTable()
    routes.add("POST", "/v1/authorize", Authorize(engine))
    routes.add("POST", "/v1/reserve", Reserve(engine.reserve))
    routes.add("POST", "/v1/settle", Settle(engine.settle))
    routes.add("GET", "/v1/calls/{call_id}", ShowCall(engine))
    routes.add("POST", "/v1/switches/{name}/restarted", RestartedSwitch(engine))
    routes.add("GET", "/livez", Live())
    routes.add("GET", "/readyz", Ready(readiness))
    return routes
