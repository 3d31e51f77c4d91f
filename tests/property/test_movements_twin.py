"""The compiled reader of ledger entries makes the same rows as the general one, or none."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from authz.causes import NORMAL_CAUSES, shorten_cause
from authz.ledger.rows import Unreadable, movement_rows, read_movement, read_movements
from authz.reasons import BILLING_OF, CLASS_OF, Direction
from authz.store.constants import Kind, Mark
from authz.store.layouts import LAYOUT_NUMBER, LEDGER_HEAD, LEDGER_LEG
from authz.store.records import ledger_strings

BUCKET = 17
FIRST = (1 << 32) - 2
AMOUNTS = st.integers(-(1 << 55), (1 << 55) - 1)
TEXTS = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=70)


@st.composite
def entries(draw: st.DrawFn, sequence: int, *, legs_max: int = 4) -> list[Any]:
    """Return an ordinary entry as the store answers it."""
    legs = draw(st.integers(1, legs_max))
    head = LEDGER_HEAD.pack(
        layout=LAYOUT_NUMBER,
        kind=draw(st.sampled_from(list(Kind))),
        marks=draw(st.integers(0, 2 * max(Mark) - 1)),
        call_class=draw(st.integers(0, len(CLASS_OF) - 1)),
        direction=draw(st.integers(0, len(Direction) - 1)),
        legs=legs,
        seconds=draw(st.integers(-(1 << 31), (1 << 31) - 1)),
        sequence=sequence,
        started_at=draw(st.integers(0, (1 << 40) - 1)),
    )
    parts = [
        LEDGER_LEG.pack(
            billing=draw(st.integers(0, len(BILLING_OF) - 1)),
            sequence=draw(st.integers(0, (1 << 40) - 1)),
            amount=draw(AMOUNTS),
            balance=draw(AMOUNTS),
        )
        for _ in range(legs)
    ]
    causes = st.sampled_from([shorten_cause(name) for name in NORMAL_CAUSES.values()])
    texts = ledger_strings(
        [draw(TEXTS) for _ in range(legs)],
        draw(TEXTS),
        draw(TEXTS),
        draw(st.one_of(causes, TEXTS)),
        draw(TEXTS),
    )
    entry_id = f"{draw(st.integers(0, 1 << 42))}-{draw(st.integers(0, 9))}".encode()
    return [entry_id, [b"e", head + b"".join(parts) + texts]]


@st.composite
def pages(draw: st.DrawFn) -> list[list[Any]]:
    """Return entries one after the other."""
    return [draw(entries(FIRST + place)) for place in range(draw(st.integers(0, 4)))]


def general(entry: Any) -> list[tuple[Any, ...]]:
    """Return an entry's rows as the general reader makes them."""
    return [tuple(row.values()) for row in movement_rows(BUCKET, read_movement(entry))]


@given(pages())
def test_ordinary_entries_are_all_read(page: list[list[Any]]) -> None:
    rows, taken = read_movements(BUCKET, page, FIRST - 1)
    assert taken == len(page)
    assert rows == [row for entry in page for row in general(entry)]


@settings(max_examples=500)
@given(st.data())
def test_whatever_is_read_is_read_alike(data: st.DataObject) -> None:
    """Of a damaged entry a reader may know no more, but never something else."""
    first, second = data.draw(entries(FIRST)), data.draw(entries(FIRST + 1))
    packed = bytearray(second[1][1])
    for _ in range(data.draw(st.integers(1, 3))):
        packed[data.draw(st.integers(0, len(packed) - 1))] = data.draw(st.integers(0, 255))
    end = data.draw(st.one_of(st.just(len(packed)), st.integers(0, len(packed))))
    damaged = [second[0], [b"e", bytes(packed[:end])]]
    rows, taken = read_movements(BUCKET, [first, damaged], FIRST - 1)
    assert rows[: len(general(first))] == general(first)
    try:
        expected = general(damaged)
        sequence = read_movement(damaged).sequence
    except Unreadable:
        assert taken == 1
        return
    if taken == 2:
        assert (rows, sequence) == (general(first) + expected, FIRST + 1)
    else:
        # Left alone for a reason: another number, or a text that is stored otherwise.
        words = bytes(packed[:end])
        legs = words[LEDGER_HEAD.places()["legs"][0]]
        assert sequence != FIRST + 1 or b"\0" in words or legs > 4
        assert len(rows) == len(general(first))


@given(entries(FIRST + 1), entries(FIRST - 1), entries(FIRST), st.booleans())
def test_a_break_in_the_numbers_ends_it(
    after: list[Any], before: list[Any], right: list[Any], is_gap: bool
) -> None:
    wrong = after if is_gap else before
    assert read_movements(BUCKET, [wrong, right], FIRST - 1) == ([], 0)
    rows, taken = read_movements(BUCKET, [right, right], FIRST - 1)
    assert (rows, taken) == (general(right), 1)


@given(
    entries(FIRST), st.sampled_from([b"", b"-", b"-1", b"x-1", b"12", b"+1-0", b"9" * 17 + b"-0"])
)
def test_an_entry_without_a_time_is_left(entry: list[Any], entry_id: bytes) -> None:
    assert read_movements(BUCKET, [[entry_id, entry[1]]], FIRST - 1) == ([], 0)


@given(entries(FIRST))
def test_what_is_no_entry_is_left(entry: list[Any]) -> None:
    entry_id, fields = entry
    for odd in (None, entry_id, [], [entry_id], [entry_id, []], [entry_id, [b"e"]]):
        assert read_movements(BUCKET, [odd], FIRST - 1) == ([], 0)  # type: ignore[list-item]
    for odd_fields in (fields[1], [b"e", None], [b"e", "text"]):
        assert read_movements(BUCKET, [[entry_id, odd_fields]], FIRST - 1) == ([], 0)  # type: ignore[list-item]


@given(entries(FIRST))
def test_an_entry_of_nobody_is_unreadable(entry: list[Any]) -> None:
    packed = bytearray(entry[1][1])
    packed[LEDGER_HEAD.places()["legs"][0]] = 0
    nobody = [entry[0], [b"e", bytes(packed)]]
    assert read_movements(BUCKET, [nobody], FIRST - 1) == ([], 0)
    try:
        read_movement(nobody)  # type: ignore[arg-type]
    except Unreadable:
        return
    raise AssertionError("an entry without legs was read")
