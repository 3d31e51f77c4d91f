"""The daemon under load: one of our own with a store of its own, or a running one by its URL."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from msgspec import Struct

from authz.store.embedded_files import socket_path_in
from authz.store.url import unix_url
from loadtest import processes
from loadtest.errors import LoadTestError
from loadtest.plan import Target

_READY_SECONDS_MAX: Final = 60
_STOP_SECONDS_MAX: Final = 30
_POLL_SECONDS: Final = 0.05
_LOG_LINES: Final = 15


class Daemon(Struct, frozen=True):
    """What a run needs to know of the daemon."""

    target: Target
    store_url: str
    #: The supervisor of an own daemon, whose descendants are the rest; None: not known.
    pid: int | None = None
    #: Where the daemon keeps its archive, which the audit asks: a directory, or a database's URL.
    state_dir: Path | None = None
    archive_url: str | None = None

    def pids(self) -> list[int]:
        """Return the ids of the daemon's processes and its store's, as far as they are known."""
        return [] if self.pid is None else processes.tree(self.pid)


def parse_target(url: str, *, allow_remote: bool) -> Target:
    """Return the address of `http://HOST:PORT` or `unix:///path`.

    Raises LoadTestError for anything else, and for a host that is not this one unless
    `allow_remote`: load on somebody else's machine must be meant.
    """
    parts = urlsplit(url)
    if parts.scheme == "unix" and parts.path and not parts.netloc:
        return Target(unix_path=parts.path)
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if parts.scheme != "http" or host is None or port is None or parts.path not in ("", "/"):
        raise LoadTestError(f"{url}: write http://HOST:PORT or unix:///path/of/the/socket")
    if not allow_remote and not _is_loopback(host):
        raise LoadTestError(
            f"{host} is not this host: the load would hit others; --allow-remote if that is meant"
        )
    return Target(host=host, port=port)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@contextlib.asynccontextmanager
async def own_daemon(
    settings: Mapping[str, str | int | bool], *, over_unix: bool
) -> AsyncIterator[Daemon]:
    """Run `authz serve` on a directory of its own, which is removed at the end.

    `settings` are `section.name` to value. Raises LoadTestError with its log if it fails.
    """
    with tempfile.TemporaryDirectory(prefix="authz-load-") as directory:
        state_dir = Path(directory)
        hook_socket = state_dir / "hook.sock"
        environment = {
            **{name: text for name, text in os.environ.items() if not name.startswith("AUTHZ_")},
            **{_variable(key): _text(value) for key, value in settings.items()},
            "AUTHZ_STATE_DIR": directory,
            "AUTHZ_HOOK__LISTEN": "127.0.0.1:0",
            "AUTHZ_ADMIN__LISTEN": "127.0.0.1:0",
            "AUTHZ_LOG__FORMAT": "json",
        }
        if over_unix:
            environment["AUTHZ_HOOK__UNIX_SOCKET"] = str(hook_socket)
        log_path = state_dir / "daemon.log"
        with log_path.open("wb") as log_file:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "authz", "serve",
                env=environment, stdout=log_file, stderr=log_file, start_new_session=True,
            )  # fmt: skip
        try:
            host, _, port = (await _serving(process, log_path)).rpartition(":")
            target = Target(host=host, port=int(port))
            if over_unix:
                target = Target(unix_path=str(hook_socket))
            socket_path = socket_path_in(state_dir, create=False)
            assert socket_path is not None, "a daemon that serves has a store"
            yield Daemon(target, unix_url(socket_path), process.pid, state_dir)
        finally:
            await _stop(process)


async def _serving(process: asyncio.subprocess.Process, log_path: Path) -> str:
    """Return the address of the hook API once the daemon says that it serves."""
    for _ in range(round(_READY_SECONDS_MAX / _POLL_SECONDS)):
        await asyncio.sleep(_POLL_SECONDS)
        for event in map(_event, _lines(log_path)):
            if event.get("event") == "serving":
                return str(event["listeners"]["hook_tcp"])
        if process.returncode is not None:
            break
    tail = "\n".join(_lines(log_path)[-_LOG_LINES:])
    raise LoadTestError(f"the daemon did not start:\n{tail}")


def _lines(path: Path) -> list[str]:
    return path.read_text(errors="replace").splitlines()


def _event(line: str) -> dict[str, Any]:
    try:
        event: dict[str, Any] = json.loads(line)
    except ValueError:
        # A line that is being written.
        return {}
    return event


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    process.terminate()
    try:
        async with asyncio.timeout(_STOP_SECONDS_MAX):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


def _variable(key: str) -> str:
    return "AUTHZ_" + key.upper().replace(".", "__")


def _text(value: str | int | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
