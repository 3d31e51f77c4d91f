"""The admin API: an aiohttp application made from the table of routes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
from aiohttp import hdrs, web

from authz import log, meters
from authz.admin import openapi
from authz.admin.access import Access
from authz.admin.callers import Caller, current_caller
from authz.admin.files import prefers_csv, send_file
from authz.admin.handlers import ROUTES
from authz.admin.inputs import parameters_of, read_body
from authz.admin.messages import Health
from authz.admin.problems import Problem, document_of
from authz.admin.routes import CsvFile, Reply, Route
from authz.admin.scope import Tree
from authz.admin.scrapes import METRICS_PATH, MetricsSource, scrape_handler
from authz.admin.services import Services
from authz.errors import InvariantError
from authz.problems import PROBLEM_JSON, ProblemDocument, problem, retry_seconds

_encode = msgspec.json.Encoder().encode
_CHANGING: Final = frozenset({"PUT", "PATCH", "POST", "DELETE"})
#: For probes, which have no token, and for tools that read what there is to call.
#: The page of metrics has a rule of its own.
_OPEN_PATHS: Final = frozenset({"/livez", "/readyz", METRICS_PATH, openapi.PATH})
_ANSWERS: Final = meters.counters("authz_admin_answers_total")
_ACCESS_FAILURES: Final = meters.counter("authz_access_failures_total", "admin")

_Handle = Callable[[web.Request], Awaitable[web.StreamResponse]]


def create_app(
    services: Services,
    readiness: Callable[[], str | None],
    metrics: MetricsSource | None = None,
) -> web.Application:
    """Return the application; `readiness` says what requests wait for, or None.

    The caller closes the services after the application's end.
    """
    settings = services.context.settings.admin
    access = Access(settings.token, services.tokens)
    routes = {(route.method, route.path): route for route in ROUTES}

    @web.middleware
    async def guard(request: web.Request, handler: _Handle) -> web.StreamResponse:
        passage = Passage(route=routes.get((request.method, _path_template(request))))
        request[_PASSAGE] = passage
        wait_seconds = None
        try:
            if request.path not in _OPEN_PATHS:
                passage.caller = await access.identify(request)
            response = await handler(request)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            document = document_of(error, f"{request.method} {_path_template(request)}")
            if passage.tree is not None:
                document = passage.tree.cut_problem(document)
            passage.reason = document.reason
            response = _problem_response(document)
            if isinstance(error, web.HTTPMethodNotAllowed):
                response.headers[hdrs.ALLOW] = error.headers[hdrs.ALLOW]
            if isinstance(error, Problem):
                wait_seconds = error.retry_seconds
        if wait_seconds is not None:
            response.headers[hdrs.RETRY_AFTER] = str(wait_seconds)
        _count(request.method, response.status)
        await _record(services, request, passage, response.status)
        return response

    app = web.Application(middlewares=[guard], client_max_size=settings.body_bytes_max)
    app.on_response_prepare.append(_name_server)
    for route in ROUTES:
        app.router.add_route(route.method, route.path, _handler(services, route))
    app.router.add_get("/livez", _live)
    app.router.add_get(openapi.PATH, _document())
    app.router.add_get("/readyz", _ready(readiness))
    if metrics is not None:
        open_to = services.context.settings.metrics.access
        app.router.add_get(METRICS_PATH, scrape_handler(metrics, access, open_to))
    return app


def _count(method: str, status: int) -> None:
    kind = "2xx" if status < 300 else "4xx" if status < 500 else "5xx"
    (_ANSWERS.get((method, kind)) or _ANSWERS["other", kind]).add()
    if status in (401, 429):
        _ACCESS_FAILURES.add()


class Passage:
    """What is found out about a request on its way: for its answer and for the log of changes."""

    def __init__(self, route: Route | None) -> None:
        self.route = route
        self.caller: Caller | None = None
        self.tree: Tree | None = None
        self.parameters: Any = None
        self.body: Any = None
        self.reason: str | None = None

    def detail(self) -> dict[str, Any]:
        """Return what was asked for, for the log of changes."""
        detail = {"query": self.parameters, "body": self.body, "reason": self.reason}
        if isinstance(self.body, bytes):
            detail["body"] = {"bytes": len(self.body)}
        if self.caller is not None:
            # Names may be given again; the id tells which token it was.
            detail["by"] = self.caller.token_id
        return {name: value for name, value in detail.items() if value is not None}


_PASSAGE: Final = web.RequestKey("passage", Passage)


def _handler(services: Services, route: Route) -> _Handle:
    body_bytes_max = services.context.settings.admin.body_bytes_max

    async def handle(request: web.Request) -> web.StreamResponse:
        passage = request[_PASSAGE]
        caller = passage.caller
        if caller is None:
            raise InvariantError(f"{route.method} {route.path} was reached without a caller")
        if caller.role < route.role:
            detail = f"this takes the role {route.role.label}, the token has {caller.role.label}"
            raise Problem(problem(403, "role_insufficient", detail))
        if caller.account is not None:
            passage.tree = await Tree.of(services, caller.account)
            passage.tree.admit_route(route)
        passage.parameters = parameters = parameters_of(request, route.parameters)
        if passage.tree is not None:
            parameters = await passage.tree.admit(route, parameters)
        passage.body = body = await read_body(request, route.body, body_bytes_max)
        if passage.tree is not None:
            await passage.tree.admit_body(route, parameters, body)
        current_caller.set(caller)
        handler = route.handler
        if route.file_handler is not None and prefers_csv(request):
            handler = route.file_handler
        answer = await handler(services, parameters, body)
        return await _respond(request, answer, passage.tree)

    return handle


async def _respond(request: web.Request, answer: Any, tree: Tree | None) -> web.StreamResponse:
    if isinstance(answer, CsvFile):
        return await send_file(request, answer)
    reply = answer if isinstance(answer, Reply) else Reply(200, answer)
    if reply.document is None:
        return web.Response(status=reply.status)
    document = reply.document if tree is None else tree.cut(reply.document)
    return web.Response(
        status=reply.status, body=_encode(document), content_type="application/json"
    )


def _problem_response(document: ProblemDocument) -> web.Response:
    response = web.Response(
        status=document.status, body=_encode(document), content_type=PROBLEM_JSON
    )
    if document.status == 401:
        response.headers[hdrs.WWW_AUTHENTICATE] = 'Bearer realm="authz"'
    wait_seconds = retry_seconds(document)
    if wait_seconds is not None:
        response.headers[hdrs.RETRY_AFTER] = str(wait_seconds)
    return response


def _path_template(request: web.Request) -> str:
    """Return the path's template, never what the caller put into it."""
    resource = request.match_info.route.resource
    return "unmatched" if resource is None else resource.canonical


async def _record(services: Services, request: web.Request, passage: Passage, status: int) -> None:
    """Write down every request that may have changed something, and how it ended.

    Who is nobody gets a line of the process's log only, unless a token was tried: the attempts
    are limited, requests without a token are not.
    """
    if request.method not in _CHANGING:
        return
    action = f"{request.method} {_path_template(request)}"
    who = "" if passage.caller is None else passage.caller.name
    target = request.match_info.get("id") or next(iter(request.match_info.values()), None)
    log.event(
        "admin_request",
        route=action,
        target=target,
        status=status,
        who=who,
        remote=request.remote,
    )
    if passage.route is None or (passage.caller is None and passage.reason != "token_wrong"):
        return
    await services.changes.record(
        who=who,
        remote=request.remote or "",
        action=action,
        target=target,
        status=status,
        detail=passage.detail(),
    )


async def _name_server(_request: web.Request, response: web.StreamResponse) -> None:
    # Which versions run here is nobody's business.
    response.headers[hdrs.SERVER] = "authz"


async def _live(_request: web.Request) -> web.Response:
    return web.Response(body=_encode(Health("live")), content_type="application/json")


def _document() -> _Handle:
    document = _encode(openapi.build_document(ROUTES))

    async def handle(_request: web.Request) -> web.StreamResponse:
        return web.Response(body=document, content_type="application/json")

    return handle


def _ready(readiness: Callable[[], str | None]) -> _Handle:
    async def handle(_request: web.Request) -> web.StreamResponse:
        obstacle = readiness()
        if obstacle is not None:
            return _problem_response(problem(503, "not_ready", obstacle))
        return web.Response(body=_encode(Health("ready")), content_type="application/json")

    return handle
