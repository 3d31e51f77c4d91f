"""Processes killed in the middle of traffic, at random moments: no call lost, none booked twice."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Awaitable, Callable

import pytest
from daemons import Daemon
from processes import is_alive, until
from traffic import Api, Start, Switch, finish

CALLS = 200
#: Traffic lasts about two seconds; the blow falls while it flows.
BLOW_SECONDS_MAX = 1.2

Blow = Callable[[Daemon, random.Random], Awaitable[None]]


async def traffic_under(
    blow: Blow, daemon: Daemon, api: Api, rng: random.Random, calls: int = CALLS
) -> None:
    """Place calls, strike in the middle of them, and prove that nothing was lost or doubled."""
    switch = Switch([api], rng, calls)

    async def strike() -> None:
        await asyncio.sleep(0.2 + rng.random() * BLOW_SECONDS_MAX)
        await blow(daemon, rng)

    await asyncio.gather(switch.run(), strike())
    await daemon.ready()
    assert sum(life.is_acknowledged for life in switch.lives) > calls // 2
    await finish(daemon, api, daemon.store_url, switch.lives)


async def test_workers_killed_one_after_the_other(start: Start, rng: random.Random) -> None:
    daemon, api = await start("--workers", "2")

    async def blow(daemon: Daemon, rng: random.Random) -> None:
        for name in rng.sample(["worker-1", "worker-2"], 2):
            pid = daemon.child(name)
            os.kill(pid, signal.SIGKILL)
            await until(lambda pid=pid, name=name: daemon.child(name) != pid)
            await asyncio.sleep(rng.random() * 0.3)

    await traffic_under(blow, daemon, api, rng, 2 * CALLS)


async def test_supervisor_and_all_its_children_killed(start: Start, rng: random.Random) -> None:
    daemon, api = await start()

    async def blow(daemon: Daemon, rng: random.Random) -> None:
        store_pid = daemon.store_pid
        await daemon.kill()
        assert is_alive(store_pid), "the store outlives the daemon, which adopts it again"
        await daemon.start()

    await traffic_under(blow, daemon, api, rng)


async def test_the_supervisor_alone_killed(start: Start, rng: random.Random) -> None:
    daemon, api = await start("--workers", "2")

    async def blow(daemon: Daemon, rng: random.Random) -> None:
        os.kill(daemon.pid, signal.SIGKILL)
        await daemon.start()

    await traffic_under(blow, daemon, api, rng)


@pytest.mark.parametrize(
    ("appendfsync", "policy"), [("everysec", "deny"), ("everysec", "allow"), ("always", "deny")]
)
async def test_the_store_killed_twice(
    start: Start, rng: random.Random, appendfsync: str, policy: str
) -> None:
    daemon, api = await start(
        AUTHZ_STORE__APPENDFSYNC=appendfsync, AUTHZ_FAILURE__ON_STORE_FAILURE=policy
    )

    async def blow(daemon: Daemon, rng: random.Random) -> None:
        for _ in range(2):
            pid = daemon.store_pid
            await daemon.kill_store()
            await until(lambda pid=pid: daemon.store_pid != pid)
            await asyncio.sleep(0.2 + rng.random() * 0.5)

    await traffic_under(blow, daemon, api, rng)


@pytest.mark.parametrize("first", ["store", "daemon"])
async def test_store_and_daemon_killed_one_after_the_other(
    start: Start, rng: random.Random, first: str
) -> None:
    # With `everysec`, both at once may lose what the system had not yet been asked to write.
    daemon, api = await start(AUTHZ_STORE__APPENDFSYNC="always")

    async def blow(daemon: Daemon, rng: random.Random) -> None:
        pid = daemon.store_pid
        for which in (first, "daemon" if first == "store" else "store"):
            if which == "daemon":
                await daemon.kill()
            elif is_alive(daemon.store_pid):
                os.kill(daemon.store_pid, signal.SIGKILL)
            await asyncio.sleep(rng.random() * 0.2)
        await until(lambda: not is_alive(pid))
        await daemon.start()

    await traffic_under(blow, daemon, api, rng)
