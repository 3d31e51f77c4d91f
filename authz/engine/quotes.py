"""What the decks of a chain say about one number."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

from authz.engine.excuses import Excuses
from authz.money import format_percent
from authz.reasons import CallClass, Direction, Excuse
from authz.store.accounts import Chain
from authz_ext.rating import Rate

if TYPE_CHECKING:
    from authz.rating.deck import Deck, DeckRow


class Decks(Protocol):
    """Where the engine finds the deck in force; it never waits."""

    def get(self, deck_id: str) -> Deck | None:
        """Return the deck in force under this id, or None."""


class LegQuote(Struct, frozen=True, gc=False):
    """One leg's rate and the class its deck row gives the number, if any.

    An excused leg has neither: its deck is not looked at.
    """

    rate: Rate | None
    row_class: CallClass | None
    blocked: bool
    excuse: Excuse | None = None

    def leg_class(self, call_class: CallClass) -> CallClass:
        """Return the class that counts for this leg's trunk coverage and blocked classes."""
        return call_class if self.row_class is None else self.row_class


#: The deck row of every leg, leaf first.
Rows = tuple["DeckRow | None", ...]
#: The same with the excuse of each leg that has one in the place of its row.
OfferedRows = tuple["DeckRow | Excuse | None", ...]

_NO_ROW = LegQuote(None, None, False)
_EXCUSED = {excuse: LegQuote(None, None, False, excuse) for excuse in Excuse}


def quote_row(row: DeckRow | Excuse | None) -> LegQuote:
    """Return what one deck row, or an excuse, means for a leg."""
    if row is None:
        return _NO_ROW
    if isinstance(row, Excuse):
        return _EXCUSED[row]
    row_class = None if row.call_class is None else CallClass(row.call_class)
    # A blocked row has no price to speak of, in the direction that policy does not look at either.
    return LegQuote(None if row.blocked else row.rate, row_class, row.blocked)


def discount_text(rate: Rate) -> str | None:
    """Return a rate's discount in percent as a decimal, as in "12.5"; None if it has none."""
    basis_points = rate.discount_basis_points
    return format_percent(basis_points) if basis_points else None


def find_rows(decks: Decks, chain: Chain, number: str, direction: Direction, at: int) -> Rows:
    """Return every leg's deck row; a deck of another currency has none for the account."""
    rows: list[DeckRow | None] = []
    row: DeckRow | None = None
    previous_id: str | None = None
    for account, deck_id in zip(chain.accounts, chain.deck_ids, strict=True):
        if deck_id != previous_id:
            deck = None if deck_id is None else decks.get(deck_id)
            if deck is None or deck.currency != account.config.currency:
                row = None
            else:
                row = deck.lookup(number, direction, at)
            previous_id = deck_id
        rows.append(row)
    return tuple(rows)


def excuse_rows(chain: Chain, rows: Rows, excuses: Excuses) -> OfferedRows:
    """Return the rows with the excuses of those accounts that have one."""
    return tuple(
        excuses.get(account.id, row) for account, row in zip(chain.accounts, rows, strict=True)
    )


def quote_chain(
    decks: Decks, chain: Chain, number: str, direction: Direction, at: int, excuses: Excuses
) -> tuple[LegQuote, ...]:
    """Return every leg's quote."""
    rows = find_rows(decks, chain, number, direction, at)
    return tuple(quote_row(row) for row in excuse_rows(chain, rows, excuses))
