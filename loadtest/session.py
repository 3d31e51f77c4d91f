"""A whole load test: daemon, accounts, capacity, floor, runs, audit."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import math
import secrets
import time
from collections.abc import AsyncIterator
from typing import Final, Protocol

from authz.admin.services import Services
from authz.engine.audit import AuditReport, audit
from loadtest import figures, processes, steadiness, world
from loadtest.daemon import Daemon, own_daemon
from loadtest.environment import look_around
from loadtest.errors import LoadTestError
from loadtest.figures import Run, Span
from loadtest.fleet import Collected, Fleet, Tick, echo_server
from loadtest.plan import SPOOLED, Orders, Target
from loadtest.results import Options, Result
from loadtest.scenario import REQUESTS_MAX, Scenario
from loadtest.schedule import NANOS_PER_SECOND, Stretch
from loadtest.stalls import Observed, find_stalls
from loadtest.steadiness import Steadiness
from loadtest.watcher import Sightings, Watcher

_FLOOR_SECONDS: Final = 4.0
_FLOOR_WARMUP_SECONDS: Final = 1.0
#: The echo grants all the time that a call wants: authorize, settle.
_FLOOR_REQUESTS_PER_CALL: Final = 2.0
_CAPACITY_WARMUP_SECONDS: Final = 1.0
#: What repeated settles and slow answers may take after the last call should have ended.
_DRAIN_SECONDS: Final = 15.0
#: Settles that wait in the daemon's spool when the load ends are booked within this time.
_REPLAY_TURNS_MAX: Final = 15
_REPLAY_SECONDS: Final = 2
_FLOOR: Final = "floor"
_WARMUP: Final = "warm-up"


class Teller(Protocol):
    """Whoever tells people how far a load test is."""

    def stage(self, text: str) -> None:
        """Something begins that may take a while."""

    def progress(self, what: str, done: int, total: int) -> None:
        """So much of it is done."""

    def tick(self, tick: Tick) -> None:
        """A second of load has passed."""


async def run(scenario: Scenario, options: Options, teller: Teller) -> Result:
    """Run a load test from its beginning to its audit; raises LoadTestError."""
    started_at = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    async with (
        _daemon(scenario, options, teller) as daemon,
        world.open_services(daemon.store_url, daemon.state_dir, daemon.archive_url) as services,
    ):
        session = _Session(scenario, options, daemon, teller)
        steady = await session.steadiness() if options.watches_stalls else None
        teller.stage("preparing decks and accounts")
        await world.prepare(services, scenario, session.token, teller.progress)
        capacity = await session.capacity() if scenario.needs_capacity else None
        floor_run = await session.floor(capacity) if options.measures_floor else None
        runs = [await session.run(number, capacity) for number in range(options.runs)]
        teller.stage("auditing")
        report = await _settled_audit(services, runs)
        return Result(
            scenario=scenario,
            options=options,
            environment=await look_around(services.context.client),
            started_at=started_at,
            capacity_per_second=capacity,
            floor=None if floor_run is None else floor_run.phases[0],
            generator_us_per_request=session.us_per_request,
            phases=figures.median_of(runs),
            runs=tuple(runs),
            floor_run=floor_run,
            audit=report,
            steadiness=steady,
            stalls=find_stalls(session.observed) if options.watches_stalls else None,
        )


@contextlib.asynccontextmanager
async def _daemon(scenario: Scenario, options: Options, teller: Teller) -> AsyncIterator[Daemon]:
    if options.daemon is not None:
        yield options.daemon
        return
    teller.stage("starting a daemon with a store of its own")
    settings = {**scenario.settings, **options.settings}
    async with own_daemon(settings, over_unix=options.over_unix) as daemon:
        yield daemon


class _Session:
    """The runs of one load test against one daemon."""

    def __init__(
        self, scenario: Scenario, options: Options, daemon: Daemon, teller: Teller
    ) -> None:
        self._scenario = scenario
        self._options = options
        self._daemon = daemon
        self._teller = teller
        self._calls = world.call_kinds(scenario)
        #: Tells this load test's calls and payments from any other's.
        self.token = secrets.token_hex(3)
        self.us_per_request = 0.0
        self.observed: list[Observed] = []

    async def steadiness(self) -> Steadiness:
        """Return how steadily the machine computes while nothing is asked of the daemon."""
        self._teller.stage(f"looking how steady the machine is ({steadiness.SECONDS:g} s)")
        return await steadiness.look()

    async def capacity(self) -> float:
        """Return how many requests a second the daemon answers with a queue always waiting."""
        scenario, generators = self._scenario, self._options.generators
        self._teller.stage(f"measuring the capacity ({scenario.capacity_seconds:g} s)")
        calls = max(1, scenario.capacity_in_flight // generators)
        seconds = _CAPACITY_WARMUP_SECONDS + scenario.capacity_seconds
        collected = await self._fleet("c", calls_in_flight=calls, closed_seconds=seconds).run()
        spans = [
            Span(_WARMUP, 0, _CAPACITY_WARMUP_SECONDS, 0, is_warmup=True),
            Span("capacity", _CAPACITY_WARMUP_SECONDS, scenario.capacity_seconds, 0, False),
        ]
        found = figures.run_figures(collected, spans, {}).phases[0].achieved_per_second
        if not found:
            raise LoadTestError("the daemon answered nothing while its capacity was measured")
        return found

    async def floor(self, capacity: float | None) -> Run:
        """Run the first phase's load for a few seconds against the echo server."""
        rate = self._rate(0, capacity)
        self._teller.stage(f"measuring the generators' own floor at {rate:,.0f} requests/s")
        async with echo_server() as (target, pid):
            spans = [
                Span(_WARMUP, 0, _FLOOR_WARMUP_SECONDS, rate, is_warmup=True),
                Span(_FLOOR, _FLOOR_WARMUP_SECONDS, _FLOOR_SECONDS, rate, is_warmup=False),
            ]
            return await self._measure("f", spans, [pid], target, _FLOOR_REQUESTS_PER_CALL)

    async def run(self, number: int, capacity: float | None) -> Run:
        """Run all phases once."""
        runs = self._options.runs
        self._teller.stage("load" if runs == 1 else f"load, run {number + 1} of {runs}")
        spans: list[Span] = []
        begin = self._scenario.warmup_seconds
        if begin:
            spans.append(Span(_WARMUP, 0, begin, self._rate(0, capacity), is_warmup=True))
        for place, phase in enumerate(self._scenario.phases):
            rate = self._rate(place, capacity)
            spans.append(Span(phase.name, begin, phase.seconds, rate, is_warmup=False))
            begin += phase.seconds
        planned = sum(span.seconds * span.planned_per_second for span in spans)
        if planned > REQUESTS_MAX:
            raise LoadTestError(f"the run plans {planned:.0f} requests, more than {REQUESTS_MAX}")
        daemon, per_call = self._daemon, self._scenario.requests_per_call
        watches = self._options.watches_stalls
        return await self._measure(
            str(number), spans, daemon.pids(), daemon.target, per_call, watches_stalls=watches
        )

    def _rate(self, place: int, capacity: float | None) -> float:
        phase = self._scenario.phases[place]
        if phase.requests_per_second is not None:
            return phase.requests_per_second
        return (phase.load or 0) * (capacity or 0)

    async def _measure(
        self,
        name: str,
        spans: list[Span],
        pids: list[int],
        target: Target,
        per_call: float,
        *,
        watches_stalls: bool = False,
    ) -> Run:
        share = per_call * self._options.generators
        stretches = tuple(Stretch(one.seconds, one.planned_per_second / share) for one in spans)
        fleet = self._fleet(name, stretches=stretches, target=target)
        cpu: dict[str, dict[str, float]] = {}
        looking: list[asyncio.Task[Sightings | None]] = []

        def begin(start_ns: int) -> None:
            watched = pids + fleet.pids
            looking.append(asyncio.create_task(_watch_cpu(start_ns, spans, watched, cpu)))
            if watches_stalls:
                looking.append(asyncio.create_task(_watch_processors(start_ns, spans, watched)))

        try:
            collected = await fleet.run(begin)
            _, *sightings = await asyncio.gather(*looking)
        finally:
            for task in looking:
                task.cancel()
        self.observed += [_observed(collected, spans, one) for one in sightings if one is not None]
        self.us_per_request = _us_per_request(fleet, collected)
        return figures.run_figures(collected, spans, cpu)

    def _fleet(
        self,
        name: str,
        *,
        target: Target | None = None,
        stretches: tuple[Stretch, ...] = (),
        calls_in_flight: int = 0,
        closed_seconds: float = 0.0,
    ) -> Fleet:
        scenario, options = self._scenario, self._options
        longest = max(max(call.talk_seconds) for call in scenario.calls)
        orders = [
            Orders(
                target=target or self._daemon.target,
                connections=math.ceil(scenario.connections / options.generators),
                calls=self._calls,
                speed=scenario.speed,
                seed=f"{options.seed}:{name}:{number}",
                call_id_start=f"{self.token}-{name}-{number}-",
                stretches=stretches,
                arrivals=scenario.arrivals,
                calls_in_flight=calls_in_flight,
                closed_seconds=closed_seconds,
                drain_seconds=longest / scenario.speed + _DRAIN_SECONDS,
            )
            for number in range(options.generators)
        ]
        return Fleet(orders, self._teller.tick)


async def _settled_audit(services: Services, runs: list[Run]) -> AuditReport:
    """Audit once the daemon has booked what it had spooled, or has had the time to."""
    has_spooled = any(SPOOLED in phase.errors for one in runs for phase in one.phases)
    for _ in range(_REPLAY_TURNS_MAX if has_spooled else 1):
        report = await audit(services.context.client, archive=services.archive)
        if not report.calls:
            break
        await asyncio.sleep(_REPLAY_SECONDS)
    return report


async def _watch_cpu(
    start_ns: int, spans: list[Span], pids: list[int], cpu: dict[str, dict[str, float]]
) -> None:
    """Note for each phase the share of a core that each role of processes used in it."""
    for span in spans:
        await _sleep_until(start_ns, span.begin_seconds)
        before = processes.cpu_seconds(pids)
        await _sleep_until(start_ns, span.begin_seconds + span.seconds)
        cpu[span.name] = processes.shares(before, processes.cpu_seconds(pids), span.seconds)


async def _watch_processors(start_ns: int, spans: list[Span], pids: list[int]) -> Sightings:
    """Return who had the processors when, from the beginning of the load to its end."""
    watcher = await Watcher.start(pids)
    try:
        await _sleep_until(start_ns, spans[-1].begin_seconds + spans[-1].seconds)
        return await watcher.finish()
    finally:
        await watcher.stop()


def _observed(collected: Collected, spans: list[Span], sightings: Sightings) -> Observed:
    """Return a run without its warm-up, for a look at its stalls."""
    counted = [span for span in spans if not span.is_warmup]
    begin_seconds, last = counted[0].begin_seconds, counted[-1]
    start_ns = collected.start_ns
    return Observed(
        collected,
        sightings,
        start_ns + round(begin_seconds * NANOS_PER_SECOND),
        start_ns + round((last.begin_seconds + last.seconds) * NANOS_PER_SECOND),
    )


async def _sleep_until(start_ns: int, seconds: float) -> None:
    await asyncio.sleep(seconds - (time.monotonic_ns() - start_ns) / NANOS_PER_SECOND)


def _us_per_request(fleet: Fleet, collected: Collected) -> float:
    requests = len(collected.dues)
    return round(fleet.cpu_ns / requests / 1_000, 1) if requests else 0.0
