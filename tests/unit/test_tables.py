"""The table of the latest entries does what an OrderedDict with a bound does."""

from __future__ import annotations

import gc
import weakref
from collections import OrderedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz_ext.tables import Latest

#: Few enough to meet again, of every kind that is in use: texts, row numbers, keys of terms.
KEYS = st.one_of(
    st.integers(-3, 12), st.sampled_from(["sub:1", "sub:2", "é", ""]),
    st.tuples(st.integers(0, 2), st.none() | st.integers(0, 2)),
)  # fmt: skip
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), KEYS, st.integers(0, 99)),
        st.tuples(st.just("pop"), KEYS),
        st.tuples(st.just("forget_oldest"), st.integers(-1, 3)),
        st.tuples(st.just("clear")),
    ),
    max_size=60,
)


class Bounded:
    """The same in plain Python."""

    def __init__(self, entries_max: int) -> None:
        self.entries: OrderedDict[object, int] = OrderedDict()
        self._entries_max = entries_max

    def put(self, key: object, value: int) -> None:
        self.entries[key] = value
        if len(self.entries) > self._entries_max:
            self.entries.popitem(last=False)

    def pop(self, key: object) -> int | None:
        return self.entries.pop(key, None)

    def forget_oldest(self, count: int) -> None:
        for _ in range(min(count, len(self.entries))):
            self.entries.popitem(last=False)

    def clear(self) -> None:
        self.entries.clear()


@given(st.integers(1, 6), STEPS)
def test_it_agrees_with_an_ordered_dict(entries_max: int, steps: list[tuple[object, ...]]) -> None:
    table: Latest[object, int] = Latest(entries_max)
    plain = Bounded(entries_max)
    seen: set[object] = set()
    for name, *arguments in steps:
        assert getattr(table, str(name))(*arguments) == getattr(plain, str(name))(*arguments)
        if name in ("put", "pop"):
            seen.add(arguments[0])
        assert len(table) == len(plain.entries)
        for key in seen:
            assert table.get(key) == plain.entries.get(key)
            assert (key in table) == (key in plain.entries)


def test_many_entries_come_and_go_in_the_order_of_their_age() -> None:
    table: Latest[str, int] = Latest(10_000)
    for number in range(30_000):
        table.put(f"call-{number}", number)
        table.pop(f"call-{number - 5_000}")
    assert len(table) == 5_000
    assert (table.get("call-24999"), table.get("call-25000")) == (None, 25_000)
    table.forget_oldest(4_999)
    assert (len(table), table.get("call-29999")) == (1, 29_999)


def test_what_is_forgotten_is_freed() -> None:
    class Value:
        pass

    table: Latest[int, Value] = Latest(2)
    values = [Value() for _ in range(4)]
    watched = [weakref.ref(value) for value in values]
    gc.disable()
    try:
        for key, value in enumerate(values):
            table.put(key, value)
        del value
        values.clear()
        assert [one() is None for one in watched] == [True, True, False, False]
        table.put(3, Value())
        table.pop(2)
        assert all(one() is None for one in watched)
        kept = weakref.ref(table.get(3))
        del table
        assert kept() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("entries_max", [0, -1])
def test_a_table_for_nothing_is_an_error(entries_max: int) -> None:
    with pytest.raises(ValueError, match="entries_max"):
        Latest(entries_max)


def test_what_it_cannot_hold_is_refused_and_changes_nothing() -> None:
    table: Latest[object, object] = Latest(3)
    table.put("key", 1)
    with pytest.raises(TypeError):
        table.put("key", None)
    with pytest.raises(TypeError, match="unhashable"):
        table.put([], 2)
    with pytest.raises(TypeError, match="unhashable"):
        table.get([])
    assert (len(table), table.get("key")) == (1, 1)
