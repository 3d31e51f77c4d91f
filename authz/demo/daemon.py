"""A daemon of the demonstration's own: `authz serve` as a child, with a store of its own."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from pathlib import Path
from typing import Any, Final

import aiohttp

from authz.config import Settings
from authz.demo.story import DECK, DemoError

_READY_SECONDS_MAX: Final = 60
_STOP_SECONDS_MAX: Final = 30
_LOG_LINES: Final = 15
#: A lost call becomes an orphan while one watches, and any account may call anywhere.
_SETTINGS: Final = {"AUTHZ_CALLS__GRACE_SECONDS": "2", "AUTHZ_CALLS__DEFAULT_DECK": DECK}


class DemoDaemon:
    """Runs the daemon on a fresh state directory; use it as an async context manager."""

    def __init__(self, settings: Settings) -> None:
        self._directory = settings.state_dir / "demo"
        self._hook_listen = settings.hook.listen
        self._admin_listen = settings.admin.listen
        self._process: asyncio.subprocess.Process | None = None

    @property
    def directory(self) -> Path:
        """Where this daemon keeps its state and its log."""
        return self._directory

    @property
    def hook_url(self) -> str:
        """Base of the hook API's addresses."""
        return f"http://{self._hook_listen}"

    @property
    def admin_url(self) -> str:
        """Base of the admin API's addresses."""
        return f"http://{self._admin_listen}"

    @property
    def log_path(self) -> Path:
        """What the daemon writes."""
        return self._directory / "daemon.log"

    async def __aenter__(self) -> DemoDaemon:
        """Start the daemon and return once it answers."""
        if await self._answers():
            raise DemoError(
                f"something already answers at {self.hook_url}; stop it, or set "
                "AUTHZ_HOOK__LISTEN and AUTHZ_ADMIN__LISTEN to free addresses"
            )
        shutil.rmtree(self._directory, ignore_errors=True)
        self._directory.mkdir(mode=0o700, parents=True)
        environment = {
            **os.environ,
            **_SETTINGS,
            "AUTHZ_STATE_DIR": str(self._directory),
            "AUTHZ_HOOK__LISTEN": str(self._hook_listen),
            "AUTHZ_ADMIN__LISTEN": str(self._admin_listen),
        }
        environment.pop("AUTHZ_STORE__URL", None)
        with self.log_path.open("wb") as log_file:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "authz", "serve",
                env=environment, stdout=log_file, stderr=log_file, start_new_session=True,
            )  # fmt: skip
        try:
            await self._wait_until_ready()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(self, *_: Any) -> None:
        """Stop the daemon and its store."""
        await self.stop()

    async def ended(self) -> int:
        """Return the daemon's exit status once it ends by itself."""
        if self._process is None:
            raise DemoError("the daemon was not started")
        return await self._process.wait()

    async def stop(self) -> None:
        """Let the daemon finish what it has begun and end."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), _STOP_SECONDS_MAX)
        except TimeoutError:
            process.kill()
            await process.wait()

    async def _wait_until_ready(self) -> None:
        for _ in range(_READY_SECONDS_MAX * 10):
            if self._process is not None and self._process.returncode is not None:
                raise DemoError(f"the daemon did not start:\n{self._log_tail()}")
            if await self._answers():
                return
            await asyncio.sleep(0.1)
        raise DemoError(f"the daemon is not ready:\n{self._log_tail()}")

    async def _answers(self) -> bool:
        try:
            async with aiohttp.ClientSession() as session:
                for url in (self.hook_url, self.admin_url):
                    async with session.get(f"{url}/readyz") as response:
                        if response.status != 200:
                            return False
        except aiohttp.ClientError:
            return False
        return True

    def _log_tail(self) -> str:
        lines = self.log_path.read_text(errors="replace").splitlines()
        return "\n".join(lines[-_LOG_LINES:])
