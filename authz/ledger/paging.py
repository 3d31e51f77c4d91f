"""Pages of movements by keyset: a cursor says after which movement the next page begins.

So a page costs the same wherever it is, and movements booked meanwhile move no page.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import struct
from typing import Final, NamedTuple, get_args

from sqlalchemy import ColumnElement, UnaryExpression, tuple_

from authz.errors import InvalidInput
from authz.ledger.messages import SortName
from authz.ledger.schema import movements
from authz.ledger.selections import Selection
from authz.ledger.windows import Window

_FORMAT: Final = 1
_PACKED = struct.Struct(">BBqqq8s")
_SORTS: Final[tuple[SortName, ...]] = get_args(SortName)


class Position(NamedTuple):
    """A movement's place in every order there is; of one account, no two share it."""

    amount_micros: int
    booked_us: int
    sequence: int


def order(sort: SortName) -> list[UnaryExpression[int]]:
    """Return by what the rows of an account are ordered."""
    columns = _columns(sort)
    if sort.startswith("-"):
        return [column.desc() for column in columns]
    return [column.asc() for column in columns]


def after(sort: SortName, position: Position) -> ColumnElement[bool]:
    """Return the condition of the rows that come after a position."""
    columns = tuple_(*_columns(sort))
    values = position if _by_amount(sort) else position[1:]
    return columns < values if sort.startswith("-") else columns > values


def window_after(sort: SortName, window: Window, position: Position) -> Window:
    """Return what is left of a window after a position: where the index is entered.

    Of two bounds on one side a database takes whichever it likes, and from the wrong one it
    would walk through all the pages before.
    """
    if _by_amount(sort):
        return window
    if sort.startswith("-"):
        return Window(window.start_us, position.booked_us + 1)
    return Window(position.booked_us, window.end_us)


def write_cursor(sort: SortName, selection: Selection, last: Position) -> str:
    """Return the cursor of the page after this row; only the same question may ask with it."""
    packed = _PACKED.pack(_FORMAT, _SORTS.index(sort), *last, _digest(selection))
    return base64.urlsafe_b64encode(packed).rstrip(b"=").decode()


def read_cursor(text: str, sort: SortName, selection: Selection) -> Position:
    """Return the position of a cursor; raises InvalidInput for one of anything else."""
    try:
        padded = text.encode() + b"=" * (-len(text) % 4)
        number, order_number, *position, digest = _PACKED.unpack(
            base64.b64decode(padded, altchars=b"-_", validate=True)
        )
    except (binascii.Error, UnicodeEncodeError, struct.error):
        raise InvalidInput("cursor", "is not the cursor of an earlier page") from None
    if number != _FORMAT:
        raise InvalidInput("cursor", "is of another version; begin with the first page again")
    if order_number != _SORTS.index(sort) or digest != _digest(selection):
        raise InvalidInput("cursor", "belongs to a page with other filters or another order")
    return Position(*position)


def _by_amount(sort: SortName) -> bool:
    return sort.endswith("amount")


def _columns(sort: SortName) -> list[ColumnElement[int]]:
    by_booking: list[ColumnElement[int]] = [movements.c.booked_us, movements.c.sequence]
    return [movements.c.amount_micros, *by_booking] if _by_amount(sort) else by_booking


def _digest(selection: Selection) -> bytes:
    words = "\0".join(map(repr, (*selection, *selection.window)))
    return hashlib.blake2b(words.encode(), digest_size=8).digest()
