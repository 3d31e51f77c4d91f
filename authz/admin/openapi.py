"""The OpenAPI 3.1 document of the admin API, made from the table of routes and its Structs."""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct

from authz.admin import glossary
from authz.admin.inputs import has_required_field
from authz.admin.problems import DeckProblem
from authz.admin.roles import Owner, Reach, Role, Scope
from authz.admin.routes import Body, CsvFile, Route
from authz.model import AccountConfig
from authz.problems import PROBLEM_JSON, ProblemDocument

#: Where the application serves the document.
PATH: Final = "/openapi.json"
_JSON: Final = "application/json"
_MERGE_PATCH: Final = "application/merge-patch+json"
_CSV: Final = "text/csv"
_REFERENCE: Final = "#/components/schemas/{name}"
_PATCH_NAME: Final = "AccountPatch"
#: What a Struct of the words of a path alone says: its name says it.
_SAYS_NOTHING: Final = re.compile(r"Which \w+\.")
_DESCRIPTION: Final = """\
What operators and billing systems call: accounts and their money, decks, calls, history.

Amounts are decimal texts with at most six decimals, times RFC 3339 in UTC. Every answer that is
not 2xx is a problem document (RFC 9457) whose `reason` is stable and made for programs.

Each operation names the least **role** that may do it: `read`, `operate` or `admin`, each of
which may do what those before it may. A token that is bound to an **account tree** reads the
account at its top and all below it, and changes only those below; any other account is, to it,
one that does not exist (404). What it can never do is answered 403 `out_of_scope`.

While no token exists, programs of this host use the API without one.\
"""
_PROBLEMS: Final[dict[int, str]] = {
    400: "The request is wrong; `field` names what.",
    401: "There is no token, or not a right one.",
    402: "An account of the chain has not enough money; nothing was booked.",
    403: "The token may not do this, or not to this account.",
    404: "What the request names does not exist, or not for this token.",
    409: "The change contradicts what exists.",
    413: "The body is too large.",
    415: "The body has a media type that is not taken here.",
    422: "The deck file is refused; `report` has every bad line. Nothing was imported.",
    429: "Too many wrong tokens came from this address; Retry-After says how long to wait.",
    500: "A defect of the daemon; its log has the cause under `id`.",
    503: "The store or the archive does not answer; Retry-After says when to ask again.",
}
_RETRY_AFTER: Final = {
    "Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 1}}
}


def build_document(routes: Sequence[Route]) -> dict[str, Any]:
    """Return the document of these routes."""
    structs = tuple(dict.fromkeys(_structs(routes)))
    _, components = msgspec.json.schema_components(structs, ref_template=_REFERENCE)
    components[_PATCH_NAME] = _patch_schema(components)
    for name, schema in components.items():
        _polish(name, schema)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        operation = _operation(route, components)
        paths.setdefault(route.path, {})[route.method.lower()] = operation
    # Words of paths and queries stand in the operations, not in a schema of their own.
    queries = {route.parameters.__name__ for route in routes if route.parameters is not None}
    return {
        "openapi": "3.1.0",
        "info": {"title": "authz admin API", "version": "1", "description": _DESCRIPTION},
        "servers": [{"url": "/"}],
        "security": [{"bearer": []}],
        "paths": paths,
        "components": {
            "schemas": {
                name: schema for name, schema in sorted(components.items()) if name not in queries
            },
            "responses": {str(status): _problem_response(status) for status in _PROBLEMS},
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "`authz_<id>_<secret>`, as `authz token create` prints it.",
                }
            },
        },
    }


def _structs(routes: Sequence[Route]) -> Iterable[type[Struct]]:
    for route in routes:
        for one in (route.parameters, route.body, *route.answers.values()):
            if isinstance(one, type) and issubclass(one, Struct):
                yield one
    yield from (AccountConfig, ProblemDocument, DeckProblem)


def _polish(name: str, schema: dict[str, Any]) -> None:
    """Add to a Struct's schema what its annotations do not say."""
    schema["description"] = inspect.cleandoc(schema.get("description", ""))
    if name in glossary.BODIES:
        schema["examples"] = [glossary.BODIES[name]]
    is_account = name in ("AccountConfig", "AccountBody", "AccountView", _PATCH_NAME)
    for field, inner in schema.get("properties", {}).items():
        if is_account and field in glossary.ACCOUNT_FIELDS:
            inner.setdefault("description", glossary.ACCOUNT_FIELDS[field])
        if field in glossary.AMOUNTS and not schema["title"].endswith(("View", "Answer", "List")):
            _narrow_amount(field, inner)


def _narrow_amount(field: str, schema: dict[str, Any]) -> None:
    pattern = glossary.AMOUNT_PATTERN
    if field == "credit_limit":
        pattern = glossary.CREDIT_LIMIT_PATTERN
    for one in (schema, *schema.get("anyOf", ())):
        if one.get("type") == "string":
            one["pattern"] = pattern


def _patch_schema(components: dict[str, Any]) -> dict[str, Any]:
    """Return what a merge patch of an account may hold: any field, null for its default."""
    patch: dict[str, Any] = copy.deepcopy(components[AccountConfig.__name__])
    patch["title"] = _PATCH_NAME
    patch["description"] = "A merge patch (RFC 7386) of an account; null takes the default."
    patch.pop("required", None)
    for field, schema in patch["properties"].items():
        schema.pop("default", None)
        if "$ref" in schema or "anyOf" not in schema:
            patch["properties"][field] = {"anyOf": [schema, {"type": "null"}]}
    return patch


def _operation(route: Route, components: dict[str, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.handler.__name__,
        "tags": [route.path.split("/")[2]],
        "summary": route.summary,
        "description": f"{_role(route.role)} {_scope(route.scope, changes=route.changes)}",
        "responses": _responses(route),
        "x-role": route.role.label,
    }
    if route.parameters is not None:
        schema = components[route.parameters.__name__]
        if not _SAYS_NOTHING.fullmatch(schema["description"]):
            operation["description"] += f"\n\n{schema['description']}"
        operation["parameters"] = _parameters(route, schema)
    if route.body is not None:
        operation["requestBody"] = {
            "required": route.method != "POST" or has_required_field(route.body),
            "content": _content(route.body),
        }
    return operation


def _role(role: Role) -> str:
    return f"Takes the role `{role.label}`."


def _scope(scope: Scope, *, changes: bool) -> str:
    if scope is Reach.WHOLE:
        return "Only for tokens that are not bound to an account tree."
    if scope is Reach.ANY:
        return "For every token."
    reached = "an account below the top of it" if changes else "an account of it"
    if isinstance(scope, Owner):
        return f"A token that is bound to an account tree reaches only what belongs to {reached}."
    text = f"A token that is bound to an account tree names in `{scope.parameter}` {reached}"
    if scope.is_filled:
        text += "; without, the top is taken"
    if scope.refused:
        text += f"; it may not send `{'`, `'.join(scope.refused)}`"
    return f"{text}."


def _parameters(route: Route, schema: dict[str, Any]) -> list[dict[str, Any]]:
    parameters = []
    for name, field in schema["properties"].items():
        meaning, example = glossary.PARAMETERS.get(name, ("", None))
        in_path = f"{{{name}}}" in route.path
        inner, description = _not_null(field)
        if name in glossary.AMOUNTS:
            inner["pattern"] = glossary.AMOUNT_PATTERN.replace("-?", "")
        parameter = {
            "name": name,
            "in": "path" if in_path else "query",
            "required": in_path or name in schema.get("required", ()),
            "description": description or meaning,
            "schema": inner,
        }
        if _fits(example, inner):
            parameter["example"] = example
        parameters.append(parameter)
    return parameters


def _fits(example: Any, schema: dict[str, Any]) -> bool:
    """Whether the example of a word is one where the word has this schema."""
    if example is None or "enum" in schema:
        return example in schema.get("enum", ())
    return not isinstance(example, str) or bool(re.search(schema.get("pattern", ""), example))


def _not_null(field: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """Return the schema of a word, which is never null, and what its Struct says of it."""
    schema = copy.deepcopy(field)
    if "anyOf" in schema:
        (schema,) = (one for one in schema["anyOf"] if one.get("type") != "null")
    if schema.get("default", ...) is None:
        del schema["default"]
    return schema, schema.pop("description", "")


def _content(body: type[Struct] | Body) -> dict[str, Any]:
    if body is Body.CSV:
        return {_CSV: {"schema": {"type": "string"}, "example": glossary.DECK_EXAMPLE}}
    if isinstance(body, Body):
        schema = _reference(_PATCH_NAME)
        return {_MERGE_PATCH: {"schema": schema}, _JSON: {"schema": schema}}
    return {_JSON: {"schema": _reference(body.__name__)}}


def _responses(route: Route) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    for status, answer in route.answers.items():
        responses[str(status)] = _answer(answer)
    if route.file_handler is not None:
        responses["200"]["content"] |= _answer(CsvFile)["content"]
    for status in sorted(_problem_statuses(route)):
        responses[str(status)] = {"$ref": f"#/components/responses/{status}"}
    return responses


def _problem_response(status: int) -> dict[str, Any]:
    schema: dict[str, Any] = _reference(ProblemDocument.__name__)
    if status == 422:
        schema = {"anyOf": [_reference(DeckProblem.__name__), schema]}
    response: dict[str, Any] = {
        "description": _PROBLEMS[status],
        "content": {PROBLEM_JSON: {"schema": schema}},
    }
    if status in (429, 503):
        response["headers"] = _RETRY_AFTER
    return response


def _answer(answer: type[Any] | None) -> dict[str, Any]:
    if answer is None:
        return {"description": "Done; there is nothing to tell."}
    if answer is CsvFile:
        schema = {"type": "string", "contentMediaType": _CSV}
        return {"description": "The file.", "content": {_CSV: {"schema": schema}}}
    summary = inspect.cleandoc(answer.__doc__ or "").split("\n\n")[0].replace("\n", " ")
    content = {_JSON: {"schema": _reference(answer.__name__)}}
    return {"description": summary, "content": content}


def _problem_statuses(route: Route) -> set[int]:
    statuses = {400, 401, 403, 413, 429, 500, 503, *route.problems}
    if not isinstance(route.scope, Reach) or "{" in route.path:
        statuses.add(404)
    if route.changes:
        statuses.add(409)
    if route.body is not None:
        statuses.add(415)
    if route.body is Body.CSV:
        statuses.add(422)
    return statuses


def _reference(name: str) -> dict[str, str]:
    return {"$ref": _REFERENCE.format(name=name)}
