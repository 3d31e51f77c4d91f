"""Decks as operators keep them: import with report and difference, list, export."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from zoneinfo import ZoneInfo

from msgspec import Struct

from authz.admin.messages import DeckImportQuery
from authz.config.sections import DeckSettings
from authz.engine.clock import format_moment
from authz.errors import InvalidInput
from authz.rating.compiled import CompiledDeck, DeckFacts, compile_deck
from authz.rating.deck import Deck
from authz.rating.diff import DeckDifference, compare_decks, rows_of_canonical
from authz.rating.importer import ImportOptions, Progress, import_deck
from authz.rating.publish import Manifest, PublishedDecks
from authz.rating.report import ImportReport
from authz.reasons import DIRECTIONS
from authz.store.client import StoreClient

_CHUNK_BYTES = 262_144


class DeckView(Struct, frozen=True, kw_only=True):
    """A deck in force."""

    id: str
    version: str
    currency: str
    timezone: str
    rows: int
    prefixes: int
    published_at: str


class DeckList(Struct, frozen=True):
    """All decks in force, by id."""

    decks: tuple[DeckView, ...]


class DeckImport(Struct, frozen=True, kw_only=True):
    """What an import did, or with `dry_run` would do.

    `published` is false for a dry run and for a file that says what is in force already.
    `difference` is that to the deck in force before.
    """

    deck: str
    version: str
    currency: str
    timezone: str
    dry_run: bool
    published: bool
    report: ImportReport
    difference: DeckDifference


class _Prepared(Struct, frozen=True):
    compiled: CompiledDeck
    report: ImportReport
    difference: DeckDifference


class DeckService:
    """Reads and publishes decks; safe in any number of processes at once."""

    def __init__(self, client: StoreClient, settings: DeckSettings) -> None:
        self._published = PublishedDecks(client)
        self._settings = settings
        # One at a time: a large deck needs a core and some hundred MB for a while.
        self._importing = asyncio.Lock()

    async def import_file(
        self, query: DeckImportQuery, data: bytes, progress: Progress | None = None
    ) -> DeckImport:
        """Import a deck file and put it in force, unless it is a dry run.

        Currency and time zone are, where the query is silent, those of the deck in force, else
        the settings'. `progress` is called in another thread. Raises DeckRefused with the report
        of bad lines, DeckError for a file that is no deck, InvalidInput for an unknown zone.
        """
        before = await self._published.get(query.id)
        facts = self._facts(query, before)
        old = None if before is None else await self._published.open(query.id)
        async with self._importing:
            prepared = await asyncio.to_thread(_prepare, facts, data, query.skip_bad, old, progress)
            compiled = prepared.compiled
            published = not query.dry_run and (before is None or before.version != compiled.version)
            if published:
                await self._published.publish(compiled)
        return DeckImport(
            deck=facts.id,
            version=compiled.version,
            currency=facts.currency,
            timezone=facts.timezone,
            dry_run=query.dry_run,
            published=published,
            report=prepared.report,
            difference=prepared.difference,
        )

    async def all(self) -> DeckList:
        """Return the decks in force."""
        return DeckList(tuple(map(_view, await self._published.manifests())))

    async def view(self, deck_id: str) -> DeckView | None:
        """Return what is known of one deck, or None."""
        manifest = await self._published.get(deck_id)
        return None if manifest is None else _view(manifest)

    async def find(self, deck_id: str) -> Deck:
        """Return a deck in force, straight from the store; raises NotFound."""
        return await self._published.open(deck_id)

    async def export(self, deck_id: str) -> Iterator[bytes]:
        """Return the canonical CSV in chunks; raises NotFound."""
        text = await self._published.canonical(deck_id)
        return (text[at : at + _CHUNK_BYTES] for at in range(0, len(text), _CHUNK_BYTES))

    def _facts(self, query: DeckImportQuery, before: Manifest | None) -> DeckFacts:
        defaults = self._settings if before is None else before.facts
        timezone = query.timezone or defaults.timezone
        try:
            ZoneInfo(timezone)
        except (ValueError, OSError, KeyError):
            raise InvalidInput("timezone", f"no time zone {timezone[:40]!r}") from None
        return DeckFacts(
            id=query.id,
            currency=query.currency or defaults.currency,
            timezone=timezone,
            direction=None if query.direction is None else DIRECTIONS[query.direction],
        )


def _prepare(
    facts: DeckFacts, data: bytes, skip_bad: bool, old: Deck | None, progress: Progress | None
) -> _Prepared:
    """Do the work of an import that needs no store: for another thread than the event loop's."""
    options = ImportOptions(currency=facts.currency, direction=facts.direction, skip_bad=skip_bad)
    imported = import_deck(data, options, progress)
    old_rows = () if old is None else rows_of_canonical(old.canonical(), old.currency)
    difference = compare_decks(old_rows, imported.rows, facts.timezone, int(time.time()))
    return _Prepared(compile_deck(imported.rows, facts), imported.report, difference)


def _view(manifest: Manifest) -> DeckView:
    facts = manifest.facts
    return DeckView(
        id=facts.id,
        version=manifest.version,
        currency=facts.currency,
        timezone=facts.timezone,
        rows=facts.rows,
        prefixes=facts.prefixes,
        published_at=format_moment(manifest.published_at),
    )
