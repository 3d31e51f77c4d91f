"""Whether a JSON object names a member twice."""

from __future__ import annotations

def may_repeat_a_name(body: bytes) -> bool:
    """Return False if no name is there twice in a JSON object that a decoder has accepted.

    True also where only reading it again can tell: with escapes, or with very many members.
    Names of nested objects count as if they were the outer one's.
    """
