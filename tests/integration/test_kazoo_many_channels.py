"""A decision among 50,000 live channels does what one among a few does: the same work, counted.

No time is asserted. What is counted is every step of the interpreter in our own code and every
command of the store, in its scripts, too; what a step could hide, a walk over all live calls in
one call of C, is forbidden to the book of calls while decisions are made.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any, Final, Self

from benchmarks import kazoo_channels

import authz
from authz.hooks.kazoo.agent import KazooAgent
from authz.store.client import StoreClient
from authz.store.embedded import EmbeddedStore

_FEW: Final = 100
_MANY: Final = 50_000
_DECISIONS: Final = 10
_OURS: Final = str(Path(authz.__file__).parent)
#: Commands whose work does not grow with what the store has, or by its logarithm.
_BOUNDED: Final = {
    "evalsha", "hget", "hmget", "hset", "get", "set", "mget", "del", "exists", "zadd", "zscore",
    "zrem", "xadd", "hexists", "hdel", "incrby", "hincrby", "getbit", "setbit", "time",
    "pexpire", "expire",
}  # fmt: skip


class Steps:
    """Counts the steps of the interpreter in our own functions, while it is entered."""

    def __init__(self) -> None:
        self.count = 0

    def __enter__(self) -> Self:
        """Count from now on."""
        self._before = sys.gettrace()
        sys.settrace(self._enter)
        return self

    def __exit__(self, *_: object) -> None:
        """Count no more."""
        sys.settrace(self._before)

    def _enter(self, frame: FrameType, _event: str, _value: Any) -> Any:
        if not frame.f_code.co_filename.startswith(_OURS):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return self._step

    def _step(self, _frame: FrameType, event: str, _value: Any) -> Any:
        self.count += event == "opcode"
        return self._step


class Closed(dict[str, Any]):
    """A dict that finds, takes and gives away by key, and does not let anybody walk over it."""

    def _refuse(self, *_: object) -> Any:
        raise AssertionError("a decision walks over all live calls")

    __iter__ = keys = values = items = copy = _refuse  # type: ignore[assignment]


async def work_of_a_decision(agent: KazooAgent) -> tuple[int, Counter[str]]:
    """Return the least steps, and the store's commands, that one decision took of several."""
    steps: list[int] = []
    level, client = len(agent.book), agent.hangups._client
    before = await commands(client)
    for number in range(_DECISIONS):
        with Steps() as counted:
            await kazoo_channels.decide(agent, f"at-{level}-{number}", number)
        steps.append(counted.count)
    used = await commands(client)
    used.subtract(before)
    return min(steps), +used


async def commands(client: StoreClient) -> Counter[str]:
    """Return how often each command was run since the store's start, but for this question."""
    found: Counter[str] = Counter()
    for line in (await client.execute("INFO", "commandstats")).decode().splitlines():
        if line.startswith("cmdstat_"):
            name, _, numbers = line.removeprefix("cmdstat_").partition(":")
            if name not in ("info", "ping"):
                found[name] = int(numbers.partition(",")[0].removeprefix("calls="))
    return found


async def test_a_decision_is_the_same_work_among_many_live_channels(tmp_path: Path) -> None:
    found = []
    # The session's own servers are kept too small for so many.
    with EmbeddedStore(tmp_path / "store") as store:
        async with kazoo_channels.crowd(store.url, tmp_path) as agent:
            for channels in (_FEW, _MANY):
                await kazoo_channels.fill(agent, channels)
                calls = agent.book._calls
                agent.book._calls = Closed(calls)
                found.append(await work_of_a_decision(agent))
                calls.update(dict.items(agent.book._calls))
                agent.book._calls = calls
            assert len(agent.book) >= _MANY
    (few_steps, few_commands), (many_steps, many_commands) = found
    # A walk over all of them would be a hundred times as much.
    assert few_steps > 100
    assert many_steps <= few_steps * 1.1
    assert few_commands == many_commands
    assert many_commands["evalsha"] >= _DECISIONS
    assert set(many_commands) <= _BOUNDED
