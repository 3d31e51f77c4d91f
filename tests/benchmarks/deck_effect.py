"""`python -m benchmarks.deck_effect`: what publishing a deck does to the requests of that moment.

A daemon of its own serves authorizes at a steady rate while `authz deck import`, a process of its
own, reads, compiles and publishes a deck of that many prefixes in the place of an equal one with
other prices. Told are the longest request before the import, while the file is read and compiled
(which takes a core), and from the publication until a second after the first answer by the new
prices; and how long that answer took to come.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import os
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import uvloop

from authz.admin.messages import DeckImportQuery
from authz.engine.postings import CreditRequest
from authz.model import AccountConfig
from authz.money import parse_amount
from loadtest.answers import AnswerReader
from loadtest.daemon import Daemon, own_daemon
from loadtest.scenario import DeckPlan
from loadtest.wire import request_start
from loadtest.world import deck_csv, open_services

_ACCOUNT: Final = "deck-effect"
_NUMBER: Final = "+14155550100"
_OLD: Final = "0.01"
_NEW: Final = "0.02"
_PAUSE_SECONDS: Final = 0.002
_READ_BYTES: Final = 65_536
_BEFORE_SECONDS: Final = 5
_AFTER_SECONDS: Final = 1
#: An import that takes longer is given up.
_IMPORT_SECONDS_MAX: Final = 300


class Effect(NamedTuple):
    """What was found. A request is counted by when it was sent; milliseconds."""

    before_max_ms: float
    import_seconds: float
    import_max_ms: float
    publication_max_ms: float
    effect_ms: float


class Probe:
    """Asks again and again what a call costs."""

    def __init__(self, daemon: Daemon) -> None:
        self._target = daemon.target
        #: (sent, answered, price of a minute), in nanoseconds of the monotonic clock.
        self.answers: list[tuple[int, int, str]] = []
        body = {"call_id": "probe", "account": _ACCOUNT, "to": _NUMBER, "dry_run": True}
        self._request = request_start("/v1/authorize", json.dumps(body).encode(), 0)

    async def run(self) -> None:
        """Ask until cancelled, whether answers come or not."""
        reader, writer = await asyncio.open_connection(self._target.host, self._target.port)
        sent_ns: deque[int] = deque()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._ask(writer, sent_ns))
                tasks.create_task(self._hear(reader, sent_ns))
        finally:
            writer.close()

    async def _ask(self, writer: asyncio.StreamWriter, sent_ns: deque[int]) -> None:
        while True:
            sent_ns.append(time.monotonic_ns())
            writer.write(self._request)
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _hear(self, reader: asyncio.StreamReader, sent_ns: deque[int]) -> None:
        answers = AnswerReader()
        while data := await reader.read(_READ_BYTES):
            now_ns = time.monotonic_ns()
            for status, body in answers.feed(data):
                if status != 200:
                    raise RuntimeError(f"answered {status}: {body!r}")
                rate = json.loads(body)["legs"][0]["rate"]
                self.answers.append((sent_ns.popleft(), now_ns, rate))
        raise RuntimeError("the daemon has closed the connection")

    def longest_ms(self, from_ns: int, until_ns: int) -> float:
        """Return the longest of the requests sent in that time."""
        spans = [end - begin for begin, end, _ in self.answers if from_ns <= begin < until_ns]
        return max(spans) / 1e6


@contextlib.contextmanager
def _no_collections() -> Iterator[None]:
    """Keep the probe from walking over what was left of the first deck: a tenth of a second."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _deck(prefixes: int, price: str) -> bytes:
    return deck_csv(DeckPlan(name="effect", rows={"1": price, "44": price}, prefixes=prefixes))


async def _publish(daemon: Daemon, directory: Path, deck: bytes) -> None:
    path = directory / "deck.csv"
    path.write_bytes(deck)
    environment = {**os.environ, "AUTHZ_STORE__URL": daemon.store_url}
    environment["AUTHZ_STATE_DIR"] = str(directory)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "authz", "deck", "import", "effect", str(path), "--json",
        env=environment, stdout=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    async with asyncio.timeout(_IMPORT_SECONDS_MAX):
        if await process.wait() != 0:
            raise RuntimeError("the import failed")


async def measure(prefixes: int, directory: Path, before_seconds: int = _BEFORE_SECONDS) -> Effect:
    """Publish two decks of that many prefixes, one after the other, and watch the second one."""
    async with own_daemon({"hook.workers": 1}, over_unix=False) as daemon:
        async with open_services(daemon.store_url) as services:
            await services.decks.import_file(DeckImportQuery(id="effect"), _deck(prefixes, _OLD))
            await services.accounts.put(_ACCOUNT, AccountConfig(deck="effect"))
            credit = CreditRequest(amount="100", kind="payment", reference="effect")
            await services.postings.credit(_ACCOUNT, credit)
        new = _deck(prefixes, _NEW)
        await asyncio.sleep(_AFTER_SECONDS)
        probe = Probe(daemon)
        with _no_collections():
            probing = asyncio.create_task(probe.run())
            await asyncio.sleep(before_seconds)
            begun_ns = time.monotonic_ns()
            await _publish(daemon, directory, new)
            # The command has ended a moment after it moved the pointer; nobody tells that moment.
            published_ns = time.monotonic_ns()
            await asyncio.sleep(2 * _AFTER_SECONDS)
            probing.cancel()
            await asyncio.wait((probing,))
    new_price = parse_amount(_NEW)
    new_ns = [at for _, at, price in probe.answers if parse_amount(price) >= new_price]
    if not new_ns:
        raise RuntimeError("the new deck did not take effect")
    margin_ns = _AFTER_SECONDS * 1_000_000_000
    # A small deck is imported sooner than that: then its second half is the publication's.
    publishing_ns = max(published_ns - margin_ns, (begun_ns + published_ns) // 2)
    return Effect(
        probe.longest_ms(begun_ns - before_seconds * 1_000_000_000, begun_ns),
        (published_ns - begun_ns) / 1e9,
        probe.longest_ms(begun_ns, publishing_ns),
        probe.longest_ms(publishing_ns, new_ns[0] + margin_ns),
        (new_ns[0] - published_ns) / 1e6,
    )


def report(effect: Effect) -> str:
    """Return the figures in words."""
    return (
        f"longest request before the import        {effect.before_max_ms:10.1f} ms\n"
        f"longest while the file is compiled       {effect.import_max_ms:10.1f} ms"
        f" (import: {effect.import_seconds:.1f} s)\n"
        f"longest around the publication           {effect.publication_max_ms:10.1f} ms\n"
        f"first answer by the new prices           {effect.effect_ms:10.1f} ms after the import\n"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.deck_effect", description=__doc__)
    parser.add_argument("--prefixes", type=int, default=1_000_000)
    parser.add_argument("--json", action="store_true", help="print JSON instead of words")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="authz-bench-") as directory:
        effect = uvloop.run(measure(options.prefixes, Path(directory)))
    figures: dict[str, Any] = effect._asdict()
    sys.stdout.write(json.dumps(figures) + "\n" if options.json else report(effect))
    return 0


if __name__ == "__main__":
    sys.exit(main())
