"""Old files of the store's log outlive their removal by the store, and go piece by piece."""

from __future__ import annotations

import itertools
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from authz.store.embedded import EmbeddedStore
from authz.store.retired_logs import PIECE_BYTES, RetiredLogs

_VALUE = os.urandom(1 << 20)
_REWRITE_SECONDS_MAX = 30


@pytest.fixture
def store(tmp_path: Path) -> Iterator[EmbeddedStore]:
    with EmbeddedStore(tmp_path / "state") as store:
        yield store


@pytest.fixture
def logs(store: EmbeddedStore) -> RetiredLogs:
    return RetiredLogs(store.data_dir)


def names(store: EmbeddedStore, directory: str) -> set[str]:
    return {path.name.rpartition("-")[0] or path.name for path in files(store, directory)}


def files(store: EmbeddedStore, directory: str) -> list[Path]:
    return sorted((store.data_dir / directory).glob("appendonly.aof.[0-9]*"))


def fill(client: redis.Redis, megabytes: int) -> None:
    """Let the log grow while the data do not."""
    for _ in range(megabytes):
        client.set("filler", _VALUE)


def rewrite(client: redis.Redis) -> None:
    client.bgrewriteaof()
    deadline = time.monotonic() + _REWRITE_SECONDS_MAX
    while time.monotonic() < deadline:
        state = client.info("persistence")
        if not state["aof_rewrite_in_progress"] and not state["aof_rewrite_scheduled"]:
            return
        time.sleep(0.02)
    raise TimeoutError


def test_what_a_rewrite_replaces_is_removed_piece_by_piece(
    store: EmbeddedStore, logs: RetiredLogs
) -> None:
    with redis.Redis.from_url(store.url) as client:
        fill(client, 20)
        logs.hold()
        before = names(store, "retired")
        assert before == names(store, "appendonlydir")
        assert not logs.release_piece(), "all of it is in use"
        rewrite(client)
        assert not before & names(store, "appendonlydir")
        assert names(store, "retired") == before
        old = max(files(store, "retired"), key=lambda path: path.stat().st_size)
        sizes = [old.stat().st_size]
        while logs.release_piece():
            sizes.append(old.stat().st_size)
        assert sizes[0] > 20 << 20
        assert [one - other for one, other in itertools.pairwise(sizes)] == (
            [PIECE_BYTES] * (len(sizes) - 1)
        )
        assert len(sizes) == 3
        assert files(store, "retired") == []
        assert client.get("filler") == _VALUE


def test_another_owner_removes_what_was_left_and_the_data_are_whole(
    store: EmbeddedStore, logs: RetiredLogs
) -> None:
    with redis.Redis.from_url(store.url) as client:
        fill(client, 20)
        client.set("kept", "1")
        logs.hold()
        rewrite(client)
        logs.hold()
        assert logs.release_piece(), "there is more"
        client.set("kept", "2")
    store.stop()
    store.start()
    successor = RetiredLogs(store.data_dir)
    successor.hold()
    while successor.release_piece():
        pass
    assert names(store, "retired") == names(store, "appendonlydir")
    with redis.Redis.from_url(store.url) as client:
        assert client.get("kept") == b"2"


def test_a_file_that_somebody_removed_by_mistake_stays(
    store: EmbeddedStore, logs: RetiredLogs
) -> None:
    logs.hold()
    held = files(store, "retired")
    for path in files(store, "appendonlydir"):
        path.unlink()
    assert not logs.release_piece()
    logs.clear()
    assert files(store, "retired") == held


def test_copies_of_what_the_log_has_are_removed(store: EmbeddedStore, logs: RetiredLogs) -> None:
    """As a copy of the whole state directory makes them, which follows no links."""
    logs.hold()
    for path in files(store, "retired"):
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(content)
    assert not logs.release_piece()
    assert files(store, "retired") == []
    assert files(store, "appendonlydir") != []


def test_a_copy_that_keeps_links_gets_no_further_names(
    store: EmbeddedStore, logs: RetiredLogs, tmp_path: Path
) -> None:
    logs.hold()
    copied = tmp_path / "copied"
    subprocess.run(["cp", "-a", store.data_dir, copied], check=True)
    copy = RetiredLogs(copied)
    copy.hold()
    assert len(list((copied / "retired").iterdir())) == len(files(store, "retired"))
    for path in (copied / "appendonlydir").glob("appendonly.aof.[0-9]*"):
        path.unlink()
    (copied / "appendonlydir" / "appendonly.aof.manifest").write_text("")
    assert not copy.release_piece()
    assert list((copied / "retired").iterdir()) == []


def test_another_file_system_takes_no_names(
    store: EmbeddedStore, logs: RetiredLogs, tmp_path: Path
) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as elsewhere:
        if os.stat(elsewhere).st_dev == os.stat(store.data_dir).st_dev:
            pytest.skip("there is one file system only")
        (store.data_dir / "retired").symlink_to(elsewhere)
        with pytest.raises(OSError, match="cross-device"):
            logs.hold()
        assert not logs.release_piece()
        assert files(store, "retired") == []
    (store.data_dir / "retired").unlink()
    logs.hold()
    assert names(store, "retired") == names(store, "appendonlydir")


def test_nothing_is_left_once_the_store_has_ended(store: EmbeddedStore, logs: RetiredLogs) -> None:
    logs.hold()
    store.stop()
    logs.clear()
    assert not (store.data_dir / "retired").exists()
    assert files(store, "appendonlydir") != []
    logs.clear()


def test_a_store_of_another_kind_is_left_alone(tmp_path: Path) -> None:
    logs = RetiredLogs(tmp_path)
    logs.hold()
    assert not logs.release_piece()
    logs.clear()
    assert list(tmp_path.iterdir()) == []
