"""Quote, cost and inverse, number rules, gate: what one decision computes in the process."""

from __future__ import annotations

import random
from functools import cache
from typing import Any

import pytest

from authz.numbers import default_rules
from authz.rating.compiled import DeckFacts, compile_deck
from authz.rating.deck import Deck
from authz.rating.importer import ImportOptions, import_deck
from authz.reasons import CallClass, Direction
from authz_ext.gate import CallGate
from authz_ext.rating import Rate, Tier, Window
from benchmarks.tries import make_numbers, make_prefixes

pytestmark = pytest.mark.benchmark
_AT = 1_800_000_000
_CHUNK_SECONDS = 60
_QUOTES = 10_000
_DECK_SIZES = (1_000, 100_000, 1_000_000)
_PLAIN = Rate(tiers=[Tier(0, 10_000_000, 60, 6)])
_WINDOWED = Rate(
    tiers=[Tier(0, 10_000_000, 60, 30), Tier(30, 10_000_000, 60, 6)],
    connect_fee=5_000,
    windows=[Window(0b11111, 480, 1080, [Tier(0, 20_000_000, 60, 60)])],
    timezone="America/New_York",
)
_RATES = {"plain": _PLAIN, "windows": _WINDOWED}


def deck_csv(size: int) -> bytes:
    """Return a deck file of that many prefixes with a hundred different prices."""
    prefixes = make_prefixes(size, random.Random(size))
    rows = (f"{prefix},0.{1 + place % 97:04}\n" for place, prefix in enumerate(prefixes))
    return b"prefix,price\n" + "".join(rows).encode()


def compiled_deck(data: bytes) -> Deck:
    """Return the deck of a file, compiled and opened in memory."""
    rows = import_deck(data, ImportOptions()).rows
    compiled = compile_deck(rows, DeckFacts(id="bench", currency="USD", timezone="UTC"))
    return Deck(compiled.data, compiled.version)


@cache
def _deck(size: int) -> Deck:
    return compiled_deck(deck_csv(size))


@pytest.mark.parametrize("size", _DECK_SIZES)
def test_quote(benchmark: Any, size: int) -> None:
    benchmark.group = f"quote (class, lookup, cost of a chunk): {_QUOTES:,} quotes"
    rules, deck = default_rules(), _deck(size)
    prefixes = make_prefixes(size, random.Random(size))
    numbers = make_numbers(prefixes, _QUOTES, random.Random(1))
    outbound = int(Direction.OUTBOUND)

    def quote_all() -> None:
        for dialled in numbers:
            number, _ = rules.classify(dialled)
            row = deck.lookup(number, outbound, _AT)
            if row is not None:
                row.rate.cost(_CHUNK_SECONDS, _AT)

    benchmark(quote_all)


@pytest.mark.parametrize("kind", _RATES)
def test_cost(benchmark: Any, kind: str) -> None:
    benchmark.group = "rating"
    benchmark(_RATES[kind].cost, 754, _AT)


@pytest.mark.parametrize("kind", _RATES)
def test_inverse(benchmark: Any, kind: str) -> None:
    benchmark.group = "rating"
    benchmark(_RATES[kind].seconds_for, 1_234_567, _AT)


@pytest.mark.parametrize("kind", _RATES)
def test_pack(benchmark: Any, kind: str) -> None:
    benchmark.group = "rating"
    benchmark(_RATES[kind].pack)


@pytest.mark.parametrize("kind", _RATES)
def test_unpack(benchmark: Any, kind: str) -> None:
    benchmark.group = "rating"
    benchmark(Rate.unpack, _RATES[kind].pack())


@pytest.mark.parametrize("dialled", ["+14155550100", "4155550100", "011442071838750", "911"])
def test_classify(benchmark: Any, dialled: str) -> None:
    benchmark.group = "number rules"
    benchmark(default_rules().classify, dialled)


@pytest.mark.parametrize("counts", ["no proof", "proof of refusal"])
def test_gate(benchmark: Any, counts: str) -> None:
    benchmark.group = "gate of the process"
    gate = CallGate()
    if counts == "proof of refusal":
        gate.denied("a", 1, 1_000_000, _AT, _AT + 1_000_000)
    national, outbound = int(CallClass.NATIONAL), int(Direction.OUTBOUND)
    benchmark(gate.refuses, "a", 1, 100, 1_000, 1_000, outbound, national, 1_000_100)


def test_gate_life_of_a_call(benchmark: Any) -> None:
    benchmark.group = "gate of the process"
    gate = CallGate()
    national, outbound = int(CallClass.NATIONAL), int(Direction.OUTBOUND)

    def live() -> None:
        gate.opened(("a", "c"), ("a", "m"), outbound, national, 10_000_000, 1_000)
        gate.renewed(("a", "c"), 20_000_000)
        gate.closed(("a", "c"))

    benchmark(live)


@pytest.mark.parametrize("size", _DECK_SIZES)
def test_deck_build(benchmark: Any, size: int) -> None:
    benchmark.group = "deck: file read, checked, compiled, opened"
    data = deck_csv(size)
    deck = benchmark.pedantic(compiled_deck, (data,), rounds=1)
    benchmark.extra_info["prefixes"] = len(deck)
