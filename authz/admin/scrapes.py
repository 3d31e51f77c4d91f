"""`GET /metrics`: the page for Prometheus, and who may read it.

It must answer while the store is away, when it is needed most; so programs of this host need no
token (`metrics.access`), which only the store could know. No figure names an account; the sums over
all of them are for whoever may see every account.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from aiohttp import hdrs, web

from authz.admin.access import Access, is_own_host
from authz.admin.problems import Problem
from authz.problems import problem

METRICS_PATH = "/metrics"


class RenderedPage(Protocol):
    """A page and its media type."""

    @property
    def body(self) -> bytes:
        """What to send."""

    @property
    def content_type(self) -> str:
        """As what."""


class MetricsSource(Protocol):
    """Whatever makes the page."""

    async def render(self, accept: str) -> RenderedPage:
        """Return the page in the format that an Accept header asks for."""


def scrape_handler(
    source: MetricsSource, access: Access, open_to: str
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """Return the handler; `open_to` is the setting `metrics.access`."""

    async def handle(request: web.Request) -> web.StreamResponse:
        if not _needs_no_token(request, open_to):
            caller = await access.identify(request)
            if caller.account is not None:
                detail = "metrics are of all accounts; this token is bound to one tree of them"
                raise Problem(problem(403, "out_of_scope", detail))
        page = await source.render(request.headers.get(hdrs.ACCEPT, ""))
        return web.Response(body=page.body, headers={hdrs.CONTENT_TYPE: page.content_type})

    return handle


def _needs_no_token(request: web.Request, open_to: str) -> bool:
    if open_to == "all":
        return True
    return open_to == "host" and hdrs.AUTHORIZATION not in request.headers and is_own_host(request)
