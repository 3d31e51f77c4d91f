"""An SQL ledger as ASTPP and mod_nibblebill keep one: balances are rows, a call updates each.

Authorize reads the balances of the chain and holds nothing; settle is one transaction that takes
the cost from every account of the chain, row by row, and writes the call's record. No service
stands before it: this is what the database alone can do.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from benchmarks.compare.subject import Sample, sample
from benchmarks.recording import CALL_ID, SETTLED_SECONDS
from loadtest import processes

#: Transactions under way; more only wait for each other on few cores.
CONNECTIONS: Final = 16
_START_SECONDS_MAX: Final = 30
_COSTS: Final = (10_000, 4_500)
_SCHEMA: Final = """
CREATE TABLE accounts (id text PRIMARY KEY, balance bigint NOT NULL, credit_limit bigint NOT NULL);
CREATE TABLE calls (id text PRIMARY KEY, account text NOT NULL, seconds integer NOT NULL,
    cost bigint NOT NULL, hangup_cause text NOT NULL, booked_at timestamptz DEFAULT now())
"""


def obstacle() -> str | None:
    """Return why there can be no such rival on this machine, or None."""
    if importlib.util.find_spec("psycopg") is None:
        return "psycopg is not installed (pip install '.[bench]')"
    if _binaries() is None:
        return "no PostgreSQL server is installed (Debian: apt install postgresql)"
    return None


def _binaries() -> Path | None:
    """Return the directory of initdb and postgres: on the PATH, or where Debian keeps them."""
    on_path = shutil.which("initdb")
    if on_path is not None:
        return Path(on_path).resolve().parent
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return found[-1].parent if found else None


def _unprivileged() -> dict[str, Any]:
    """Return whom the server runs as: PostgreSQL refuses root."""
    if os.geteuid() != 0:
        return {}
    user = pwd.getpwnam("nobody")
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


@contextmanager
def private_server() -> Iterator[tuple[str, int]]:
    """Run a server of our own on a Unix socket; yield its connection string and process id."""
    binaries = _binaries()
    assert binaries is not None, "obstacle() has been asked"
    with tempfile.TemporaryDirectory(prefix="authz-bench-") as directory:
        owner = _unprivileged()
        if owner:
            os.chown(directory, owner["user"], owner["group"])
        data = Path(directory) / "data"
        subprocess.run(
            [binaries / "initdb", "--auth=trust", "--username=bench", "--pgdata", data],
            check=True, capture_output=True, cwd="/", **owner,
        )  # fmt: skip
        with (Path(directory) / "log").open("wb") as log_file:
            server = subprocess.Popen(
                [
                    binaries / "postgres", "-D", data, "-k", directory, "-h", "",
                    "-c", "max_connections=64", "-c", "shared_buffers=128MB",
                ],
                stdout=log_file, stderr=log_file, cwd="/", **owner,
            )  # fmt: skip
        try:
            url = f"host={directory} user=bench dbname=postgres"
            _wait_until_ready(url, server)
            yield url, server.pid
        finally:
            server.terminate()
            server.wait()


def _wait_until_ready(url: str, server: subprocess.Popen[bytes]) -> None:
    import psycopg

    until = time.monotonic() + _START_SECONDS_MAX
    while True:
        try:
            psycopg.connect(url).close()
        except psycopg.OperationalError:
            if server.poll() is not None or time.monotonic() > until:
                raise
            time.sleep(0.05)
        else:
            return


class SqlLedger:
    """The ledger in the database at `url`, asked by `CONNECTIONS` connections."""

    def __init__(
        self, url: str, server_pid: int, chains: Sequence[Sequence[str]], *, is_durable: bool
    ) -> None:
        import psycopg

        commit = "on" if is_durable else "off"
        self.name = f"PostgreSQL rows, no service, synchronous_commit {commit}"
        self._chains = chains
        self._loop = asyncio.new_event_loop()
        with psycopg.connect(url, autocommit=True) as connection:
            _create(connection, sorted({account for chain in chains for account in chain}))
        settings = f"{url} options='-c synchronous_commit={commit}'"
        self._connections = [
            self._loop.run_until_complete(
                psycopg.AsyncConnection.connect(settings, autocommit=True)
            )
            for _ in range(CONNECTIONS)
        ]
        self._server_pids = processes.tree(server_pid)

    def run(self, first: int, calls: int) -> Sample:
        """Lead these calls through authorize and settle."""
        numbers = iter(range(first, first + calls))
        return sample(
            2 * calls,
            lambda: self._loop.run_until_complete(self._lead_all(numbers)),
            store_pids=self._server_pids,
        )

    def close(self) -> None:
        """Disconnect."""
        for connection in self._connections:
            self._loop.run_until_complete(connection.close())
        self._loop.close()

    async def _lead_all(self, numbers: Iterator[int]) -> None:
        await asyncio.gather(*(self._lead(connection, numbers) for connection in self._connections))

    async def _lead(self, connection: Any, numbers: Iterator[int]) -> None:
        for number in numbers:
            chain = self._chains[number % len(self._chains)]
            rows = await connection.execute(
                "SELECT balance + credit_limit FROM accounts WHERE id = ANY(%s)", (list(chain),)
            )
            if min(available for (available,) in await rows.fetchall()) < max(_COSTS):
                raise RuntimeError(f"an account of {chain} is used up")
            async with connection.transaction():
                for account, cost in zip(chain, _COSTS, strict=True):
                    await connection.execute(
                        "UPDATE accounts SET balance = balance - %s WHERE id = %s", (cost, account)
                    )
                await connection.execute(
                    "INSERT INTO calls (id, account, seconds, cost, hangup_cause) "
                    "VALUES (%s, %s, %s, %s, %s)",
                    (CALL_ID.format(number), chain[0], SETTLED_SECONDS, _COSTS[0], "16"),
                )


def _create(connection: Any, accounts: Sequence[str]) -> None:
    """Create the tables, unless another ledger of this run has."""
    if connection.execute("SELECT to_regclass('accounts')").fetchone() != (None,):
        return
    connection.execute(_SCHEMA)
    for account in accounts:
        connection.execute("INSERT INTO accounts VALUES (%s, %s, 0)", (account, 10**15))
