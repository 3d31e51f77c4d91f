"""`authz health` finds the listeners of the settings, on TCP and on Unix sockets."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingTCPServer, ThreadingUnixStreamServer

import pytest

from authz.cli.main import run


class Handler(BaseHTTPRequestHandler):
    """Lives, is never ready, and says so to whoever is allowed."""

    def do_GET(self) -> None:
        status, body = 503, {"detail": "the store is away"}
        if self.path == "/livez":
            status, body = self.server.live_status, {"status": "live"}
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet."""

    def address_string(self) -> str:
        return "caller"


@pytest.fixture
def tcp() -> Iterator[ThreadingTCPServer]:
    with ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.live_status = 200
        threading.Thread(target=server.serve_forever).start()
        yield server
        server.shutdown()


@pytest.fixture
def unix(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "hook.sock"
    with ThreadingUnixStreamServer(str(path), Handler) as server:
        server.live_status = 200
        threading.Thread(target=server.serve_forever).start()
        yield path
        server.shutdown()


def ask(
    capsys: pytest.CaptureFixture[str], *options: str
) -> tuple[int, dict[str, tuple[bool, str]]]:
    """Return the exit status and what was found of each listener."""
    status = run(["health", "--json", *options])
    answers = json.loads(capsys.readouterr().out)
    return status, {one["listener"]: (one["ok"], one["detail"]) for one in answers}


@pytest.fixture
def settings(
    tcp: ThreadingTCPServer, unix: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTHZ_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("AUTHZ_HOOK__UNIX_SOCKET", str(unix))
    # Whoever listens on all addresses is asked on one of this host.
    monkeypatch.setenv("AUTHZ_ADMIN__LISTEN", f"0.0.0.0:{tcp.server_address[1]}")
    monkeypatch.setenv("AUTHZ_ADMIN__TOKEN", "of-sixteen-letters-at-least")


@pytest.mark.usefixtures("settings")
def test_it_asks_every_listener(capsys: pytest.CaptureFixture[str]) -> None:
    live = (True, "live")
    assert ask(capsys, "--live") == (0, {"hook": live, "admin": live})
    away = (False, "the store is away")
    assert ask(capsys) == (1, {"hook": away, "admin": away})


@pytest.mark.usefixtures("settings")
def test_a_listener_that_talks_to_others_only_is_alive(
    tcp: ThreadingTCPServer, capsys: pytest.CaptureFixture[str]
) -> None:
    tcp.live_status = 403
    assert ask(capsys, "--live")[0] == 0
    tcp.live_status = 500
    assert ask(capsys, "--live")[0] == 1


@pytest.mark.usefixtures("settings")
def test_a_listener_that_is_not_there_is_told(
    unix: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unix.unlink()
    status, found = ask(capsys, "--live")
    assert status == 1
    assert found["hook"][0] is False
    assert found["admin"][0] is True
