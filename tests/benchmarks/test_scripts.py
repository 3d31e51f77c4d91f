"""Each script at a store: a thousand calls' worth of it, pipelined. Ratios: script_cost.py."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest
from servers import Server

from benchmarks.minimal import MinimalPair
from benchmarks.pipeline import Pipeline
from benchmarks.recording import CALL_ID, record_chains
from benchmarks.script_cost import CHAINS, KINDS

pytestmark = pytest.mark.benchmark
_CALLS = 1_000
_ROUNDS = 5


_CASES = [
    *itertools.product(CHAINS, KINDS),
    ("minimal pair", "authorize"),
    ("minimal pair", "settle"),
]


@pytest.mark.parametrize(("subject", "kind"), _CASES)
def test_script(benchmark: Any, store_server: Server, subject: str, kind: str) -> None:
    benchmark.group = f"{kind} at the store: {_CALLS:,} calls, pipelined"
    fresh = itertools.count(1_000, _CALLS)
    with Pipeline(store_server.url) as store:
        if subject == "minimal pair":
            target: Any = MinimalPair(store)
        else:
            (target,) = asyncio.run(record_chains(store_server.url, [CHAINS[subject]]))

        def prepare() -> tuple[tuple[list[bytes]], dict[str, Any]]:
            first = next(fresh)
            call_ids = [CALL_ID.format(number) for number in range(first, first + _CALLS)]
            if kind != "authorize":
                store.run(target.commands("authorize", call_ids))
            return (target.commands(kind, call_ids),), {}

        benchmark.pedantic(store.run, setup=prepare, rounds=_ROUNDS)
