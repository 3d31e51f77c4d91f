"""The store that authz runs itself: a Valkey or Redis process on a Unix socket.

Files in the state directory (mode 0700; a local file system, because of the locks):

- `store.lock` is locked by the store process alone: its starter takes the lock, the store inherits
  it, the starter lets go. So it is held exactly as long as the store lives, and there are never
  two stores on one directory, whoever was killed.
- `owner.lock` is locked by the process that answers for the store: it starts, restarts and stops
  it. It is not inherited, so it is free again as soon as that process dies. Processes forked
  without exec would keep it; start them with exec.
- `store.sock`, `store.pid`, `store.log`, and `store/` with the data.

Who finds the store running uses it. With `owner.lock` free its owner has died (kill -9): the
newcomer adopts the store, and stops it at its own end. With `owner.lock` taken it is a guest,
which stops nothing; when the store goes away, starting again makes the guest the new owner.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self

from authz import log
from authz.errors import ConfigError, InvariantError, StoreError
from authz.store.embedded_files import (
    Lock,
    ask,
    find_server,
    last_lines,
    make_private,
    remove_socket,
    socket_path_in,
)
from authz.store.embedded_process import Process
from authz.store.url import unix_url

#: How long another owner's store may say nothing before it counts as out of order.
_GUEST_SECONDS_MAX: Final = 15
#: How long an own store may take to read its data.
_LOAD_SECONDS_MAX: Final = 900
_POLL_SECONDS: Final = 0.02
_PROGRESS_SECONDS: Final = 5


class EmbeddedStore:
    """The store of a state directory: started, adopted or shared; see the module.

    Blocking, for a supervisor; only `wait_exit` belongs to an event loop. `server` is the binary
    to use instead of the one that comes with authz or lies on the PATH. `options` are further
    settings of the server, by name.
    """

    def __init__(
        self,
        state_dir: str | os.PathLike[str],
        *,
        appendfsync: Literal["everysec", "always"] = "everysec",
        server: str | os.PathLike[str] | None = None,
        options: Mapping[str, str] | None = None,
    ) -> None:
        self.state_dir = Path(state_dir).absolute()
        self._appendfsync = appendfsync
        self._server = server
        self._options = dict(options or {})
        self._owner_lock = Lock(self.state_dir / "owner.lock")
        self._process: Process | None = None
        self._socket_path: Path | None = None

    @property
    def data_dir(self) -> Path:
        """Where the store has its log."""
        return self.state_dir / "store"

    @property
    def url(self) -> str:
        """The `unix://` URL of the store. InvariantError before `start`."""
        if self._socket_path is None:
            raise InvariantError("the store is not started")
        return unix_url(self._socket_path)

    @property
    def pid(self) -> int | None:
        """The store's process id while it runs."""
        return self._process.pid if self._process is not None and self.running else None

    @property
    def running(self) -> bool:
        """Whether the store process lives."""
        return self._process is not None and self._process.running

    @property
    def owned(self) -> bool:
        """Whether this process answers for the store: restarts it, and stops it at its end."""
        return self._owner_lock.held

    def start(self) -> str:
        """Start the store, or use the one that runs; return its URL once it takes commands.

        Also restarts one that has ended. Raises ConfigError when the directory or the binary
        cannot be used, StoreError when the store ends at once or does not answer.
        """
        if self.running:
            return self.url
        self._forget_process()
        make_private(self.state_dir)
        waited_until = time.monotonic() + _GUEST_SECONDS_MAX
        try:
            while not (self._try_spawn() or self._try_attach()):
                if time.monotonic() > waited_until:
                    raise StoreError(
                        f"another store holds {self.state_dir / 'store.lock'} and does not answer "
                        f"on {self.state_dir / 'store.sock'}; "
                        f"see {self.state_dir / 'store.log'}, and end it or wait for it"
                    )
                time.sleep(_POLL_SECONDS)
            self._wait_until_loaded()
            self._apply_to_adopted()
        except BaseException:
            self.stop()
            raise
        return self.url

    def stop(self, timeout_seconds: float = 30) -> None:
        """Stop the store if it is this process's to stop, and let go of it; harmless if repeated.

        It writes its log to disk first. One that has not ended after `timeout_seconds` is killed,
        which its append-only log survives.
        """
        process = self._process
        if process is not None and self.owned and process.running:
            process.signal(signal.SIGTERM)
            if not process.wait(timeout_seconds):
                log.event("store_killed", level="error", pid=process.pid)
                process.signal(signal.SIGKILL)
                process.wait(None)
            log.event("store_stopped", pid=process.pid)
            remove_socket(self.state_dir)
        self._forget_process()
        self._owner_lock.release()

    async def wait_exit(self) -> int | None:
        """Return once the store process has ended: its exit status (negative: the signal).

        The status is None if the store is not this process's child. `start` restarts it.
        """
        process = self._process
        if process is None:
            return None
        await process.wait_in_loop()
        return process.status

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _try_spawn(self) -> bool:
        """Start a store if this process is its owner and none runs."""
        if not self._owner_lock.acquire():
            return False
        store_lock = Lock(self.state_dir / "store.lock")
        if not store_lock.acquire():
            return False
        try:
            self._spawn(store_lock)
        finally:
            store_lock.release()
        return True

    def _spawn(self, store_lock: Lock) -> None:
        server = find_server(self._server)
        remove_socket(self.state_dir)
        socket_path = socket_path_in(self.state_dir, create=True)
        arguments = [str(server)]
        for name, value in self._configuration(socket_path).items():
            arguments += ["--" + name, value]
        with (self.state_dir / "store.log").open("ab") as log_file:
            try:
                child = subprocess.Popen(
                    arguments,
                    stdin=subprocess.DEVNULL,
                    stdout=log_file,
                    stderr=log_file,
                    cwd=self.state_dir,
                    env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
                    pass_fds=(store_lock.fileno(),),
                    # The terminal's interrupt is for the supervisor; the store is stopped last.
                    start_new_session=True,
                    umask=0o077,
                )
            except OSError as error:
                raise ConfigError(f"store server {server} cannot be run: {error}") from error
        self._process = Process.of_child(child)
        self._socket_path = socket_path
        log.event("store_started", pid=child.pid, server=str(server), dir=str(self.state_dir))

    def _configuration(self, socket_path: Path) -> dict[str, str]:
        self.data_dir.mkdir(mode=0o700, exist_ok=True)
        return {
            "port": "0",
            "unixsocket": str(socket_path),
            "unixsocketperm": "700",
            "daemonize": "no",
            "dir": str(self.data_dir),
            "pidfile": str(self.state_dir / "store.pid"),
            "logfile": str(self.state_dir / "store.log"),
            "appendonly": "yes",
            "appendfsync": self._appendfsync,
            # A rewrite must not weaken what appendfsync promises.
            "no-appendfsync-on-rewrite": "no",
            # A rewrite forks the store and rivals with it for disk and core: seldom, then.
            "auto-aof-rewrite-min-size": "512mb",
            # A torn last record after a power cut is cut off; anything before it is kept.
            "aof-load-truncated": "yes",
            # The append-only log is the one copy; snapshots would only cost forks.
            "save": "",
            "maxmemory-policy": "noeviction",
            **self._options,
        }

    def _try_attach(self) -> bool:
        """Use the store that runs, if its socket answers."""
        socket_path = socket_path_in(self.state_dir, create=False)
        if socket_path is None:
            return False
        with ask(socket_path) as peer:
            if not peer.answers:
                return False
            if peer.pid == 0:
                raise StoreError(
                    f"the store of {self.state_dir} runs in another container: "
                    "stop it there, or use it from here by naming its socket in store.url"
                )
            try:
                self._process = Process.of_peer(peer.pid)
            except ProcessLookupError:
                return False
        self._socket_path = socket_path
        log.event("store_adopted" if self.owned else "store_shared", pid=self.pid)
        return True

    def _wait_until_loaded(self) -> None:
        """Return once the store takes commands, telling about long waits."""
        process, socket_path = self._process, self._socket_path
        if process is None or socket_path is None:
            raise InvariantError("there is no store to wait for")
        started = reported = time.monotonic()
        while True:
            with ask(socket_path) as peer:
                if peer.ready:
                    return
            if not process.running:
                raise StoreError(
                    f"the store ended while starting (status {process.status}); the end of "
                    f"{self.state_dir / 'store.log'}:\n{last_lines(self.state_dir / 'store.log')}"
                )
            now = time.monotonic()
            if now - started > _LOAD_SECONDS_MAX:
                raise StoreError(f"the store took more than {_LOAD_SECONDS_MAX} s to load its data")
            if now - reported > _PROGRESS_SECONDS:
                reported = now
                log.event("store_loading", seconds=int(now - started))
            time.sleep(_POLL_SECONDS)

    def _apply_to_adopted(self) -> None:
        """Give an adopted store the durability that is configured now."""
        if self.owned and self._socket_path is not None:
            with ask(self._socket_path, f"CONFIG SET appendfsync {self._appendfsync}") as peer:
                if not peer.reply.startswith(b"+OK"):
                    raise StoreError(f"appendfsync cannot be set: {peer.reply!r}")

    def _forget_process(self) -> None:
        if self._process is not None:
            self._process.close()
        self._process = None
        self._socket_path = None
