"""Whether a JSON object names a member twice, and decoding those that may not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from authz_ext.messages import Request
from authz_ext.words import Word

def may_repeat_a_name(body: bytes) -> bool:
    """Return False if no name is there twice in a JSON object that a decoder has accepted.

    True also where only reading it again can tell: with escapes, or with very many members.
    Names of nested objects count as if they were the outer one's.
    """

class StrictDecoder:
    """Decodes JSON objects in which no name may be there twice.

    `decode` is msgspec's; `refusal(body, error)` returns what is raised of an error of it;
    `check_names(body)` raises if an object really names a member twice. `decode_loosely` may pass
    over what is wrong with members that `words` checks. Where either is not content, `decode`
    decides, so that they never change what is accepted, only what that costs.
    """

    def __init__(
        self,
        decode: Callable[[bytes], Any],
        refusal: Callable[[bytes, Exception], Exception],
        check_names: Callable[[bytes], object],
        *,
        decode_loosely: Callable[[bytes], Any],
        words: dict[str, Word],
    ) -> None: ...
    def decode(self, body: bytes) -> Any:
        """Return what a body says."""

    def decode_body(self, request: Request) -> Any:
        """Return what the body of a request says."""
