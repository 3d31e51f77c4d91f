"""The decks in force in one process: follows the store, maps the files of this host.

A new version is fetched by one process of the host, written as `<hash>.deck` and mapped by all.
What is missing, torn or damaged never takes the place of a good deck.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import os
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar

from authz import log
from authz.errors import AuthzError, DeckError
from authz.rating.deck import ROWS_READY_MAX, Deck
from authz.rating.publish import Manifest, PublishedDecks, Store

T = TypeVar("T")

#: How often the store is asked for its mark; a new deck is in use within one second.
POLL_MS: Final = 250
#: The decks are compared with the store also without a new mark, in case a file was damaged.
COMPARE_SECONDS: Final = 30
#: After a failure the next try waits this long.
RETRY_MS: Final = 1_000
#: How long a process waits for another one of this host that writes the same file.
_LOCK_WAIT_SECONDS: Final = 30
_LOCK_POLL_MS: Final = 20
#: Files of versions no longer in force are removed after this time.
FILE_KEEP_SECONDS: Final = 3_600
#: A deck no longer in force goes in pieces of some 0.1 ms.
_ROWS_FREED_AT_ONCE: Final = 256
_FREEING_PAUSE_SECONDS: Final = 0.002


class DeckRegistry:
    """The decks in force. `get` never waits; `start` and `stop` frame its life.

    `directory` is shared by the processes of a host, which write each version once. What takes
    long (disk, hashes) is done in a thread of its own, which calls `begin_thread` first.
    """

    def __init__(
        self, store: Store, directory: Path, begin_thread: Callable[[], None] | None = None
    ) -> None:
        self._published = PublishedDecks(store)
        self._thread = ThreadPoolExecutor(1, "decks", begin_thread)
        self._directory = directory
        self._decks: dict[str, Deck] = {}
        self._mark: bytes | None = None
        self._is_complete = False
        #: A number that is the same wherever the same decks are in force; 0 without any.
        self.digest = 0
        self._compared_at = time.monotonic()
        self._task: asyncio.Task[None] | None = None
        self._freeing: set[asyncio.Task[None]] = set()

    def get(self, deck_id: str) -> Deck | None:
        """Return the deck in force under this id, or None."""
        return self._decks.get(deck_id)

    def all(self) -> list[Deck]:
        """Return the decks in force, by id."""
        return [self._decks[deck_id] for deck_id in sorted(self._decks)]

    async def start(self) -> None:
        """Read the decks in force and follow the store from now on.

        A store that does not answer delays nothing: the decks come when it is back.
        """
        self._directory.mkdir(parents=True, exist_ok=True)
        await self._refresh_or_log()
        self._task = asyncio.create_task(self._follow(), name="decks")

    async def stop(self) -> None:
        """Stop following; the decks stay readable."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        for task in tuple(self._freeing):
            task.cancel()
        await asyncio.gather(*self._freeing, return_exceptions=True)

    async def refresh(self) -> None:
        """Compare with the store if its mark is new or the last comparison is old.

        One deck's failure is logged and keeps that deck as it is. Raises what the store's
        client raises.
        """
        is_due = time.monotonic() - self._compared_at >= COMPARE_SECONDS
        if self._is_complete and not is_due and await self._published.mark() == self._mark:
            return
        mark, manifests = await self._published.read()
        self._compared_at = time.monotonic()
        before = self.all()
        changed = [manifest for manifest in manifests if not self._has(manifest)]
        failures = [manifest for manifest in changed if not await self._load(manifest)]
        for deck_id in self._decks.keys() - {manifest.facts.id for manifest in manifests}:
            del self._decks[deck_id]
            log.event("deck_removed", deck=deck_id)
        self.digest = _digest(self.all())
        self._let_go([deck for deck in before if self.get(deck.id) is not deck])
        self._mark, self._is_complete = mark, not failures
        if changed:
            await self._in_thread(self._remove_old_files, manifests)

    # -- following -----------------------------------------------------------------------

    async def _follow(self) -> None:
        while True:
            is_well = await self._refresh_or_log()
            delay_ms = POLL_MS if is_well and self._is_complete else RETRY_MS
            await asyncio.sleep(delay_ms / 1000)

    async def _refresh_or_log(self) -> bool:
        try:
            await self.refresh()
        except (AuthzError, OSError) as error:
            log.event("decks_not_refreshed", level="warning", error=error)
            return False
        return True

    def _let_go(self, decks: list[Deck]) -> None:
        """Free decks that are no longer in force, while others come."""
        if decks:
            task = asyncio.create_task(_free(decks), name="replaced decks")
            self._freeing.add(task)
            task.add_done_callback(self._freeing.discard)

    def _has(self, manifest: Manifest) -> bool:
        deck = self._decks.get(manifest.facts.id)
        return deck is not None and deck.version == manifest.version

    async def _load(self, manifest: Manifest) -> bool:
        """Put one version in force in this process; false, and logged, if that fails."""
        deck_id = manifest.facts.id
        try:
            deck = await self._open(manifest)
        except (AuthzError, OSError) as error:
            log.event(
                "deck_not_loaded",
                level="error",
                error=error,
                deck=deck_id,
                version=manifest.version[:12],
                kept=deck_id in self._decks,
            )
            return False
        self._decks[deck_id] = deck
        log.event("deck_loaded", deck=deck_id, version=manifest.version[:12], prefixes=len(deck))
        return True

    async def _open(self, manifest: Manifest) -> Deck:
        """Return a deck from its file, which is written first if this host lacks it."""
        path = self._directory / f"{manifest.version}.deck"
        async with _locked(self._directory / f"{manifest.version}.lock"):
            try:
                return await self._in_thread(Deck.open, path, manifest.version)
            except DeckError as error:
                if await self._in_thread(path.exists):
                    log.event("deck_file_damaged", level="warning", error=error)
            await self._fetch_file(manifest, path)
        return await self._in_thread(Deck.open, path, manifest.version)

    async def _fetch_file(self, manifest: Manifest, path: Path) -> None:
        """Write a version's file from its chunks in the store."""
        file = await self._in_thread(_NewFile, path)
        try:
            async for chunk in self._published.chunks(manifest):
                await self._in_thread(file.write, chunk)
            await self._in_thread(file.commit, manifest.version)
        finally:
            file.close()

    async def _in_thread(self, work: Callable[..., T], *arguments: Any) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, work, *arguments)

    def _remove_old_files(self, manifests: list[Manifest]) -> None:
        """Remove files not in force for long; a process that has mapped one keeps it."""
        wanted = {manifest.version for manifest in manifests}
        oldest = int(time.time()) - FILE_KEEP_SECONDS
        for path in self._directory.iterdir():
            is_ours = path.suffix in {".deck", ".lock", ".part"}
            if is_ours and path.stem.partition("-")[0] not in wanted:
                with contextlib.suppress(FileNotFoundError):
                    if int(path.stat().st_mtime) < oldest:
                        path.unlink()


@contextlib.asynccontextmanager
async def _locked(path: Path) -> AsyncIterator[None]:
    """Hold a file's lock among the processes of this host; it ends with its holder.

    The file is not removed here: another process may be waiting at it. Raises DeckError when
    somebody holds it for too long.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    deadline = time.monotonic() + _LOCK_WAIT_SECONDS
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise DeckError(f"{path} is locked for too long") from None
            await asyncio.sleep(_LOCK_POLL_MS / 1000)
        yield
    finally:
        os.close(descriptor)


async def _free(decks: list[Deck]) -> None:
    """Free what decks keep ready piece by piece, so that no call waits for it."""
    while decks:
        deck = decks.pop()
        # Somebody may still ask it: then it goes with what was asked for meanwhile.
        for _ in range(0, ROWS_READY_MAX, _ROWS_FREED_AT_ONCE):
            if not deck.forget_rows(_ROWS_FREED_AT_ONCE):
                break
            await asyncio.sleep(_FREEING_PAUSE_SECONDS)


def _digest(decks: list[Deck]) -> int:
    """Return 48 bits, so that also a program that knows but floats holds them exactly."""
    text = "".join(f"{deck.facts.id}={deck.version}\n" for deck in decks)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=6).digest()) if text else 0


class _NewFile:
    """A file that appears whole or not at all, also after a power failure.

    Its methods wait for the disk: call them in a thread. They hold the interpreter's lock for
    one chunk at a time only, so that a large deck does not hold up the calls of its process.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        descriptor, name = tempfile.mkstemp(prefix=f"{path.stem}-", suffix=".part", dir=path.parent)
        self._file = open(descriptor, "wb", buffering=0)  # noqa: SIM115  # `close` ends it
        self._name = Path(name)
        self._hash = hashlib.sha256()

    def write(self, chunk: bytes) -> None:
        """Append a chunk."""
        self._hash.update(chunk)
        view = memoryview(chunk)
        while view:
            view = view[self._file.write(view) :]

    def commit(self, version: str) -> None:
        """Give the file its name. Raises DeckError unless its hash is `version`."""
        if self._hash.hexdigest() != version:
            raise DeckError(f"deck version {version[:12]} is damaged in the store")
        os.fchmod(self._file.fileno(), 0o644)
        os.fsync(self._file.fileno())
        self._name.replace(self._path)
        directory = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def close(self) -> None:
        """Close the file, and remove it if it was not committed."""
        self._file.close()
        self._name.unlink(missing_ok=True)
