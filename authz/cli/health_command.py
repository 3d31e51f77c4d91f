"""`authz health`: does the daemon that the settings describe answer?"""

from __future__ import annotations

import http.client
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import click
import msgspec

from authz.cli.main import EXIT_FAILURE, Invocation
from authz.cli.output import json_option, print_json, print_table
from authz.config import Settings
from authz.config.fields import split_address

_SECONDS_MAX: Final = 5
_BODY_BYTES_MAX: Final = 65_536
#: Where a listener on all addresses is reached from this host.
_ANY: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}


class Answer(NamedTuple):
    """What one listener said."""

    listener: str
    address: str
    ok: bool
    detail: str


@click.command("health")
@click.option("--live", is_flag=True, help="Only ask whether it lives, not whether it is ready.")
@json_option
@click.pass_obj
def command(invocation: Invocation, live: bool, as_json: bool) -> int:
    """Ask the daemon of these settings on this host whether it answers.

    Without --live it must also be ready to decide calls: the store answers. With it any answer
    counts. Exit status 1 when some listener does not say so within 5 seconds.

    \b
    Examples:
      authz health
      authz health --live                      # for a container's health check
    """
    answers = [_ask(*listener, live=live) for listener in _listeners(invocation.settings)]
    if as_json:
        print_json([one._asdict() for one in answers])
    else:
        print_table(
            ("listener", "address", "ok", "detail"),
            [(one.listener, one.address, "yes" if one.ok else "no", one.detail) for one in answers],
        )
    return 0 if all(one.ok for one in answers) else EXIT_FAILURE


def _listeners(settings: Settings) -> Iterator[tuple[str, str]]:
    """Yield name and address of each listener; of the hook only one, whichever there is."""
    hook = settings.hook
    if hook.unix_socket is not None:
        yield "hook", str(hook.unix_socket)
    elif hook.listen is not None:
        yield "hook", hook.listen
    if settings.admin.listen is not None:
        yield "admin", settings.admin.listen


class _UnixConnection(http.client.HTTPConnection):
    """HTTP on a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=_SECONDS_MAX)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_SECONDS_MAX)
        self.sock.connect(str(self._path))


def _connection(address: str) -> http.client.HTTPConnection:
    if "/" in address:
        return _UnixConnection(Path(address))
    host, port = split_address(address)
    return http.client.HTTPConnection(_ANY.get(host, host), port, timeout=_SECONDS_MAX)


def _ask(listener: str, address: str, *, live: bool) -> Answer:
    connection = _connection(address)
    try:
        connection.request("GET", "/livez" if live else "/readyz")
        response = connection.getresponse()
        # A listener that does not talk to this address is alive.
        is_ok = response.status < 500 if live else response.status == 200
        return Answer(listener, address, is_ok, _detail(response))
    except (OSError, http.client.HTTPException) as error:
        return Answer(listener, address, False, str(error) or type(error).__name__)
    finally:
        connection.close()


def _detail(response: http.client.HTTPResponse) -> str:
    """Return the status of a health document, or why there is none."""
    try:
        document = msgspec.json.decode(response.read(_BODY_BYTES_MAX), type=dict[str, object])
    except msgspec.DecodeError:
        return f"status {response.status}, and not of authz"
    return str(document.get("detail") or document.get("status") or response.status)
