"""Documents of Kazoo's as its database and its API write them, with the place of each in its file.

A number with a point is read as a Decimal, exactly as it is written: Kazoo tells dollars from
units by the point alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, Final, NamedTuple

from authz.errors import InvalidInput
from authz.money import BOUND_MICROS, MICROS_PER_UNIT

#: Longest file, in bytes.
FILE_BYTES_MAX: Final = 256 * 1024 * 1024
#: Most documents of one import.
DOCUMENTS_MAX: Final = 2_000_000
#: Kazoo's unit is 1/10000 of the currency unit.
UNIT_MICROS: Final = 100
#: Digits that a number may have, and that one may have when it is reckoned with.
_DIGITS_MAX: Final = 15
_PRECISION_DIGITS: Final = 18

Fields = Mapping[str, Any]


class Document(NamedTuple):
    """One document. `place` is its file and its line or number there, for messages."""

    place: str
    fields: Fields


class DocumentError(Exception):
    """A field of a document that cannot be used. Raised and caught within an import."""

    def __init__(self, field: str, value: object, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.value = "" if value is None else str(value)
        self.reason = reason


def read_documents(name: str, data: bytes) -> Iterator[Document]:
    """Yield the documents of a file: one, a list, an answer of the API or the database, or lines.

    Raises InvalidInput naming the file and the place where it stops being any of these.
    """
    if len(data) > FILE_BYTES_MAX:
        raise InvalidInput(name, f"has {len(data)} bytes; at most {FILE_BYTES_MAX} are read")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidInput(name, f"is not UTF-8: {error}") from None
    try:
        found = _load(text)
    except ValueError as error:
        if (lines := _lines(name, text)) is not None:
            yield from lines
            return
        raise InvalidInput(name, f"is not JSON: {error}") from None
    items = list(_unwrapped(found))
    for number, fields in enumerate(items, 1):
        place = name if len(items) == 1 else f"{name}, document {number}"
        yield _document(place, fields)


def _lines(name: str, text: str) -> Iterator[Document] | None:
    """Return the documents of a file with one on each line; None if it is not of that form."""
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if len(lines) < 2 or not all(line.lstrip().startswith("{") for _, line in lines):
        return None
    return _line_documents(name, lines)


def _line_documents(name: str, lines: list[tuple[int, str]]) -> Iterator[Document]:
    for number, line in lines:
        place = f"{name}, line {number}"
        try:
            found = _load(line)
        except ValueError as error:
            raise InvalidInput(place, f"is not JSON: {error}") from None
        for fields in _unwrapped(found):
            yield _document(place, fields)


def _load(text: str) -> Any:
    """Parse JSON with exact numbers. Raises ValueError, also for what is nested too deeply."""
    try:
        return json.loads(text, parse_float=Decimal, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _no_constant(word: str) -> Any:
    raise ValueError(f"{word} is no number")


def _unwrapped(found: Any) -> Iterator[Any]:
    """Yield the documents of what a file holds, without the wrapping of API and database."""
    if isinstance(found, list):
        for item in found:
            yield from _unwrapped(item)
    elif isinstance(found, dict) and isinstance(found.get("rows"), list):
        for row in found["rows"]:
            document = row.get("doc", row) if isinstance(row, dict) else row
            # The database has a row without a document for each one that was deleted.
            if document is not None:
                yield document
    elif isinstance(found, dict) and isinstance(found.get("docs"), list):
        yield from found["docs"]
    elif isinstance(found, dict) and isinstance(found.get("data"), dict | list):
        yield from _unwrapped(found["data"])
    else:
        yield found


def _document(place: str, fields: Any) -> Document:
    if not isinstance(fields, dict):
        raise InvalidInput(place, "is no document: a JSON object is wanted")
    return Document(place, fields)


def integer(fields: Fields, name: str) -> int | None:
    """Return a whole number, which may be written as text; None if it is missing."""
    value = fields.get(name)
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    # Not before it is known to be small: int() of 1e999999999 would take all memory.
    number = decimal_of(name, value.strip() if isinstance(value, str) else value)
    if number != number.to_integral_value():
        raise DocumentError(name, value, "is not a whole number")
    return int(number)


def flag(fields: Fields, name: str) -> bool | None:
    """Return true or false, which may be written as text; None if it is missing."""
    value = fields.get(name)
    if value is None or isinstance(value, bool):
        return value
    word = value.strip().lower() if isinstance(value, str) else ""
    if word not in ("true", "false"):
        raise DocumentError(name, value, "is not true or false")
    return word == "true"


def decimal_of(name: str, value: object) -> Decimal:
    """Return a number or the text of one exactly; raise DocumentError for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | Decimal | str):
        raise DocumentError(name, value, "is not a number")
    try:
        number = Decimal(value)
    except (ArithmeticError, ValueError):
        raise DocumentError(name, value, "is not a number") from None
    if (
        not number.is_finite()
        or abs(number.adjusted()) > _DIGITS_MAX
        # What follows reckons with 28 digits, and would round more of them.
        or len(number.as_tuple().digits) > _PRECISION_DIGITS
    ):
        raise DocumentError(name, value, "is not a number that money can have")
    return number


def amount_micros(name: str, value: object) -> int:
    """Return an amount of dollars as micros. Finer digits than a micro are refused."""
    scaled = decimal_of(name, value) * MICROS_PER_UNIT
    if scaled != scaled.to_integral_value():
        raise DocumentError(name, value, "has more than 6 decimals")
    return _bounded(name, value, int(scaled))


def limit_micros(name: str, value: object) -> int:
    """Return an amount of a limits document as micros, without its sign, as Kazoo reads it.

    A number with a point is dollars, rounded to units; one without is units already.
    """
    if isinstance(value, Decimal):
        units = (decimal_of(name, value) * 10_000).quantize(Decimal(1), ROUND_HALF_UP)
        return _bounded(name, value, abs(int(units)) * UNIT_MICROS)
    if isinstance(value, bool) or not isinstance(value, int):
        raise DocumentError(name, value, "is not a number")
    return _bounded(name, value, abs(value) * UNIT_MICROS)


def _bounded(name: str, value: object, micros: int) -> int:
    if abs(micros) > BOUND_MICROS:
        raise DocumentError(name, value, "is beyond what an amount may be")
    return micros
