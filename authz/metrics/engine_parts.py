"""The parts that tell what this process knows: decks, the last census, the last audit, archive."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from authz.ledger.streams import DrainStatus
from authz.metrics.readings import Readings
from authz.metrics.surveys import Surveys
from authz.rating.deck import Deck

#: Decks that have a series of their own; a carrier with more of them looks them up elsewhere.
_DECKS_MAX: Final = 200
_VERSION_LENGTH: Final = 12


class DecksPart:
    """The decks in force."""

    name = "decks"

    def __init__(self, decks: Callable[[], Sequence[Deck]]) -> None:
        """`decks` returns them by id."""
        self._decks = decks

    async def read(self) -> Readings:
        """Return how many there are, and which."""
        readings = Readings()
        decks = self._decks()
        readings.add("authz_decks", len(decks))
        for deck in decks[:_DECKS_MAX]:
            version = deck.version[:_VERSION_LENGTH]
            readings.add("authz_deck_info", 1, deck.facts.id, version, deck.facts.currency)
        return readings


class MoneyPart:
    """The sums of the last census."""

    name = "money"

    def __init__(self, surveys: Surveys) -> None:
        """Tell what these surveys have found."""
        self._surveys = surveys

    async def read(self) -> Readings:
        """Return nothing before the first census has ended."""
        readings = Readings()
        self._surveys.note_interest()
        census = self._surveys.census
        if census is None:
            return readings
        readings.add("authz_census_timestamp_seconds", self._surveys.census_at)
        for (level, currency), purse in census.purses.items():
            readings.add("authz_accounts", purse.accounts, level, currency)
            for name, amount_micros in (
                ("authz_balance_units", purse.balance_micros),
                ("authz_held_units", purse.held_micros),
                ("authz_used_units", purse.used_micros),
            ):
                readings.add_money(name, amount_micros, level, currency)
        for state, accounts in census.states.items():
            readings.add("authz_accounts_in_state", accounts, state)
        for call_class, calls in census.class_calls.items():
            readings.add("authz_class_calls", calls, call_class)
        for key, calls in census.trunk_calls.items():
            readings.add("authz_trunk_calls", calls, *key)
        for key, channels in census.trunk_channels.items():
            readings.add("authz_trunk_channels", channels, *key)
        return readings


class AuditPart:
    """What the last audit of each bucket has found."""

    name = "audit"

    def __init__(self, surveys: Surveys) -> None:
        """Tell what these surveys have found."""
        self._surveys = surveys

    async def read(self) -> Readings:
        """Return the sums over all buckets."""
        readings = Readings()
        readings.add("authz_audit_findings", self._surveys.findings)
        readings.add("authz_audit_moving_accounts", self._surveys.moving)
        readings.add("authz_audit_timestamp_seconds", self._surveys.audited_since)
        return readings


class ArchiveState(Protocol):
    """What the part asks of the archive."""

    @property
    def statuses(self) -> Sequence[DrainStatus]:
        """How far each stream was archived at the last turn."""

    @property
    def obstacle(self) -> str | None:
        """Why nothing is archived at present, or None."""


class ArchivePart:
    """How far the streams are archived."""

    name = "archive"

    def __init__(self, archive: ArchiveState) -> None:
        """Tell of this archive."""
        self._archive = archive

    async def read(self) -> Readings:
        """Return sums over the buckets, and the greatest age."""
        readings = Readings()
        readings.add("authz_archive_up", self._archive.obstacle is None)
        entries: dict[str, int] = {}
        seconds: dict[str, int] = {}
        forks: dict[str, int] = {}
        for one in self._archive.statuses:
            entries[one.stream] = entries.get(one.stream, 0) + one.entries_behind
            seconds[one.stream] = max(seconds.get(one.stream, 0), one.seconds_behind)
            forks[one.stream] = forks.get(one.stream, 0) + (one.fork is not None)
        for stream, behind in entries.items():
            readings.add("authz_archive_behind_entries", behind, stream)
            readings.add("authz_archive_behind_seconds", seconds[stream], stream)
            readings.add("authz_archive_forked_streams", forks[stream], stream)
        return readings
