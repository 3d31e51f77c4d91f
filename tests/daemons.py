"""`authz serve` for tests that end its processes: where it listens stays, whoever dies."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, Final

import aiohttp
from ports import free_port
from processes import is_alive, until

from authz.store.url import unix_url

_START_SECONDS: Final = 90
_STARTS_MAX: Final = 20
_PAUSE_SECONDS: Final = 0.25


class Daemon:
    """One daemon with a state directory and two ports of its own, started and killed at will.

    `events` is all that its processes have logged, also those that outlive their supervisor.
    """

    def __init__(self, state_dir: Path, *options: str, **environ: str) -> None:
        self.state_dir = state_dir
        self.hook_port, self.admin_port = free_port(), free_port()
        self.hook = f"http://127.0.0.1:{self.hook_port}"
        self.admin = f"http://127.0.0.1:{self.admin_port}"
        self.events: list[dict[str, Any]] = []
        self._options = options
        self._environ = environ
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start it; as a service manager does, again if the ports are not free yet."""
        for _ in range(_STARTS_MAX):
            if await self._start_once():
                return
            await asyncio.sleep(_PAUSE_SECONDS)
        raise AssertionError(f"the daemon does not start: {self.events[-3:]}")

    async def _start_once(self) -> bool:
        began = len(self.events)
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "authz", "serve", *self._options),
            stderr=asyncio.subprocess.PIPE,
            env={
                **os.environ,
                "AUTHZ_STATE_DIR": str(self.state_dir),
                "AUTHZ_HOOK__LISTEN": f"127.0.0.1:{self.hook_port}",
                "AUTHZ_ADMIN__LISTEN": f"127.0.0.1:{self.admin_port}",
                "AUTHZ_SERVER__START_SECONDS": str(_START_SECONDS),
                **self._environ,
            },
        )
        assert self._process.stderr is not None
        self._reader = asyncio.create_task(self._read(self._process.stderr))
        ended = asyncio.create_task(self._process.wait())
        until = time.monotonic() + _START_SECONDS
        while not any(event["event"] == "serving" for event in self.events[began:]):
            if ended.done():
                return False
            if time.monotonic() > until:
                await self.stop()
                raise AssertionError(f"the daemon does not serve: {self.events[began:]}")
            await asyncio.sleep(0.02)
        return True

    async def _read(self, stream: asyncio.StreamReader) -> None:
        async for line in stream:
            with contextlib.suppress(json.JSONDecodeError):
                self.events.append(json.loads(line))

    def logged(self, name: str) -> list[dict[str, Any]]:
        """Return the events of that name, oldest first."""
        return [event for event in self.events if event["event"] == name]

    @property
    def pid(self) -> int:
        """The supervisor."""
        assert self._process is not None
        return self._process.pid

    def child(self, name: str) -> int:
        """Return the process id of a worker or the office that was ready last."""
        pids = [event["pid"] for event in self.logged("process_ready") if event["name"] == name]
        return int(pids[-1])

    @property
    def children(self) -> list[int]:
        """All workers and offices that live."""
        return [event["pid"] for event in self.logged("process_ready") if is_alive(event["pid"])]

    @property
    def store_pid(self) -> int:
        """The own store that was started last."""
        return int(self.logged("store_started")[-1]["pid"])

    @property
    def store_url(self) -> str:
        """The URL of the own store."""
        return unix_url(self.state_dir / "store.sock")

    async def kill(self) -> None:
        """End supervisor, workers and office at one moment; the store lives on."""
        assert self._process is not None
        children = self.children
        for pid in (self.pid, *children):
            os.kill(pid, signal.SIGKILL)
        await self._process.wait()
        await until(lambda: not any(is_alive(pid) for pid in children))

    async def kill_store(self) -> None:
        """End the own store at once."""
        pid = self.store_pid
        os.kill(pid, signal.SIGKILL)
        await until(lambda: not is_alive(pid))

    async def ready(self) -> None:
        """Return when both APIs say that nothing is in the way."""
        async with aiohttp.ClientSession() as session, asyncio.timeout(_START_SECONDS):
            for url in (self.hook, self.admin):
                while True:
                    with contextlib.suppress(aiohttp.ClientError):
                        async with session.get(f"{url}/readyz") as response:
                            if response.status == 200:
                                break
                    await asyncio.sleep(0.05)

    async def stop(self) -> int | None:
        """End it in good order; return its exit status, None if it was never started."""
        if self._process is None or self._reader is None:
            return None
        if self._process.returncode is None:
            self._process.terminate()
        async with asyncio.timeout(_START_SECONDS):
            status = await self._process.wait()
            await self._reader
        return status
