"""From a URL to an endpoint: the route table and the words of paths and queries."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable
from functools import cached_property
from typing import Any, ClassVar, TypeVar
from urllib.parse import unquote_to_bytes

import msgspec

from authz.hooks import counts
from authz.hooks.messages import OrderKey, Payload, Request, Response
from authz.hooks.problems import Problem, from_invalid_json, overloaded
from authz_ext.messages import JsonAnswers
from authz_ext.routes import Route

T = TypeVar("T")
_PARAMETERS_MAX = 16


class Endpoint(ABC):
    """One operation: what a method of a path does."""

    #: Label of the counters; lower case with underscores.
    name: ClassVar[str]
    #: Media types of the body that are understood; empty: the body's type does not matter.
    media_types: ClassVar[frozenset[bytes]] = frozenset()
    #: Open to callers without a token (the address must be allowed all the same).
    is_open: ClassVar[bool] = False
    #: Admitted up to this many times `in_flight_max`: running calls go before new ones.
    overload_factor: ClassVar[int] = 2
    #: Done even if its connection is gone before its turn came; others are dropped then.
    must_complete: ClassVar[bool] = False

    @cached_property
    @abstractmethod
    def route(self) -> Route:
        """What a pipeline does with its requests; made by `route_by`."""

    def when_overloaded(self, payload: Payload) -> Response | None:
        """Answer instead of the engine under overload; None admits the request all the same."""
        return overloaded().response()

    def route_by(
        self,
        decode: Callable[[Request], Payload],
        order_key: Callable[[Payload], OrderKey],
        answer: Callable[[Payload], Awaitable[Any]],
        results: JsonAnswers | None = None,
    ) -> Route:
        """Return the route of requests that are decoded, ordered and answered so."""
        return Route(
            self.name,
            decode=decode,
            order_key=order_key,
            answer=answer,
            results=results,
            when_overloaded=self.when_overloaded,
            overload_factor=self.overload_factor,
            must_complete=self.must_complete,
            counts=counts.answers_of(self.name),
        )


class CoroutineEndpoint(Endpoint):
    """An endpoint whose decode checks the input and whose answer does the work, as a coroutine.

    Both may raise Problem.
    """

    @abstractmethod
    def decode(self, request: Request) -> Payload:
        """Return the request as `answer` wants it; raises Problem if it is wrong."""

    @abstractmethod
    async def answer(self, payload: Payload) -> Response:
        """Return the answer; what it raises becomes a problem (see problems.from_exception)."""

    def order_key(self, payload: Payload) -> OrderKey:
        """Requests of one connection with the same key are answered one after the other."""
        return None

    @cached_property
    def route(self) -> Route:
        """What a pipeline does with its requests."""
        return self.route_by(self.decode, self.order_key, self.answer)


class Match:
    """What a URL leads to: an endpoint by method and the words of its path."""

    __slots__ = ("endpoints", "parameters", "query")

    def __init__(
        self, endpoints: dict[bytes, Endpoint], parameters: dict[str, str], query: bytes
    ) -> None:
        self.endpoints = endpoints
        self.parameters = parameters
        self.query = query


class RouteTable:
    """Endpoints by path template (`/v1/calls/{call_id}`) and method; add all before serving."""

    def __init__(self) -> None:
        self._exact: dict[bytes, Match] = {}
        self._templates: list[tuple[tuple[str, ...], dict[bytes, Endpoint]]] = []

    def add(self, method: str, template: str, endpoint: Endpoint) -> None:
        """Add an endpoint; ValueError if its method and template are taken."""
        if "{" in template:
            endpoints = self._endpoints_of_template(tuple(template.split("/")[1:]))
        else:
            match = self._exact.setdefault(template.encode(), Match({}, {}, b""))
            endpoints = match.endpoints
        if method.encode() in endpoints:
            raise ValueError(f"{method} {template} is already routed")
        endpoints[method.encode()] = endpoint

    def find(self, url: bytes) -> Match:
        """Return what a request target leads to; Problem 404 or 400 if to nothing."""
        match = self._exact.get(url)
        if match is not None:
            return match
        path, _, query = _origin_form(url).partition(b"?")
        match = self._exact.get(path)
        if match is not None:
            return Match(match.endpoints, match.parameters, query)
        parts = path.split(b"/")[1:]
        for template, endpoints in self._templates:
            parameters = _match_template(template, parts)
            if parameters is not None:
                return Match(endpoints, parameters, query)
        raise Problem(404, "not_found", "no such path")

    def methods(self) -> set[bytes]:
        """Return every method that some path has."""
        tables = [match.endpoints for match in self._exact.values()]
        tables += [endpoints for _, endpoints in self._templates]
        return {method for table in tables for method in table}

    def _endpoints_of_template(self, template: tuple[str, ...]) -> dict[bytes, Endpoint]:
        for known, endpoints in self._templates:
            if known == template:
                return endpoints
        self._templates.append((template, {}))
        return self._templates[-1][1]


def allow_header(methods: Iterable[bytes]) -> bytes:
    """Return the Allow line of a 405."""
    return b"Allow: %b\r\n" % b", ".join(sorted(methods))


def query_parameters(query: bytes, known: frozenset[str]) -> dict[str, str]:
    """Return a query's words; Problem 400 for one that is unknown, repeated or not UTF-8."""
    words: dict[str, str] = {}
    pairs = [pair for pair in query.split(b"&") if pair]
    if len(pairs) > _PARAMETERS_MAX:
        raise Problem(400, "invalid_input", f"more than {_PARAMETERS_MAX} query parameters")
    for pair in pairs:
        name, _, value = pair.replace(b"+", b" ").partition(b"=")
        text = percent_decode(name, "query")
        if text not in known:
            raise Problem(400, "invalid_input", f"unknown query parameter `{text}`", field=text)
        if text in words:
            raise Problem(400, "invalid_input", f"`{text}` is there twice", field=text)
        words[text] = percent_decode(value, text)
    return words


def convert(words: dict[str, str], struct: type[T]) -> T:
    """Return checked words as a Struct; Problem 400 names the wrong one."""
    try:
        return msgspec.convert(words, struct)
    except msgspec.ValidationError as error:
        raise from_invalid_json(error) from None


def percent_decode(part: bytes, field: str) -> str:
    """Return one part of a URL as text; Problem 400 if its escapes are broken or not UTF-8."""
    if b"%" not in part:
        return part.decode("ascii")
    escapes = part.split(b"%")[1:]
    if not all(len(escape) >= 2 and _is_hex(escape[:2]) for escape in escapes):
        raise Problem(400, "invalid_input", "a `%` is not followed by two hex digits", field=field)
    try:
        return unquote_to_bytes(part).decode()
    except UnicodeDecodeError:
        raise Problem(400, "invalid_input", "not UTF-8 once decoded", field=field) from None


def _is_hex(pair: bytes) -> bool:
    return all(byte in b"0123456789abcdefABCDEF" for byte in pair)


def _origin_form(url: bytes) -> bytes:
    # A server has to understand `GET http://host/path` too (RFC 9112, 3.2.2).
    scheme, separator, rest = url.partition(b"://")
    if separator and scheme.lower() in (b"http", b"https"):
        _, slash, path = rest.partition(b"/")
        return slash + path if slash else b"/"
    return url


def _match_template(template: tuple[str, ...], parts: list[bytes]) -> dict[str, str] | None:
    if len(parts) != len(template):
        return None
    parameters: dict[str, str] = {}
    for expected, part in zip(template, parts, strict=True):
        if expected.startswith("{"):
            parameters[expected[1:-1]] = percent_decode(part, expected[1:-1])
        elif part != expected.encode():
            return None
    return parameters
