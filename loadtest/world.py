"""The decks and accounts of a scenario, put into the daemon's store before a run."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import io
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from pathlib import Path
from typing import Final, TypeVar

from authz.admin.messages import DeckImportQuery
from authz.admin.services import Services
from authz.cli.session import open_session
from authz.config import Settings
from authz.config.archive import ArchiveSettings
from authz.config.sections import StoreSettings
from authz.engine.postings import CreditRequest
from authz.money import format_amount, parse_amount
from loadtest.plan import CallKind
from loadtest.scenario import AccountGroup, DeckPlan, Scenario, account_config

T = TypeVar("T")

#: Told (what, done, of how many) while a scenario is put into the store.
Progress = Callable[[str, int, int], None]

_AT_A_TIME: Final = 64
#: A published deck is in use in every process within this time.
_DECK_SECONDS: Final = 1
#: Generated prefixes have this many digits after that of their row.
_MILLION: Final = 1_000_000


@contextlib.asynccontextmanager
async def open_services(
    store_url: str, state_dir: Path | None = None, archive_url: str | None = None
) -> AsyncIterator[Services]:
    """Yield the operators' services on a store, whose daemon may have this archive."""
    with tempfile.TemporaryDirectory(prefix="authz-load-") as directory:
        settings = Settings(
            state_dir=state_dir or Path(directory),
            store=StoreSettings(url=store_url),
            archive=ArchiveSettings(url=archive_url),
        )
        async with open_session(settings) as services:
            yield services


async def prepare(services: Services, scenario: Scenario, run: str, progress: Progress) -> None:
    """Publish the decks, create the accounts and pay their credit in; all may be repeated.

    `run` makes the credits' references unique: each run pays anew.
    """
    for number, deck in enumerate(scenario.decks):
        progress("decks", number, len(scenario.decks))
        query = DeckImportQuery(id=scenario.deck_id(deck.name))
        await services.decks.import_file(query, deck_csv(deck))
    for group in scenario.accounts:
        await _prepare_group(services, scenario, group, run, progress)
    await asyncio.sleep(_DECK_SECONDS)


def call_kinds(scenario: Scenario) -> tuple[CallKind, ...]:
    """Return the mix with the accounts that place its calls."""
    return tuple(
        CallKind(
            accounts=tuple(scenario.group(call.accounts).account_ids(scenario.name)),
            to=call.to,
            weight=call.weight,
            talk_seconds=call.talk_seconds,
            unanswered=call.unanswered,
            direction=call.direction,
            ask_seconds=call.ask_seconds,
            emergency=call.emergency,
        )
        for call in scenario.calls
    )


def deck_csv(deck: DeckPlan) -> bytes:
    """Return a deck file: the given rows, and below them as many prefixes as are wanted."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("prefix", "description", "price", "increment"))
    for prefix, price in deck.rows.items():
        writer.writerow((prefix, f"Area {prefix}", price, deck.increment_seconds))
    writer.writerows(_generated_rows(deck))
    return text.getvalue().encode()


def _generated_rows(deck: DeckPlan) -> Iterator[tuple[str, str, str, int]]:
    """Yield distinct prefixes spread over the given ones, with prices around theirs."""
    parents = [(prefix, parse_amount(price)) for prefix, price in deck.rows.items()]
    for number in range(deck.prefixes):
        index, parent = divmod(number, len(parents))
        prefix, price = parents[parent]
        # A multiplier prime to a million visits every number below it once.
        digits = index * 617_291 % _MILLION
        micros = price + index % 97
        yield (
            f"{prefix}{digits:06}",
            f"Area {prefix}",
            format_amount(micros),
            deck.increment_seconds,
        )


async def _prepare_group(
    services: Services, scenario: Scenario, group: AccountGroup, run: str, progress: Progress
) -> None:
    parents: list[str | None] = [None]
    if group.parent is not None:
        parents = [*scenario.group(group.parent).account_ids(scenario.name)]
    done = 0

    async def make(number: int, account_id: str) -> None:
        nonlocal done
        config = account_config(scenario, group, parents[number % len(parents)])
        await services.accounts.put(account_id, config)
        if group.credit is not None:
            payment = CreditRequest(amount=group.credit, kind="payment", reference=f"load-{run}")
            await services.postings.credit(account_id, payment)
        done += 1
        progress(f"accounts {group.name}", done, group.count)

    ids = group.account_ids(scenario.name)
    await _some_at_a_time(make(number, account_id) for number, account_id in enumerate(ids))


async def _some_at_a_time(tasks: Iterable[Awaitable[T]]) -> None:
    """Run all, but only so many together."""
    waiting = iter(tasks)

    async def worker() -> None:
        for task in waiting:
            await task

    await asyncio.gather(*(worker() for _ in range(_AT_A_TIME)))
