"""Decks in the store: published in chunks, switched over in one command, read by every process.

`authz:decks` is one hash: a field for each deck with its manifest, and a mark that changes with
every publication. Both are written by the same HSET, so that whoever sees a new mark sees the
new manifest, and its chunks are all there before. Each publication writes chunks of its own;
those it supersedes expire after a grace in which slower readers finish.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import secrets
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, Final, Protocol

import msgspec
from msgspec import Struct

from authz.errors import DeckError, InvalidInput, NotFound
from authz.model import ACCOUNT_ID_PATTERN
from authz.rating.compiled import CompiledDeck, DeckFacts
from authz.rating.deck import Deck
from authz.store import keys

#: Larger values would stall the store for everybody.
CHUNK_BYTES: Final = 64 * 1024
#: Between two chunks: at most 13 MB a second come into the store, and from it to its disk.
_CHUNK_PAUSE_SECONDS: Final = 0.005
#: How long the chunks of a superseded version stay readable.
SUPERSEDED_KEEP_SECONDS: Final = 600
#: An upload that has not become current within this time is given up and cleared away.
UPLOAD_SECONDS_MAX: Final = 3_600
#: Versions of a deck that its history names.
HISTORY_MAX: Final = 100
_DEADLINE_MS: Final = 5_000
_READS_IN_FLIGHT: Final = 4
#: Field of the mark; no deck can have this name.
_MARK: Final = b":mark"
_ID = re.compile(ACCOUNT_ID_PATTERN)

#: Called with (chunks done, chunks in all).
Progress = Callable[[int, int], None]


class Store(Protocol):
    """What is needed of authz.store.client.StoreClient."""

    async def execute(self, *command: bytes | str | int, deadline_ms: int = 1_000) -> Any:
        """Send one command and return its reply."""


class Manifest(Struct, frozen=True, kw_only=True):
    """A deck in force: its facts, its version, and where its chunks are."""

    facts: DeckFacts
    version: str
    #: Names the publication; its chunks' keys carry it.
    upload: str
    size_bytes: int
    chunks: int
    published_at: int


class DeckVersion(Struct, frozen=True, kw_only=True):
    """One line of a deck's history."""

    version: str
    published_at: int
    rows: int
    prefixes: int


class _Upload(Struct, frozen=True):
    """Chunks that were or are being written."""

    chunks: int
    started_at: int


class PublishedDecks:
    """The decks in the store. Raises what the store's client raises, besides what is named."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def publish(self, deck: CompiledDeck, progress: Progress | None = None) -> Manifest:
        """Put a compiled deck in force; return its manifest.

        Nothing is written when this version is in force already. A publication that ends half
        way changes nothing that anybody sees. Of two at a time the later one counts.
        """
        deck_id = check_deck_id(deck.facts.id)
        before = await self.get(deck_id)
        if before is not None and before.version == deck.version:
            return before
        now = int(time.time())
        chunks = -(-len(deck.data) // CHUNK_BYTES)
        manifest = Manifest(
            facts=deck.facts,
            version=deck.version,
            upload=secrets.token_hex(8),
            size_bytes=len(deck.data),
            chunks=chunks,
            published_at=now,
        )
        await self._write_chunks(manifest, deck.data, progress)
        await self._switch(deck_id, msgspec.json.encode(manifest))
        await self._note_version(manifest)
        await self._clear(deck_id, keep=manifest.upload, superseded=before)
        return manifest

    async def mark(self) -> bytes | None:
        """Return the mark of the last publication: as long as it stays, nothing has changed."""
        mark: bytes | None = await self._execute("HGET", keys.decks(), _MARK)
        return mark

    async def manifests(self) -> list[Manifest]:
        """Return the manifests of the decks in force, by id."""
        _, manifests = await self.read()
        return manifests

    async def read(self) -> tuple[bytes | None, list[Manifest]]:
        """Return the mark and the manifests that belong to it, by id."""
        reply: list[bytes] = await self._execute("HGETALL", keys.decks())
        fields = dict(zip(reply[::2], reply[1::2], strict=True))
        mark = fields.pop(_MARK, None)
        manifests = [_manifest(name.decode(), text) for name, text in fields.items() if text]
        return mark, sorted(manifests, key=lambda manifest: manifest.facts.id)

    async def get(self, deck_id: str) -> Manifest | None:
        """Return the manifest of a deck in force, or None."""
        text: bytes | None = await self._execute("HGET", keys.decks(), deck_id)
        return _manifest(deck_id, text) if text else None

    async def chunks(self, manifest: Manifest) -> AsyncIterator[bytes]:
        """Yield a compiled deck piece by piece; its whole hash is for the caller to check.

        Raises DeckError where a chunk is missing.
        """
        for start in range(0, manifest.chunks, _READS_IN_FLIGHT):
            numbers = range(start, min(start + _READS_IN_FLIGHT, manifest.chunks))
            for chunk in await asyncio.gather(
                *(self._chunk(manifest, number) for number in numbers)
            ):
                yield chunk

    async def fetch(self, manifest: Manifest) -> bytes:
        """Return a compiled deck. Raises DeckError where a chunk is missing or damaged."""
        chunks = [chunk async for chunk in self.chunks(manifest)]
        return await asyncio.to_thread(_join, chunks, manifest)

    async def open(self, deck_id: str) -> Deck:
        """Return a deck in force straight from the store, for exports and comparisons.

        Raises NotFound without such a deck, and DeckError for a damaged one.
        """
        manifest = await self.get(deck_id)
        if manifest is None:
            raise NotFound(f"no deck {deck_id}")
        return Deck(await self.fetch(manifest), manifest.version)

    async def canonical(self, deck_id: str) -> bytes:
        """Return the canonical CSV of a deck in force. Raises as `open` does."""
        deck = await self.open(deck_id)
        return await asyncio.to_thread(deck.canonical)

    async def history(self, deck_id: str) -> list[DeckVersion]:
        """Return the versions that were put in force, the newest first."""
        lines: list[bytes] = await self._execute("LRANGE", keys.deck_history(deck_id), 0, -1)
        return [msgspec.json.decode(line, type=DeckVersion) for line in reversed(lines)]

    async def delete(self, deck_id: str) -> bool:
        """Take a deck out of force; return whether there was one. Its history stays."""
        before = await self.get(deck_id)
        if before is None:
            return False
        await self._switch(deck_id, b"")
        await self._clear(deck_id, keep=None, superseded=before)
        return True

    # -- one publication -----------------------------------------------------------------

    async def _write_chunks(
        self, manifest: Manifest, data: bytes, progress: Progress | None
    ) -> None:
        """Write all chunks, one at a time and slowly: the calls' commands come between.

        The upload is noted first: if it ends half way, a later publication clears it away.
        """
        deck_id = manifest.facts.id
        note = msgspec.json.encode(_Upload(manifest.chunks, manifest.published_at))
        await self._execute("HSET", keys.deck_uploads(deck_id), manifest.upload, note)
        view = memoryview(data)
        for number in range(manifest.chunks):
            chunk = bytes(view[number * CHUNK_BYTES : (number + 1) * CHUNK_BYTES])
            key = keys.deck_chunk(deck_id, manifest.upload, number)
            await self._execute("SET", key, chunk)
            if progress is not None:
                progress(number + 1, manifest.chunks)
            await asyncio.sleep(_CHUNK_PAUSE_SECONDS)

    async def _switch(self, deck_id: str, manifest: bytes) -> None:
        """Write manifest and mark in one command. An empty manifest is no deck.

        The field of a deleted deck stays, empty: removing it afterwards could remove what
        somebody publishes meanwhile.
        """
        mark = secrets.token_hex(8)
        await self._execute("HSET", keys.decks(), deck_id, manifest, _MARK, mark)

    async def _note_version(self, manifest: Manifest) -> None:
        line = DeckVersion(
            version=manifest.version,
            published_at=manifest.published_at,
            rows=manifest.facts.rows,
            prefixes=manifest.facts.prefixes,
        )
        key = keys.deck_history(manifest.facts.id)
        await self._execute("RPUSH", key, msgspec.json.encode(line))
        await self._execute("LTRIM", key, -HISTORY_MAX, -1)

    async def _clear(self, deck_id: str, *, keep: str | None, superseded: Manifest | None) -> None:
        """Let the chunks expire of what is superseded and of uploads that were given up."""
        uploads_key = keys.deck_uploads(deck_id)
        reply: list[bytes] = await self._execute("HGETALL", uploads_key)
        now = int(time.time())
        for name, text in zip(reply[::2], reply[1::2], strict=True):
            name_text = name.decode()
            upload = msgspec.json.decode(text, type=_Upload)
            is_superseded = superseded is not None and name_text == superseded.upload
            is_given_up = upload.started_at + UPLOAD_SECONDS_MAX < now
            if name_text == keep or not (is_superseded or is_given_up):
                continue
            if await self._is_in_force(deck_id, name_text):
                continue
            for number in range(upload.chunks):
                key = keys.deck_chunk(deck_id, name_text, number)
                await self._execute("EXPIRE", key, SUPERSEDED_KEEP_SECONDS)
            await self._execute("HDEL", uploads_key, name)

    async def _is_in_force(self, deck_id: str, upload: str) -> bool:
        """Ask again whose turn it is: another publication may have come between."""
        manifest = await self.get(deck_id)
        return manifest is not None and manifest.upload == upload

    async def _chunk(self, manifest: Manifest, number: int) -> bytes:
        key = keys.deck_chunk(manifest.facts.id, manifest.upload, number)
        chunk: bytes | None = await self._execute("GET", key)
        if chunk is None:
            raise DeckError(
                f"deck {manifest.facts.id}: chunk {number} of version {manifest.version[:12]} "
                "is missing in the store"
            )
        return chunk

    async def _execute(self, *command: bytes | str | int) -> Any:
        return await self._store.execute(*command, deadline_ms=_DEADLINE_MS)


def check_deck_id(deck_id: str) -> str:
    """Return a deck's id; raises InvalidInput unless it is formed like an account's."""
    if _ID.fullmatch(deck_id) is None:
        raise InvalidInput("id", f"{deck_id[:80]!r} does not match {ACCOUNT_ID_PATTERN}")
    return deck_id


def _manifest(deck_id: str, text: bytes) -> Manifest:
    try:
        return msgspec.json.decode(text, type=Manifest)
    except msgspec.DecodeError as error:
        raise DeckError(f"the store's manifest of deck {deck_id} is damaged: {error}") from None


def _join(chunks: list[bytes], manifest: Manifest) -> bytes:
    data = b"".join(chunks)
    if len(data) != manifest.size_bytes or hashlib.sha256(data).hexdigest() != manifest.version:
        raise DeckError(
            f"deck {manifest.facts.id}: version {manifest.version[:12]} is damaged in the store"
        )
    return data
