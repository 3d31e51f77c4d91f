"""The ground that everything is compared on: one daemon, its store, the same accounts."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from authz.admin.messages import DeckImportQuery
from benchmarks.compare.adapters import HttpAdapter
from benchmarks.compare.ceiling import Ceiling
from benchmarks.compare.http_load import HttpService, LoadShape
from benchmarks.compare.postgres import SqlLedger, private_server
from benchmarks.compare.subject import Subject
from benchmarks.recording import CallTemplates, record_chains
from loadtest.daemon import own_daemon
from loadtest.world import open_services

PAIRS: Final = 20
_DECKS: Final = {
    "retail": b"prefix,price,increment\n1,0.01,60\n44,0.0137,1\n",
    "wholesale": b"prefix,price,increment\n1,0.005,6\n44,0.01,6\n",
}
#: A published deck is in use in every process within this time.
_DECK_SECONDS: Final = 1.5


class Ground(NamedTuple):
    """A running daemon with accounts. The pids are the hook worker's and the store's."""

    store_url: str
    hook_address: tuple[str, int]
    worker_pids: tuple[int, ...]
    store_pids: tuple[int, ...]
    templates: tuple[CallTemplates, ...]

    @property
    def accounts(self) -> tuple[str, ...]:
        """The accounts that place calls."""
        return tuple(template.account for template in self.templates)


@contextlib.asynccontextmanager
async def prepared_ground(appendfsync: str) -> AsyncIterator[Ground]:
    """Run a daemon with one hook worker and a store of its own, decks and accounts in it."""
    settings = {"store.appendfsync": appendfsync, "hook.workers": 1}
    async with own_daemon(settings, over_unix=False) as daemon:
        async with open_services(daemon.store_url) as services:
            for deck_id, rows in _DECKS.items():
                await services.decks.import_file(DeckImportQuery(id=deck_id), rows)
        chains = [(f"compare-sub-{pair}", f"compare-master-{pair}") for pair in range(PAIRS)]
        templates = await record_chains(daemon.store_url, chains)
        await asyncio.sleep(_DECK_SECONDS)
        pids = daemon.pids()
        host, port = daemon.target.host, daemon.target.port
        yield Ground(
            daemon.store_url,
            (host, port),
            tuple(pid for pid in pids if "authz.server.worker" in _command(pid)),
            tuple(pid for pid in pids if "-server" in _command(pid)),
            tuple(templates),
        )


def _command(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8", errors="replace")


def subjects_on(
    ground: Ground, shapes: Sequence[LoadShape], stack: contextlib.ExitStack
) -> list[Subject]:
    """Return the ceiling, the hook worker and its twin of aiohttp and redis-py."""
    ceiling = Ceiling(ground.store_url, ground.store_pids, ground.templates)
    subjects: list[Subject] = [stack.enter_context(contextlib.closing(ceiling))]
    twin = stack.enter_context(_twin(ground.store_url))
    services = {
        "authz, one hook worker": (ground.hook_address, ground.worker_pids),
        "aiohttp + redis-py": (twin.address, (twin.pid,)),
    }
    for name, (address, pids) in services.items():
        for shape in shapes:
            service = HttpService(
                name, address, HttpAdapter(), ground.accounts, shape,
                service_pids=pids, store_pids=ground.store_pids,
            )  # fmt: skip
            subjects.append(stack.enter_context(contextlib.closing(service)))
    return subjects


def sql_ledgers(ground: Ground, stack: contextlib.ExitStack) -> list[Subject]:
    """Return the SQL rival, with commits that wait for the disk and with such that do not."""
    url, pid = stack.enter_context(private_server())
    chains = [template.names for template in ground.templates]
    return [
        stack.enter_context(contextlib.closing(SqlLedger(url, pid, chains, is_durable=durable)))
        for durable in (False, True)
    ]


class _Twin(NamedTuple):
    address: tuple[str, int]
    pid: int


@contextlib.contextmanager
def _twin(store_url: str) -> Iterator[_Twin]:
    with tempfile.TemporaryDirectory(prefix="authz-bench-") as directory:
        process = subprocess.Popen(
            [
                sys.executable, "-m", "benchmarks.compare.aiohttp_service",
                store_url, directory,
            ],
            # It finds its modules where this process has found its own.
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                raise RuntimeError(f"the rival service ended with {process.wait()}")
            yield _Twin(("127.0.0.1", int(line)), process.pid)
        finally:
            process.terminate()
            process.communicate()
