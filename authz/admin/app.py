"""The admin API: an aiohttp application made from the table of routes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Awaitable, Callable
from typing import Any

import msgspec
from aiohttp import hdrs, web

from authz import log
from authz.admin.access import Access
from authz.admin.handlers import ROUTES
from authz.admin.inputs import parameters_of, read_body
from authz.admin.messages import Health
from authz.admin.problems import document_of
from authz.admin.routes import CsvFile, Reply, Route
from authz.admin.services import Services
from authz.problems import PROBLEM_JSON, ProblemDocument, problem, retry_seconds

_encode = msgspec.json.Encoder().encode
_CHANGING = frozenset({"PUT", "PATCH", "POST", "DELETE"})
_HEALTH_PATHS = frozenset({"/livez", "/readyz"})

_Handle = Callable[[web.Request], Awaitable[web.StreamResponse]]


def create_app(services: Services, readiness: Callable[[], str | None]) -> web.Application:
    """Return the application; `readiness` says what requests wait for, or None.

    The caller closes the services after the application's end.
    """
    settings = services.context.settings.admin
    access = Access(settings.token)

    @web.middleware
    async def guard(request: web.Request, handler: _Handle) -> web.StreamResponse:
        route = _route_name(request)
        try:
            if request.path not in _HEALTH_PATHS:
                access.check(request)
            response = await handler(request)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            document = document_of(error, route)
            response = _problem_response(document)
            if isinstance(error, web.HTTPMethodNotAllowed):
                response.headers[hdrs.ALLOW] = error.headers[hdrs.ALLOW]
        _audit(request, route, response.status)
        return response

    app = web.Application(middlewares=[guard], client_max_size=settings.body_bytes_max)
    app.on_response_prepare.append(_name_server)
    for route in ROUTES:
        app.router.add_route(route.method, route.path, _handler(services, route))
    app.router.add_get("/livez", _live)
    app.router.add_get("/readyz", _ready(readiness))
    return app


def _handler(services: Services, route: Route) -> _Handle:
    body_bytes_max = services.context.settings.admin.body_bytes_max

    async def handle(request: web.Request) -> web.StreamResponse:
        parameters = parameters_of(request, route.parameters)
        body = await read_body(request, route.body, body_bytes_max)
        return await _respond(request, await route.handler(services, parameters, body))

    return handle


async def _respond(request: web.Request, answer: Any) -> web.StreamResponse:
    if isinstance(answer, CsvFile):
        return await _send_file(request, answer)
    reply = answer if isinstance(answer, Reply) else Reply(200, answer)
    if reply.document is None:
        return web.Response(status=reply.status)
    return web.Response(
        status=reply.status, body=_encode(reply.document), content_type="application/json"
    )


async def _send_file(request: web.Request, file: CsvFile) -> web.StreamResponse:
    response = web.StreamResponse(
        headers={
            hdrs.CONTENT_TYPE: "text/csv; charset=utf-8",
            hdrs.CONTENT_DISPOSITION: f'attachment; filename="{file.name}"',
        }
    )
    await response.prepare(request)
    if isinstance(file.chunks, AsyncIterable):
        async for chunk in file.chunks:
            await response.write(chunk)
    else:
        for chunk in file.chunks:
            await response.write(chunk)
    await response.write_eof()
    return response


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


def _route_name(request: web.Request) -> str:
    """Return method and path template, never what the caller put into it."""
    resource = request.match_info.route.resource
    return f"{request.method} {'unmatched' if resource is None else resource.canonical}"


def _audit(request: web.Request, route: str, status: int) -> None:
    """Write down every request that may have changed something, and how it ended."""
    if request.method in _CHANGING:
        log.event(
            "admin_request",
            route=route,
            target=request.match_info.get("id") or request.match_info.get("name"),
            status=status,
            remote=request.remote,
        )


async def _name_server(_request: web.Request, response: web.StreamResponse) -> None:
    # Which versions run here is nobody's business.
    response.headers[hdrs.SERVER] = "authz"


async def _live(_request: web.Request) -> web.Response:
    return web.Response(body=_encode(Health("live")), content_type="application/json")


def _ready(readiness: Callable[[], str | None]) -> _Handle:
    async def handle(_request: web.Request) -> web.StreamResponse:
        obstacle = readiness()
        if obstacle is not None:
            return _problem_response(problem(503, "not_ready", obstacle))
        return web.Response(body=_encode(Health("ready")), content_type="application/json")

    return handle
