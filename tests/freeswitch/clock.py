"""The time of a simulated switch, and its coarse scheduler."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable
from typing import NamedTuple

#: FreeSWITCH's timestamps advance in such steps.
_STEP_US = 20_000
_TICK_SECONDS = 0.5


class Clock:
    """A clock that runs `speed` times as fast as the world's."""

    def __init__(self, speed: float) -> None:
        self.speed = speed
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self._epoch_us = time.time_ns() // 1_000

    def now_us(self) -> int:
        """Return the time in microseconds since 1970, as coarse as the switch's."""
        passed_us = int((self._loop.time() - self._began) * self.speed * 1_000_000)
        return self._epoch_us + passed_us // _STEP_US * _STEP_US

    def later(self, seconds: float, action: Callable[[], None]) -> asyncio.TimerHandle:
        """Do something after so many of the switch's seconds."""
        return self._loop.call_later(seconds / self.speed, action)


class Task(NamedTuple):
    """Something scheduled. `due` is a whole second since 1970."""

    number: int
    group: str
    description: str
    due: int
    action: Callable[[], None]


class Scheduler:
    """Whole seconds, looked at every half: what is scheduled in N seconds runs N - 1 to N + 0.5 s
    from now. `on_change` hears of every task that is added, or that is gone.
    """

    def __init__(self, clock: Clock, on_change: Callable[[str, Task], None]) -> None:
        self._clock = clock
        self._on_change = on_change
        self._tasks: dict[int, Task] = {}
        self._groups: defaultdict[str, dict[int, Task]] = defaultdict(dict)
        self._due: defaultdict[int, list[int]] = defaultdict(list)
        self._looked_at = clock.now_us() // 1_000_000
        self._last_number = 2
        self._timer = clock.later(_TICK_SECONDS, self._tick)

    def __len__(self) -> int:
        return len(self._tasks)

    @property
    def tasks(self) -> list[Task]:
        """What is scheduled, in the order in which it was."""
        return list(self._tasks.values())

    def due_of(self, group: str) -> list[int]:
        """Return when the tasks of a group are due, earliest first."""
        return sorted(task.due for task in self._groups.get(group, {}).values())

    def add(self, due: int, group: str, description: str, action: Callable[[], None]) -> int:
        """Schedule; what is due already runs at once. Returns the task's number."""
        self._last_number += 1
        task = Task(self._last_number, group, description, due, action)
        self._tasks[task.number] = self._groups[group][task.number] = task
        self._on_change("ADD_SCHEDULE", task)
        if due <= self._looked_at:
            self._clock.later(0, lambda: self._run(task.number))
        else:
            self._due[due].append(task.number)
        return task.number

    def delete_group(self, group: str) -> int:
        """Forget a group's tasks and return how many there were."""
        numbers = list(self._groups.get(group, ()))
        for number in numbers:
            self._forget(number)
        return len(numbers)

    def delete(self, number: int) -> None:
        """Forget one task, if it is still there."""
        if number in self._tasks:
            self._forget(number)

    def close(self) -> None:
        """Run nothing more."""
        self._timer.cancel()
        self._tasks.clear()
        self._groups.clear()

    def _tick(self) -> None:
        self._timer = self._clock.later(_TICK_SECONDS, self._tick)
        now = self._clock.now_us() // 1_000_000
        while self._looked_at < now:
            self._looked_at += 1
            for number in self._due.pop(self._looked_at, ()):
                self._run(number)

    def _run(self, number: int) -> None:
        task = self._tasks.get(number)
        if task is not None:
            self._forget(number)
            task.action()

    def _forget(self, number: int) -> None:
        task = self._tasks.pop(number)
        group = self._groups[task.group]
        del group[number]
        if not group:
            del self._groups[task.group]
        self._on_change("DEL_SCHEDULE", task)
