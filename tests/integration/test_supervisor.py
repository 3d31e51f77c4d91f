"""The supervisor with real processes: spreading, restarts, draining, reloads, systemd."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from processes import is_alive, until

LIMIT_SECONDS = 90
SCRIPT = Path(__file__).with_name("tiny_serve.py")


class Daemon:
    """A running `tiny_serve.py serve`; `events` are the lines it has logged so far."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.config = directory / "authz.toml"
        self.socket_path = directory / "hook.sock"
        self.events: list[dict[str, Any]] = []
        self.noise: list[str] = []
        self.process: asyncio.subprocess.Process
        self._reading: asyncio.Task[None]
        self._heard = asyncio.Condition()

    def write_config(self, *, workers: int = 2, chunk_seconds: int = 60, **server: int) -> None:
        server = {"drain_seconds": 5, **server}
        lines = "\n".join(f"{name} = {value}" for name, value in server.items())
        self.config.write_text(
            f'state_dir = "{self.directory}"\n'
            '[store]\nurl = "redis://127.0.0.1:1"\n'
            f'[hook]\nlisten = "127.0.0.1:0"\nunix_socket = "{self.socket_path}"\n'
            f"workers = {workers}\n"
            '[admin]\nlisten = "127.0.0.1:0"\n'
            f"[calls]\nchunk_seconds = {chunk_seconds}\n"
            f'[server]\n{lines}\n[log]\nformat = "json"\n'
        )

    async def start(self, **environ: str) -> None:
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(SCRIPT),
            "serve",
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "CONFIG": str(self.config), **environ},
        )
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        stream = self.process.stderr
        assert stream is not None
        async for line in stream:
            async with self._heard:
                if line.startswith(b"{"):
                    self.events.append(json.loads(line))
                else:
                    self.noise.append(line.decode())
                self._heard.notify_all()

    async def saw(self, event: str, count: int = 1, **fields: Any) -> list[dict[str, Any]]:
        """Wait until that many such events are logged, and return them."""

        def found() -> list[dict[str, Any]]:
            return [
                one
                for one in self.events
                if one["event"] == event and fields.items() <= one.items()
            ]

        async with self._heard:
            async with asyncio.timeout(LIMIT_SECONDS):
                await self._heard.wait_for(lambda: len(found()) >= count)
        return found()

    async def wait(self) -> int:
        async with asyncio.timeout(LIMIT_SECONDS):
            status = await self.process.wait()
            await self._reading
        return status

    async def stop(self) -> int:
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(signal.SIGTERM)
        return await self.wait()

    async def connect(self, kind: str = "unix") -> Connection:
        if kind == "unix":
            return Connection(*await asyncio.open_unix_connection(self.socket_path))
        serving = (await self.saw("serving"))[-1]
        host, _, port = serving["listeners"]["hook_tcp"].rpartition(":")
        return Connection(*await asyncio.open_connection(host, int(port)))


class Connection:
    """A connection of a switch."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def ask(self, words: str) -> str:
        """Return the answer, or an empty text when the connection ends instead."""
        self.writer.write(f"{words}\n".encode())
        return await self.answer()

    async def answer(self) -> str:
        async with asyncio.timeout(LIMIT_SECONDS):
            return (await self.reader.readline()).decode().strip()

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[Daemon]:
    one = Daemon(tmp_path)
    one.write_config()
    try:
        yield one
    finally:
        await one.stop()


@pytest.mark.parametrize("kind", ["tcp", "unix"])
async def test_four_connections_are_two_for_each_of_two_workers(daemon: Daemon, kind: str) -> None:
    await daemon.start()
    await daemon.saw("serving")
    for _ in range(2):
        switch = [await daemon.connect(kind) for _ in range(4)]
        served = Counter([await one.ask("who") for one in switch])
        assert sorted(served.values()) == [2, 2]
        for one in switch:
            await one.close()
        # The supervisor hears of an end from the worker; when it has, nothing shows outside.
        await asyncio.sleep(0.5)


async def test_the_worker_with_fewer_connections_gets_the_next(daemon: Daemon) -> None:
    await daemon.start()
    await daemon.saw("serving")
    switch = [await daemon.connect() for _ in range(4)]
    pids = [await one.ask("who") for one in switch]
    leaving = [one for one, pid in zip(switch, pids, strict=True) if pid == pids[0]]
    for one in leaving:
        await one.close()
    await asyncio.sleep(0.5)
    again = [await daemon.connect() for _ in range(2)]
    assert [await one.ask("who") for one in again] == [pids[0]] * 2
    for one in set(switch) - set(leaving) | set(again):
        await one.close()


async def test_a_killed_worker_is_replaced_while_the_others_serve(daemon: Daemon) -> None:
    await daemon.start()
    await daemon.saw("serving")
    switch = [await daemon.connect() for _ in range(2)]
    pids = [await one.ask("who") for one in switch]
    os.kill(int(pids[0]), signal.SIGKILL)
    assert await switch[0].answer() == ""
    assert await switch[1].ask("who") == pids[1]
    ended = await daemon.saw("process_ended")
    assert ended[0]["detail"] == "killed by signal 9"
    await daemon.saw("process_ready", count=4)
    fresh = await daemon.connect()
    assert await fresh.ask("who") not in pids
    for one in [*switch, fresh]:
        await one.close()


async def test_a_worker_that_is_told_to_end_gets_no_more_connections(daemon: Daemon) -> None:
    await daemon.start()
    await daemon.saw("serving")
    busy = await daemon.connect()
    pid = int(await busy.ask("who"))
    busy.writer.write(b"sleep 1\n")
    await asyncio.sleep(0.2)
    os.kill(pid, signal.SIGTERM)
    await asyncio.sleep(0.2)
    others = [await daemon.connect() for _ in range(3)]
    assert str(pid) not in [await one.ask("who") for one in others]
    assert int(await busy.answer()) == pid
    assert (await daemon.saw("process_ended"))[0]["detail"] == "exit status 0"
    await daemon.saw("process_ready", count=4)
    for one in [busy, *others]:
        await one.close()


@pytest.mark.parametrize("kind", ["tcp", "unix"])
async def test_a_single_worker_listens_itself_and_its_backlog_survives_it(
    daemon: Daemon, kind: str
) -> None:
    daemon.write_config(workers=1)
    await daemon.start()
    await daemon.saw("serving")
    first = await daemon.connect(kind)
    pid = int(await first.ask("who"))
    os.kill(pid, signal.SIGSTOP)
    waiting = await daemon.connect(kind)
    os.kill(pid, signal.SIGKILL)
    assert int(await waiting.ask("who")) != pid
    await first.close()
    await waiting.close()


async def test_children_end_when_the_supervisor_is_killed(daemon: Daemon) -> None:
    await daemon.start()
    await daemon.saw("serving")
    pids = [one["pid"] for one in await daemon.saw("process_ready", count=3)]
    switch = await daemon.connect()
    switch.writer.write(b"sleep 0.3\n")
    await asyncio.sleep(0.1)
    daemon.process.kill()
    assert await switch.answer() in map(str, pids)
    await until(lambda: not any(is_alive(pid) for pid in pids))
    await switch.close()


@pytest.mark.parametrize("workers", [1, 2])
async def test_sigterm_finishes_what_is_begun(daemon: Daemon, workers: int) -> None:
    daemon.write_config(workers=workers)
    await daemon.start()
    await daemon.saw("serving")
    idle = await daemon.connect()
    pid = await idle.ask("who")
    busy = await daemon.connect()
    busy.writer.write(b"sleep 1\n")
    await asyncio.sleep(0.2)
    daemon.process.send_signal(signal.SIGTERM)
    await daemon.saw("stopping")
    assert await busy.answer() != ""
    assert await daemon.wait() == 0
    assert not is_alive(int(pid))
    assert not daemon.socket_path.exists()
    assert [one["event"] for one in daemon.events][-1] == "stopped"
    await idle.close()
    await busy.close()


async def test_a_drain_is_bounded(daemon: Daemon) -> None:
    daemon.write_config(drain_seconds=1)
    await daemon.start()
    await daemon.saw("serving")
    busy = await daemon.connect()
    busy.writer.write(b"sleep 3600\n")
    await asyncio.sleep(0.2)
    assert await daemon.stop() == 0
    assert await busy.answer() == ""
    await busy.close()


async def test_a_second_signal_ends_at_once(daemon: Daemon) -> None:
    daemon.write_config(drain_seconds=600)
    await daemon.start()
    await daemon.saw("serving")
    busy = await daemon.connect()
    busy.writer.write(b"sleep 3600\n")
    await asyncio.sleep(0.2)
    daemon.process.send_signal(signal.SIGTERM)
    await daemon.saw("stopping")
    daemon.process.send_signal(signal.SIGTERM)
    await daemon.saw("stopping_at_once")
    assert await daemon.wait() == 0
    await busy.close()


async def test_a_process_that_crashes_again_and_again_ends_the_daemon(daemon: Daemon) -> None:
    daemon.write_config(crashes_max=3)
    await daemon.start(FAULT="crash:worker-2")
    assert await daemon.wait() == 1
    assert "worker-2 ended 3 times in a row" in daemon.noise[-1]
    assert "exit status 7" in daemon.noise[-1]
    assert len(await daemon.saw("process_retried")) == 2


async def test_a_crash_loop_that_begins_later_ends_the_daemon_too(daemon: Daemon) -> None:
    daemon.write_config(crashes_max=2)
    await daemon.start()
    ready = {one["name"]: one["pid"] for one in await daemon.saw("process_ready", count=3)}
    await daemon.saw("serving")
    (daemon.directory / "crash:office").touch()
    os.kill(ready["office"], signal.SIGKILL)
    assert await daemon.wait() == 1
    assert "office ended 2 times in a row" in daemon.noise[-1]
    assert not any(is_alive(pid) for pid in ready.values())


async def test_a_wrong_setting_is_told_at_once(daemon: Daemon) -> None:
    await daemon.start(FAULT="setting:office")
    assert await daemon.wait() == 2
    assert daemon.noise[-1] == "Error: hook.token: as the test wants it\n"
    assert not [one for one in daemon.events if one["event"] == "process_retried"]


async def test_a_hanging_worker_is_killed_and_replaced(daemon: Daemon) -> None:
    daemon.write_config(hang_seconds=2)
    await daemon.start()
    await daemon.saw("serving")
    switch = await daemon.connect()
    pid = int(await switch.ask("who"))
    switch.writer.write(b"hang\n")
    assert (await daemon.saw("process_hangs"))[0]["pid"] == pid
    assert await switch.answer() == ""
    await daemon.saw("process_ready", count=4)
    await switch.close()


@pytest.mark.parametrize(("before", "after"), [(1, 1), (2, 2), (1, 3), (2, 1)])
async def test_sighup_replaces_the_workers_without_a_gap(
    daemon: Daemon, before: int, after: int
) -> None:
    daemon.write_config(workers=before)
    await daemon.start()
    await daemon.saw("serving")
    old = [await daemon.connect() for _ in range(before)]
    pids = {await one.ask("who") for one in old}
    old[0].writer.write(b"sleep 0.5\n")
    await asyncio.sleep(0.1)
    daemon.write_config(workers=after, chunk_seconds=90)
    daemon.process.send_signal(signal.SIGHUP)
    answers = set()
    while not [one for one in daemon.events if one["event"] == "reloaded"]:
        probe = await daemon.connect()
        # Accepted by a worker that then drained: an empty answer is a closed connection.
        answers.add(await probe.ask("chunk"))
        await probe.close()
        await asyncio.sleep(0.01)
    assert await old[0].answer() in pids
    fresh = [await daemon.connect() for _ in range(after)]
    assert [await one.ask("chunk") for one in fresh] == ["90"] * after
    served = {await one.ask("who") for one in fresh}
    assert len(served) == after
    assert not served & pids
    assert answers <= {"60", "90", ""}
    for one in [*old, *fresh]:
        await one.close()


async def test_sighup_with_wrong_settings_changes_nothing(daemon: Daemon) -> None:
    await daemon.start()
    await daemon.saw("serving")
    switch = await daemon.connect()
    pid = await switch.ask("who")
    daemon.config.write_text("[hook]\nworkers = 0\n")
    daemon.process.send_signal(signal.SIGHUP)
    failed = await daemon.saw("reload_failed")
    assert "hook.workers" in failed[0]["error"]
    assert await switch.ask("who") == pid
    daemon.write_config(chunk_seconds=90)
    (daemon.directory / "crash:worker-1").touch()
    daemon.process.send_signal(signal.SIGHUP)
    await daemon.saw("reload_failed", count=2)
    assert await switch.ask("chunk") == "60"
    await switch.close()


@pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 1)])
async def test_a_reload_that_fails_half_way_is_taken_back(
    daemon: Daemon, before: int, after: int
) -> None:
    daemon.write_config(workers=before)
    await daemon.start()
    await daemon.saw("serving")
    # Of one worker to three the second fails, of three to one the office, which comes last.
    (daemon.directory / ("crash:worker-2" if before == 1 else "crash:office")).touch()
    text = daemon.config.read_text()
    daemon.write_config(workers=after, chunk_seconds=90)
    moved = daemon.config.read_text().replace("hook.sock", "other.sock")
    daemon.config.write_text(moved)
    daemon.process.send_signal(signal.SIGHUP)
    await daemon.saw("reload_failed")
    switch = [await daemon.connect() for _ in range(before)]
    assert [await one.ask("chunk") for one in switch] == ["60"] * before
    assert len({await one.ask("who") for one in switch}) == before
    assert not (daemon.directory / "other.sock").exists()
    for one in switch:
        await one.close()
    for fault in daemon.directory.glob("crash:*"):
        fault.unlink()
    daemon.config.write_text(text.replace("chunk_seconds = 60", "chunk_seconds = 90"))
    daemon.process.send_signal(signal.SIGHUP)
    await daemon.saw("reloaded")
    again = await daemon.connect()
    assert await again.ask("chunk") == "90"
    await again.close()


async def test_sighup_moves_a_listener(daemon: Daemon) -> None:
    await daemon.start()
    await daemon.saw("serving")
    old = daemon.socket_path
    daemon.socket_path = daemon.directory / "other.sock"
    daemon.write_config()
    daemon.process.send_signal(signal.SIGHUP)
    await daemon.saw("reloaded")
    switch = await daemon.connect()
    assert await switch.ask("who")
    assert not old.exists()
    await switch.close()


async def test_sighup_keeps_what_only_a_restart_changes(daemon: Daemon) -> None:
    await daemon.start()
    await daemon.saw("serving")
    text = daemon.config.read_text()
    daemon.config.write_text(text.replace("redis://127.0.0.1:1", "redis://127.0.0.1:2"))
    daemon.process.send_signal(signal.SIGHUP)
    assert (await daemon.saw("setting_needs_restart"))[0]["setting"] == "store.url"
    await daemon.saw("reloaded")


async def test_systemd_is_told(daemon: Daemon, tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        manager.setblocking(False)
        loop = asyncio.get_running_loop()

        async def told() -> dict[str, str]:
            async with asyncio.timeout(LIMIT_SECONDS):
                text = (await loop.sock_recv(manager, 4096)).decode()
            return dict(line.split("=", 1) for line in text.splitlines())

        async def told_besides_watchdog() -> dict[str, str]:
            state = await told()
            while "WATCHDOG" in state:
                state = await told()
            return state

        await daemon.start(NOTIFY_SOCKET=path, WATCHDOG_USEC="200000")
        ready = await told()
        assert ready["READY"] == "1"
        assert "hook_tcp on 127.0.0.1:" in ready["STATUS"]
        assert await told() == {"WATCHDOG": "1"}
        assert await told() == {"WATCHDOG": "1"}
        daemon.process.send_signal(signal.SIGHUP)
        reloading = await told_besides_watchdog()
        assert reloading["RELOADING"] == "1"
        assert int(reloading["MONOTONIC_USEC"]) > 0
        assert (await told_besides_watchdog())["READY"] == "1"
        daemon.process.send_signal(signal.SIGTERM)
        assert (await told_besides_watchdog())["STOPPING"] == "1"
        assert await daemon.wait() == 0


async def test_an_address_in_use_is_named_with_what_to_do(daemon: Daemon) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        await daemon.start(AUTHZ_HOOK__LISTEN=f"127.0.0.1:{port}")
        assert await daemon.wait() == 2
    assert f"hook.listen: 127.0.0.1:{port} is in use by another process" in daemon.noise[-1]
    assert "AUTHZ_HOOK__LISTEN" in daemon.noise[-1]


async def test_a_stale_socket_file_is_replaced_and_a_used_one_refused(daemon: Daemon) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as killed:
        killed.bind(str(daemon.socket_path))
    await daemon.start()
    await daemon.saw("serving")
    second = Daemon(daemon.directory)
    await second.start()
    assert await second.wait() == 2
    assert "is in use by another process" in second.noise[-1]
    switch = await daemon.connect()
    assert await switch.ask("who")
    await switch.close()


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"AUTHZ_HOOK__LISTEN": "0.0.0.0:0"}, "hook.listen: 0.0.0.0 can be reached"),
        ({"AUTHZ_ADMIN__LISTEN": "0.0.0.0:0"}, "admin.listen: 0.0.0.0 can be reached"),
        ({"AUTHZ_STATE_DIR": "/proc/authz"}, "state_dir: /proc/authz cannot be written"),
        ({"AUTHZ_HOOK__LISTEN": "192.0.2.1:1", "AUTHZ_HOOK__TOKEN": "x" * 16}, "no address of"),
        ({"AUTHZ_HOOK__UNIX_SOCKET": "/nowhere/x"}, "cannot listen on /nowhere/x"),
    ],
)
async def test_what_cannot_be_served_is_refused(
    daemon: Daemon, environ: dict[str, str], words: str
) -> None:
    await daemon.start(**environ)
    assert await daemon.wait() == 2
    assert words in daemon.noise[-1]


async def test_the_own_store_is_started_restarted_and_stopped(daemon: Daemon) -> None:
    daemon.config.write_text(daemon.config.read_text().replace('url = "redis://127.0.0.1:1"', ""))
    await daemon.start()
    await daemon.saw("serving")
    store = (await daemon.saw("store_started"))[0]["pid"]
    os.kill(store, signal.SIGKILL)
    store = (await daemon.saw("store_started", count=2))[-1]["pid"]
    assert is_alive(store)
    assert await daemon.stop() == 0
    assert not is_alive(store)
