"""Terms worked out once serve every call alike, and no other."""

from __future__ import annotations

from typing import Any

import pytest
from world import RETAIL, US, WHOLESALE, PriceList, per_minute

from authz.config.sections import CallSettings
from authz.engine.calls import Call
from authz.engine.terms import Terms, TermsBook
from authz.model import AccountConfig, AuthorizeRequest
from authz.reasons import CallClass, Direction
from authz.store.accounts import Account, Chain
from authz_ext.rating import Tier, Window

NOW = 1_800_000_000


def make_chain(version: int = 1, **config: Any) -> Chain:
    """Return a sub-account and its master, each with its deck."""
    sub = Account("sub", version, AccountConfig(parent="master", deck="retail", **config))
    return Chain("17", (sub, Account("master", 1, AccountConfig(deck="wholesale"))), None)


def make_call(
    *,
    direction: Direction = Direction.OUTBOUND,
    call_class: CallClass = CallClass.NATIONAL,
    seconds: int | None = None,
    adopted_seconds: int | None = None,
) -> Call:
    """Return a call as the engine makes it of a request."""
    request = AuthorizeRequest(
        call_id="c", account="sub", to=US, direction=direction.label, seconds=seconds
    )
    return Call(request, US, US, call_class, direction, 1, False, False, adopted_seconds)


@pytest.fixture
def decks() -> dict[str, Any]:
    """Decks as the book asks them."""
    return {"retail": RETAIL, "wholesale": WHOLESALE}


@pytest.fixture
def book(decks: dict[str, Any]) -> TermsBook:
    """An empty book."""
    return TermsBook(decks, CallSettings())


def test_calls_alike_share_their_terms(book: TermsBook) -> None:
    chain = make_chain()
    first = book.find(chain, make_call(), NOW)
    assert book.find(chain, make_call(), NOW + 86_400) is first
    assert first.full_step == (60, (10_000, 5_000))


@pytest.mark.parametrize(
    "other",
    [
        {"direction": Direction.INBOUND},
        {"call_class": CallClass.UNKNOWN},
        {"seconds": 7_200},
        {"adopted_seconds": 60},
    ],
)
def test_any_difference_that_counts_has_terms_of_its_own(
    book: TermsBook, other: dict[str, Any]
) -> None:
    chain = make_chain()
    first = book.find(chain, make_call(), NOW)
    found = book.find(chain, make_call(**other), NOW)
    assert found is not first
    fresh = Terms(CallSettings(), chain, first.rows, make_call(**other), NOW)
    assert (found.full_step, found.packed_first_legs) == (
        fresh.full_step,
        fresh.packed_first_legs,
    )


def test_another_version_of_the_account_has_other_terms(book: TermsBook) -> None:
    assert book.find(make_chain(), make_call(), NOW).target == 60
    chain = make_chain(version=2, max_call_seconds=30)
    assert book.find(chain, make_call(), NOW).target == 30


def test_a_new_deck_has_other_terms(book: TermsBook, decks: dict[str, Any]) -> None:
    chain = make_chain()
    book.find(chain, make_call(), NOW)
    decks["retail"] = PriceList({"1": per_minute("0.02")})
    assert book.find(chain, make_call(), NOW).full_step == (60, (20_000, 5_000))


def test_terms_with_windows_are_those_of_the_moment(book: TermsBook, decks: dict[str, Any]) -> None:
    peak = Window(days=127, start_minute=480, end_minute=1080, tiers=[Tier(0, 40_000_000, 60, 60)])
    decks["retail"] = PriceList({"1": per_minute("0.01", windows=[peak])})
    midnight = NOW - NOW % 86_400
    chain = make_chain()
    assert book.find(chain, make_call(), midnight).full_step[1][0] == 10_000
    assert book.find(chain, make_call(), midnight + 43_200).full_step[1][0] == 40_000


def test_a_full_book_drops_its_oldest_terms(decks: dict[str, Any]) -> None:
    book = TermsBook(decks, CallSettings(), terms_max=1)
    chain = make_chain()
    first = book.find(chain, make_call(), NOW)
    second = book.find(chain, make_call(seconds=30), NOW)
    assert book.find(chain, make_call(seconds=30), NOW) is second
    again = book.find(chain, make_call(), NOW)
    assert again is not first
    assert again.full_step == first.full_step
