"""`python -m benchmarks.worker_cost`: what one request costs the processor of a hook worker.

Everything of a worker but its clients' sockets, in this process: requests are given to the HTTP
protocol as bytes, on several connections, and what it writes is read back; between lie the real
engine, the real store client and a real store on its Unix socket. Each kind of request is counted
by itself, in two shapes of load. With `--instructions` valgrind's callgrind counts what the
process executes; unlike time, that does not depend on how busy the machine is. Neither contains
what the kernel does for system calls.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import uvloop
from world import World

from authz.admin.messages import DeckImportQuery
from authz.config.sections import StoreSettings
from authz.hooks.access import Access
from authz.hooks.routes import hook_routes
from authz.hooks.server import HookServer
from authz.rating.registry import DeckRegistry
from authz.server.collector import settle_memory
from authz.store.embedded import EmbeddedStore
from benchmarks.instructions import dumped_total, missing_tools
from benchmarks.recording import CALL_ID, SETTLED_SECONDS, USED_SECONDS, make_chain
from loadtest.wire import request_start
from loadtest.world import open_services

KINDS: Final = ("authorize", "reserve", "settle")
#: Connections, and requests under way on each.
SHAPES: Final = ((1, 1), (8, 8))
_CHAIN: Final = ("pair-sub", "pair-master")
_DECKS: Final = {
    "retail": b"prefix,price,increment\n1,0.01,60\n44,0.0137,1\n",
    "wholesale": b"prefix,price,increment\n1,0.005,6\n44,0.01,6\n",
}
_BODIES: Final = {
    "authorize": {"to": "+14155550100", "switch": "fs1"},
    "reserve": {"used_seconds": USED_SECONDS},
    "settle": {"seconds": SETTLED_SECONDS, "hangup_cause": "NORMAL_CLEARING"},
}
_QUIET: Final = {"auto-aof-rewrite-percentage": "0", "appendonly": "no"}


def request(kind: str, call_id: str) -> bytes:
    """Return one request as a switch sends it."""
    body = json.dumps({"call_id": call_id, "account": _CHAIN[0], **_BODIES[kind]}).encode()
    return request_start(f"/v1/{kind}", body, 0)


class Switch:
    """One connection, in the place of its transport: asks anew as soon as it is answered."""

    def __init__(self, server: HookServer, on_answers: Callable[[int], None]) -> None:
        self.protocol = server.protocol()
        self._loop = asyncio.get_running_loop()
        self._on_answers = on_answers
        self._unsent: list[bytes] = []
        self.protocol.connection_made(self)

    def ask(self, requests: Sequence[bytes], at_once: int) -> None:
        """Keep `at_once` of these requests under way until all are answered."""
        self._unsent = list(reversed(requests))
        self._send(at_once)

    def _send(self, count: int) -> None:
        due = [self._unsent.pop() for _ in range(min(count, len(self._unsent)))]
        if due:
            self._loop.call_soon(self.protocol.data_received, b"".join(due))

    # What the protocol asks of its transport.

    def write(self, data: bytes) -> None:
        """Take answers, and send as many new requests."""
        answers = data.count(b"HTTP/1.1 200 OK\r\n")
        if not answers or b'"allowed":false' in data:
            sys.exit(f"not granted: {data!r}")
        self._on_answers(answers)
        self._send(answers)

    def get_extra_info(self, _name: str, _default: object = None) -> None:
        """Know nothing of sockets."""

    def get_write_buffer_size(self) -> int:
        """Have sent everything."""
        return 0

    def is_closing(self) -> bool:
        """Stay open."""
        return False

    def abort(self) -> None:
        """End the connection."""
        self.protocol.connection_lost(None)


class Load:
    """A number of connections that lead calls through one kind of request."""

    def __init__(self, server: HookServer, connections: int, at_once: int) -> None:
        self._at_once = at_once
        self._unanswered = 0
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._switches = [Switch(server, self._count) for _ in range(connections)]

    async def run(self, requests: Sequence[bytes]) -> None:
        """Send these requests and wait for all answers."""
        self._done = asyncio.get_running_loop().create_future()
        self._unanswered = len(requests)
        for place, switch in enumerate(self._switches):
            switch.ask(requests[place :: len(self._switches)], self._at_once)
        await self._done

    def _count(self, answers: int) -> None:
        self._unanswered -= answers
        if self._unanswered == 0:
            self._done.set_result(None)


class Clock:
    """Measures in nanoseconds of the process's own time."""

    def begin(self) -> None:
        """Start a measurement."""
        self._begun_ns = time.process_time_ns()

    def end(self) -> float:
        """Return the microseconds since."""
        return (time.process_time_ns() - self._begun_ns) / 1000


class Callgrind:
    """Measures in instructions of this process, which runs under valgrind."""

    def __init__(self, dump: Path) -> None:
        self._dump = dump
        self._control("--instr=on")

    def begin(self) -> None:
        """Start a measurement."""
        self._control("--zero")

    def end(self) -> float:
        """Return the instructions since."""
        self._control("--dump")
        return dumped_total(self._dump)

    def _control(self, option: str) -> None:
        subprocess.run(
            ["callgrind_control", option, str(os.getpid())], check=True, capture_output=True
        )


async def measure(
    store_url: str, directory: Path, meter: Clock | Callgrind, calls: int
) -> dict[str, float]:
    """Return what a request of each kind and shape costs, by `<connections>x<at once> <kind>`."""
    costs: dict[str, float] = {}
    # Nothing is late, however slow the processor is made to be.
    patient = StoreSettings(decision_deadline_ms=60_000, settle_deadline_ms=60_000)
    world = await World.start(store_url, directory, store=patient)
    decks = DeckRegistry(world.client, directory / "decks")
    await decks.start()
    world.decks.update((deck.id, deck) for deck in decks.all())
    await make_chain(world, _CHAIN)
    server = HookServer(hook_routes(world.engine, lambda: None), access=Access())
    settle_memory()
    numbers = iter(range(10**9))
    for connections, at_once in SHAPES:
        load = Load(server, connections, at_once)
        for count in (calls // 4, calls):  # the first warms up
            call_ids = [CALL_ID.format(next(numbers)) for _ in range(count)]
            for kind in KINDS:
                requests = [request(kind, call_id) for call_id in call_ids]
                meter.begin()
                await load.run(requests)
                costs[f"{connections}x{at_once} {kind}"] = meter.end() / count
    server.close()
    await decks.stop()
    await world.close()
    return costs


async def publish_decks(store_url: str) -> None:
    """Put the decks into the store; before `measure`."""
    async with open_services(store_url) as services:
        for deck_id, rows in _DECKS.items():
            await services.decks.import_file(DeckImportQuery(id=deck_id), rows)


def _run_measured(store_url: str, directory: Path, calls: int, *, count: bool) -> dict[str, float]:
    """Measure in a process of its own, for valgrind must not have started the store."""
    command = [sys.executable, "-m", "benchmarks.worker_cost", "--inner", store_url, "--json"]
    command += ["--directory", str(directory), "--calls", str(calls)]
    if count:
        dump = directory / "callgrind"
        valgrind = ["valgrind", "--tool=callgrind", "--instr-atstart=no"]
        valgrind += [f"--callgrind-out-file={dump}", f"--log-file={directory / 'valgrind.log'}"]
        command = [*valgrind, *command, "--dump", str(dump)]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    return dict(json.loads(printed))


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.worker_cost", description=__doc__)
    parser.add_argument("--calls", type=int, help="calls of a round (2,000; 400 with valgrind)")
    parser.add_argument("--instructions", action="store_true", help="count instructions instead")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    for inner in ("--inner", "--directory", "--dump"):
        parser.add_argument(inner, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.inner:
        meter = Callgrind(Path(options.dump)) if options.dump else Clock()
        directory = Path(options.directory)
        costs = uvloop.run(measure(options.inner, directory, meter, options.calls))
    else:
        if options.instructions and (missing := missing_tools()):
            parser.error(f"install {' and '.join(missing)} first (package valgrind)")
        calls = options.calls or (400 if options.instructions else 2_000)
        with tempfile.TemporaryDirectory(prefix="authz-bench-") as directory_name:
            directory = Path(directory_name)
            with EmbeddedStore(directory / "state", options=_QUIET) as store:
                asyncio.run(publish_decks(store.url))
                costs = _run_measured(store.url, directory, calls, count=options.instructions)
    unit = "instructions" if options.instructions else "µs"
    table = "\n".join(f"{name:16} {cost:12,.1f} {unit}" for name, cost in costs.items())
    sys.stdout.write((json.dumps(costs) if options.json else table) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
