"""What plays a scenario of calls on a stage of its own, faster than the world."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from freeswitch.agent_stage import AgentStage, agent_stage
from freeswitch.fast_loop import run_fast

Play = Callable[..., None]


def player(store_url: str, directory: Path) -> Play:
    """Return a function that plays a scenario; keywords are those of `agent_stage`."""

    def play(scenario: Callable[[AgentStage], Awaitable[None]], **how: Any) -> None:
        async def main() -> None:
            async with agent_stage(store_url, directory, **how) as stage:
                await scenario(stage)

        run_fast(main())

    return play


def commands(stage: AgentStage, name: str) -> list[str]:
    """Return the api commands of that name that the switch was told."""
    return [line for line in stage.switch.api.log if line.partition(" ")[0] == name]
