"""Types of the number rules."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import final

@final
class NumberRules:
    """Normalises and classes dialled strings. Immutable; made by `authz.numbers`.

    `rules` are (prefix, replacement, digits_min, digits_max), the first that fits is used.
    `area_classes` has a class for each +1 area code, `country_classes` one for the first three
    digits of every other number, both 1000 bytes. `class_by_prefix` goes before these where its
    prefix is at least as long as theirs. `emergency` strings are compared whole.
    Raises ValueError for tables and rules that cannot be.
    """

    def __new__(
        cls,
        *,
        rules: Iterable[tuple[str, str, int, int]],
        emergency: Iterable[str],
        area_classes: bytes,
        country_classes: bytes,
        class_by_prefix: Mapping[str, int],
    ) -> NumberRules: ...
    def normalize(self, dialled: str) -> str:
        """Return the E.164 number, or the cleaned string itself where no rule fits."""

    def classify(self, dialled: str) -> tuple[str, int]:
        """Return the normalised number and its class, an `authz.reasons.CallClass` value.

        Emergency is a matter of the whole dialled string. Never raises, whatever the string:
        one that is not ASCII, or longer than 128 characters, comes back as it is, `unknown`.
        """
