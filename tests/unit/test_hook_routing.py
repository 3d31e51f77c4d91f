"""From a URL to an endpoint."""

from __future__ import annotations

import pytest
from hook_double import OrderedEngine

from authz.hooks.messages import Request
from authz.hooks.problems import Problem
from authz.hooks.routes import Authorize, ShowCall, hook_routes
from authz.hooks.routing import RouteTable, query_parameters


@pytest.fixture
def routes() -> RouteTable:
    return hook_routes(OrderedEngine(), lambda: None)


@pytest.mark.parametrize(
    "url",
    [b"/v1/authorize", b"/v1/authorize?x=1", b"http://h:1/v1/authorize", b"HTTPS://h/v1/authorize"],
)
def test_exact_paths(routes: RouteTable, url: bytes) -> None:
    assert isinstance(routes.find(url).endpoints[b"POST"], Authorize)


@pytest.mark.parametrize(
    ("url", "call_id"),
    [
        (b"/v1/calls/c1", "c1"),
        (b"/v1/calls/a%2Fb%40h", "a/b@h"),
        (b"/v1/calls/a+b", "a+b"),
        (b"/v1/calls/", ""),
        (b"/v1/calls/%c3%a9", "é"),
    ],
)
def test_words_of_a_path(routes: RouteTable, url: bytes, call_id: str) -> None:
    assert routes.find(url).parameters == {"call_id": call_id}


@pytest.mark.parametrize(
    "url", [b"/", b"*", b"", b"http://h", b"/v1", b"/v1/authorize/", b"/v1/calls/a/b", b"//v1/x"]
)
def test_unknown_paths(routes: RouteTable, url: bytes) -> None:
    with pytest.raises(Problem) as caught:
        routes.find(url)
    assert caught.value.document.status == 404


@pytest.mark.parametrize("word", [b"%", b"%2", b"%zz", b"a%+1", b"%ff", b"%c3"])
def test_broken_escapes_are_refused(routes: RouteTable, word: bytes) -> None:
    with pytest.raises(Problem) as caught:
        routes.find(b"/v1/calls/" + word)
    assert (caught.value.document.status, caught.value.document.field) == (400, "call_id")


@pytest.mark.parametrize(
    ("url", "field"),
    [
        (b"/v1/calls/c1", "account"),
        (b"/v1/calls/c1?account=", "account"),
        (b"/v1/calls/c1?account=a&account=a", "account"),
        (b"/v1/calls/c1?account=%zz", "account"),
        (b"/v1/calls/c1?acount=a", "acount"),
        (b"/v1/calls/c%20d?account=a", "call_id"),
        (b"/v1/calls/c%0a?account=a", "call_id"),
    ],
)
def test_wrong_words_are_named(routes: RouteTable, url: bytes, field: str) -> None:
    match = routes.find(url)
    endpoint = match.endpoints[b"GET"]
    assert isinstance(endpoint, ShowCall)
    with pytest.raises(Problem) as caught:
        endpoint.decode(Request(match.parameters, match.query, b""))
    assert (caught.value.document.status, caught.value.document.field) == (400, field)


def test_query_words_are_decoded_and_bounded() -> None:
    assert query_parameters(b"a=x%26y+z&&", frozenset("a")) == {"a": "x&y z"}
    with pytest.raises(Problem):
        query_parameters(b"&".join(b"a%d=1" % n for n in range(17)), frozenset())


def test_a_route_is_added_once(routes: RouteTable) -> None:
    routes.add("PUT", "/v1/calls/{call_id}", ShowCall(OrderedEngine()))
    for method, template in [("POST", "/v1/settle"), ("GET", "/v1/calls/{call_id}")]:
        with pytest.raises(ValueError, match="already routed"):
            routes.add(method, template, ShowCall(OrderedEngine()))
