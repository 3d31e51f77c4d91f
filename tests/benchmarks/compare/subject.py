"""What is compared: anything that can be led through calls, and what that took."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from loadtest import processes


class Sample(NamedTuple):
    """One run. Seconds of processor time are of all processes of that kind together."""

    requests: int
    seconds: float
    #: The service, without its store; 0 where nothing stands before the store.
    service_cpu_seconds: float
    store_cpu_seconds: float
    driver_cpu_seconds: float

    @property
    def rate(self) -> float:
        """Requests per second."""
        return self.requests / self.seconds


class Subject(Protocol):
    """One thing to measure."""

    @property
    def name(self) -> str:
        """What the table calls it."""

    def run(self, first: int, calls: int) -> Sample:
        """Lead the calls with these numbers, never seen before, through authorize and settle."""


def sample(
    requests: int,
    work: Callable[[], None],
    *,
    service_pids: Sequence[int] = (),
    store_pids: Sequence[int] = (),
) -> Sample:
    """Do the work and return what it took."""
    before = _cpu(service_pids), _cpu(store_pids), _own_cpu()
    started = time.perf_counter()
    work()
    seconds = time.perf_counter() - started
    after = _cpu(service_pids), _cpu(store_pids), _own_cpu()
    return Sample(
        requests, seconds, *(late - early for early, late in zip(before, after, strict=True))
    )


def _cpu(pids: Sequence[int]) -> float:
    return sum(processes.cpu_seconds(list(pids)).values())


def _own_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
