"""Heads of requests that have been admitted before."""

from __future__ import annotations

from authz_ext.messages import Request
from authz_ext.routes import Route

class KnownHeads:
    """The heads of plain requests that were admitted by one rule of access.

    Of at most `heads_max` different ones, each of at most 1,024 bytes, it is known what admitting
    such a request comes to.
    """

    def __init__(self, heads_max: int) -> None: ...
    def remember(self, head: bytes, route: Route, request: Request) -> None:
        """Take in what a request has been admitted as; it has its body.

        It must be plain (see plain.pyi), and whether it was admitted must depend on nothing but
        the head. `head` ends with the empty line.
        """

    def __len__(self) -> int: ...
