"""Canonical export and import are inverse, and a compiled deck answers as its rows say.

The twin of `Deck.lookup` is written from DESIGN: of a number's prefixes the longest that has a
row in force for the direction, and of its rows the one that took effect last.
"""

from __future__ import annotations

import datetime
from zoneinfo import ZoneInfo

from hypothesis import given, settings
from hypothesis import strategies as st

from authz.rating.canonical import write_canonical
from authz.rating.compiled import DeckFacts, compile_deck
from authz.rating.deck import Deck
from authz.rating.importer import ImportOptions, import_deck
from authz.rating.rows import PriceRow, Terms, TimeWindow
from authz.reasons import CallClass
from authz_ext.rating import Rate, Tier, Window

ZONE = "America/New_York"
WINDOWS = (
    TimeWindow(0b0011111, 480, 1080),
    TimeWindow(0b1100000, 0, 1440),
    TimeWindow(0b0000011, 1080, 1200),
)
DAYS = ("2026-01-01", "2026-03-08T02:30:00", "2026-06-01", "2026-11-01T01:30:00")

nanos = st.integers(0, 10**15)
seconds = st.integers(1, 300)


@st.composite
def tiers(draw: st.DrawFn) -> tuple[Tier, ...]:
    """Tiers as a price and an increment give them, or as only the tiers column can say."""
    price, first, following = draw(nanos), draw(seconds), draw(seconds)
    kind = draw(st.sampled_from(["one", "two", "free"]))
    if kind == "one" or (kind == "two" and first == following):
        return (Tier(0, price, 60, first),)
    if kind == "two":
        return (Tier(0, price, 60, first), Tier(first, price, 60, following))
    starts = sorted(draw(st.sets(st.integers(1, 10_000), min_size=1, max_size=3)))
    return tuple(
        Tier(start, draw(nanos), draw(st.sampled_from([1, 7, 60])), draw(seconds))
        for start in [0, *starts]
    )


@st.composite
def terms(draw: st.DrawFn, shared: Terms | None = None) -> Terms:
    """Terms; of a window with what it shares with the row that has none."""
    max_cost = draw(st.none() | st.integers(0, 2 * 10**15))
    return Terms(
        tiers=draw(tiers()),
        connect_fee=draw(st.integers(0, 10**12)),
        free_seconds=draw(st.integers(0, 100)),
        rounding_mode=shared.rounding_mode
        if shared
        else draw(st.sampled_from(["up", "half_up", "down"])),
        rounding_decimals=shared.rounding_decimals if shared else draw(st.integers(0, 6)),
        max_cost=shared.max_cost if shared else max_cost,
        max_cost_action=shared.max_cost_action
        if shared
        else draw(st.sampled_from(["free", "end"]))
        if max_cost is not None
        else "free",
    )


descriptions = (
    st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]) | st.just(" "), max_size=20)
    .map(str.strip)
    .filter(str.isprintable)
)


@st.composite
def group(draw: st.DrawFn, prefix: str, direction: int | None, effective: str | None):
    """One row without a window and some with one, as `import_deck` sorts them."""
    call_class = draw(st.none() | st.sampled_from([int(one) for one in CallClass]))
    blocked = draw(st.booleans())
    expires = draw(st.sampled_from([None, *(day for day in DAYS if day > (effective or ""))]))
    base = draw(terms())
    chosen = draw(st.sets(st.sampled_from(range(3)))) if not blocked else set()
    windows = sorted(
        (WINDOWS[index] for index in chosen),
        key=lambda window: (window.days, window.start_minute),
    )
    priced = None if blocked and draw(st.booleans()) else base
    rows = [(None, priced), *((window, draw(terms(base))) for window in windows)]
    return [
        PriceRow(
            0, prefix, draw(descriptions), direction, call_class, blocked, one_terms, window,
            effective, expires,
        )
        for window, one_terms in rows
    ]  # fmt: skip


@st.composite
def decks(draw: st.DrawFn) -> list[PriceRow]:
    """Rows of some nested prefixes."""
    prefixes = draw(
        st.sets(st.text("12*", min_size=1, max_size=4), min_size=1, max_size=6)
        | st.sets(st.text("0123456789*#", min_size=1, max_size=16).filter(
            lambda prefix: not prefix.startswith("00")), min_size=1, max_size=6)
    )  # fmt: skip
    rows: list[PriceRow] = []
    for prefix in sorted(prefix for prefix in prefixes if not prefix.startswith("00")):
        directions = draw(st.sampled_from([[None], [0], [1], [0, 1]]))
        for direction in directions:
            dates = draw(st.sets(st.sampled_from([None, *DAYS[:3]]), min_size=1, max_size=3))
            for effective in sorted(dates, key=lambda date: date or ""):
                rows += draw(group(prefix, direction, effective))
    return rows


def without_lines(rows: list[PriceRow] | tuple[PriceRow, ...]) -> list[tuple[object, ...]]:
    return [
        (row.prefix, row.description, row.direction, row.call_class, row.blocked, row.terms,
         row.window, row.effective, row.expires)
        for row in rows
    ]  # fmt: skip


@settings(max_examples=75, deadline=None)
@given(decks())
def test_what_is_exported_is_imported_unchanged(rows: list[PriceRow]) -> None:
    text = write_canonical(rows)
    imported = import_deck(text.encode(), ImportOptions())
    assert without_lines(imported.rows) == without_lines(rows)
    assert write_canonical(imported.rows) == text
    assert imported.report.issues_total == 0


def moment(text: str | None, default: int) -> int:
    if text is None:
        return default
    local = datetime.datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(ZONE))
    return int(local.timestamp())


def twin_rate(rows: list[PriceRow]) -> Rate | None:
    """The rate of one prefix, direction and date, built from its rows."""
    (base,) = [row.terms for row in rows if row.window is None]
    if base is None:
        return None
    return Rate(
        tiers=base.tiers,
        connect_fee=base.connect_fee,
        free_seconds=base.free_seconds,
        rounding_mode=base.rounding_mode,
        rounding_decimals=base.rounding_decimals,
        max_cost=base.max_cost,
        max_cost_action=base.max_cost_action,
        windows=[
            Window(
                row.window.days, row.window.start_minute, row.window.end_minute,
                row.terms.tiers, row.terms.connect_fee, row.terms.free_seconds,
            )
            for row in rows
            if row.window is not None and row.terms is not None
        ],
        timezone=ZONE,
    )  # fmt: skip


def twin_lookup(
    rows: list[PriceRow], number: str, direction: int, at: int
) -> tuple[PriceRow, Rate | None] | None:
    digits = number.removeprefix("+")
    for length in range(min(16, len(digits)), 0, -1):
        in_force = [
            row
            for row in rows
            if row.prefix == digits[:length]
            and row.direction in (None, direction)
            and moment(row.effective, 0) <= at < moment(row.expires, 2**62)
        ]
        if in_force:
            latest = max(row.effective or "" for row in in_force)
            chosen = [row for row in in_force if (row.effective or "") == latest]
            (base,) = [row for row in chosen if row.window is None]
            return base, twin_rate(chosen)
    return None


MOMENTS = sorted(
    moment(day, 0) + offset for day in DAYS for offset in (-3600, -1, 0, 1, 3600)
)  # fmt: skip


@settings(max_examples=75, deadline=None)
@given(decks(), st.data())
def test_a_compiled_deck_answers_as_its_rows_say(rows: list[PriceRow], data: st.DataObject) -> None:
    facts = DeckFacts(id="d", currency="USD", timezone=ZONE)
    compiled = compile_deck(rows, facts)
    assert compile_deck(rows, facts) == compiled
    deck = Deck(compiled.data, compiled.version)
    assert deck.canonical().decode() == write_canonical(rows)
    assert (deck.facts.rows, deck.facts.prefixes) == (len(rows), len({r.prefix for r in rows}))
    for _ in range(20):
        known = data.draw(st.sampled_from([row.prefix for row in rows]))
        number = known + data.draw(st.text("12*0", max_size=3))
        if number[0] not in "*#":
            number = "+" + number
        direction = data.draw(st.sampled_from([0, 1]))
        at = data.draw(st.sampled_from(MOMENTS))
        expected = twin_lookup(rows, number, direction, at)
        found = deck.lookup(number, direction, at)
        if expected is None:
            assert found is None
            continue
        assert found is not None
        row, rate = expected
        assert (found.prefix, found.description, found.call_class, found.blocked) == (
            row.prefix, row.description, row.call_class, row.blocked,
        )  # fmt: skip
        assert rate is None or found.rate == rate
