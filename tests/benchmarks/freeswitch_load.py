"""`python -m benchmarks.freeswitch_load [RATE] [SECONDS]`: waiting calls that one agent decides.

A simulated switch in one process, the agent with its engine in another, a Valkey in a third. Calls
are due at fixed times, whatever became of those before (open loop); each waits parked, is
authorized on a chain of two, released, found busy and settled. Told is the time from when a call
was due to wait until its release (the switch's own 20 ms are not simulated), the processor time of
both processes, and what the audit says afterwards.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from freeswitch.switch_simulator import Callee, SwitchSimulator
from servers import DEFAULT_KIND, ServerPool, find_servers
from world import World

from authz.config.freeswitch import FreeswitchSettings, SwitchSettings
from authz.engine.audit import audit
from authz.hooks.freeswitch.serving import SwitchServer
from authz.hooks.freeswitch.settling import Settler

_NUMBER = "14155550100"
_SUBS = 100
_WARM_SECONDS = 1
_WAIT_SECONDS = 60


def _processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(_WAIT_SECONDS):
        while True:
            if condition():
                return
            await asyncio.sleep(0.05)


async def _agent(url: str, port: int, channel: Connection) -> None:
    """Serve the switch until told to stop; then tell what it took."""
    loop = asyncio.get_running_loop()
    with tempfile.TemporaryDirectory() as directory:
        world = await World.start(url, Path(directory))
        await world.account("master", "1000000", deck="wholesale")
        for number in range(_SUBS):
            await world.account(f"sub-{number}", "10000", parent="master", deck="retail")
        settler = Settler(world.engine)
        address = SwitchSettings(name="load", host="127.0.0.1", port=port)
        server = SwitchServer(address, FreeswitchSettings(), world.engine, settler, "load")
        task = loop.create_task(server.run())
        await _until(lambda: server.is_connected)
        channel.send("ready")
        began = _processor_seconds()
        await loop.run_in_executor(None, channel.recv)
        took = _processor_seconds() - began
        await _until(lambda: not len(server.agent.legs) and not settler.waiting)
        report = await audit(world.client)
        decider = server.agent.decider
        channel.send((took, decider.released, decider.refused, settler.settled,
                      len(report.findings)))  # fmt: skip
        await server.drain(5)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await world.close()


def _run_agent(url: str, port: int, channel: Connection) -> None:
    asyncio.run(_agent(url, port, channel))


async def _load(rate: int, seconds: int, pool: ServerPool) -> list[str]:
    loop = asyncio.get_running_loop()
    switch = await SwitchSimulator.start()
    switch.callees[_NUMBER] = Callee(ring_seconds=None, answer_seconds=0.3, refusal="USER_BUSY")
    ours, theirs = multiprocessing.Pipe()
    url = pool.get(DEFAULT_KIND).url
    agent = multiprocessing.get_context("spawn").Process(
        target=_run_agent, args=(url, switch.port, theirs)
    )
    agent.start()
    await loop.run_in_executor(None, ours.recv)
    due_at: dict[str, float] = {}
    waits_ms: list[float] = []
    run = switch.api.run

    def watched(line: str) -> str:
        if line.startswith("uuid_transfer"):
            waits_ms.append((loop.time() - due_at.pop(line.split()[1])) * 1_000)
        switch.api.log.clear()
        return run(line)

    switch.api.run = watched  # type: ignore[method-assign] # the simulator has no such hook
    calls = rate * seconds
    began, used = loop.time() + _WARM_SECONDS, _processor_seconds()
    for number in range(calls):
        due = began + number / rate
        pause = due - loop.time()
        if pause > 0:
            await asyncio.sleep(pause)
        leg = switch.call(_NUMBER, context="authz", authz_account=f"sub-{number % _SUBS}")
        due_at[leg.uuid] = due
    await asyncio.sleep(2)
    used = _processor_seconds() - used
    ours.send("stop")
    took, released, refused, settled, findings = await loop.run_in_executor(None, ours.recv)
    agent.join()
    await switch.close()
    waits_ms.sort()
    return [
        f"{calls} calls at {rate}/s: {released} released, {refused} refused, {settled} settled, "
        f"{len(due_at)} lost, {findings} findings of the audit",
        "from due to released, ms: " + ", ".join(_quantiles(waits_ms)),
        f"processor: agent {took / calls * 1_000:.2f} ms a call ({took / seconds:.0%} of a core), "
        f"simulated switch {used / calls * 1_000:.2f} ms",
    ]


def _quantiles(values: list[float]) -> list[str]:
    last = len(values) - 1
    return [f"p{percent} {values[round(last * percent / 100)]:.1f}" for percent in (50, 99, 99.9)]


def main(arguments: list[str]) -> None:
    """Run the load that the arguments ask for and tell what came of it."""
    rate, seconds = (int(one) for one in (*arguments, "500", "10")[:2])
    pool = ServerPool(find_servers())
    began = time.monotonic()
    try:
        lines: list[Any] = asyncio.run(_load(rate, seconds, pool))
    finally:
        pool.close()
    sys.stdout.write("\n".join([*lines, f"took {time.monotonic() - began:.0f} s"]) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
