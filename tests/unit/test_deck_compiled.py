"""The compiled deck: what it refuses to open, what a lookup means, and what a dry run shows."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from authz.errors import DeckError
from authz.rating import deck as deck_module
from authz.rating.compiled import LEAD, ROW, CompiledDeck, DeckFacts, compile_deck
from authz.rating.deck import Deck
from authz.rating.diff import RowChange, compare_decks, rows_of_canonical
from authz.rating.importer import ImportOptions, import_deck
from authz.reasons import CallClass, Direction
from authz_ext.prefixes import ROW_BYTES

OUTBOUND, INBOUND = Direction.OUTBOUND, Direction.INBOUND
DATA = Path(__file__).resolve().parents[1] / "data"
#: 2026-01-01T00:00:00 in New York.
NEW_YEAR = 1_767_243_600


def build(text: str, timezone: str = "America/New_York") -> CompiledDeck:
    rows = import_deck(text.encode(), ImportOptions()).rows
    return compile_deck(rows, DeckFacts(id="retail", currency="USD", timezone=timezone))


def opened(text: str) -> Deck:
    compiled = build(text)
    return Deck(compiled.data, compiled.version)


def test_python_and_cython_agree_on_a_row() -> None:
    assert ROW.size == ROW_BYTES


def test_a_deck_knows_itself() -> None:
    compiled = build("prefix,price\n44,0.01\n4420,0.02\n")
    deck = Deck(compiled.data, compiled.version)
    assert (deck.id, deck.currency, deck.timezone) == ("retail", "USD", "America/New_York")
    assert (len(deck), deck.facts.rows) == (2, 2)
    assert deck.version == hashlib.sha256(compiled.data).hexdigest()


def test_the_retail_deck_prices_calls() -> None:
    data = (DATA / "retail_deck.csv").read_bytes()
    rows = import_deck(data, ImportOptions(skip_bad=True)).rows
    compiled = compile_deck(rows, DeckFacts(id="retail", currency="USD", timezone="UTC"))
    deck = Deck(compiled.data, compiled.version)
    buenos_aires = deck.lookup("+541155550100", OUTBOUND, NEW_YEAR)
    assert buenos_aires is not None
    assert (buenos_aires.prefix, buenos_aires.rate.cost(61)) == ("5411", 80_000)
    directory = deck.lookup("*2007", OUTBOUND, NEW_YEAR)
    assert directory is not None
    assert [directory.rate.cost(seconds) for seconds in (1, 60, 61)] == [330_000, 330_000, 430_000]
    london = deck.lookup("+442079460000", OUTBOUND, NEW_YEAR)
    assert london is not None
    assert london.blocked
    assert deck.lookup("911", OUTBOUND, NEW_YEAR) is None


def test_dates_hold_in_the_zone_of_the_deck() -> None:
    deck = opened(
        "prefix,price,effective,expires\n44,1,,\n44,2,2026-01-01,2026-01-02\n4420,3,2026-01-01,\n"
    )

    def price(number: str, at: int) -> str:
        row = deck.lookup(number, OUTBOUND, at)
        return "none" if row is None else f"{row.prefix} {row.rate.per_minute_text()}"

    assert price("+4499", NEW_YEAR - 1) == "44 1"
    assert price("+4499", NEW_YEAR) == "44 2"
    assert price("+4499", NEW_YEAR + 86_399) == "44 2"
    assert price("+4499", NEW_YEAR + 86_400) == "44 1"
    assert price("+4420", NEW_YEAR - 1) == "44 1"
    assert price("+4420", NEW_YEAR) == "4420 3"
    assert price("+45", NEW_YEAR) == "none"


def test_directions_and_classes() -> None:
    deck = opened(
        "prefix,price,direction,class\n1800,0,outbound,tollfree\n1800,0.02,inbound,\n18,1,,\n"
        "1833,2,inbound,\n"
    )
    outbound = deck.lookup("+18005550100", OUTBOUND, NEW_YEAR)
    inbound = deck.lookup("+18005550100", INBOUND, NEW_YEAR)
    assert outbound is not None
    assert inbound is not None
    assert (outbound.call_class, outbound.rate.is_free) == (CallClass.TOLLFREE, True)
    assert (inbound.call_class, inbound.rate.is_free) == (None, False)
    shorter = deck.lookup("+18335550100", OUTBOUND, NEW_YEAR)
    assert shorter is not None
    assert shorter.prefix == "18"


def test_rows_stay_right_when_more_are_asked_for_than_are_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(deck_module, "ROWS_READY_MAX", 3)
    monkeypatch.setattr(deck_module, "RATES_READY_MAX", 2)
    deck = opened("prefix,price\n" + "".join(f"{number},{number}\n" for number in range(10, 20)))
    for number in [*range(10, 20), *range(10, 20)]:
        row = deck.lookup(f"+{number}55", OUTBOUND, 0)
        assert row is not None
        assert (row.prefix, row.rate.per_minute_text()) == (str(number), str(number))


# --- damage ----------------------------------------------------------------------------------


def test_a_file_opens_only_under_its_own_hash(tmp_path: Path) -> None:
    compiled = build("prefix,price\n44,0.01\n")
    path = tmp_path / f"{compiled.version}.deck"
    path.write_bytes(compiled.data)
    assert len(Deck.open(path, compiled.version)) == 1
    for damaged in (compiled.data[:-1], compiled.data + b"\0", b"\0" + compiled.data[1:], b""):
        path.write_bytes(damaged)
        with pytest.raises(DeckError, match=r"damaged|empty"):
            Deck.open(path, compiled.version)
    with pytest.raises(DeckError, match="No such file"):
        Deck.open(tmp_path / "missing.deck", compiled.version)


def test_every_cut_buffer_is_refused() -> None:
    data = build("prefix,price\n44,0.01\n45,0.02\n").data
    for length in [*range(0, 400, 7), *range(400, len(data) - 8, 1_000)]:
        with pytest.raises(DeckError):
            Deck(data[:length], "x")


@pytest.mark.parametrize(
    ("section", "place"),
    [("rows", (0, 31)), ("rows", (4, 32)), ("rates", (0, 1)), ("prefixes", (0, 16)),
     ("rows", (-8, 32)), ("texts", (0, 10**9))],
)  # fmt: skip
def test_sections_that_do_not_fit_are_refused(section: str, place: tuple[int, int]) -> None:
    data = build("prefix,price\n44,0.01\n45,0.02\n").data
    _, length = LEAD.unpack_from(data)
    head = json.loads(data[LEAD.size : LEAD.size + length])
    head["sections"][section] = place
    changed = json.dumps(head).encode().ljust(length + 80)
    changed += b" " * (-len(changed) % 8)
    with pytest.raises(DeckError):
        Deck(LEAD.pack(b"AUTHZDK1", len(changed)) + changed + data[LEAD.size + length :], "x")


def test_a_head_that_lacks_a_section_is_refused() -> None:
    data = build("prefix,price\n44,0.01\n").data
    changed = data.replace(b'"canonical"', b'"canonicap"', 1)
    with pytest.raises(DeckError, match="lacks canonical"):
        Deck(changed, "x")


# --- the difference --------------------------------------------------------------------------


def compared(old: str, new: str, at: int = NEW_YEAR) -> dict[str, tuple[str, str | None]]:
    rows = [import_deck(text.encode(), ImportOptions()).rows for text in (old, new)]
    difference = compare_decks(rows[0], rows[1], "America/New_York", at)
    assert sum(difference.counts.values()) == difference.total == len(difference.changes)
    return {change.prefix: (change.kind, change.new_price) for change in difference.changes}


def test_the_difference_of_two_decks() -> None:
    old = (
        "prefix,description,price,connect_fee,blocked\n"
        "30,same,1,,\n31,up,1,,\n32,down,1,,\n33,fee,1,,\n34,block,1,,\n35,free,,,yes\n"
        "36,gone,1,,\n38,name,1,,\n"
    )
    new = (
        "prefix,description,price,connect_fee,blocked\n"
        "30,same,1,,\n31,up,1.5,,\n32,down,0.5,,\n33,fee,1,0.1,\n34,block,1,,yes\n35,free,2,,\n"
        "37,new,3,,\n38,renamed,1,,\n"
    )
    assert compared(old, new) == {
        "31": ("dearer", "1.5"),
        "32": ("cheaper", "0.5"),
        "33": ("dearer", "1"),
        "34": ("blocked", None),
        "35": ("unblocked", "2"),
        "36": ("removed", None),
        "37": ("added", "3"),
        "38": ("changed", "1"),
    }


def test_new_dates_with_old_prices_are_no_change_in_price() -> None:
    old = "prefix,price,effective\n44,1,2025-01-01\n44,2,2025-06-01\n45,1,\n"
    new = "prefix,price,effective\n44,2,2026-01-01\n45,3,2026-02-01\n"
    assert compared(old, new) == {"44": ("changed", "2"), "45": ("dearer", "3")}


def test_a_change_says_when_it_takes_effect() -> None:
    rows = import_deck(b"prefix,price,effective\n45,3,2026-02-01\n", ImportOptions()).rows
    difference = compare_decks((), rows, "America/New_York", NEW_YEAR)
    assert difference.changes == (RowChange("added", "45", None, "", "", None, "3", "2026-02-01"),)


def test_the_rows_in_force_come_back_from_their_canonical_csv() -> None:
    deck = opened("prefix,price\n44,1\n45,2\n")
    rows = rows_of_canonical(deck.canonical(), deck.currency)
    assert compare_decks(rows, rows, deck.timezone, NEW_YEAR).unchanged == 2
