"""The table of the admin API: one row an operation, from which documentation can be made."""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable, Iterable
from enum import Enum, auto
from typing import Any, NamedTuple

from msgspec import Struct

from authz.admin.roles import Role, Scope
from authz.admin.services import Services


class Body(Enum):
    """A request body that is no Struct."""

    #: An RFC 7386 merge patch: a JSON object, checked against what it changes.
    MERGE_PATCH = auto()
    #: A deck file as a carrier sends it.
    CSV = auto()


class Reply(NamedTuple):
    """An answer that is not just a document with status 200."""

    status: int
    document: Struct | None = None


class CsvFile(NamedTuple):
    """An answer that is a file, sent chunk by chunk as the caller takes it."""

    name: str
    chunks: Iterable[bytes] | AsyncIterable[bytes]


Answer = Struct | Reply | CsvFile
#: Called with the services, the parameters Struct (None if there is none) and the body.
Handler = Callable[[Services, Any, Any], Awaitable[Answer]]


class Route(NamedTuple):
    """One operation. `parameters` holds the words of the path template and of the query."""

    method: str
    path: str
    summary: str
    handler: Handler
    parameters: type[Struct] | None
    body: type[Struct] | Body | None
    #: What it answers by status; None where there is no body.
    answers: dict[int, type[Any] | None]
    #: The least role that may do it.
    role: Role
    #: Whose accounts it concerns.
    scope: Scope
    #: Answers instead, with the same as a CsvFile, whoever prefers `text/csv`.
    file_handler: Handler | None = None
    #: Statuses of its problems besides those that follow from the rest of the row.
    problems: tuple[int, ...] = ()

    @property
    def changes(self) -> bool:
        """Whether it may change something."""
        return self.method != "GET"
