"""Texts of which every character is of a kind: what most patterns of fields say."""

from __future__ import annotations

class Word:
    """`size_min` to `size_max` ASCII characters: one of `first`, then any of `further`."""

    def __init__(self, first: str, further: str, size_min: int, size_max: int) -> None: ...
    def allows(self, text: str) -> bool:
        """Return whether a text is such a word."""
