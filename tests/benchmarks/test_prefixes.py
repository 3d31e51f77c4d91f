"""Prefix lookup, ours beside the tries of PyPI; building a table; memory of a prefix."""

from __future__ import annotations

import random
from functools import cache
from typing import Any

import pytest

from authz_ext.prefixes import PrefixTable
from authz_ext.prefixes import build as build_table
from benchmarks.tries import make_numbers, make_prefixes, makers

pytestmark = pytest.mark.benchmark
_LOOKUPS = 10_000
_SIZES = (1_000, 100_000, 1_000_000)


@cache
def _prefixes(size: int) -> list[str]:
    return make_prefixes(size, random.Random(size))


@pytest.mark.parametrize(
    ("size", "name"), [(size, name) for size in _SIZES for name in makers(size)]
)
def test_lookup(benchmark: Any, size: int, name: str) -> None:
    benchmark.group = f"prefix lookup among {size:,}: {_LOOKUPS:,} lookups"
    find = makers()[name](_prefixes(size))
    numbers = make_numbers(_prefixes(size), _LOOKUPS, random.Random(1))

    def look_up_all() -> None:
        for number in numbers:
            find(number)

    benchmark(look_up_all)


@pytest.mark.parametrize("size", _SIZES)
def test_build(benchmark: Any, size: int) -> None:
    benchmark.group = "building a prefix table"
    prefixes = _prefixes(size)
    table = PrefixTable(benchmark.pedantic(build_table, (prefixes,), rounds=3))
    benchmark.extra_info["bytes_per_prefix"] = round(table.nbytes / size, 1)
