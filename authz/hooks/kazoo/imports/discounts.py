"""Kazoo's discounts by classification of a number, as discounts by class (sections 3.2 and 5)."""

from __future__ import annotations

from typing import Any, Final

from authz.errors import InvalidInput
from authz.hooks.kazoo.imports.documents import DocumentError, Fields, decimal_of
from authz.money import format_percent, percent_basis_points
from authz.reasons import CLASSES

#: Remarks on a document: the field, its value, and what is to be known of it.
Notes = list[tuple[str, object, str]]

_FIELD: Final = "pvt_discounts"
_NAME_LENGTH_SHOWN: Final = 40
#: Kazoo's classifications, and the classes that their numbers have here. Satellite networks are
#: abroad to Kazoo, as they have country codes of their own.
_CLASSES: Final = {
    "tollfree_us": ("tollfree",),
    "toll_us": ("premium",),
    "emergency": ("emergency",),
    "caribbean": ("caribbean",),
    "did_us": ("national",),
    "international": ("international", "satellite"),
    "unknown": ("unknown",),
}


def discounts_of(fields: Fields, notes: Notes) -> dict[str, str | None]:
    """Return percent by class as the account's field has it; raise DocumentError.

    None takes away what an earlier import has left.
    """
    found: dict[str, str | None] = dict.fromkeys(CLASSES)
    value = fields.get(_FIELD)
    if not value:
        return found
    if not isinstance(value, dict):
        raise DocumentError(_FIELD, value, "is not an object")
    for name, terms in value.items():
        field = f"{_FIELD}.{name[:_NAME_LENGTH_SHOWN]}"
        percent = _percent(field, terms, notes)
        if percent is None:
            continue
        if name not in _CLASSES:
            reason = "no class of numbers here is this one: its calls cost what the deck says"
            notes.append((field, percent, reason))
        for call_class in _CLASSES.get(name, ()):
            found[call_class] = percent
    return found


def _percent(field: str, terms: Any, notes: Notes) -> str | None:
    """Return the percentage of one classification, None where it takes nothing off."""
    if not isinstance(terms, dict):
        raise DocumentError(field, terms, "is not an object")
    field = f"{field}.percentage"
    value = terms.get("percentage")
    if value is None:
        return None
    percent = decimal_of(field, value.strip() if isinstance(value, str) else value)
    try:
        basis_points = percent_basis_points(percent.normalize(), field)
    except InvalidInput as error:
        raise DocumentError(field, value, error.detail) from None
    if percent != percent.to_integral_value():
        notes.append((field, value, "is taken as it is written; Kazoo rounds it to whole percent"))
    return format_percent(basis_points) if basis_points else None
