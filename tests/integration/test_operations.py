"""docs/operations.md does what it says: a backup of a running daemon is restored, to the cent."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from daemons import Daemon
from processes import until

ROOT = Path(__file__).resolve().parents[2]

Start = Callable[..., Awaitable[Daemon]]


def commands(name: str) -> str:
    """Return the block of commands that the documentation marks as tested under a name."""
    text = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
    (block,) = re.findall(rf"<!-- tested: {name} -->\n```sh\n(.*?)```", text, re.DOTALL)
    return str(block)


async def shell(script: str, **environ: str) -> str:
    """Run commands as an operator does, stopping at the first that fails."""
    process = await asyncio.create_subprocess_exec(
        *("bash", "-euo", "pipefail", "-c", script),
        env={**os.environ, **environ},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    return output.decode()


async def authz(daemon: Daemon, *arguments: str) -> tuple[int | None, str]:
    """Run a command on a daemon's state directory; return its exit status and output."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "authz", *arguments),
        env={
            **os.environ,
            "AUTHZ_STATE_DIR": str(daemon.state_dir),
            "AUTHZ_HOOK__LISTEN": f"127.0.0.1:{daemon.hook_port}",
            "AUTHZ_ADMIN__LISTEN": f"127.0.0.1:{daemon.admin_port}",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    return process.returncode, output.decode()


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """Start daemons on state directories of their own; they end with the test."""
    started: list[Daemon] = []

    async def start(name: str) -> Daemon:
        daemon = Daemon(tmp_path / name)
        started.append(daemon)
        await daemon.start()
        await daemon.ready()
        # A backup has an archive, which a new daemon makes after it is ready for calls.
        await until(lambda: bool(daemon.logged("archive_opened")))
        return daemon

    yield start
    for daemon in started:
        await daemon.stop()


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(raise_for_status=True) as session:
        yield session


async def send(http: aiohttp.ClientSession, url: str, body: dict[str, Any]) -> Any:
    async with http.post(url, json=body) as response:
        return await response.json()


async def deck_is_used(http: aiohttp.ClientSession, daemon: Daemon) -> None:
    """Return when the worker has a price, which takes it a second at most."""
    body = {"call_id": "c", "account": "acme", "to": "+14155550100", "dry_run": True}
    for _ in range(1_800):
        if (await send(http, f"{daemon.hook}/v1/authorize", body))["allowed"]:
            return
        await asyncio.sleep(0.05)
    raise AssertionError("the deck is not used")


async def balance(http: aiohttp.ClientSession, daemon: Daemon) -> Any:
    async with http.get(f"{daemon.admin}/v1/accounts/acme/balance") as response:
        return await response.json()


async def test_a_backup_of_a_running_daemon_is_restored(
    start: Start, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    daemon = await start("before")
    await http.put(f"{daemon.admin}/v1/decks/retail", data="prefix,price\n1,0.01\n")
    await http.put(f"{daemon.admin}/v1/accounts/acme", json={"deck": "retail"})
    credit = {"amount": "12.5", "kind": "payment", "reference": "first"}
    await send(http, f"{daemon.admin}/v1/accounts/acme/credits", credit)
    await deck_is_used(http, daemon)
    for number in range(20):
        call = {"call_id": f"c{number}", "account": "acme"}
        await send(http, f"{daemon.hook}/v1/authorize", {**call, "to": "+14155550100"})
        if number:
            await send(http, f"{daemon.hook}/v1/settle", {**call, "seconds": 61})
    saved = await balance(http, daemon)
    assert (saved["balance"], saved["calls"]) == ("12.12", 1)

    backup = tmp_path / "backup"
    backup.mkdir()
    await shell(commands("backup"), STATE=str(daemon.state_dir), BACKUP=str(backup))
    # What comes after the backup is lost with the host.
    await send(http, f"{daemon.admin}/v1/accounts/acme/credits", {**credit, "reference": "second"})
    await daemon.kill()
    await daemon.kill_store()

    state = tmp_path / "after"
    state.mkdir()
    await shell(commands("restore"), STATE=str(state), BACKUP=str(backup))
    restored = await start("after")
    found = await balance(http, restored)
    assert {**found, "spend_today": None} == {**saved, "spend_today": None}
    end = {"call_id": "c0", "account": "acme", "seconds": 5}
    assert (await send(http, f"{restored.hook}/v1/settle", end))["duplicate"] is False
    again = await send(http, f"{restored.hook}/v1/settle", {**end, "call_id": "c7", "seconds": 61})
    assert again["duplicate"] is True
    for command in (["audit"], ["archive", "status"]):
        status, text = await authz(restored, *command)
        assert status == 0, text


async def test_health_tells_of_a_daemon_and_of_its_store(start: Start) -> None:
    daemon = await start("state")
    assert (await authz(daemon, "health"))[0] == 0
    store = daemon.store_pid
    os.kill(store, signal.SIGSTOP)
    try:
        for _ in range(100):
            status, text = await authz(daemon, "health")
            if status:
                break
        assert "does not answer" in text
        assert (await authz(daemon, "health", "--live"))[0] == 0
    finally:
        os.kill(store, signal.SIGCONT)
    await daemon.stop()
    status, text = await authz(daemon, "health", "--live", "--json")
    assert status == 1
    assert '"ok": false' in text
