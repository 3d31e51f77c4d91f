"""A store that hangs, that loses its last moments, and settles that outlive their process."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from audit_helper import assert_clean_audit
from books import Books
from daemons import Daemon
from processes import until
from traffic import EMERGENCY, MASTER, SUB, TOLLFREE, UK, US, Api, Life, Start, Switch, finish
from world import World

from authz.store.client import StoreClient
from authz.store.embedded import EmbeddedStore

#: Long enough for the deadline of a settle and for a store to count as down.
STOPPED_SECONDS = 2.5


def worker_told(daemon: Daemon, name: str) -> bool:
    """Return whether the worker has logged such an event; the office has a say of its own."""
    return any(event["process"] == "worker-1" for event in daemon.logged(name))


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Let a process hang for a while."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


async def ask(api: Api, verb: str, call_id: str, **body: Any) -> dict[str, Any]:
    """Return the decision of the hook API."""
    status, answer = await api.hook(verb, call_id=call_id, account=SUB, **body)
    assert status == 200, answer
    return answer


async def settle(api: Api, life: Life) -> int:
    """Report the end of a call; return the status of the answer."""
    status, _ = await api.hook("settle", call_id=life.call_id, account=SUB, seconds=life.seconds)
    life.was_placed = life.is_acknowledged = True
    return status


async def test_what_a_switch_is_told_while_the_store_hangs(start: Start) -> None:
    daemon, api = await start()
    running, ended, refused = Life("running", UK, 61), Life("ended", US, 45), Life("refused", US, 0)
    tollfree, emergency = Life("free", TOLLFREE, 300), Life("help", EMERGENCY, 30)
    for life in (running, ended):
        assert (await ask(api, "authorize", life.call_id, to=life.to))["allowed"] is True
    with stopped(daemon.store_pid):
        answer = await ask(api, "authorize", refused.call_id, to=refused.to)
        assert (answer["allowed"], answer["reason"]) == (False, "store_unavailable")
        assert (answer["sip_status"], answer["hangup_cause"]) == (503, "NORMAL_TEMPORARY_FAILURE")
        for life in (tollfree, emergency):
            answer = await ask(api, "authorize", life.call_id, to=life.to)
            assert (answer["allowed"], answer["seconds"]) == (True, None)
        extended = await ask(api, "reserve", "running", used_seconds=45)
        assert (extended["allowed"], extended["degraded"]) == (True, True)
        assert extended["seconds"] == 105
        assert await settle(api, ended) == 202
        await until(lambda: worker_told(daemon, "store_down"))
        assert await settle(api, ended) == 202, "the switch has missed the first answer"
        status, answer = await api.hook("settle", call_id="never", account=SUB, seconds=5)
        assert status == 202, "whether the call is known cannot be said now"
    await until(lambda: worker_told(daemon, "store_up"))
    for life in (running, tollfree, emergency):
        assert await settle(api, life) == 200
    await until(lambda: bool(daemon.logged("settle_dead_letter")))
    (letter,) = daemon.logged("settle_dead_letter")
    assert (letter["call_id"], letter["reason"].split(":")[0]) == ("never", "call_unknown")
    daemon.events.remove(letter)
    await finish(daemon, api, daemon.store_url, [running, ended, refused, tollfree, emergency])


async def test_what_a_refused_call_took_afterwards_is_given_back(start: Start) -> None:
    daemon, api = await start()
    lives = [Life(f"late-{number}", US, 30) for number in range(40)]
    client = await StoreClient.connect(daemon.store_url)
    books = Books(client)
    # From now on the daemon knows the account and asks the store for nothing but the decision.
    lives.append(Life("before", US, 61))
    assert (await ask(api, "authorize", "before", to=US))["allowed"] is True
    assert await settle(api, lives[-1]) == 200
    with stopped(daemon.store_pid):
        # All of them are on their way to the store when their time is over.
        answers = await asyncio.gather(
            *(ask(api, "authorize", life.call_id, to=life.to) for life in lives[:-1])
        )
        assert {answer["reason"] for answer in answers} == {"store_unavailable"}
        again = lives[0].call_id
        assert (await ask(api, "authorize", again, to=US))["reason"] == "store_unavailable"

    async def calls() -> int:
        return int((await books.state(SUB)).calls)

    for _ in range(1_800):
        if await calls() == 0 and worker_told(daemon, "store_up"):
            break
        await asyncio.sleep(0.05)
    assert await calls() == 0
    # A refused id is free: the switch may ask again.
    assert (await ask(api, "authorize", again, to=US))["allowed"] is True
    assert await settle(api, lives[0]) == 200
    await client.close()
    await finish(daemon, api, daemon.store_url, lives)


async def test_traffic_while_the_store_hangs(start: Start, rng: random.Random) -> None:
    daemon, api = await start(AUTHZ_FAILURE__ON_STORE_FAILURE=rng.choice(("deny", "allow")))
    switch = Switch([api], rng, 200)

    async def hang() -> None:
        for _ in range(2):
            await asyncio.sleep(0.2 + rng.random())
            with stopped(daemon.store_pid):
                await asyncio.sleep(STOPPED_SECONDS * (0.5 + rng.random()))

    await asyncio.gather(switch.run(), hang())
    assert daemon.logged("settle_spooled")
    await finish(daemon, api, daemon.store_url, switch.lives)


async def test_calls_let_through_are_few_and_paid_afterwards(start: Start) -> None:
    daemon, api = await start(
        AUTHZ_FAILURE__ON_STORE_FAILURE="allow",
        AUTHZ_FAILURE__ALLOW_CALLS_MAX="3",
        AUTHZ_FAILURE__ALLOW_SECONDS_MAX="20",
    )
    lives = [Life(f"through-{number}", UK, 15) for number in range(6)]
    with stopped(daemon.store_pid):
        answers = [await ask(api, "authorize", life.call_id, to=life.to) for life in lives]
        assert [answer["allowed"] for answer in answers] == [True] * 3 + [False] * 3
        assert {answer["seconds"] for answer in answers[:3]} == {20}
        assert all(answer["degraded"] for answer in answers[:3])
        assert {answer["reason"] for answer in answers[3:]} == {"store_unavailable"}
        for life in lives[:2]:
            assert await settle(api, life) == 202
        # Two have ended, so that two more may start.
        answers = [await ask(api, "authorize", life.call_id, to=life.to) for life in lives[3:]]
        assert [answer["allowed"] for answer in answers] == [True, True, False]
    await until(lambda: worker_told(daemon, "store_up"))
    for life in lives[2:5]:
        assert await settle(api, life) == 200
    await finish(daemon, api, daemon.store_url, lives)


async def test_an_emergency_call_waits_for_nothing(start: Start) -> None:
    # Whoever asks the store waits for it here; who is answered has not asked it.
    daemon, api = await start(AUTHZ_STORE__DECISION_DEADLINE_MS="10000")
    emergency, waits = Life("help", EMERGENCY, 30), Life("waits", US, 0)
    with stopped(daemon.store_pid):
        waiting = asyncio.create_task(ask(api, "authorize", waits.call_id, to=waits.to))
        await asyncio.sleep(0.1)
        answer = await ask(api, "authorize", emergency.call_id, to=emergency.to)
        assert (answer["allowed"], answer["class"], answer["seconds"]) == (True, "emergency", None)
        status, answer = await api.hook(
            "authorize", call_id="stranger", account="nobody", to=EMERGENCY
        )
        assert (status, answer["allowed"]) == (200, True)
        assert not waiting.done()
    assert (await waiting)["allowed"] is True
    for life in (emergency, waits):
        assert await settle(api, life) == 200
    await finish(daemon, api, daemon.store_url, [emergency, waits])


async def test_the_spool_of_a_killed_process_is_booked_by_the_next_daemon(start: Start) -> None:
    daemon, api = await start()
    lives = [Life(f"call-{number}", UK, 10 + number) for number in range(30)]
    await asyncio.gather(*(ask(api, "authorize", life.call_id, to=life.to) for life in lives))
    with stopped(daemon.store_pid):
        statuses = await asyncio.gather(*(settle(api, life) for life in lives))
        assert set(statuses) == {202}
        await daemon.kill()
    await daemon.start()
    await finish(daemon, api, daemon.store_url, lives)


class PowerCut:
    """A store on its own whose disk can go back to an earlier moment."""

    def __init__(self, directory: Path) -> None:
        self._store = EmbeddedStore(directory / "power")
        self._data = directory / "power" / "store"
        self._copy = directory / "copy"
        self.url = self._store.start()

    def copy(self) -> None:
        """Remember what has reached the disk by now."""
        shutil.copytree(self._data, self._copy)

    async def cut(self, dark_seconds: float) -> None:
        """End the store, go back to the copy, and start it again after a while."""
        assert self._store.pid is not None
        os.kill(self._store.pid, signal.SIGKILL)
        await until(lambda: not self._store.running)
        shutil.rmtree(self._data)
        shutil.move(self._copy, self._data)
        await asyncio.sleep(dark_seconds)
        assert await asyncio.to_thread(self._store.start) == self.url

    def stop(self) -> None:
        self._store.stop()


@pytest.fixture
def power(tmp_path: Path) -> Iterator[PowerCut]:
    power = PowerCut(tmp_path)
    yield power
    power.stop()


async def test_a_living_daemon_says_again_what_the_store_has_lost(
    start: Start, power: PowerCut, rng: random.Random
) -> None:
    daemon, api = await start(AUTHZ_STORE__URL=power.url)
    switch = Switch([api], rng, 200)
    lost = asyncio.Event()

    async def cut() -> None:
        await asyncio.sleep(0.5 + rng.random())
        power.copy()
        await asyncio.sleep(0.3 + rng.random() * 0.3)
        await power.cut(dark_seconds=rng.random())
        lost.set()

    async def pay() -> None:
        for number in range(40):
            reference = {"amount": "1", "kind": "payment", "reference": f"payment-{number}"}
            await api.admin_until_answered("POST", f"accounts/{MASTER}/credits", json=reference)
            await asyncio.sleep(0.05)

    await asyncio.gather(switch.run(), pay(), cut())
    assert lost.is_set()
    assert daemon.logged("resend_started")
    await finish(daemon, api, power.url, switch.lives, paid="40")


async def test_any_process_books_a_call_that_the_store_forgot_if_told_whom_it_called(
    start: Start, power: PowerCut, rng: random.Random
) -> None:
    # A call that was authorized in the lost moments is known to one worker, its end may come to
    # the other, and the store is away again: only an explicit settle can be booked by any.
    daemon, api = await start("--workers", "2", AUTHZ_STORE__URL=power.url)
    switch = Switch([api], rng, 400, 32, explicit=True)

    async def cut() -> None:
        for _ in range(2):
            await asyncio.sleep(0.3 + rng.random() * 0.5)
            power.copy()
            await asyncio.sleep(0.1 + rng.random() * 0.3)
            await power.cut(dark_seconds=rng.random())

    await asyncio.gather(switch.run(), cut())
    await finish(daemon, api, power.url, switch.lives)


async def test_what_was_lost_comes_back_without_any_further_traffic(
    start: Start, power: PowerCut
) -> None:
    daemon, api = await start(AUTHZ_STORE__URL=power.url)
    lives = [Life(f"call-{number}", UK, 5 * number) for number in range(20)]
    for life in lives[:10]:
        await ask(api, "authorize", life.call_id, to=life.to)
    power.copy()
    for life in lives[10:]:
        await ask(api, "authorize", life.call_id, to=life.to)
    for life in lives:
        assert await settle(api, life) == 200
    await power.cut(dark_seconds=0.5)
    await finish(daemon, api, power.url, lives)
    resent = [event for event in daemon.logged("resend_finished") if event["process"] != "office"]
    assert [event["operations"] for event in resent] == [len(lives)]


async def test_a_version_given_twice_is_not_taken_for_the_same(
    power: PowerCut, tmp_path: Path
) -> None:
    world = await World.start(power.url, tmp_path / "world")
    await world.account("solo", "10", deck="retail", max_calls=5)
    power.copy()
    await world.accounts.patch("solo", {"max_calls": 0})
    assert await world.denied("c1", account="solo") == "max_calls_exceeded"
    lost = (await world.state("solo")).version
    await power.cut(dark_seconds=0)
    other = await World.start(power.url, tmp_path / "other")
    await other.accounts.patch("solo", {"max_calls": 1})
    assert (await other.state("solo")).version == lost
    await until(lambda: world.client.connected)
    await world.granted("c2", account="solo")
    await world.settle("c2", 60, account="solo")
    await assert_clean_audit(other.client)
    for one in (world, other):
        await one.close()
