"""The table of events against the scripts that raise them and the page that tells of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from authz.event_types import (
    CALL_DENIED,
    EVENT_TYPES,
    FACTS,
    RATE_MISSING,
    facts_of,
    is_pattern,
    matches,
)
from authz.events.docs import markdown

ROOT = Path(__file__).resolve().parents[2]
_EMIT = re.compile(r'emit\([\w\[\]]+,\s*"([a-z_.]+)",\s*[\w\[\]]+,?([^;]*?)\)\n', re.DOTALL)
_FACT = re.compile(r'(?:^|,\s*)"([a-z_]+)",')


def emitted() -> dict[str, set[tuple[str, ...]]]:
    """Return which events the scripts raise, with the names of their facts."""
    found: dict[str, set[tuple[str, ...]]] = {}
    for path in sorted((ROOT / "lua").rglob("*.lua")):
        for match in _EMIT.finditer(path.read_text(encoding="utf-8")):
            found.setdefault(match[1], set()).add(tuple(_FACT.findall(match[2].strip())))
    return found


def test_the_scripts_raise_what_the_table_has() -> None:
    by_scripts = emitted()
    # These two are raised by `denied-2.lua`, by the name that its caller gives.
    assert set(by_scripts) == set(EVENT_TYPES) - {CALL_DENIED, RATE_MISSING}
    for name, variants in by_scripts.items():
        assert variants == {EVENT_TYPES[name].facts}, name


def test_every_fact_has_a_kind() -> None:
    used = {fact for row in EVENT_TYPES.values() for fact in row.facts}
    assert used == set(FACTS)


def test_facts_are_read_as_they_are_shown() -> None:
    raw = {
        "balance": "-1500000", "count": "7", "call": "acme:c:1", "detail": "12",
        "novel": "0001", "spend": "1e5",
    }  # fmt: skip
    assert facts_of(raw) == {
        "balance": "-1.5", "count": 7, "call": "c:1", "detail": "12",
        "novel": "0001", "spend": "1e5",
    }  # fmt: skip


@pytest.mark.parametrize("text", ["balance.low", "balance.*", "*", "*.low", "call.*"])
def test_patterns_that_mean_something(text: str) -> None:
    assert is_pattern(text)


@pytest.mark.parametrize("text", ["", "balance", "balance.?ow", "[b]alance.low", "x.*", "BALANCE"])
def test_patterns_that_mean_nothing(text: str) -> None:
    assert not is_pattern(text)


def test_events_are_matched_by_any_pattern() -> None:
    assert matches((), "balance.low")
    assert matches(("call.*", "balance.low"), "balance.low")
    assert not matches(("call.*", "balance.lo"), "balance.low")


def test_the_page_lists_every_event() -> None:
    page = (ROOT / "docs/alerts.md").read_text(encoding="utf-8")
    assert markdown() in page
