"""A real PostgreSQL server for the tests, started once a session on a Unix socket."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Final

_START_SECONDS_MAX: Final = 90
_PAUSE_SECONDS: Final = 0.05


def find_binaries() -> Path:
    """Return the directory of initdb and postgres: on the PATH, or where Debian keeps them.

    Raises LookupError when this machine has none.
    """
    on_path = shutil.which("initdb")
    if on_path is not None:
        return Path(on_path).resolve().parent
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        raise LookupError("no PostgreSQL server: apt-get install postgresql")
    return found[-1].parent


def _unprivileged() -> dict[str, Any]:
    """Return whom the server runs as: PostgreSQL refuses root."""
    if os.geteuid() != 0:
        return {}
    user = pwd.getpwnam("nobody")
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


class PostgresServer:
    """A running server; every database asked of it is new."""

    def __init__(self) -> None:
        self._binaries = find_binaries()
        owner = _unprivileged()
        self._directory = tempfile.TemporaryDirectory(prefix="authz-test-")
        self._host = self._directory.name
        self._databases = 0
        if owner:
            os.chown(self._host, owner["user"], owner["group"])
        data = Path(self._host) / "data"
        subprocess.run(
            [self._binaries / "initdb", "--auth=trust", "--username=test", "--no-sync", "-D", data],
            check=True, capture_output=True, cwd="/", **owner,
        )  # fmt: skip
        self._owner = owner
        self._command = [
            self._binaries / "postgres", "-D", data, "-k", self._host, "-h", "",
            "-c", "max_connections=200", "-c", "fsync=off",
        ]  # fmt: skip
        self.start()

    def start(self) -> None:
        """Start the server, as it is at first and after `kill`."""
        with (Path(self._host) / "log").open("ab") as log_file:
            self._server = subprocess.Popen(
                # Ends with this process, whatever ends it.
                ["setpriv", "--pdeathsig", "INT", "--", *map(str, self._command)],
                stdout=log_file, stderr=log_file, cwd="/", **self._owner,
            )  # fmt: skip
        self._wait_until_ready()

    def kill(self) -> None:
        """End the server and all its processes at once, as a crash does."""
        # Its children notice that it is gone, and end; a new server waits for them.
        self._server.kill()
        self._server.wait()

    def new_database(self) -> str:
        """Create an empty database; return its URL."""
        self._databases += 1
        name = f"archive_{self._databases}"
        subprocess.run(
            [self._binaries / "createdb", "-h", self._host, "-U", "test", name], check=True
        )
        return f"postgresql://test@/{name}?host={self._host}"

    def close(self) -> None:
        """Stop the server and remove its data."""
        self._server.send_signal(signal.SIGINT)
        self._server.wait()
        self._directory.cleanup()

    def _wait_until_ready(self) -> None:
        until = time.monotonic() + _START_SECONDS_MAX
        while subprocess.run([self._binaries / "pg_isready", "-q", "-h", self._host]).returncode:
            if self._server.poll() is not None or time.monotonic() > until:
                raise TimeoutError((Path(self._host) / "log").read_text())
            time.sleep(_PAUSE_SECONDS)
