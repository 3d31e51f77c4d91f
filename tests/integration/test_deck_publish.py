"""Decks through a real store: published at once or not at all, damaged never taken."""

from __future__ import annotations

import asyncio
import multiprocessing
import random
from collections.abc import AsyncIterator
from multiprocessing.queues import Queue
from pathlib import Path

import pytest
from helpers import until

from authz.errors import DeckError, InvalidInput, NotFound
from authz.rating import publish, registry
from authz.rating.compiled import CompiledDeck, DeckFacts, compile_deck
from authz.rating.deck import Deck
from authz.rating.importer import ImportOptions, import_deck
from authz.rating.publish import CHUNK_BYTES, PublishedDecks
from authz.rating.registry import DeckRegistry
from authz.store import keys
from authz.store.client import StoreClient

PROCESSES = 4


def build(price: str, deck_id: str = "retail", prefixes: int = 1) -> CompiledDeck:
    generator = random.Random(price)
    lines = [f"44,{price},\n"]
    # Descriptions that do not compress make a deck of several chunks of few rows.
    for number in range(prefixes - 1):
        lines.append(f"1{number:06d},0.01,{generator.randbytes(80).hex()}\n")
    text = "prefix,price,description\n" + "".join(lines)
    rows = import_deck(text.encode(), ImportOptions()).rows
    return compile_deck(rows, DeckFacts(id=deck_id, currency="USD", timezone="UTC"))


def price_in(decks: DeckRegistry, deck_id: str = "retail") -> str | None:
    deck = decks.get(deck_id)
    row = None if deck is None else deck.lookup("+442079460000", 0, 0)
    return None if row is None else row.rate.per_minute_text()


def names_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@pytest.fixture
def decks(store: StoreClient) -> PublishedDecks:
    return PublishedDecks(store)


@pytest.fixture
async def following(store: StoreClient, tmp_path: Path) -> AsyncIterator[DeckRegistry]:
    running = DeckRegistry(store, tmp_path / "decks")
    await running.start()
    yield running
    await running.stop()


async def chunk_keys(store: StoreClient, deck_id: str) -> list[bytes]:
    found: list[bytes] = await store.execute("KEYS", f"authz:deck:{deck_id}:*")
    kept = {keys.deck_uploads(deck_id), keys.deck_history(deck_id)}
    return sorted(set(found) - kept)


# --- publishing ------------------------------------------------------------------------------


async def test_a_deck_comes_back_as_it_was_published(any_store: StoreClient) -> None:
    decks = PublishedDecks(any_store)
    deck = build("0.01", prefixes=8_000)
    told: list[tuple[int, int]] = []
    manifest = await decks.publish(deck, lambda done, total: told.append((done, total)))
    assert manifest.chunks > 3
    assert told == [(done, manifest.chunks) for done in range(1, manifest.chunks + 1)]
    assert await decks.manifests() == [manifest]
    assert await decks.get("retail") == manifest
    assert await decks.fetch(manifest) == deck.data
    assert await decks.canonical("retail") == Deck(deck.data, deck.version).canonical()
    sizes = [
        len(await any_store.execute("GET", key)) for key in await chunk_keys(any_store, "retail")
    ]
    assert max(sizes) == CHUNK_BYTES


async def test_a_new_version_supersedes_the_old_one(
    store: StoreClient, decks: PublishedDecks
) -> None:
    first = await decks.publish(build("0.01"))
    old_mark = await decks.mark()
    second = await decks.publish(build("0.02"))
    assert await decks.mark() != old_mark
    assert await decks.get("retail") == second
    assert [line.version for line in await decks.history("retail")] == [
        second.version,
        first.version,
    ]
    # The old chunks stay for readers that are on their way, and then go.
    assert await decks.fetch(first) == build("0.01").data
    old_key = keys.deck_chunk("retail", first.upload, 0)
    assert 0 < await store.execute("TTL", old_key) <= publish.SUPERSEDED_KEEP_SECONDS
    assert await store.execute("TTL", keys.deck_chunk("retail", second.upload, 0)) == -1
    assert list(await store.execute("HKEYS", keys.deck_uploads("retail"))) == [
        second.upload.encode()
    ]


async def test_going_back_to_an_old_version_keeps_its_chunks(
    store: StoreClient, decks: PublishedDecks
) -> None:
    for price in ("0.01", "0.02", "0.01"):
        manifest = await decks.publish(build(price))
    assert await store.execute("TTL", keys.deck_chunk("retail", manifest.upload, 0)) == -1
    assert await decks.fetch(manifest) == build("0.01").data


async def test_the_same_version_is_published_once(
    store: StoreClient, decks: PublishedDecks
) -> None:
    first = await decks.publish(build("0.01"))
    mark = await decks.mark()
    assert await decks.publish(build("0.01")) == first
    assert await decks.mark() == mark
    assert len(await chunk_keys(store, "retail")) == first.chunks


async def test_a_publication_cut_off_changes_nothing_and_is_cleared_away(
    store: StoreClient, decks: PublishedDecks, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await decks.publish(build("0.01"))
    deck = build("0.02", prefixes=8_000)

    def fail_half_way(done: int, total: int) -> None:
        if done == total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await decks.publish(deck, fail_half_way)
    assert await decks.get("retail") == first
    assert await decks.fetch(first) == build("0.01").data
    left_over = len(await chunk_keys(store, "retail")) - first.chunks
    assert left_over > 0
    monkeypatch.setattr(publish, "UPLOAD_SECONDS_MAX", -1)
    last = await decks.publish(build("0.03"))
    for key in await chunk_keys(store, "retail"):
        is_last = last.upload.encode() in key
        assert (await store.execute("TTL", key) == -1) == is_last


async def test_many_publications_at_a_time_leave_one_whole_deck(
    store: StoreClient, decks: PublishedDecks
) -> None:
    versions = [build(f"0.{number}", prefixes=3_000) for number in range(1, 7)]
    await asyncio.gather(*(decks.publish(version) for version in versions))
    manifest = await decks.get("retail")
    assert manifest is not None
    assert manifest.version in {version.version for version in versions}
    assert (await decks.open("retail")).version == manifest.version
    assert await store.execute("TTL", keys.deck_chunk("retail", manifest.upload, 0)) == -1


async def test_a_deleted_deck_is_gone_and_may_come_again(
    store: StoreClient, decks: PublishedDecks
) -> None:
    assert not await decks.delete("retail")
    first = await decks.publish(build("0.01"))
    assert await decks.delete("retail")
    assert not await decks.delete("retail")
    assert await decks.manifests() == []
    with pytest.raises(NotFound, match="no deck retail"):
        await decks.open("retail")
    assert await store.execute("TTL", keys.deck_chunk("retail", first.upload, 0)) > 0
    again = await decks.publish(build("0.01"))
    assert await decks.fetch(again) == build("0.01").data


async def test_names_that_would_be_other_keys_are_refused(decks: PublishedDecks) -> None:
    for deck_id in ("", ":mark", "a:b", "a" * 65, "a b", "-a", "a\n"):
        with pytest.raises(InvalidInput, match="id"):
            await decks.publish(build("0.01", deck_id=deck_id))


async def test_a_missing_or_damaged_chunk_is_told(
    store: StoreClient, decks: PublishedDecks
) -> None:
    manifest = await decks.publish(build("0.01"))
    key = keys.deck_chunk("retail", manifest.upload, 0)
    await store.execute("SETRANGE", key, 100, b"damage")
    with pytest.raises(DeckError, match="damaged in the store"):
        await decks.fetch(manifest)
    await store.execute("DEL", key)
    with pytest.raises(DeckError, match=r"chunk 0 .* is missing"):
        await decks.fetch(manifest)


# --- following -------------------------------------------------------------------------------


async def test_every_follower_switches_over(
    decks: PublishedDecks, following: DeckRegistry, tmp_path: Path
) -> None:
    assert following.get("retail") is None
    for price in ("0.01", "0.02", "0.01"):
        manifest = await decks.publish(build(price))
        await until(lambda price=price: price_in(following) == price)
        assert (tmp_path / "decks" / f"{manifest.version}.deck").is_file()
    await decks.publish(build("5", deck_id="wholesale"))
    await until(lambda: price_in(following, "wholesale") == "5")
    assert [deck.id for deck in following.all()] == ["retail", "wholesale"]
    assert await decks.delete("retail")
    await until(lambda: following.get("retail") is None)
    assert price_in(following, "wholesale") == "5"


async def test_a_deck_published_before_is_there_after_the_start(
    store: StoreClient, decks: PublishedDecks, tmp_path: Path
) -> None:
    await decks.publish(build("0.01"))
    running = DeckRegistry(store, tmp_path)
    await running.start()
    assert price_in(running) == "0.01"
    await running.stop()
    await running.stop()


async def test_a_damaged_new_version_leaves_the_old_one_in_force(
    store: StoreClient,
    decks: PublishedDecks,
    following: DeckRegistry,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    await decks.publish(build("0.01"))
    await until(lambda: price_in(following) == "0.01")
    await following.stop()
    manifest = await decks.publish(build("0.02", prefixes=8_000))
    key = keys.deck_chunk("retail", manifest.upload, 1)
    good = await store.execute("GET", key)
    for damage in (b"", b"x" * len(good)):
        await store.execute("SET", key, damage)
        await following.refresh()
        assert price_in(following) == "0.01"
        assert "deck_not_loaded" in caplog.text
        assert not (tmp_path / "decks" / f"{manifest.version}.deck").exists()
        assert not list((tmp_path / "decks").glob("*.part"))
        caplog.clear()
    await store.execute("SET", key, good)
    await following.refresh()
    assert price_in(following) == "0.02"


async def test_a_damaged_file_is_fetched_again(
    store: StoreClient, decks: PublishedDecks, tmp_path: Path
) -> None:
    manifest = await decks.publish(build("0.01"))
    path = tmp_path / f"{manifest.version}.deck"
    path.write_bytes(b"torn")
    running = DeckRegistry(store, tmp_path)
    await running.start()
    assert price_in(running) == "0.01"
    assert path.stat().st_size == manifest.size_bytes
    await running.stop()


async def test_a_deck_in_use_outlives_its_chunks_and_its_file(
    store: StoreClient, decks: PublishedDecks, following: DeckRegistry, tmp_path: Path
) -> None:
    manifest = await decks.publish(build("0.01"))
    await until(lambda: price_in(following) == "0.01")
    (tmp_path / "decks" / f"{manifest.version}.deck").unlink()
    await store.execute("FLUSHALL")
    deck = following.get("retail")
    assert deck is not None
    assert deck.lookup("+4411", 0, 0) is not None
    await until(lambda: following.get("retail") is None)


async def test_a_replaced_deck_frees_its_rows_and_stays_readable(
    decks: PublishedDecks, following: DeckRegistry
) -> None:
    await decks.publish(build("0.01", prefixes=1_000))
    await until(lambda: price_in(following) == "0.01")
    old = following.get("retail")
    assert old is not None
    for number in range(999):
        assert old.lookup(f"+1{number:06}55", 0, 0) is not None
    await decks.publish(build("0.02"))
    await until(lambda: price_in(following) == "0.02")
    await until(lambda: not old.forget_rows(0))
    row = old.lookup("+442079460000", 0, 0)
    assert row is not None
    assert row.rate.per_minute_text() == "0.01"
    assert old.forget_rows(1)
    assert not old.forget_rows(1)


async def test_a_replaced_deck_that_is_long_in_going_delays_no_other(
    decks: PublishedDecks, following: DeckRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    await decks.publish(build("0.01"))
    await until(lambda: price_in(following) == "0.01")
    began = asyncio.Event()

    async def never_end(_: list[Deck]) -> None:
        began.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(registry, "_free", never_end)
    await decks.publish(build("0.02"))
    await asyncio.wait_for(began.wait(), 30)
    await decks.publish(build("0.03"))
    await until(lambda: price_in(following) == "0.03")


async def test_a_replaced_deck_goes_though_old_files_cannot_be_removed(
    decks: PublishedDecks, following: DeckRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    await decks.publish(build("0.01"))
    await until(lambda: price_in(following) == "0.01")
    old = following.get("retail")
    assert old is not None

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(following, "_remove_old_files", refuse)
    await decks.publish(build("0.02"))
    await until(lambda: price_in(following) == "0.02")
    await until(lambda: not old.forget_rows(0))


async def test_old_files_are_removed_and_others_left_alone(
    store: StoreClient,
    decks: PublishedDecks,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(registry, "FILE_KEEP_SECONDS", -1)
    (tmp_path / "notes.txt").write_text("mine")
    running = DeckRegistry(store, tmp_path)
    for price in ("0.01", "0.02"):
        manifest = await decks.publish(build(price))
        await running.refresh()
    assert names_in(tmp_path) == sorted(
        [f"{manifest.version}.deck", f"{manifest.version}.lock", "notes.txt"]
    )


async def test_a_store_that_is_away_keeps_the_decks(
    store: StoreClient, decks: PublishedDecks, tmp_path: Path
) -> None:
    await decks.publish(build("0.01"))
    running = DeckRegistry(store, tmp_path)
    await running.start()
    await store.close()
    await asyncio.sleep(3 * registry.POLL_MS / 1000)
    assert price_in(running) == "0.01"
    await running.stop()


# --- several processes of one host -----------------------------------------------------------


def _follow_until_second_deck(url: str, directory: Path, answers: Queue[str]) -> None:
    """Follow the store in a process of its own; report each price as it is in force."""

    async def main() -> None:
        client = await StoreClient.connect(url)
        running = DeckRegistry(client, directory)
        await running.start()
        for price in ("0.01", "0.02"):
            await until(lambda price=price: price_in(running) == price)
            answers.put(price)
        await running.stop()
        await client.close()

    asyncio.run(main())


async def test_processes_of_a_host_share_one_file(
    store_url: str, decks: PublishedDecks, tmp_path: Path
) -> None:
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    processes = [
        context.Process(target=_follow_until_second_deck, args=(store_url, tmp_path, answers))
        for _ in range(PROCESSES)
    ]
    await decks.publish(build("0.01", prefixes=8_000))
    for process in processes:
        process.start()
    try:
        seen = [await asyncio.to_thread(answers.get, True, 30) for _ in processes]
        assert set(seen) == {"0.01"}
        await decks.publish(build("0.02", prefixes=8_000))
        seen = [await asyncio.to_thread(answers.get, True, 30) for _ in processes]
        assert set(seen) == {"0.02"}
        kinds = [name.rpartition(".")[2] for name in names_in(tmp_path)]
        assert sorted(kinds) == ["deck", "deck", "lock", "lock"]
    finally:
        for process in processes:
            await asyncio.to_thread(process.join, 10)
            process.kill()
