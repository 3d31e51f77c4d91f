"""The operations in docs/admin-api.md, written from the OpenAPI document.

`python -m authz.admin.docs docs/admin-api.md` brings the page up to date; a test compares the two.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from authz.admin.handlers import ROUTES
from authz.admin.openapi import build_document
from authz.admin.roles import Owner, Reach, Scope, Within

#: What stands above it is written by hand.
HEADING: Final = "## Operations\n"


def with_operations(page: str) -> str:
    """Return a page with everything from its heading `Operations` on written anew."""
    head, _, _ = page.partition(HEADING)
    return "\n".join([head + HEADING, *_table(), "", *_details(build_document(ROUTES))])


def _table() -> Iterator[str]:
    yield "| operation | role | token of a tree | |"
    yield "| --- | --- | --- | --- |"
    for route in ROUTES:
        name = f"`{route.method} {route.path}`"
        reach = _reach(route.scope, changes=route.changes)
        yield f"| {name} | {route.role.label} | {reach} | {route.summary} |"


def _reach(scope: Scope, *, changes: bool) -> str:
    match scope:
        case Reach.WHOLE:
            return "no"
        case Reach.ANY:
            return "yes"
        case Within(parameter=parameter):
            return f"`{parameter}` below its top" if changes else f"`{parameter}` in it"
        case Owner():
            return "what is of accounts below its top" if changes else "what is of its accounts"


def _details(openapi: dict[str, Any]) -> Iterator[str]:
    for path, item in openapi["paths"].items():
        for method, operation in item.items():
            lines = [*_queries(operation), *_body(operation, openapi)]
            if lines:
                yield f"### {method.upper()} {path}\n"
                yield from lines


def _queries(operation: dict[str, Any]) -> Iterator[str]:
    queries = [one for one in operation.get("parameters", ()) if one["in"] == "query"]
    if not queries:
        return
    yield "| query | meaning |"
    yield "| --- | --- |"
    for one in queries:
        needed = " (required)" if one["required"] else ""
        yield f"| `{one['name']}`{needed} | {one['description']} |"
    yield ""


def _body(operation: dict[str, Any], openapi: dict[str, Any]) -> Iterator[str]:
    if "requestBody" not in operation:
        return
    media_type, content = next(iter(operation["requestBody"]["content"].items()))
    yield f"Body, `{media_type}`, for example:\n"
    if "example" in content:
        yield f"```csv\n{content['example']}```\n"
        return
    name = content["schema"]["$ref"].rpartition("/")[2]
    schema = openapi["components"]["schemas"][name]
    yield f"```json\n{json.dumps(schema['examples'][0])}\n```\n"


def main(path: Path) -> None:
    """Bring the page at `path` up to date."""
    path.write_text(with_operations(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
