"""The legs of answers: what each account of a chain holds, has left, or has paid."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Generic, TypeVar, final

from authz_ext.rating import Rate

_G = TypeVar("_G")
_S = TypeVar("_S")

@final
class LegWriter(Generic[_G, _S]):
    """Makes the legs of grants and settlements, of the types that it is given.

    `labels` are the words for billings by their number; `discount_text` says a rate's discount.
    The scripts answer three integers a leg: its billing, and two amounts in micros.
    """

    def __init__(
        self,
        *,
        grant_leg: Callable[[str, str, str, str, str | None, str | None], _G],
        settled_leg: Callable[[str, str, str, str], _S],
        labels: Iterable[str],
        discount_text: Callable[[Rate], str | None],
    ) -> None: ...
    def granted(
        self,
        accounts: tuple[str, ...],
        are_unlimited: tuple[bool, ...],
        rates: tuple[Rate | None, ...],
        reply: list[int],
        first: int,
        at: int,
    ) -> tuple[_G, ...]:
        """Return the legs of a grant from billing, held and credit left of each account.

        They stand in the reply from place `first` on. The rates are told as they are at Unix
        second `at`; an unlimited account has no credit to tell.
        """

    def settled(self, accounts: tuple[str, ...], reply: list[int], first: int) -> tuple[_S, ...]:
        """Return the legs of a settlement from billing, charge and balance of each account.

        A call that was booked before may have had fewer legs than its chain has now.
        """
