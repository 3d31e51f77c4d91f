"""The OpenAPI document says everything of every operation, and says it right."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import jsonschema_rs
import msgspec
import pytest

from authz.admin import glossary
from authz.admin.docs import with_operations
from authz.admin.handlers import ROUTES
from authz.admin.openapi import build_document
from authz.admin.roles import Owner, Reach, Role, Within
from authz.admin.routes import Body, Route
from authz.engine.accounts import patched
from authz.model import AccountConfig

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = build_document(ROUTES)


def operations() -> list[tuple[str, dict[str, Any]]]:
    return [
        (f"{method.upper()} {path}", operation)
        for path, item in DOCUMENT["paths"].items()
        for method, operation in item.items()
    ]


def references(value: Any) -> set[str]:
    """Return everything that a part of the document refers to."""
    if isinstance(value, dict):
        own = {value["$ref"]} if "$ref" in value else set()
        return own.union(*map(references, value.values()))
    return set().union(*map(references, value)) if isinstance(value, list) else set()


def resolved(reference: str) -> Any:
    found = DOCUMENT
    for part in reference.removeprefix("#/").split("/"):
        found = found[part]
    return found


def body_structs() -> list[type[msgspec.Struct]]:
    """Return each struct once, in the table's order: workers agree on it, unlike on a set's."""
    bodies = [route.body for route in ROUTES if route.body is not None]
    return list(dict.fromkeys(body for body in bodies if not isinstance(body, Body)))


def test_every_route_is_there_once() -> None:
    assert {name for name, _ in operations()} == {f"{one.method} {one.path}" for one in ROUTES}
    names = [operation["operationId"] for _, operation in operations()]
    assert len(names) == len(set(names))


def test_every_reference_leads_somewhere_and_nothing_is_left_over() -> None:
    used = references(DOCUMENT)
    for reference in used:
        assert resolved(reference)
    for kind in ("schemas", "responses"):
        for name in DOCUMENT["components"][kind]:
            if name != AccountConfig.__name__:
                assert f"#/components/{kind}/{name}" in used, name


def test_every_schema_is_a_json_schema() -> None:
    for name, schema in DOCUMENT["components"]["schemas"].items():
        jsonschema_rs.validator_for({**schema, "components": DOCUMENT["components"]})
        assert schema["description"], name


@pytest.mark.parametrize("route", ROUTES, ids=lambda one: f"{one.method} {one.path}")
def test_an_operation_says_what_it_takes_and_for_whom(route: Route) -> None:
    operation = DOCUMENT["paths"][route.path][route.method.lower()]
    assert operation["summary"].endswith(".")
    assert f"role `{route.role.label}`" in operation["description"]
    for parameter in operation.get("parameters", ()):
        name = parameter["name"]
        assert parameter["description"], f"{name} means nothing: see authz/admin/glossary.py"
        if "example" in parameter:
            validator = jsonschema_rs.validator_for(parameter["schema"])
            assert validator.is_valid(parameter["example"]), name
    assert {"400", "401", "403", "429", "500", "503"} <= set(operation["responses"])
    assert any(int(status) < 300 for status in operation["responses"])


@pytest.mark.parametrize("route", ROUTES, ids=lambda one: f"{one.method} {one.path}")
def test_a_row_declares_a_scope_that_fits_its_parameters(route: Route) -> None:
    words = {}
    if route.parameters is not None:
        words = {one.name: one for one in msgspec.structs.fields(route.parameters)}
    accounts = {"account", "parent", "under", "origin"} & set(words)
    if route.path.startswith("/v1/accounts/{id}"):
        accounts.add("id")
    match route.scope:
        case Within():
            scope = route.scope
            named = {scope.parameter, *scope.also}
            assert named | set(scope.refused) <= set(words)
            assert accounts <= named, "a parameter that names an account is not in the scope"
            if not scope.is_filled:
                assert words[scope.parameter].required
        case Reach.ANY:
            assert not accounts
            assert route.body is None
        case Owner():
            assert inspect.iscoroutinefunction(route.scope.find)
    if route.changes:
        assert route.role >= Role.OPERATE


@pytest.mark.parametrize("struct", body_structs(), ids=lambda one: one.__name__)
def test_every_body_has_an_example_that_is_taken(struct: type[msgspec.Struct]) -> None:
    example = glossary.BODIES[struct.__name__]
    data = json.dumps(example).encode()
    assert msgspec.json.decode(data, type=struct)
    schema = DOCUMENT["components"]["schemas"][struct.__name__]
    with_components = {**schema, "components": DOCUMENT["components"]}
    jsonschema_rs.validator_for(with_components).validate(example)


def test_the_example_of_a_patch_is_taken() -> None:
    schema = DOCUMENT["components"]["schemas"]["AccountPatch"]
    example = glossary.BODIES["AccountPatch"]
    jsonschema_rs.validator_for({**schema, "components": DOCUMENT["components"]}).validate(example)
    assert patched(AccountConfig(), example).trunks.outbound == 4


def test_the_page_has_the_operations_of_the_table() -> None:
    page = (ROOT / "docs" / "admin-api.md").read_text()
    assert page == with_operations(page), "run python -m authz.admin.docs docs/admin-api.md"


def test_every_field_of_an_account_is_described() -> None:
    assert set(glossary.ACCOUNT_FIELDS) == set(AccountConfig.__struct_fields__)


def test_no_word_is_explained_that_nobody_says() -> None:
    said = {
        parameter["name"]
        for _, operation in operations()
        for parameter in operation.get("parameters", ())
    }
    assert set(glossary.PARAMETERS) <= said
