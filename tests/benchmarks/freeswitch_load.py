"""`python -m benchmarks.freeswitch_load`: waiting calls that the agents of a daemon decide.

A simulated switch, and a daemon of its own with its store. Calls are due at fixed times, whatever
became of those before (open loop); each waits parked, is authorized on a chain of two, released,
found busy and settled. Told are the time from when a call was due to wait until its release (the
switch's own 20 ms are not simulated), the part of it by which the simulated switch itself was late,
the processor time of each kind of process, and what the audit says afterwards.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Callable, Sequence
from itertools import cycle
from typing import Final

import msgspec
import uvloop
from freeswitch.switch_simulator import Callee, SwitchSimulator
from msgspec import Struct

from authz.admin.services import Services
from authz.engine.audit import AuditReport, audit
from authz.server.collector import settle_memory
from loadtest import processes, scenario, world
from loadtest.daemon import Daemon, own_daemon
from loadtest.histogram import Histogram

_NUMBER: Final = "14155550100"
_LEAD_SECONDS: Final = 1.0
_WAIT_SECONDS_MAX: Final = 60
_SECONDS_MAX: Final = 600
_LOOK_SECONDS: Final = 0.05
_QUANTILES: Final = (0.5, 0.99, 0.999, 1.0)


class Load(Struct, frozen=True):
    """What was found. Milliseconds are of the quantiles in `_QUANTILES`."""

    calls: int
    released: int
    refused: int
    #: Told to the switch and never decided, or decided and never settled.
    lost: int
    release_ms: tuple[float, ...]
    switch_late_ms: tuple[float, ...]
    #: Of a call from its PARK to its settle, by kind of process.
    cpu_ms_per_call: dict[str, float]
    audit_findings: int


class _Calls:
    """The calls of one run, as the simulated switch sees them."""

    def __init__(self, switch: SwitchSimulator, accounts: Sequence[str]) -> None:
        self._switch = switch
        self._accounts = cycle(accounts)
        self._due_ns: dict[str, int] = {}
        self.release_ns: list[int] = []
        self.late_ns: list[int] = []
        self.uuids: list[str] = []
        switch.callees[_NUMBER] = Callee(ring_seconds=None, answer_seconds=0.3, refusal="USER_BUSY")
        switch.api.on_command = self._watch

    def _watch(self, line: str) -> None:
        if line.startswith("uuid_transfer"):
            due_ns = self._due_ns.pop(line.split(" ", 2)[1])
            self.release_ns.append(time.monotonic_ns() - due_ns)
        self._switch.api.log.clear()

    async def offer(self, rate: int, count: int) -> None:
        """Let so many calls come, so many a second."""
        begin_ns = time.monotonic_ns() + int(_LEAD_SECONDS * 1e9)
        for number in range(count):
            due_ns = begin_ns + number * 1_000_000_000 // rate
            await asyncio.sleep(max(0.0, (due_ns - time.monotonic_ns()) / 1e9))
            # Timers of the event loop count in milliseconds, and may be half of one early.
            due_ns = min(due_ns, now_ns := time.monotonic_ns())
            self.late_ns.append(now_ns - due_ns)
            leg = self._switch.call(_NUMBER, context="authz", authz_account=next(self._accounts))
            self._due_ns[leg.uuid] = due_ns
            self.uuids.append(leg.uuid)

    async def ended(self) -> None:
        """Wait until every call has ended, or no longer can be hoped to."""
        await _until(lambda: len(self._switch.ended) == len(self.uuids))

    def refused(self) -> int:
        """Return how many calls ended without having been released."""
        return sum(uuid in self._switch.ended for uuid in self._due_ns)


async def _until(condition: Callable[[], bool]) -> bool:
    """Return whether the condition came to hold."""
    for _ in range(round(_WAIT_SECONDS_MAX / _LOOK_SECONDS)):
        if condition():
            return True
        await asyncio.sleep(_LOOK_SECONDS)
    return False


async def measure(rate: int, seconds: int) -> Load:
    """Put the load on a daemon."""
    switch = await SwitchSimulator.start()
    try:
        return await _measure(switch, rate, rate * seconds)
    finally:
        await switch.close()


async def _measure(switch: SwitchSimulator, rate: int, count: int) -> Load:
    steady = scenario.load("steady")
    tables = [{"name": "load", "host": "127.0.0.1", "port": switch.port}]
    settings = {"hook.workers": 1, "freeswitch.switches": json.dumps(tables)}
    async with (
        own_daemon(settings, over_unix=False) as daemon,
        world.open_services(daemon.store_url, daemon.state_dir) as services,
    ):
        await world.prepare(services, steady, "freeswitch-load", lambda *_: None)
        if not await _until(lambda: any(one.events for one in switch.sessions)):
            raise RuntimeError("the daemon does not serve the switch")
        calls = _Calls(switch, steady.group("customer").account_ids(steady.name))
        # A switch has no collector of cycles for which all calls wait.
        settle_memory()
        before = _processor_seconds(daemon)
        await calls.offer(rate, count)
        await calls.ended()
        # The last ones are settled, and the office keeps what it has to.
        await asyncio.sleep(_LEAD_SECONDS)
        after = _processor_seconds(daemon)
        report = await _audit(services)
    return Load(
        calls=count,
        released=len(calls.release_ns),
        refused=calls.refused(),
        lost=count - len(switch.ended) + report.calls,
        release_ms=_quantiles(calls.release_ns),
        switch_late_ms=_quantiles(calls.late_ns),
        cpu_ms_per_call={
            role: (used - before.get(role, 0.0)) * 1e3 / count
            for role, used in sorted(after.items())
        },
        audit_findings=len(report.findings),
    )


def _processor_seconds(daemon: Daemon) -> dict[str, float]:
    return {**processes.cpu_seconds(daemon.pids()), "simulated switch": time.process_time()}


async def _audit(services: Services) -> AuditReport:
    """Return the audit, once nothing is left to settle or can be hoped to be."""
    for _ in range(round(_WAIT_SECONDS_MAX)):
        report = await audit(services.context.client, archive=services.archive)
        if not report.calls:
            break
        await asyncio.sleep(1)
    return report


def _quantiles(values_ns: Sequence[int]) -> tuple[float, ...]:
    histogram = Histogram(values_ns)
    return tuple(histogram.value_at(fraction) / 1e6 for fraction in _QUANTILES)


def report(load: Load) -> str:
    """Return the figures in words."""
    cpu = ", ".join(f"{role} {used:.2f}" for role, used in load.cpu_ms_per_call.items())
    return (
        f"{load.calls} calls: {load.released} released, {load.refused} refused, {load.lost} lost; "
        f"audit: {load.audit_findings} findings\n"
        f"from due to released, ms           {_told(load.release_ms)}\n"
        f"by which the switch was late, ms   {_told(load.switch_late_ms)}\n"
        f"processor, ms a call               {cpu}\n"
    )


def _told(milliseconds: Sequence[float]) -> str:
    named = zip(("p50", "p99", "p99.9", "max"), milliseconds, strict=True)
    return ", ".join(f"{name} {value:.1f}" for name, value in named)


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, measure, print."""
    program = "python -m benchmarks.freeswitch_load"
    parser = argparse.ArgumentParser(prog=program, description=__doc__)
    parser.add_argument("--rate", type=int, default=500, help="calls a second (%(default)s)")
    parser.add_argument("--seconds", type=int, default=10, help="how long (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of words")
    options = parser.parse_args(arguments)
    if options.rate < 1 or not 1 <= options.seconds <= _SECONDS_MAX:
        parser.error(f"--rate is at least 1, --seconds 1 to {_SECONDS_MAX}")
    load = uvloop.run(measure(options.rate, options.seconds))
    told = msgspec.json.encode(load).decode() + "\n" if options.json else report(load)
    sys.stdout.write(told)
    return 0


if __name__ == "__main__":
    sys.exit(main())
