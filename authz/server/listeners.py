"""The daemon's listening sockets, opened by the supervisor before any process is started.

So an address in use is reported once and at once, a crashed process loses no connection that
waits in the backlog, and a reload can replace processes without closing a port.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from authz.config import Settings
from authz.config.fields import split_address
from authz.errors import ConfigError
from authz.hooks import access

HOOK_TCP: Final = "hook_tcp"
HOOK_UNIX: Final = "hook_unix"
ADMIN: Final = "admin"
SWITCH_OUTBOUND: Final = "switch_outbound"
HOOK_NAMES: Final = (HOOK_TCP, HOOK_UNIX)

#: The setting that names each TCP listener's address.
_KEYS: Final = {
    HOOK_TCP: "hook.listen",
    ADMIN: "admin.listen",
    SWITCH_OUTBOUND: "freeswitch.outbound_listen",
}
_BACKLOG: Final = 1_024
_UNIX_PATH_BYTES_MAX: Final = 107


_Opened = dict[str, tuple[str, socket.socket]]


class Change(NamedTuple):
    """What opening has changed. Exactly one of the two is called, once it is known which."""

    #: Close what the settings no longer name; no process needs it any more.
    keep: Callable[[], None]
    #: Close what was opened and go back to what there was.
    undo: Callable[[], None]


class Listeners:
    """The open listeners by name. Those that a reload leaves alone stay open."""

    def __init__(self) -> None:
        """Begin with none."""
        self._open: _Opened = {}

    def open(self, settings: Settings) -> Change:
        """Open what the settings name and is not open; raise ConfigError and change nothing."""
        wanted = _wanted(settings)
        fresh: _Opened = {}
        try:
            for name, address in wanted.items():
                if name not in self._open or self._open[name][0] != address:
                    opener = _open_unix if name == HOOK_UNIX else _open_tcp
                    fresh[name] = (address, opener(name, address, settings))
        except ConfigError:
            _close_all(fresh)
            raise
        before = self._open
        staying = {
            name: opened for name, opened in before.items() if name in wanted and name not in fresh
        }
        leaving = {name: opened for name, opened in before.items() if name not in staying}
        self._open = staying | fresh

        def undo() -> None:
            _close_all(fresh)
            self._open = before

        return Change(keep=lambda: _close_all(leaving), undo=undo)

    def by_name(self) -> dict[str, socket.socket]:
        """Return the open sockets."""
        return {name: listener for name, (_, listener) in self._open.items()}

    def addresses(self) -> dict[str, str]:
        """Return where each listener really is, for the operator: a port 0 has become one."""
        return {name: _describe(listener) for name, (_, listener) in self._open.items()}

    def close(self) -> None:
        """Close all."""
        _close_all(self._open)
        self._open = {}


def _wanted(settings: Settings) -> dict[str, str]:
    """Return the addresses that the settings name, by listener."""
    hook = settings.hook
    named = {
        HOOK_TCP: hook.listen,
        HOOK_UNIX: None if hook.unix_socket is None else str(hook.unix_socket),
        ADMIN: settings.admin.listen,
        SWITCH_OUTBOUND: settings.freeswitch.outbound_listen,
    }
    return {name: address for name, address in named.items() if address is not None}


def _open_tcp(name: str, address: str, settings: Settings) -> socket.socket:
    key = _KEYS[name]
    host, port = split_address(address)
    try:
        family, kind, protocol, _, resolved = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise ConfigError(f"{key}: {host} is no address of this host ({error})") from error
    if name == HOOK_TCP:
        hook = settings.hook
        rule = access.Access((hook.token,) if hook.token else (), hook.allow)
        access.require_guard([str(resolved[0])], rule)
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Accepted sockets inherit it: an answer is one small write that must not wait.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.bind(resolved)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise ConfigError(f"{key}: {_bind_advice(key, address, error)}") from error
    listener.setblocking(False)
    return listener


def _bind_advice(key: str, address: str, error: OSError) -> str:
    variable = f"AUTHZ_{key.upper().replace('.', '__')}"
    if error.errno == errno.EADDRINUSE:
        return (
            f"{address} is in use by another process (see `ss -ltnp`): stop that one, or set "
            f"{key} or {variable} to another address"
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{address} is no address of this host; `ip address` lists them"
    if error.errno == errno.EACCES:
        return f"{address} may not be used by this user; choose a port above 1023"
    return f"cannot listen on {address}: {error.strerror}"


def _open_unix(name: str, path: str, settings: Settings) -> socket.socket:
    if len(os.fsencode(path)) > _UNIX_PATH_BYTES_MAX:
        raise ConfigError(
            f"hook.unix_socket: {path} is longer than the {_UNIX_PATH_BYTES_MAX} bytes that "
            "the system allows"
        )
    _remove_stale(Path(path))
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(path)
        os.chmod(path, int(settings.hook.unix_socket_mode, 8))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"hook.unix_socket: cannot listen on {path}: {error.strerror}; its directory must "
            "exist and be writable"
        ) from error
    listener.setblocking(False)
    return listener


def _remove_stale(path: Path) -> None:
    """Remove the socket file that a killed daemon left; refuse one that is in use."""
    try:
        mode = path.lstat().st_mode
    except OSError:
        return
    if not stat.S_ISSOCK(mode):
        raise ConfigError(f"hook.unix_socket: {path} exists and is no socket; remove it")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except OSError:
            pass
    raise ConfigError(
        f"hook.unix_socket: {path} is in use by another process; stop that one, or set "
        "hook.unix_socket or AUTHZ_HOOK__UNIX_SOCKET to another path"
    )


def _close_all(opened: _Opened) -> None:
    for name, (address, listener) in opened.items():
        if name == HOOK_UNIX:
            with contextlib.suppress(OSError):
                os.unlink(address)
        listener.close()


def _describe(listener: socket.socket) -> str:
    bound = listener.getsockname()
    if listener.family == socket.AF_UNIX:
        return str(bound)
    host, port = bound[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
