"""The whole daemon with its archive: filled by the office, asked by API and commands, killed."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from archives import archive_settings, archived_rows
from audit_helper import assert_clean_audit
from daemons import Daemon
from processes import is_alive, until

from authz.ledger.archive import Archive
from authz.store.client import StoreClient

CALLS = 30


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[Daemon]:
    """A daemon that archives and trims at once."""
    daemon = Daemon(
        tmp_path / "state", AUTHZ_ARCHIVE__DELAY_SECONDS="0", AUTHZ_ARCHIVE__KEEP_SECONDS="0"
    )
    await daemon.start()
    yield daemon
    await daemon.stop()


class Site:
    """An account on the daemon, that calls come from."""

    def __init__(self, daemon: Daemon, http: aiohttp.ClientSession) -> None:
        self.daemon = daemon
        self._http = http

    async def post(self, url: str, body: dict[str, Any]) -> tuple[int, Any]:
        """Return status and document of a request."""
        async with self._http.post(url, json=body) as response:
            return response.status, await response.json()

    async def prepare(self) -> None:
        """Make an account with a trunk, so that its calls need no deck."""
        url = f"{self.daemon.admin}/v1/accounts/acme"
        async with self._http.put(url, json={"trunks": {"outbound": 100}}) as response:
            assert response.status in (200, 201)
        body = {"amount": "5", "kind": "payment", "reference": "INV-1"}
        assert (await self.post(f"{url}/credits", body))[0] in (200, 201)

    async def call(self, call_id: str) -> None:
        """Lead a call of a minute."""
        call = {"call_id": call_id, "account": "acme"}
        hook = self.daemon.hook
        _, answer = await self.post(f"{hook}/v1/authorize", {**call, "to": "+14155550100"})
        assert answer["allowed"], answer
        assert (await self.post(f"{hook}/v1/settle", {**call, "seconds": 60}))[0] == 200

    async def settle_late(self, call_id: str, seconds: int) -> tuple[int, Any]:
        """Report the end of a call two days ago, as a switch does after a long outage."""
        body = {
            "call_id": call_id,
            "account": "acme",
            "seconds": seconds,
            "to": "+14155550100",
            "direction": "outbound",
            "ended_at": 1_700_000_000,
        }
        return await self.post(f"{self.daemon.hook}/v1/settle", body)


async def archived_references(archive: Archive) -> list[str]:
    """Return the references of all archived entries in order."""
    return [row.reference for row in await archived_rows(archive)]


async def wait_for(archive: Archive, reference: str) -> None:
    """Return when this is archived."""
    for _ in range(600):
        if reference in await archived_references(archive):
            return
        await asyncio.sleep(0.05)
    raise TimeoutError(reference)


def threads_of(pid: int) -> list[int]:
    """Return the ids of a process's threads."""
    return [int(path.name) for path in Path(f"/proc/{pid}/task").iterdir()]


async def test_the_office_lets_others_run_first(daemon: Daemon) -> None:
    office, worker = daemon.child("office"), daemon.child("worker-1")
    # Ready, it has still to open its archive, which takes threads.
    await until(lambda: len(threads_of(office)) > 1)
    for thread in threads_of(office):
        assert os.sched_getscheduler(thread) == os.SCHED_BATCH
        niceness = os.getpriority(os.PRIO_PROCESS, thread)
        assert niceness == min(19, os.getpriority(os.PRIO_PROCESS, worker) + 10)
    assert os.sched_getscheduler(worker) == os.SCHED_OTHER


async def test_the_office_archives_and_is_killed_meanwhile(daemon: Daemon) -> None:
    client = await StoreClient.connect(daemon.store_url)
    archive = Archive(client, archive_settings(daemon.state_dir, None))
    async with aiohttp.ClientSession() as http:
        site = Site(daemon, http)
        await site.prepare()
        await until(lambda: bool(daemon.logged("archive_opened")))
        await archive.open(create=False)
        for number in range(CALLS):
            await site.call(f"call-{number}")
            if number % 15 == 7:
                await until(lambda: is_alive(daemon.child("office")))
                os.kill(daemon.child("office"), signal.SIGKILL)
        await wait_for(archive, f"call-{CALLS - 1}")
        assert await archived_references(archive) == [
            "INV-1",
            *(f"call-{number}" for number in range(CALLS)),
        ]
        assert (await site.settle_late("old-1", 61))[0] == 202
        await wait_for(archive, "old-1")
        status, answer = await site.settle_late("old-1", 61)
        assert (status, answer["duplicate"]) == (200, True)
        assert (await site.settle_late("old-1", 62))[0] == 409
    await assert_clean_audit(client, archive)
    await archive.close()
    await client.close()
    assert daemon.logged("ledger.forked") == []
    assert daemon.logged("background_work_failed") == []
    assert await daemon.stop() == 0
