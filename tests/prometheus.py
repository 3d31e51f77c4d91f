"""Prometheus's own programs for tests: promtool, and a server that scrapes a daemon."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Final

from ports import free_port

ROOT: Final = Path(__file__).resolve().parents[1]
_HINT: Final = "apt-get install prometheus"


def find_program(name: str) -> str:
    """Return the path of `prometheus` or `promtool`; raises LookupError without one."""
    path = shutil.which(name)
    if path is None:
        raise LookupError(f"no {name} on the PATH: {_HINT}")
    return path


class Prometheus:
    """A server on a free port of this host; it has the repository's rules, and one target."""

    def __init__(self, directory: Path, target_port: int) -> None:
        """Prepare the configuration for a daemon whose admin API is at this port."""
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._listen = f"127.0.0.1:{port}"
        folder = ROOT / "deploy/prometheus"
        settings = (folder / "prometheus.yml").read_text(encoding="utf-8")
        # What a day shows must show in seconds here.
        settings = settings.replace("15s", "1s").replace(
            "scrape_timeout: 10s", "scrape_timeout: 1s"
        )
        (directory / "prometheus.yml").write_text(
            settings.replace("127.0.0.1:8701", f"127.0.0.1:{target_port}"), encoding="utf-8"
        )
        (directory / "rules").mkdir()
        for path in (folder / "rules").glob("*.yml"):
            text = path.read_text(encoding="utf-8").replace("    interval: 5m\n", "")
            (directory / "rules" / path.name).write_text(text, encoding="utf-8")

    def start(self) -> None:
        """Start it; it ends with this process, whatever ends it."""
        with (self._directory / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    *("setpriv", "--pdeathsig", "TERM", "--", find_program("prometheus")),
                    f"--config.file={self._directory / 'prometheus.yml'}",
                    f"--storage.tsdb.path={self._directory / 'data'}",
                    f"--web.listen-address={self._listen}",
                ],
                stdout=log,
                stderr=log,
            )

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
