"""`python -m benchmarks.deck_effect`: what publishing a deck does to the requests of that moment.

A daemon of its own serves calls at a steady rate while `authz deck import`, a process of its own,
reads, compiles and publishes a deck of that many prefixes in the place of an equal one with other
prices. Then the two compiled decks take turns, published again and again, with a quiet time as
long after each. Told are the longest request of each of these times, by when it was due, and how
long a publication took to be in effect. The quiet times tell what happens without one.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import uvloop
from msgspec import Struct, structs
from rich.console import Console

from authz.engine.audit import audit
from authz.money import parse_amount
from authz.rating.compiled import CompiledDeck
from authz.rating.publish import PublishedDecks
from authz.store.client import StoreClient
from loadtest import scenario as scenarios
from loadtest import world
from loadtest.daemon import Daemon, own_daemon
from loadtest.fleet import Collected, Fleet
from loadtest.plan import ERROR_PREFIX, Orders
from loadtest.scenario import Scenario
from loadtest.schedule import NANOS_PER_SECOND, Stretch
from loadtest.stall_table import show_stalls
from loadtest.stalls import Observed, Stalls, find_stalls
from loadtest.watcher import Sightings, Watcher

_NUMBER: Final = "+14155550100"
#: Prices of a minute of `_NUMBER` in the two decks.
_PRICES: Final = ("0.005", "0.007")
_GOAL_MS: Final = 5
_RATE: Final = 500
_LEAD_SECONDS: Final = 1
_POLL_SECONDS: Final = 0.02
#: After a publication is in effect: what it leaves behind is still cleared away.
_AFTER_SECONDS: Final = 1
_EFFECT_SECONDS_MAX: Final = 30
#: An import that takes longer is given up.
_IMPORT_SECONDS_MAX: Final = 300
#: The generators are ended before; this bounds what a forgotten run can do.
_LOAD_SECONDS_MAX: Final = 1_200


class Publication(Struct, frozen=True):
    """One publication, and the quiet time of the same length after it."""

    publication_max_ms: float
    quiet_max_ms: float
    effect_ms: float


class _Moments(NamedTuple):
    """When a publication began, was in effect, and its time ended (`time.monotonic_ns`)."""

    begin_ns: int
    effect_ns: int
    end_ns: int


class Effect(Struct, frozen=True):
    """What was found. A request is counted by when it was due."""

    requests: int
    failed: int
    before_max_ms: float
    import_seconds: float
    import_max_ms: float
    publications: tuple[Publication, ...]
    audit_findings: int
    #: Profiles of the import, and of the publications with their quiet times.
    import_stalls: Stalls | None = None
    stalls: Stalls | None = None


class _Load:
    """Calls at a steady rate from a process of its own, and how long their requests took."""

    def __init__(self, daemon: Daemon, scenario: Scenario, rate: float) -> None:
        orders = Orders(
            target=daemon.target,
            connections=scenario.connections,
            calls=world.call_kinds(scenario),
            speed=scenario.speed,
            seed="deck-effect",
            call_id_start="deck-effect-",
            stretches=(Stretch(_LOAD_SECONDS_MAX, rate / scenario.requests_per_call),),
        )
        self._fleet = Fleet([orders])

    @property
    def pids(self) -> list[int]:
        return self._fleet.pids

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Collected]:
        """Run it within the context; what it has measured is complete afterwards."""
        begun = asyncio.Event()
        task = asyncio.create_task(self._fleet.run(lambda _: begun.set()))
        waiting = asyncio.create_task(begun.wait())
        try:
            await asyncio.wait((task, waiting), return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                task.result()
            yield self._fleet.collected
            # The generator tells what it has measured twice a second.
            await asyncio.sleep(_AFTER_SECONDS)
        finally:
            waiting.cancel()
            task.cancel()
            await asyncio.wait((task,))


class _Latencies:
    """What was measured, to be asked about stretches of time."""

    def __init__(self, collected: Collected) -> None:
        both = sorted(zip(collected.dues, collected.latencies, strict=True))
        self._dues = [due for due, _ in both]
        self._latencies = [latency for _, latency in both]

    def longest_ms(self, from_ns: int, until_ns: int) -> float:
        """Return the longest of the requests due in that time."""
        begin, end = bisect_left(self._dues, from_ns), bisect_left(self._dues, until_ns)
        return max(self._latencies[begin:end]) / 1e6


class _Decks:
    """The two decks that take turns, and the daemon's word for which one is in effect."""

    def __init__(self, daemon: Daemon, store: StoreClient, scenario: Scenario) -> None:
        self._target = daemon.target
        self._published = PublishedDecks(store)
        self._id = scenario.deck_id(scenario.decks[0].name)
        account = scenario.accounts[0].account_ids(scenario.name)[0]
        self._question = json.dumps(
            {"call_id": "deck-effect", "account": account, "to": _NUMBER, "dry_run": True}
        ).encode()

    async def in_force(self) -> CompiledDeck:
        """Return the compiled deck that is in force in the store."""
        manifest = await self._published.get(self._id)
        assert manifest is not None, "it was published"
        return CompiledDeck(manifest.facts, manifest.version, await self._published.fetch(manifest))

    async def import_file(self, daemon: Daemon, path: Path, price: str) -> int:
        """Publish a file as an operator does; return when calls had its price."""
        with tempfile.TemporaryDirectory(prefix="authz-bench-") as directory:
            environment = {
                **os.environ, "AUTHZ_STORE__URL": daemon.store_url, "AUTHZ_STATE_DIR": directory
            }  # fmt: skip
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "authz", "deck", "import", self._id, str(path), "--json",
                env=environment, stdout=asyncio.subprocess.DEVNULL,
            )  # fmt: skip
            async with asyncio.timeout(_IMPORT_SECONDS_MAX):
                if await process.wait() != 0:
                    raise RuntimeError("the import failed")
        return await self.see_effect(price)

    async def publish(self, deck: CompiledDeck, price: str) -> int:
        """Publish a deck; return when calls had its price."""
        publishing = asyncio.create_task(self._published.publish(deck))
        effect_ns = await self.see_effect(price)
        await publishing
        return effect_ns

    async def see_effect(self, price: str) -> int:
        """Ask until calls are authorized at this price; return when it was so."""
        async with asyncio.timeout(_EFFECT_SECONDS_MAX):
            reader, writer = await asyncio.open_connection(self._target.host, self._target.port)
            with contextlib.closing(writer):
                found = await self._price(reader, writer)
                while found != parse_amount(price):
                    await asyncio.sleep(_POLL_SECONDS)
                    found = await self._price(reader, writer)
        return time.monotonic_ns()

    async def _price(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int:
        writer.write(
            b"POST /v1/authorize HTTP/1.1\r\nHost: authz\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (len(self._question), self._question)
        )
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split()[0])
        answer = json.loads(await reader.readexactly(length))
        return parse_amount(answer["legs"][0]["rate"])


def scenario_of(prefixes: int) -> Scenario:
    """Return the shipped scenario with a deck of that many prefixes."""
    found = scenarios.load("million-prefixes")
    deck = structs.replace(found.decks[0], prefixes=prefixes)
    return structs.replace(found, decks=(deck,))


async def measure(
    prefixes: int,
    directory: Path,
    *,
    before_seconds: float = 5,
    publications: int = 6,
    rate: float = _RATE,
    watches_stalls: bool = False,
) -> Effect:
    """Import a deck and publish it and its other in turns, among calls at this rate."""
    scenario = scenario_of(prefixes)
    new_file = directory / "new.csv"
    new_file.write_bytes(_new_deck(scenario))
    async with (
        own_daemon({"hook.workers": 1}, over_unix=False) as daemon,
        world.open_services(daemon.store_url, daemon.state_dir) as services,
    ):
        await world.prepare(services, scenario, "deck-effect", lambda *_: None)
        decks = _Decks(daemon, services.context.client, scenario)
        await decks.see_effect(_PRICES[0])
        old = await decks.in_force()
        load = _Load(daemon, scenario, rate)
        async with (
            load.running() as collected,
            _watching(daemon.pids() + load.pids, watches_stalls) as sightings,
        ):
            await asyncio.sleep(_LEAD_SECONDS + before_seconds)
            imported = await _timed(decks.import_file(daemon, new_file, _PRICES[1]))
            turns = ((old, _PRICES[0]), (await decks.in_force(), _PRICES[1]))
            moments = [
                await _timed_and_quiet(decks.publish(*turns[turn % 2]))
                for turn in range(publications)
            ]
        report = await audit(services.context.client, archive=services.archive)
    latencies = _Latencies(collected)
    begin_ns = imported.begin_ns - int(before_seconds * NANOS_PER_SECOND)
    turns_begin_ns, turns_end_ns = moments[0].begin_ns, moments[-1].end_ns
    return Effect(
        requests=len(collected.dues),
        failed=_failed(collected),
        before_max_ms=latencies.longest_ms(begin_ns, imported.begin_ns),
        import_seconds=(imported.effect_ns - imported.begin_ns) / NANOS_PER_SECOND,
        import_max_ms=latencies.longest_ms(imported.begin_ns, imported.end_ns),
        publications=tuple(_told(one, latencies) for one in moments),
        audit_findings=len(report.findings),
        import_stalls=_stalls(collected, sightings, imported.begin_ns, imported.end_ns),
        stalls=_stalls(collected, sightings, turns_begin_ns, turns_end_ns),
    )


def _stalls(
    collected: Collected, sightings: Sequence[Sightings], begin_ns: int, end_ns: int
) -> Stalls | None:
    """Return the profile of the slowest requests of that time, if it was watched."""
    observed = [Observed(collected, one, begin_ns, end_ns) for one in sightings]
    return find_stalls(observed) if observed else None


def _new_deck(scenario: Scenario) -> bytes:
    """Return the file of the scenario's deck with another price of `_NUMBER`."""
    plan = scenario.decks[0]
    return world.deck_csv(structs.replace(plan, rows={**plan.rows, "1": _PRICES[1]}))


async def _timed(publishing: Awaitable[int]) -> _Moments:
    """Wait for a publication, which returns when it was in effect, and for what it leaves."""
    begin_ns = time.monotonic_ns()
    effect_ns = await publishing
    await asyncio.sleep(_AFTER_SECONDS)
    return _Moments(begin_ns, effect_ns, time.monotonic_ns())


async def _timed_and_quiet(publishing: Awaitable[int]) -> _Moments:
    """Do so, and then nothing for as long."""
    moments = await _timed(publishing)
    await asyncio.sleep((moments.end_ns - moments.begin_ns) / NANOS_PER_SECOND)
    return moments


@contextlib.asynccontextmanager
async def _watching(pids: Sequence[int], is_wanted: bool) -> AsyncIterator[list[Sightings]]:
    """Watch processes within the context; the list has what was seen only after it."""
    sightings: list[Sightings] = []
    if not is_wanted:
        yield sightings
        return
    watcher = await Watcher.start(pids)
    try:
        yield sightings
        sightings.append(await watcher.finish())
    finally:
        await watcher.stop()


def _told(moments: _Moments, latencies: _Latencies) -> Publication:
    begin_ns, effect_ns, end_ns = moments
    return Publication(
        publication_max_ms=latencies.longest_ms(begin_ns, end_ns),
        quiet_max_ms=latencies.longest_ms(end_ns, 2 * end_ns - begin_ns),
        effect_ms=(effect_ns - begin_ns) / 1e6,
    )


def _failed(collected: Collected) -> int:
    counts = Counter(collected.outcomes)
    return sum(
        count
        for number, count in counts.items()
        if collected.outcome_names[number].startswith(ERROR_PREFIX)
    )


def report(effect: Effect) -> str:
    """Return the figures in words."""
    publishing = [one.publication_max_ms for one in effect.publications]
    quiet = [one.quiet_max_ms for one in effect.publications]
    effects = [one.effect_ms for one in effect.publications]
    return (
        f"{effect.requests} requests, {effect.failed} failed; "
        f"audit: {effect.audit_findings} findings\n"
        f"longest request before the import  {effect.before_max_ms:8.1f} ms\n"
        f"longest during the import          {effect.import_max_ms:8.1f} ms"
        f" (in effect after {effect.import_seconds:.1f} s)\n"
        f"longest during a publication       {_spread(publishing)}\n"
        f"longest in a quiet time as long    {_spread(quiet)}\n"
        f"a publication is in effect after   {statistics.median(effects):8.0f} ms (median)\n"
    )


def _spread(longest_ms: Sequence[float]) -> str:
    beyond = sum(one > _GOAL_MS for one in longest_ms)
    return (
        f"{statistics.median(longest_ms):8.1f} ms (median of {len(longest_ms)};"
        f" {min(longest_ms):.1f} to {max(longest_ms):.1f}; {beyond} above {_GOAL_MS})"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.deck_effect", description=__doc__)
    parser.add_argument("--prefixes", type=int, default=1_000_000)
    parser.add_argument("--publications", type=int, default=6)
    parser.add_argument("--rate", type=float, default=_RATE, help="requests a second")
    parser.add_argument("--stalls", action="store_true", help="profile the slowest requests")
    parser.add_argument("--json", action="store_true", help="print JSON instead of words")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="authz-bench-") as directory:
        effect = uvloop.run(
            measure(
                options.prefixes,
                Path(directory),
                publications=options.publications,
                rate=options.rate,
                watches_stalls=options.stalls,
            )
        )
    if options.json:
        sys.stdout.write(msgspec.json.encode(effect).decode() + "\n")
        return 0
    console = Console()
    sys.stdout.write(report(effect))
    if effect.stalls is not None:
        console.print("\nDuring the import")
        show_stalls(console, None, effect.import_stalls)
        console.print("\nDuring the publications and the quiet times")
        show_stalls(console, None, effect.stalls)
    return 0


if __name__ == "__main__":
    sys.exit(main())
